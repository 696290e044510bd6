#ifndef SITE_DEBIAN_H
#define SITE_DEBIAN_H
#define LOCAL_SIZE(n) n/**/k
profile.domain        SITE_DOMAIN
!profile.components   mADD(local)
profile.packages      @base.pkgs \
                      +linux-image-cloud-amd64=6.12.*/amd64
client.url            https://SITE_SERVER/profiles
#include "disk.h"
network.interfaces    eth0
network.mac_eth0      SITE_MAC0
network.ipaddr_eth0   SITE_ADDRESS
network.gateway       10.0.0.1
network.resolvers     10.0.0.1 10.0.0.53
auth.rootkeys         ops
auth.rootkey_ops      ssh-ed25519 AAAAC3Nz ops@example
boot.services         ssh.service systemd-networkd.service
hosts.entries         self 9lives _x
hosts.address_self    <%network.ipaddr_eth0%>
hosts.names_self      <%profile.node%>.<%profile.domain%> <%profile.node%>
hosts.address_9lives  10.0.0.9
hosts.address__x      10.0.0.10
#endif
