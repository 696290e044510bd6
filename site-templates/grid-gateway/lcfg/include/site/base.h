/* What all nodes of the site have in common: the components, and the order in which a node is installed. */
#ifndef SITE_BASE_H
#define SITE_BASE_H

profile.domain      SITE_DOMAIN
profile.components  profile client install fstab kernel network hosts auth openssh grub ntp nfs apt cron file boot

client.url          SITE_SERVER_URL
client.notifyport   SITE_NOTIFY_PORT
client.ackport      SITE_ACK_PORT

/* root logs in by key only; the keys are those of access.keys in site.toml. */
openssh.permitroot  prohibit-password

/* A virtual console is slow, and what is wrong is said all the same. */
grub.cmdline        quiet
grub.timeout        0

install.timezone    Etc/UTC
install.installmethods  disks packages network hosts auth openssh grub client umount
install.imethod_disks     fstab preparedisks
install.imethod_packages  packages install
install.imethod_network   network install
install.imethod_hosts     hosts install
install.imethod_auth      auth install
install.imethod_openssh   openssh install
install.imethod_grub      grub install
install.imethod_client    client install
install.imethod_umount    %umount%

#endif
