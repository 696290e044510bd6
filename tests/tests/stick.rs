//! A stick in a machine with two disks, one of which somebody still needs.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gatehouse_disk::{
    FatFile, FatLimits, Health, Synced, Table, guid_text, read_fat, read_table, replace_fat,
};
use gatehouse_model::{CONTENTS, Contents, Digest, Hasher};
use gatehouse_tests::emulator::{cut_power, set_link, written};
use gatehouse_tests::{Try, gatehouse, has, outcome, run, site};

const BOOT: Duration = Duration::from_secs(1800);
const SECTOR: u64 = 512;

/// The minimal site, for the disk with the serial number that trials give the disk to install to.
fn named_site(into: &Path) -> PathBuf {
    let dir = site("minimal", into);
    let file = dir.join("site.toml");
    let text = std::fs::read_to_string(&file).expect("read");
    let changed = text.replace("[[disk]]\nmin-size = \"8GiB\"", "[[disk]]\nserial = \"TRIAL\"");
    assert_ne!(changed, text);
    std::fs::write(&file, changed).expect("written");
    dir
}

fn trial(site: &Path, dir: &Path, more: &[&str]) -> Try {
    let mut command = Command::new(gatehouse());
    command.arg("try").arg(site).args([
        "--vmm",
        "xen",
        "--medium",
        "stick",
        "--json",
        "--timeout",
        "1800",
        "--dir",
    ]);
    Try::start(command.arg(dir).args(more), dir)
}

fn temp() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("gatehouse-stick-").tempdir_in("/var/tmp").expect("a directory")
}

fn is_full() -> bool {
    std::env::var_os("GATEHOUSE_FULL").is_some()
}

fn have_all() -> bool {
    has(&["qemu-system-x86_64", "ssh", "setpriv", "mkfs.ext4"])
}

/// A disk with somebody's data.
fn decoy(dir: &Path) -> PathBuf {
    let (path, data) = (dir.join("decoy.img"), dir.join("data"));
    std::fs::create_dir(&data).expect("made");
    let mut file = File::create(data.join("thesis")).expect("made");
    for line in 0..200_000_u32 {
        writeln!(file, "{line} {}", line.wrapping_mul(2_654_435_761)).expect("written");
    }
    let path_text = path.display().to_string();
    assert_eq!(run(Command::new("truncate").args(["-s", "2G", &path_text])).code, 0);
    let path_env = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let made = run(Command::new("mkfs.ext4").env("PATH", path_env).args(["-q", "-d"]).arg(&data).arg(&path));
    assert_eq!(made.code, 0, "{made:?}");
    path
}

fn digest(path: &Path) -> Digest {
    let mut file = File::open(path).expect("opened");
    digest_of(&mut file, u64::MAX)
}

fn digest_of(from: &mut impl std::io::Read, bytes: u64) -> Digest {
    let (mut hasher, mut buffer, mut from) = (Hasher::new(), vec![0; 1 << 20], from.take(bytes));
    loop {
        let count = from.read(&mut buffer).expect("read");
        if count == 0 {
            return hasher.finish();
        }
        hasher.update(&buffer[..count]);
    }
}

/// Under UEFI, with a clock that has lost the time, and no cable until the system runs from its own disk.
#[test]
fn a_stick_installs_the_named_disk_and_hands_over() {
    if have_all() {
        installs_and_hands_over("uefi");
    }
}

#[test]
fn a_stick_does_the_same_under_a_bios() {
    if is_full() && have_all() {
        installs_and_hands_over("bios");
    }
}

fn installs_and_hands_over(firmware: &str) {
    let temp = temp();
    let (site, dir, decoy) = (named_site(temp.path()), temp.path().join("trial"), decoy(temp.path()));
    let before = digest(&decoy);
    let decoy_text = decoy.display().to_string();
    let world = ["--firmware", firmware, "--clock", "2001-01-01T00:00:00", "--decoy", &decoy_text];

    let mut machine = trial(&site, &dir, &world);
    machine.wait_for("self-install: claiming and clearing vdb", BOOT);
    set_link(&dir, false);
    if firmware == "uefi" {
        machine.wait_for("self-install: setting the firmware's boot order done", BOOT);
    }
    machine.wait_for("self-install: restarting done", BOOT);
    let reported = written(&dir, "stick");
    assert!(reported > 0, "there is no report on the stick");
    machine.wait_for("server: server done", BOOT);
    set_link(&dir, true);
    machine.wait_for("running; log in", BOOT);
    // Xen has the firmware; whether it hands that on to the host's kernel is its own affair.
    let host = machine.ssh(
        "minimal",
        "(xl dmesg; ls -d /sys/firmware/efi) | grep -ci efi; date -u +%Y; lsblk -no NAME /dev/vdb",
    );
    assert!(host.stdout.contains("\n2026\n") && host.stdout.contains("vdb9"), "{host:?}");
    assert_eq!(host.stdout.starts_with('0'), firmware == "bios", "{host:?}");
    assert_eq!(
        (written(&dir, "stick"), written(&dir, "decoy0")),
        (reported, 0),
        "the stick was written after its report"
    );
    // What the installer left on the disk waits to be sent.
    let reports = machine.ssh("minimal", "gatectl report");
    assert!(reports.stdout.contains("self-install: installed"), "{reports:?}");
    outcome(&machine.interrupt());
    assert!(has_handed_over(&dir), "the stick did not hand over after the install");
    the_report_is_on_the_stick(&dir.join("stick.img"), "claiming and clearing vdb");
    the_disk_has_ids_of_its_own(&dir);

    // The stick is still in.
    let mut again = trial(&site, &dir, &[&world[..], &["--resume"]].concat());
    again.wait_for("running; log in", BOOT);
    for done_before in ["self-install", "installing started", "making ext4", "making xfs"] {
        assert!(!again.saw(done_before), "{done_before} was done again");
    }
    assert_eq!((written(&dir, "stick"), written(&dir, "decoy0")), (0, 0));
    assert!(has_handed_over(&dir), "the machine was not started from the stick");
    let node = again.ssh("node1", "cat /etc/machine-id").stdout;
    cut_power(again, &dir);
    if is_full() {
        reinstalls_once(&site, &dir, &world, &node);
    }
    assert_eq!(digest(&decoy), before, "the disk that nobody named was changed");
}

/// Somebody writes the disk's id into the stick's boot.cfg: the system is installed anew, once, and the node is as it was.
fn reinstalls_once(site: &Path, dir: &Path, world: &[&str], node: &str) {
    let old = guid_text(&table(&dir.join("disk.img")).expect("a table").disk_guid);
    add_to_boot_cfg(&dir.join("stick.img"), &format!("set reinstall={old}\n"));
    let mut machine = trial(site, dir, &[world, &["--resume"]].concat());
    machine.wait_for("self-install: restarting done", BOOT);
    machine.wait_for("running; log in", BOOT);
    for done_anew in ["node/node1: installing started", "making ext4", "making xfs"] {
        assert!(!machine.saw(done_anew), "{done_anew}: what should be kept was lost");
    }
    assert!(has_handed_over(dir), "the stick did not hand over after the reinstall");
    assert_eq!(machine.ssh("node1", "cat /etc/machine-id").stdout, node);
    cut_power(machine, dir);
    the_report_is_on_the_stick(&dir.join("stick.img"), "taking away what vdb starts from");
    let new = table(&dir.join("disk.img")).expect("a table");
    assert_ne!(guid_text(&new.disk_guid), old, "the disk has the id of the install that is gone");
}

fn add_to_boot_cfg(stick: &Path, line: &str) {
    let mut files = files_of(stick, "gh-site", 16 << 20);
    let (_, boot) = files.iter_mut().find(|(path, _)| path == "boot.cfg").expect("boot.cfg");
    boot.extend(line.as_bytes());
    let table = table(stick).expect("a table");
    let part = table.parts.iter().find(|part| part.name == "gh-site").expect("the partition");
    let file = File::options().read(true).write(true).open(stick).expect("opened");
    let files = files.iter().map(|(path, bytes)| FatFile::bytes(path.clone(), bytes));
    let mut window = part.window(Synced(&file), SECTOR);
    replace_fat(&mut window, 1_767_225_600, files.collect()).expect("written");
}

/// Whether the stick has handed over to the disk, by the console since QEMU was started. How often cannot be told: under
/// UEFI the firmware's console is the serial line too, so that GRUB says everything twice, on one line or on two.
fn has_handed_over(dir: &Path) -> bool {
    let console = std::fs::read(dir.join("console.log")).expect("a console");
    String::from_utf8_lossy(&console).contains("gatehouse: handing over to hd")
}

fn table(disk: &Path) -> Option<Table> {
    read_table(&mut File::open(disk).expect("opened"), SECTOR).ok().flatten()
}

fn files_of(disk: &Path, part: &str, largest: u64) -> Vec<(String, Vec<u8>)> {
    let table = table(disk).expect("a table");
    let part = table.parts.iter().find(|found| found.name == part).expect("the partition");
    let limits = FatLimits { file_bytes: largest, total_bytes: 2 * largest, ..FatLimits::default() };
    read_fat(part.window(File::open(disk).expect("opened"), SECTOR), limits).expect("a FAT")
}

fn the_report_is_on_the_stick(stick: &Path, step: &str) {
    let files = files_of(stick, "gh-site", 16 << 20);
    let text = |name: &str| {
        let end = format!("-self-install/{name}");
        let found =
            files.iter().find(|(path, _)| path.starts_with("report/minimal-") && path.ends_with(&end));
        String::from_utf8_lossy(&found.expect(name).1).into_owned()
    };
    assert!(text("summary.txt").contains("serial TRIAL"), "{}", text("summary.txt"));
    assert!(text("summary.txt").contains(step), "{}", text("summary.txt"));
    let machine: serde_json::Value = serde_json::from_str(&text("machine.json")).expect("JSON");
    assert_eq!(machine["facts"]["disks"].as_array().map(Vec::len), Some(3), "{machine}");
    assert_eq!(machine["result"], "installed", "{machine}");
    assert!(text("kernel.log").contains("Linux version"));
    assert!(text("events.jsonl").lines().count() > 5);
}

fn the_disk_has_ids_of_its_own(dir: &Path) {
    let (stick, disk) =
        (table(&dir.join("stick.img")).expect("a table"), table(&dir.join("disk.img")).expect("a table"));
    assert_ne!(stick.disk_guid, disk.disk_guid);
    for part in &stick.parts {
        assert!(disk.parts.iter().all(|other| other.guid != part.guid), "{part}");
    }
}

/// Cuts at seeded moments of one install after the other: what starts from the disk is whole, or nothing does.
#[test]
fn an_install_that_loses_power_twenty_times_is_never_half_there() {
    if !is_full() || !have_all() {
        return;
    }
    let temp = temp();
    let (site, out, dir) = (named_site(temp.path()), temp.path().join("out"), temp.path().join("trial"));
    let built = run(Command::new(gatehouse()).arg("build").arg(&site).arg("-o").arg(&out));
    assert_eq!(built.code, 0, "{built:?}");
    let (mut seed, mut fresh, mut whole) = (0x6a09_e667_u64, true, 0);
    for cut in 0..20 {
        let mut machine = trial(&out, &dir, if fresh { &[] } else { &["--resume"] });
        machine.wait_for("self-install", BOOT);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let after = Duration::from_millis((seed >> 33) % 30_000);
        std::thread::sleep(after);
        cut_power(machine, &dir);
        let found = what_starts(&dir);
        // From a backup alone only some firmware starts; the installer goes on.
        fresh = found.is_some_and(|health| health != Health::PrimaryLost);
        whole += u32::from(fresh);
        println!("cut {cut} after {after:?}: {found:?}");
    }
    assert!(whole > 0, "no cut came late enough");
    assert!(whole < 20, "no cut came early enough");
    let last = trial(&out, &dir, if fresh { &["--exit"] } else { &["--resume", "--exit"] }).end();
    outcome(&last);
}

/// The table that firmware could start the disk by, if there is one: either copy is enough for some. Then everything on
/// the disk must be what the image's list names.
fn what_starts(dir: &Path) -> Option<Health> {
    let disk = dir.join("disk.img");
    let table = table(&disk)?;
    let boot = files_of(&disk, "gh-esp", 512 << 20);
    let content = |path: &str| boot.iter().find(|(name, _)| name == path).map(|(_, bytes)| bytes.as_slice());
    let contents: Contents = serde_json::from_slice(content(CONTENTS).expect("a list")).expect("JSON");
    assert!(content("gatehouse/installed").is_some());
    for file in &contents.esp {
        assert_eq!(content(&file.path).map(Digest::of), Some(file.sha256), "{}", file.path);
    }
    for (name, piece) in [("gh-root-a", &contents.root), ("gh-depot-a", &contents.depot)] {
        let part = table.parts.iter().find(|part| part.name == name).expect(name);
        let mut file = File::open(&disk).expect("opened");
        file.seek(SeekFrom::Start(part.start(SECTOR))).expect("sought");
        assert_eq!(digest_of(&mut file, piece.size), piece.sha256, "{name}");
    }
    assert!(files_of(&disk, "gh-site", 16 << 20).iter().any(|(path, _)| path == "site.toml"));
    Some(table.health)
}
