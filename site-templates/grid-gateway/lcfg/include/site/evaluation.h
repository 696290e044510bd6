/* The evaluation of the site (gatectl evaluate): five commands, from the user interface. Short jobs in the queue are
   measured twice, as the queue answers the job manager: grid waits for their end, stock is asked every ten seconds. */
#ifndef EVALUATION_USER
#define EVALUATION_USER     alice
#endif
evaluate.user               EVALUATION_USER
evaluate.prepare            grid-proxy-init -q && dd if=/dev/urandom of=$HOME/replica bs=1M count=1 status=none
evaluate.tests              globusrun fork pbs replica ls stock
evaluate.label_fork         globus-job-run
evaluate.label_pbs          globus-job-run-pbs
evaluate.label_ls           gridftp-ls
evaluate.label_stock        globus-job-run-pbs-stock
evaluate.command_globusrun  globusrun -a -r $GRID_CE
evaluate.command_fork       globus-job-run $GRID_CE/jobmanager-fork /bin/hostname
evaluate.expect_fork        SITE_ROLE_COMPUTING_ELEMENT
evaluate.command_pbs        globus-job-run $GRID_CE/jobmanager-pbs /bin/hostname
evaluate.expect_pbs         SITE_ROLE_WORKER_NODE
evaluate.command_replica    grid-replica $HOME/replica
evaluate.command_ls         globus-url-copy -list gsiftp://$GRID_SE/
evaluate.command_stock      globus-job-run $GRID_CE/jobmanager-pbs -queue stock /bin/hostname
evaluate.expect_stock       SITE_ROLE_WORKER_NODE
evaluate.slow_stock         yes
