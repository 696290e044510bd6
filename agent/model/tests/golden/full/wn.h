#ifndef GATEHOUSE_SITE_H
#define GATEHOUSE_SITE_H
#define SITE_NAME full
#define SITE_DOMAIN full.example.org
#define SITE_HOST full
#define SITE_HOST_ADDRESS 192.168.4.10
#define SITE_SERVER_URL https://192.168.4.10/profiles
#define SITE_HAS_GATEWAY 1
#define SITE_GATEWAY 192.168.7.254
#define SITE_RESOLVERS 192.168.4.1 2001:db8::1
#define SITE_SUBNET 192.168.4.0/22
#define SITE_PREFIX 22
#define SITE_NETMASK 255.255.252.0
#define SITE_DISK0 disk0
#define SITE_NOTIFY_PORT 732
#define SITE_ACK_PORT 733
#define SITE_GRID_BASE /C=IE/O=Grid-Ireland/OU=full
#define SITE_GRID_AUTHORITY /C=IE/O=Grid-Ireland/OU=full/CN=Authority
#define SITE_ROLE_CE ce-1
#define NODE_NAME wn
#define NODE_ADDRESS 192.168.5.2
#define NODE_MAC 02:bf:b9:50:36:59
#define NODE_ROLE
#define NODE_KERNEL linux-image-cloud-amd64
#define NODE_VCPUS 1
#define NODE_MEMORY_MB 512
#define NODE_DISK_MB 4096
auth.rootkeys k0 k1
auth.rootkey_k0 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f joe __ at __ _home_
auth.rootkey_k1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
hosts.entries host
hosts.address_host 192.168.4.10
hosts.names_host full.full.example.org full
grid.base /C=IE/O=Grid-Ireland/OU=full
grid.authority /C=IE/O=Grid-Ireland/OU=full/CN=Authority
grid.users alice bob_2
grid.uid_alice 20001
grid.dn_alice /C=IE/O=Grid-Ireland/OU=full/L=Dublin/CN=Alice Example (TCD)
grid.uid_bob_2 20002
grid.dn_bob_2 /C=IE/O=Grid-Ireland/OU=full/CN=bob_2
#endif
