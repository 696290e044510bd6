//! A site on two disks, either of which may be lost.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use gatehouse_disk::{Table, read_table};
use gatehouse_tests::emulator::cut_power;
use gatehouse_tests::{Try, gatehouse, has, outcome, site};

const BOOT: Duration = Duration::from_secs(3600);
const SECTOR: u64 = 512;

/// The minimal site on a mirror of the two disks that a trial gives the machine.
fn mirrored_site(into: &Path) -> PathBuf {
    let dir = site("minimal", into);
    let file = dir.join("site.toml");
    let text = std::fs::read_to_string(&file).expect("read");
    let changed =
        text.replace("[[disk]]\nmin-size = \"8GiB\"", "[[disk]]\nserial = \"TRIAL*\"\nmirror = true");
    assert_ne!(changed, text);
    std::fs::write(&file, changed).expect("written");
    dir
}

fn trial(site: &Path, dir: &Path, more: &[&str]) -> Try {
    let mut command = Command::new(gatehouse());
    let words = ["--vmm", "xen", "--medium", "stick", "--json", "--timeout", "3600", "--dir"];
    command.arg("try").arg(site).args(words);
    Try::start(command.arg(dir).args(more), dir)
}

fn table(disk: &Path) -> Table {
    read_table(&mut File::open(disk).expect("opened"), SECTOR).expect("read").expect("a table")
}

/// Waits until both mirrors are whole.
fn wait_until_whole(machine: &Try) {
    let begun = Instant::now();
    loop {
        let seen =
            machine.ssh("minimal", "cat /sys/block/md[89]/md/degraded /sys/block/md[89]/md/sync_action");
        if seen.stdout == "0\n0\nidle\nidle\n" {
            return;
        }
        assert!(begun.elapsed() < BOOT, "{seen:?}");
        std::thread::sleep(Duration::from_secs(10));
    }
}

/// Installed from a stick onto two disks; then the first one is gone, comes back, and the second one is gone.
#[test]
fn a_mirrored_site_runs_on_either_disk() {
    let full = std::env::var_os("GATEHOUSE_FULL").is_some();
    if !full || !has(&["qemu-system-x86_64", "ssh", "setpriv"]) {
        return;
    }
    let temp =
        tempfile::Builder::new().prefix("gatehouse-mirror-").tempdir_in("/var/tmp").expect("a directory");
    let (site, dir) = (mirrored_site(temp.path()), temp.path().join("trial"));

    let mut machine = trial(&site, &dir, &[]);
    for disk in ["vda", "vdb"] {
        machine.wait_for(&format!("self-install: claiming and clearing {disk} done"), BOOT);
    }
    machine.wait_for("self-install: making vda bootable done", BOOT);
    machine.wait_for("self-install: making vdb bootable done", BOOT);
    machine.wait_for("running; log in", BOOT);
    the_disks_are_alike_and_not_the_same(&dir);
    wait_until_whole(&machine);
    let node = machine.ssh("node1", "cat /etc/machine-id").stdout;
    let ends =
        machine.ssh("minimal", "gatectl status; systemctl is-system-running; dmesg | grep -c 'BUG\\|Oops'");
    assert!(!ends.stdout.contains("mirror") && ends.stdout.contains("running\n0\n"), "{ends:?}");
    outcome(&machine.interrupt());

    // The disk that the firmware starts first is gone: the stick hands over to the other one.
    let mut alone = trial(&site, &dir, &["--resume", "--pull", "1"]);
    alone.wait_for("host: mirroring the disks FAILED", BOOT);
    alone.wait_for("running; log in", BOOT);
    let status = alone.ssh("minimal", "gatectl status; echo kept > /state/var/mirror-test; sync");
    assert!(status.stdout.contains("the mirror runs on one disk alone (vda8, vda9)"), "{status:?}");
    assert_eq!(alone.ssh("node1", "cat /etc/machine-id").stdout, node);
    for done_before in ["self-install", "installing started", "making ext4", "making xfs"] {
        assert!(!alone.saw(done_before), "{done_before} was done again");
    }
    cut_power(alone, &dir);

    // It is back, and is behind: what it lacks is copied to it, whichever is started from.
    let mut again = trial(&site, &dir, &["--resume"]);
    again.wait_for("first-boot: joining vda8 to the mirror md8 done", BOOT);
    again.wait_for("running; log in", BOOT);
    wait_until_whole(&again);
    // What was written without it is there, whichever half the arrays are read from.
    assert_eq!(again.ssh("minimal", "cat /state/var/mirror-test").stdout, "kept\n");
    outcome(&again.interrupt());

    let mut other = trial(&site, &dir, &["--resume", "--pull", "2"]);
    other.wait_for("running; log in", BOOT);
    let kept = other.ssh("minimal", "cat /state/var/mirror-test; gatectl status");
    assert!(kept.stdout.starts_with("kept\n") && kept.stdout.contains("alone"), "{kept:?}");
    assert_eq!(other.ssh("node1", "cat /etc/machine-id").stdout, node);
    cut_power(other, &dir);
}

fn the_disks_are_alike_and_not_the_same(dir: &Path) {
    let (one, other) = (table(&dir.join("disk.img")), table(&dir.join("disk2.img")));
    assert_ne!(one.disk_guid, other.disk_guid);
    let places = |table: &Table| {
        table.parts.iter().map(|part| (part.number, part.first_lba, part.last_lba)).collect::<Vec<_>>()
    };
    assert_eq!(places(&one), places(&other));
    assert_eq!(one.parts.len(), 9);
    for part in &one.parts {
        assert!(other.parts.iter().all(|twin| twin.guid != part.guid), "{part}");
    }
}
