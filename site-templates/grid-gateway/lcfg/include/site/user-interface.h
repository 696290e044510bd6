/* The user interface: where users make proxies, submit jobs and copy files. */
#include <site/grid.h>

!profile.packages           mEXTRA(@ui.pkgs)
!profile.components         mADD(gridcert gridui evaluate)

gridui.ce                   SITE_ROLE_COMPUTING_ELEMENT.SITE_DOMAIN
gridui.se                   SITE_ROLE_STORAGE_ELEMENT.SITE_DOMAIN
gridui.storage              GRID_STORAGE/GRID_GROUP

/* Every user whose certificate the site gives has it here. */
!credentials.certificates   mADD(<%grid.users%>)
!gridcert.certificates      mADD(<%grid.users%>)

client.checks               certificates
client.check_certificates   test -s /etc/grid-security/gridcert.list && systemctl start gridcert

#include <site/evaluation.h>
