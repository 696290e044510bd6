//! The names that udev gives disks under /dev/disk/by-path, for where there is no udev: what a rule names by `path` on
//! one system is found by the same words on every other. Composed from a disk's place in /sys/devices, as udev does it
//! (`path_id`), for what hangs on PCI by ATA, `nvme`, virtio, USB or a controller of the plain SCSI kind.

use std::fs;
use std::path::{Path, PathBuf};

/// SCSI disks with other names, which need what is not in their place: fibre channel, SAS, iSCSI.
const OTHER_SCSI: [&str; 3] = ["rport-", "end_device-", "session"];
/// Where disks are that several controllers of `nvme` may lead to, instead of below their controller.
const NVME_SUBSYSTEM: &str = "nvme-subsystem";

/// The names of a disk that is at a place below `root`'s /sys/devices; none if it hangs on something else.
pub fn names(root: &Path, disk: &str, place: &Path) -> Vec<String> {
    composed(root, disk, place).unwrap_or_default()
}

fn composed(root: &Path, disk: &str, place: &Path) -> Option<Vec<String>> {
    let mut parts = parts(place);
    if parts.iter().any(|part| part == NVME_SUBSYSTEM) {
        let controller = disk.get(..disk.rfind('n')?)?;
        parts = self::parts(&fs::canonicalize(root.join("sys/class/nvme").join(controller)).ok()?);
    }
    let pci = pci(&parts)?;
    if disk.starts_with("nvme") {
        return Some(vec![format!("{pci}-nvme-{}", text(&place.join("nsid"))?)]);
    }
    let usb = parts.iter().rev().find_map(|part| usb_port(part));
    let before = usb.map_or(pci.clone(), |port| format!("{pci}-usb-0:{port}"));
    if let Some(host) = parts.iter().position(|part| numbered(part, "host").is_some()) {
        return scsi(&parts, host).map(|ends| ends.iter().map(|end| format!("{before}-{end}")).collect());
    }
    let is_virtio = parts.iter().any(|part| numbered(part, "virtio").is_some());
    is_virtio.then(|| vec![pci.clone(), format!("virtio-{pci}")])
}

fn parts(place: &Path) -> Vec<String> {
    place.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
}

/// The last PCI address of each group: a controller may hold a bus of its own.
fn pci(parts: &[String]) -> Option<String> {
    let groups = parts.chunk_by(|one, next| is_pci(one) == is_pci(next));
    let last = groups.filter_map(|group| group.last().filter(|last| is_pci(last)));
    let all: Vec<String> = last.map(|address| format!("pci-{address}")).collect();
    (!all.is_empty()).then(|| all.join("-"))
}

/// Whether a part of a place is a PCI address: `0000:00:03.0`.
pub fn is_pci(part: &str) -> bool {
    let hex = |text: &str, least: usize, most: usize| {
        (least..=most).contains(&text.len()) && text.chars().all(|c| c.is_ascii_hexdigit())
    };
    let Some((domain, (bus, device))) =
        part.split_once(':').and_then(|(domain, rest)| Some((domain, rest.split_once(':')?)))
    else {
        return false;
    };
    let device =
        device.split_once('.').is_some_and(|(slot, function)| hex(slot, 2, 2) && hex(function, 1, 1));
    hex(domain, 4, 8) && hex(bus, 2, 2) && device
}

/// `3:1.0` of an interface of a USB device, `1-3:1.0`: the number of the bus is left out, as it may be another next time.
fn usb_port(name: &str) -> Option<&str> {
    let (bus, port) = name.split_once('-')?;
    let (device, interface) = port.split_once(':')?;
    let dotted = |text: &str| text.split('.').all(|number| number.parse::<u32>().is_ok());
    (bus.parse::<u32>().is_ok() && dotted(device) && dotted(interface)).then_some(port)
}

/// What stands for a SCSI disk, the `host` of which is that part of its place.
fn scsi(parts: &[String], host: usize) -> Option<Vec<String>> {
    let (above, below) = parts.split_at_checked(host)?;
    if parts.iter().any(|part| OTHER_SCSI.iter().any(|other| part.starts_with(other))) {
        return None;
    }
    let [number, bus, target, lun] = below.iter().find_map(|part| address(part))?;
    let controller: PathBuf = above.iter().collect();
    let Some(port) = above.last().filter(|port| numbered(port, "ata").is_some()) else {
        let first = first_host(&controller)?;
        return Some(vec![format!("scsi-{}:{bus}:{target}:{lun}", number.checked_sub(first)?)]);
    };
    let port = text(&controller.join("ata_port").join(port).join("port_no"))?;
    let end = if bus == 0 { format!("ata-{port}.{target}") } else { format!("ata-{port}.{bus}.0") };
    Some(vec![end, format!("ata-{port}")])
}

/// `6:0:0:1`.
fn address(part: &str) -> Option<[u32; 4]> {
    let numbers: Vec<u32> = part.split(':').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    numbers.try_into().ok()
}

/// The kernel counts hosts through all controllers: a controller's own are counted from its first one on.
fn first_host(controller: &Path) -> Option<u32> {
    let entries = fs::read_dir(controller).ok()?.flatten();
    entries.filter_map(|entry| numbered(&entry.file_name().to_string_lossy(), "host")).min()
}

/// The number behind a word.
fn numbered(part: &str, word: &str) -> Option<u32> {
    part.strip_prefix(word)?.parse().ok()
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of a disk at a place, with files below /sys/devices beside it.
    fn named(place: &str, files: &[(&str, &str)]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let devices = dir.path().join("sys/devices");
        fs::create_dir_all(devices.join(place)).unwrap();
        for (path, text) in files {
            let path = devices.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let class = dir.path().join("sys/class/nvme");
        fs::create_dir_all(&class).unwrap();
        std::os::unix::fs::symlink(
            devices.join("pci0000:00/0000:00:1d.0/0000:3c:00.0/nvme/nvme0"),
            class.join("nvme0"),
        )
        .unwrap();
        names(dir.path(), place.rsplit('/').next().unwrap(), &devices.join(place))
    }

    #[test]
    fn disks_are_named_as_udev_names_them() {
        let ata = "pci0000:00/0000:00:1f.2/ata3";
        let sata = format!("{ata}/host2/target2:0:0/2:0:0:0/block/sda");
        let behind = format!("{ata}/host2/target2:4:0/2:4:0:0/block/sda");
        let port = format!("{ata}/ata_port/ata3/port_no");
        let nvme = "pci0000:00/0000:00:1d.0/0000:3c:00.0/nvme/nvme0";
        let hidden = "virtual/nvme-subsystem/nvme-subsys0/nvme0n2";
        let usb = "pci0000:00/0000:00:14.0/usb2/2-1/2-1.3/2-1.3:1.0/host6/target6:0:0/6:0:0:0/block/sdc";
        let raid = "pci0000:00/0000:00:02.0/0000:03:00.0";
        let vmd = "pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0/nvme/nvme1/nvme1n1";
        for (place, files, wanted) in [
            (sata.as_str(), vec![(port.as_str(), "3\n")], "pci-0000:00:1f.2-ata-3.0 pci-0000:00:1f.2-ata-3"),
            (
                behind.as_str(),
                vec![(port.as_str(), "3")],
                "pci-0000:00:1f.2-ata-3.4.0 pci-0000:00:1f.2-ata-3",
            ),
            (
                &format!("{nvme}/nvme0n1"),
                vec![(&*format!("{nvme}/nvme0n1/nsid"), "1\n")],
                "pci-0000:3c:00.0-nvme-1",
            ),
            (
                hidden,
                vec![(&*format!("{hidden}/nsid"), "2\n"), (&*format!("{nvme}/state"), "live")],
                "pci-0000:3c:00.0-nvme-2",
            ),
            (vmd, vec![(&*format!("{vmd}/nsid"), "1")], "pci-0000:00:0e.0-pci-10000:e1:00.0-nvme-1"),
            ("pci0000:00/0000:00:04.0/virtio1/block/vda", vec![], "pci-0000:00:04.0 virtio-pci-0000:00:04.0"),
            (
                "pci0000:00/0000:00:05.0/virtio2/host3/target3:0:0/3:0:0:1/block/sdb",
                vec![],
                "pci-0000:00:05.0-scsi-0:0:0:1",
            ),
            (usb, vec![], "pci-0000:00:14.0-usb-0:1.3:1.0-scsi-0:0:0:0"),
            (
                &format!("{raid}/host1/target1:2:0/1:2:0:0/block/sda"),
                vec![(&*format!("{raid}/host0/state"), "running")],
                "pci-0000:03:00.0-scsi-1:2:0:0",
            ),
            // What is not in the place, and what is on no bus.
            (&format!("{raid}/host1/port-1:0/end_device-1:0/target1:0:0/1:0:0:0/block/sda"), vec![], ""),
            ("pci0000:00/0000:00:1a.0/mmc_host/mmc0/mmc0:0001/block/mmcblk0", vec![], ""),
            ("vbd-51712/block/xvda", vec![], ""),
        ] {
            assert_eq!(named(place, &files).join(" "), wanted, "{place}");
        }
    }

    #[test]
    fn an_address_of_pci_is_known() {
        for (part, is) in [
            ("0000:00:03.0", true),
            ("10000:e1:00.0", true),
            ("pci0000:00", false),
            ("0000:00:03", false),
            ("2:0:0:0", false),
        ] {
            assert_eq!(is_pci(part), is, "{part}");
        }
    }
}
