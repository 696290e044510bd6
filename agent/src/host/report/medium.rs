//! Reports on a FAT partition, where any computer reads them: `report/<site>-<machine>-<phase>/`.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use gatehouse_model::{Doing as _, Fault};
use nix::mount::MsFlags;

use super::{Machine, Report};
use crate::host::import::{self, SiteFiles};
use crate::host::mounts;

/// At the top of a site partition.
const REPORT: &str = "report";
/// Where a medium's site partition is mounted to leave a report on it.
const MOUNTED: &str = "/run/gatehouse/report";
/// How long the partition may be gone.
const GONE: Duration = Duration::from_secs(5);
/// The names in a report's directory.
const SUMMARY: &str = "summary.txt";
const MACHINE: &str = "machine.json";
const EVENTS: &str = "events.jsonl";
const KERNEL_LOG: &str = "kernel.log";
/// Nothing longer is read back: anybody can put files onto a stick.
const LONGEST: u64 = 4 << 20;
/// Letters of one word in the name of a report's directory.
const WORD: usize = 40;

/// Mounts a partition. Whoever has written a table has the kernel read it: udev does that once more when the disk is
/// closed, and for a moment its partitions are gone.
fn mount(part_device: &str, at: &Path) -> Result<(), Fault> {
    let begun = Instant::now();
    loop {
        match mounts::mount_once("vfat", part_device, at, MsFlags::empty(), "utf8,flush") {
            Err(_) if begun.elapsed() < GONE => std::thread::sleep(Duration::from_millis(250)),
            ended => return ended,
        }
    }
}

/// Leaves a report on a site partition that is not mounted; `part_device` is its `/dev/…`.
///
/// # Errors
/// It cannot be mounted for writing, or is full; an older report is then still there.
pub fn leave_on(part_device: &str, report: &Report) -> Result<(), Fault> {
    let at = Path::new(MOUNTED);
    let left = mount(part_device, at).and_then(|()| write_to(at, report));
    left.and(mounts::unmount(at)).doing(|| format!("leaving the report on {part_device}"))
}

/// Writes a report below a directory's `report/`: there as a whole, or not at all. An older one of the same machine and
/// phase is replaced.
///
/// # Errors
/// The medium is full, most likely.
pub fn write_to(dir: &Path, report: &Report) -> Result<(), Fault> {
    let reports = dir.join(REPORT);
    fs::create_dir_all(&reports).doing(|| format!("making {}", reports.display()))?;
    let to = reports.join(name(report));
    import::write(&files(report)?, &to).inspect_err(|_| {
        // What there was no room for only takes more of it.
        let _ = fs::remove_dir_all(to.with_extension("partial"));
    })
}

/// What this machine left on a site partition, earlier phases first; what cannot be read is passed over.
pub fn read_from(dir: &Path, machine: &Machine) -> Vec<Report> {
    let entries = fs::read_dir(dir.join(REPORT)).into_iter().flatten().flatten();
    let mut all: Vec<Report> = entries.filter_map(|entry| read(&entry.path())).collect();
    all.retain(|report| report.machine.is_same(machine));
    all.sort_by_key(|report| (report.phase, report.at));
    all
}

fn name(report: &Report) -> String {
    let site = report.site.as_deref().unwrap_or("no-site");
    format!("{}-{}-{}", word(site), word(report.machine.id()), report.phase)
}

/// What every FAT, and every computer that reads it, takes as a part of a name.
pub(super) fn word(text: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    text.chars().map(safe).take(WORD).collect()
}

fn files(report: &Report) -> Result<SiteFiles, Fault> {
    let small =
        Report { summary: String::new(), events: Vec::new(), kernel_log: String::new(), ..report.clone() };
    let mut machine = serde_json::to_vec_pretty(&small).doing(|| "writing a report as JSON")?;
    machine.push(b'\n');
    let events: String = report.events.iter().map(|event| event.to_line() + "\n").collect();
    let summary = report.summary.replace('\n', "\r\n");
    Ok([
        (SUMMARY, summary.into_bytes()),
        (MACHINE, machine),
        (EVENTS, events.into_bytes()),
        (KERNEL_LOG, report.kernel_log.clone().into_bytes()),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into())
}

fn read(dir: &Path) -> Option<Report> {
    let text = |name: &str| {
        let mut text = String::new();
        File::open(dir.join(name)).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
        Some(text)
    };
    let small: Report = serde_json::from_str(&text(MACHINE)?).ok()?;
    let events = text(EVENTS)?.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let summary = text(SUMMARY)?.replace("\r\n", "\n");
    Some(Report { summary, events, kernel_log: text(KERNEL_LOG)?, ..small })
}
