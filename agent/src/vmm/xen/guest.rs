//! How Xen runs nodes: paravirtual, which asks nothing of the processor, or within its own virtualisation.

use std::path::Path;

/// The two ways. A node's disk starts in either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// Xen checks and makes every change of a node's page tables.
    Pv,
    /// The processor does; only disks and network are paravirtual.
    Pvh,
}

impl Guest {
    /// What is right for a machine, from what `xl info` says of it, and a sentence that tells why: PVH where the processor
    /// translates a node's addresses by itself (`hap`). Without that Xen would have to follow each change of its page tables
    /// in a copy of its own, which is slower than PV, and where Xen was built without it (`shadow`) PVH does not start.
    pub fn choose(info: &str) -> (Self, &'static str) {
        let line = info.lines().find_map(|line| line.strip_prefix("virt_caps"));
        let mut words = line.unwrap_or_default().split([' ', ':']);
        if words.any(|word| word == "hap") {
            return (Self::Pvh, "the nodes run under Xen's PVH");
        }
        (Self::Pv, "the nodes run under Xen's PV: the processor has no nested paging, or it is turned off")
    }

    /// As xl.cfg(5) calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pv => "pv",
            Self::Pvh => "pvh",
        }
    }

    /// GRUB as a kernel of that kind (package grub-xen-host): reads /boot/grub/grub.cfg on the node's own disk, so that a
    /// node upgrades its own kernel.
    pub fn grub(self) -> &'static Path {
        Path::new(match self {
            Self::Pv => "/usr/lib/grub-xen/grub-x86_64-xen.bin",
            Self::Pvh => "/usr/lib/grub-xen/grub-i386-xen_pvh.bin",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_paging_makes_the_choice() {
        let info =
            |caps: &str| format!("release : 6.12\nvirt_caps              : {caps}\nxen_version : 4.17.5\n");
        for (caps, guest) in [
            ("pv hvm", Guest::Pv),
            ("pv hvm shadow gnttab-v1", Guest::Pv),
            ("pv hvm hap shadow gnttab-v1 gnttab-v2", Guest::Pvh),
            ("pv hvm hvm_directio pv_directio hap iommu_hap_pt_share", Guest::Pvh),
            ("pv iommu_hap_pt_share", Guest::Pv),
        ] {
            assert_eq!(Guest::choose(&info(caps)).0, guest, "{caps}");
        }
        assert_eq!(Guest::choose("").0, Guest::Pv);
    }
}
