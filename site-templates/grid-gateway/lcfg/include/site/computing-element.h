/* The computing element: takes jobs, queues them for the worker nodes, and has the homes of the users. */
#include <site/grid.h>
#include <site/grid-host.h>

!profile.packages       mEXTRA(@ce.pkgs)
!profile.components     mADD(munge slurm gatekeeper)

!credentials.secrets    mADD(munge)
slurm.controller        SITE_ROLE_COMPUTING_ELEMENT
gatekeeper.wait_stock   0
gridcert.restart_host   globus-gatekeeper.service

/* Jobs write into the homes, on whichever worker they run. */
nfs.exports             home
nfs.export_home         /home
nfs.clients_home        SITE_SUBNET(rw,sync,no_subtree_check,root_squash)

client.checks           gatekeeper queue homes
client.check_gatekeeper X509_USER_CERT=/etc/grid-security/hostcert.pem X509_USER_KEY=/etc/grid-security/hostkey.pem globusrun -a -r NODE_NAME.SITE_DOMAIN
client.check_queue      scontrol ping
client.check_homes      exportfs | grep -q /home
