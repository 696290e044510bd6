/* A service that shows a certificate: it has a key of its own, and maps users by theirs. */
#ifndef SITE_GRID_HOST_H
#define SITE_GRID_HOST_H

!profile.components         mADD(gridcert)
gridusers.mapfile           yes
!credentials.certificates   mADD(host)
!gridcert.certificates      mADD(host)
gridcert.subject_host       SITE_GRID_BASE/CN=NODE_NAME.SITE_DOMAIN
gridcert.key_host           /etc/grid-security/hostkey.pem
gridcert.certificate_host   /etc/grid-security/hostcert.pem
gridcert.owner_host         root

#endif
