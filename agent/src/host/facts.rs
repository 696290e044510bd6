//! What the survey saw of a machine: values only, recorded as JSON.

use gatehouse_model::Mac;
use serde::{Deserialize, Serialize};

use super::claim::Claim;
use super::md::Member;

/// A world wide name that is longer than `uuid.` and a UUID is vendor, model and serial number once more: it is not shown.
const LONGEST_WWN: usize = 41;

/// A machine as it was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Facts {
    /// Disks, by kernel name.
    pub disks: Vec<DiskFact>,
    /// Network interfaces with hardware behind them, by kernel name.
    pub links: Vec<LinkFact>,
    /// Bytes of memory in the machine; none: under a hypervisor that hides it.
    pub memory: Option<u64>,
    /// Processors that this kernel sees.
    pub cpus: u32,
    /// What started the machine.
    pub firmware: Firmware,
    /// The hypervisor underneath: `xen`.
    pub hypervisor: Option<String>,
    /// What can be started on it, in the hypervisor's or the processor's words.
    pub virtualisation: Vec<String>,
    /// Kernel name of the disk that the system was booted from.
    pub boot_disk: Option<String>,
    /// The kernel's name for this boot.
    pub boot_id: String,
    /// What the machine says of itself.
    #[serde(default)]
    pub dmi: Dmi,
}

/// What a machine says of itself (SMBIOS, system information); what its maker never filled in is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Dmi {
    /// Serial number.
    pub serial: Option<String>,
    /// Product name.
    pub product: Option<String>,
    /// Maker.
    pub vendor: Option<String>,
}

/// What started the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// A PC BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

/// One disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that was seen")]
pub struct DiskFact {
    /// Kernel name, `sda`.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// Bytes in a logical sector.
    pub sector_size: u64,
    /// Serial number.
    pub serial: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Vendor.
    pub vendor: Option<String>,
    /// World wide name as the kernel writes it: `naa.5000c500a1b2c3d4`, `eui.0025385b71b00a12`.
    pub wwn: Option<String>,
    /// `nvme`, `sata`, `scsi`, `usb`, `virtio`, `xen`, `mmc`.
    pub bus: Option<String>,
    /// Names under /dev/disk/by-path.
    pub paths: Vec<String>,
    /// Solid state (true) or spinning (false).
    pub ssd: bool,
    /// A stick or a card.
    pub removable: bool,
    /// Write protected.
    pub read_only: bool,
    /// Partitions, by number, as its table names them.
    pub partitions: Vec<PartFact>,
    /// Filesystems, RAID and volume signatures on the whole disk, its partition table included.
    pub holds: Vec<String>,
    /// GUID of its partition table, in lower case: its id.
    pub id: Option<String>,
    /// What begun an install on it, if one did.
    pub claim: Option<Claim>,
    /// Its table was read from the copy at its end: nothing starts from it.
    pub primary_lost: bool,
    /// What of this system uses it: names of RAID arrays, volumes and multipath devices.
    pub used_by: Vec<String>,
    /// Why it could not be read.
    pub trouble: Option<String>,
}

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct PartFact {
    /// Its number.
    pub number: u32,
    /// Its name in the table.
    pub name: String,
    /// Its GUID in lower case.
    pub partuuid: String,
    /// Where it starts, in bytes.
    pub start: u64,
    /// Its size.
    pub bytes: u64,
    /// Signatures on it.
    pub holds: Vec<String>,
    /// What it says of the RAID that it belongs to, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<Member>,
}

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LinkFact {
    /// Kernel name.
    pub name: String,
    /// Hardware address.
    pub mac: Mac,
    /// Driver.
    pub driver: Option<String>,
    /// A cable is in it; none: it is down, and does not say.
    pub carrier: Option<bool>,
    /// Mbit/s.
    pub speed: Option<u32>,
    /// `pci-0000:00:03.0`.
    pub path: Option<String>,
}

impl Facts {
    /// The disk of a kernel name.
    pub fn disk(&self, name: &str) -> Option<&DiskFact> {
        self.disks.iter().find(|disk| disk.name == name)
    }

    /// The other disks, to stand behind what is said of one.
    pub fn beside(&self, disk: &DiskFact) -> String {
        let others = list(self.disks.iter().filter(|other| other.name != disk.name));
        if others.is_empty() {
            "; no other disk was seen".to_owned()
        } else {
            format!("; beside it:{others}")
        }
    }

    /// The disk that the system was booted from.
    pub fn booted_from(&self) -> Option<&DiskFact> {
        self.boot_disk.as_deref().and_then(|name| self.disk(name))
    }
}

impl DiskFact {
    /// The partition of a name.
    pub fn part(&self, name: &str) -> Option<&PartFact> {
        self.partitions.iter().find(|part| part.name == name)
    }

    /// The kernel's name of a partition's device.
    pub fn part_device(&self, number: u32) -> String {
        part_device(&self.name, number)
    }

    /// Whether there is a finished install of Gatehouse on it.
    pub fn is_installed(&self) -> bool {
        !self.primary_lost && self.part("gh-root-a").is_some() && self.part("gh-esp").is_some()
    }

    /// What is on it, in a few words.
    pub fn contents(&self) -> String {
        if let Some(trouble) = &self.trouble {
            return format!("cannot be read: {trouble}");
        }
        let names = self.partitions.iter().map(|part| match (part.name.as_str(), part.holds.first()) {
            ("", Some(holds)) => holds.clone(),
            ("", None) => format!("partition {}", part.number),
            (name, _) => name.to_owned(),
        });
        let lost = self.primary_lost.then(|| "its first partition table is lost".to_owned());
        let claim = self.claim.as_ref().filter(|_| !self.is_installed());
        let begun = claim.map(|claim| format!("an install of site {} was begun", claim.site));
        let all: Vec<String> = self.holds.iter().cloned().chain(names).chain(lost).chain(begun).collect();
        if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
    }
}

/// The kernel's name of a partition's device: a digit at the end of the disk's name is set off by a `p`.
pub fn part_device(disk: &str, number: u32) -> String {
    let infix = if disk.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    format!("{disk}{infix}{number}")
}

impl std::fmt::Display for DiskFact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, round(self.bytes))?;
        let wwn = self.wwn.as_ref().filter(|wwn| wwn.len() <= LONGEST_WWN);
        for (word, value) in [
            ("", self.vendor.as_ref()),
            ("", self.model.as_ref()),
            ("serial ", self.serial.as_ref()),
            ("wwn ", wwn),
            ("on ", self.bus.as_ref()),
            ("at ", self.paths.first()),
        ] {
            if let Some(value) = value {
                write!(f, ", {word}{value}")?;
            }
        }
        write!(f, "; holds {}", self.contents())
    }
}

impl std::fmt::Display for LinkFact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.mac)?;
        for (word, value) in [("driver ", &self.driver), ("at ", &self.path)] {
            if let Some(value) = value {
                write!(f, ", {word}{value}")?;
            }
        }
        f.write_str(match self.carrier {
            Some(true) => ", cable in",
            Some(false) => ", no cable",
            None => ", down",
        })
    }
}

/// Things seen, a line each, to stand behind a colon.
pub fn list<T: std::fmt::Display>(things: impl IntoIterator<Item = T>) -> String {
    let mut out = String::new();
    for thing in things {
        out.push_str("\n  ");
        out.push_str(&thing.to_string());
    }
    out
}

/// A size for people: in GiB with one place, or whole MiB below that.
pub fn round(bytes: u64) -> String {
    if bytes < 1 << 30 {
        return format!("{} MiB", bytes >> 20);
    }
    format!("{}.{} GiB", bytes >> 30, ((bytes % (1 << 30)) * 10) >> 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_the_kernel_names_them() {
        assert_eq!(part_device("sda", 8), "sda8");
        assert_eq!(part_device("nvme0n1", 8), "nvme0n1p8");
        assert_eq!(part_device("mmcblk0", 1), "mmcblk0p1");
    }

    #[test]
    fn a_disk_is_shown_with_all_that_names_it() {
        let mut disk = DiskFact {
            name: "sda".into(),
            bytes: 1 << 40,
            serial: Some("Z1".into()),
            wwn: Some("naa.5000c500a1b2c3d4".into()),
            bus: Some("sata".into()),
            paths: vec!["pci-0000:00:1f.2-ata-3.0".into(), "pci-0000:00:1f.2-ata-3".into()],
            ..DiskFact::default()
        };
        let shown = "sda: 1024.0 GiB, serial Z1, wwn naa.5000c500a1b2c3d4, on sata, at pci-0000:00:1f.2-ata-3.0; \
                     holds nothing";
        assert_eq!(disk.to_string(), shown);
        disk.wwn = Some(format!("t10.ATA     {:40} Z1", "ST1000"));
        assert_eq!(disk.to_string(), shown.replace("wwn naa.5000c500a1b2c3d4, ", ""));
    }

    #[test]
    fn sizes_are_rounded_down() {
        assert_eq!(round(24 << 30), "24.0 GiB");
        assert_eq!(round((24 << 30) - 1), "23.9 GiB");
        assert_eq!(round(5 << 20), "5 MiB");
    }
}
