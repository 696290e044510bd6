#ifndef SITE_VM_DISK_H
#define SITE_VM_DISK_H
!fstab.disks             mADD(xvda)
fstab.dopartition_xvda   yes
fstab.label_xvda         gpt
!fstab.partitions_xvda   mSET(xvda1 xvda2 xvda3)
fstab.size_xvda1         512
fstab.type_xvda1         ext3
fstab.mpt_xvda1          /boot
fstab.size_xvda2         1024
fstab.type_xvda2         swap
fstab.size_xvda3         free
fstab.type_xvda3         ext3
fstab.mpt_xvda3          /
#endif
