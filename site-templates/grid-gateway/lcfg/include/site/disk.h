/* One disk with one partition that takes all of it. disk0 is the node's first disk on any hypervisor. */
#ifndef SITE_DISK_H
#define SITE_DISK_H

fstab.disks             SITE_DISK0
fstab.dopartition_disk0 yes
fstab.label_disk0       gpt
fstab.partitions_disk0  disk0p1
fstab.size_disk0p1      free
fstab.type_disk0p1      ext4
fstab.mpt_disk0p1       /

#endif
