/* A worker node: runs what the queue gives it, in homes that are on the computing element. */
#include <site/grid.h>

!profile.packages       mEXTRA(@wn.pkgs)
!profile.components     mREMOVE(gridca)
!profile.components     mADD(munge slurm)

gridusers.homes
!credentials.secrets    mADD(munge)
slurm.controller        SITE_ROLE_COMPUTING_ELEMENT
slurm.worker            NODE_NAME
slurm.cpus              NODE_VCPUS

nfs.mounts              home
nfs.device_home         SITE_ROLE_COMPUTING_ELEMENT:/home
nfs.point_home          /home
nfs.opts_home           vers=4.2,hard
nfs.automount_home      yes

client.checks           queue homes
client.check_queue      sinfo --noheader --nodes NODE_NAME --format %T | grep -q -x -E "idle|allocated|mixed|completing"
client.check_homes      stat --file-system --format %T /home/. | grep -q nfs
