/* The storage element: a GridFTP server. */
#include <site/grid.h>
#include <site/grid-host.h>

!profile.packages       mEXTRA(@se.pkgs)
!profile.components     mADD(gridftp)

gridftp.root            GRID_STORAGE

client.checks           gridftp
client.check_gridftp    X509_USER_CERT=/etc/grid-security/hostcert.pem X509_USER_KEY=/etc/grid-security/hostkey.pem globus-url-copy -list gsiftp://NODE_NAME.SITE_DOMAIN/
