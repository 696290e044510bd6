fstab.disks           xvda
fstab.dopartition_xvda yes
fstab.partitions_xvda root data
fstab.size_root       free
fstab.mpt_root        /
fstab.size_data       100
