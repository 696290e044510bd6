/* The node's one interface, found by its hardware address because its name differs between hypervisors. */
#ifndef SITE_NETWORK_H
#define SITE_NETWORK_H

network.interfaces     eth0
network.device_eth0    auto
network.hostname_eth0  NODE_NAME
network.mac_eth0       NODE_MAC
network.ipaddr_eth0    NODE_ADDRESS
network.netmask_eth0   SITE_PREFIX
network.onboot_eth0    yes
network.resolvers      SITE_RESOLVERS
network.search         SITE_DOMAIN
#ifdef SITE_HAS_GATEWAY
network.gateway        SITE_GATEWAY
#endif

#endif
