//! Surveys of machines made of files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use gatehouse_disk::{CheckedTable, Part, PartKind, write_table};

use super::*;

fn write(root: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn link_to(root: &Path, name: &str, to: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(root.join(to), path).unwrap();
}

/// A virtio disk of 16 MiB with a table and an ext4 on its second partition.
fn virtio_disk(root: &Path) {
    let at = "sys/devices/pci0000:00/0000:00:04.0/virtio1/block/vda";
    for (name, value) in [("size", "32768"), ("serial", "SYS\n"), ("ro", "0"), ("queue/rotational", "1")] {
        write(root, &format!("{at}/{name}"), value);
    }
    write(root, &format!("{at}/queue/logical_block_size"), "512");
    write(root, "sys/devices/pci0000:00/0000:00:04.0/virtio1/vendor", "0x1af4\n");
    link_to(root, &format!("{at}/device"), "sys/devices/pci0000:00/0000:00:04.0/virtio1");
    link_to(root, "sys/block/vda", at);
    write(root, "dev/vda", vec![0; 16 << 20]);
    symlink("../../vda", {
        let dir = root.join("dev/disk/by-path");
        fs::create_dir_all(&dir).unwrap();
        dir.join("pci-0000:00:04.0")
    })
    .unwrap();
    let part = |number: u32, name: &str, mib: u64| Part {
        number,
        name: name.into(),
        kind: PartKind::LinuxData,
        guid: [u8::try_from(number).unwrap(); 16],
        first_lba: mib << 11,
        last_lba: ((mib + 2) << 11) - 1,
    };
    let parts = vec![part(3, "gh-site", 1), part(4, "gh-root-a", 4)];
    let table = CheckedTable::new(parts, [9; 16], 16 << 20, 512).unwrap();
    let mut disk = fs::OpenOptions::new().read(true).write(true).open(root.join("dev/vda")).unwrap();
    write_table(&table, &mut disk).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&disk, b"\xe2\xe1\xf5\xe0", (4 << 20) + 0x400).unwrap();
}

fn machine() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    virtio_disk(root);
    write(root, "sys/block/loop0/size", "8");
    write(root, "sys/block/sda/size", "8192");
    write(root, "sys/block/sda/device/model", "STICK  \n");
    write(root, "sys/block/sda/device/vpd_pg80", b"\x00\x80\x00\x04AB12");
    write(root, "sys/block/sdb/size", "0");
    let card = "sys/devices/pci0000:00/0000:00:03.0/virtio0";
    for (name, value) in [("address", "52:54:00:12:34:56"), ("carrier", "1"), ("speed", "-1")] {
        write(root, &format!("{card}/net/eth0/{name}"), value);
    }
    link_to(root, &format!("{card}/net/eth0/device"), card);
    write(root, "sys/bus/virtio/drivers/virtio_net/bind", "");
    link_to(root, &format!("{card}/driver"), "sys/bus/virtio/drivers/virtio_net");
    link_to(root, "sys/class/net/eth0", &format!("{card}/net/eth0"));
    write(root, "sys/class/net/lo/address", "00:00:00:00:00:00");
    let node = "sys/devices/vif-2-0";
    write(root, &format!("{node}/net/vif2.0/address"), "fe:ff:ff:ff:ff:ff");
    link_to(root, &format!("{node}/net/vif2.0/device"), node);
    write(root, "sys/bus/xen-backend/drivers/vif/bind", "");
    link_to(root, &format!("{node}/driver"), "sys/bus/xen-backend/drivers/vif");
    link_to(root, "sys/class/net/vif2.0", &format!("{node}/net/vif2.0"));
    write(root, "proc/meminfo", "MemFree: 1 kB\nMemTotal:       2048 kB\n");
    write(root, "proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu svm\nprocessor\t: 1\n");
    write(root, "proc/sys/kernel/random/boot_id", "b-1\n");
    dir
}

#[test]
fn sees_what_is_there() {
    let dir = machine();
    let args = KernelArgs { boot: Some("04040404-0404-0404-0404-040404040404".into()), ..Default::default() };
    let facts = survey(dir.path(), &args);
    assert_eq!(facts.boot_disk.as_deref(), Some("vda"));
    let lines: Vec<String> = facts.disks.iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 2);
    assert!(
        lines[0].starts_with("sda: 4 MiB, STICK, serial AB12, on scsi; holds cannot be read: "),
        "{lines:?}"
    );
    assert_eq!(
        lines[1],
        "vda: 16 MiB, serial SYS, on virtio, at pci-0000:00:04.0; holds partition table, gh-site, gh-root-a"
    );
    let disk = facts.disk("vda").unwrap();
    assert_eq!(disk.paths, ["pci-0000:00:04.0"]);
    assert_eq!(disk.part("gh-root-a").unwrap().holds, ["erofs"]);
    assert_eq!(disk.part("gh-root-a").unwrap().start, 4 << 20);
    let nics: Vec<String> = facts.links.iter().map(ToString::to_string).collect();
    assert_eq!(nics, ["eth0: 52:54:00:12:34:56, driver virtio_net, at pci-0000:00:03.0, cable in"]);
    assert_eq!(
        (facts.memory, facts.cpus, facts.firmware, facts.virtualisation.as_slice(), facts.boot_id.as_str()),
        (Some(2 << 20), 2, Firmware::Bios, &["svm".to_owned()][..], "b-1")
    );
    let json = serde_json::to_string(&facts).unwrap();
    assert_eq!(serde_json::from_str::<Facts>(&json).unwrap(), facts);
}

#[test]
fn memory_under_a_hypervisor_is_that_of_the_modules() {
    let module = |size: u16, extended: u32| {
        let mut bytes = vec![0_u8; 0x28];
        (bytes[0], bytes[1]) = (17, 0x28);
        bytes[0x0c..0x0e].copy_from_slice(&size.to_le_bytes());
        bytes[0x1c..0x20].copy_from_slice(&extended.to_le_bytes());
        [bytes, b"DIMM 0\0\0".to_vec()].concat()
    };
    let table = [module(1024, 0), module(0, 0), module(0x7fff, 65536), vec![127, 4, 0, 0, 0, 0]].concat();
    assert_eq!(dmi_memory(&table), Some((1024 + 65536) << 20));
    assert_eq!(dmi_memory(&[127, 4, 0, 0, 0, 0]), None);
    assert_eq!(dmi_memory(&table[..20]), None);
    assert_eq!(dmi_memory(&[0, 0, 0, 0, 0, 0]), None);
}

/// A blank SCSI disk of 16 MiB.
fn blank_disk(root: &Path, name: &str) {
    write(root, &format!("sys/block/{name}/size"), "32768");
    write(root, &format!("dev/{name}"), vec![0; 16 << 20]);
}

#[test]
fn what_only_libblkid_knows_is_no_blank_disk() {
    if !Path::new(BLKID).exists() && std::env::var_os("CI").is_none() {
        println!("skipped, because there is no {BLKID}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for (name, at, magic) in [
        ("sdb", 0, &b"bluestore block device\n"[..]),
        ("sdc", 32, b"ORCLDISK"),
        ("sdd", 2 << 20, b"\x5e\xf1\xab\x2f"),
        // The mark of a PC partition table, without an entry.
        ("sde", 510, b"\x55\xaa"),
        ("sdf", 0, b""),
    ] {
        blank_disk(root, name);
        let disk = fs::OpenOptions::new().write(true).open(root.join("dev").join(name)).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&disk, magic, at).unwrap();
    }
    let facts = survey(root, &KernelArgs::default());
    let found: Vec<String> = facts.disks.iter().map(DiskFact::contents).collect();
    assert_eq!(found, ["ceph_bluestore", "oracleasm", "VMFS", "nothing", "nothing"]);
}

#[test]
fn the_hidden_paths_to_a_disk_are_no_disks() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for (name, hidden) in [("nvme0n1", "0"), ("nvme0c0n1", "1"), ("nvme0c1n1", "1")] {
        blank_disk(root, name);
        write(root, &format!("sys/block/{name}/wwid"), "eui.0025385b71b00a12");
        write(root, &format!("sys/block/{name}/hidden"), hidden);
    }
    let facts = survey(root, &KernelArgs::default());
    let names: Vec<&str> = facts.disks.iter().map(|disk| disk.name.as_str()).collect();
    assert_eq!(names, ["nvme0n1"]);
}

#[test]
fn paths_are_known_without_udev() {
    let dir = machine();
    fs::remove_dir_all(dir.path().join("dev/disk")).unwrap();
    let facts = survey(dir.path(), &KernelArgs::default());
    assert_eq!(facts.disk("vda").unwrap().paths, ["pci-0000:00:04.0", "virtio-pci-0000:00:04.0"]);
}
