profile.domain      grid.example.org
profile.components  profile client fstab network auth updaterpms install
profile.packages    @sl305_base.rpms @sl305_updates.rpms
client.url          http://lcfg.grid.example.org/profiles
client.ack          yes
client.poll         10m+2m
network.gateway     192.168.10.1
!network.interfaces mADD(eth0)
network.hostname_eth0 <%profile.node%>
network.device_eth0   eth0
network.netmask_eth0  255.255.255.0
network.onboot_eth0   yes
auth.rootpwd        _ROOTPWD
updaterpms.rpmpath  http://lcfg.grid.example.org/rpms/sl305 \
                    http://lcfg.grid.example.org/rpms/lcg-2_4_0
!install.installmethods mSET(disks rpms umount)
install.imethod_disks   fstab preparedisks /root
install.imethod_rpms    updaterpms install /root
install.imethod_umount  %umount% /root
