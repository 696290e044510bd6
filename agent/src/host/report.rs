//! What happened to a machine, left on the medium for whoever gets it back: readable on any computer.
//!
//! `report/SITE-SERIAL/`: `summary.txt` for people, `machine.json` (the facts), `events.jsonl`, `kernel.log`. The last
//! report of a machine replaces the one before it. Nothing secret is known by then: keys are made later.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use gatehouse_model::{Doing as _, Event, Fault};
use nix::mount::MsFlags;

use super::facts::Facts;
use super::files::write_whole;
use super::mounts;

/// Where the site partition is mounted, for as long as it takes.
const AT: &str = "/run/gatehouse/report";
/// More of the kernel's messages than this are no help: the first are dropped.
const LOG: usize = 256 << 10;

/// What happened.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The site's name; empty where it never became known.
    pub site: &'a str,
    /// For people.
    pub summary: &'a str,
    /// The machine.
    pub facts: &'a Facts,
    /// What was told meanwhile.
    pub events: &'a [Event],
}

impl Told<'_> {
    /// The report's files, by their names in its directory.
    ///
    /// # Errors
    /// None that can happen.
    fn files(&self) -> Result<Vec<(&'static str, String)>, Fault> {
        let machine = serde_json::to_string_pretty(self.facts).doing(|| "writing the machine's facts")?;
        let events = self.events.iter().fold(String::new(), |mut text, event| {
            let _ = writeln!(text, "{}", event.to_line());
            text
        });
        Ok(vec![
            ("summary.txt", self.summary.replace('\n', "\r\n")),
            ("machine.json", machine + "\n"),
            ("events.jsonl", events),
            ("kernel.log", kernel_log()),
        ])
    }

    /// The report's directory: machines of one site are told apart by serial number, else by their first interface.
    fn name(&self) -> String {
        let mac = || self.facts.links.first().map(|link| link.mac.to_string().replace(':', ""));
        let machine = self.facts.dmi.serial.clone().or_else(mac).unwrap_or_else(|| "machine".to_owned());
        let site = if self.site.is_empty() { "no-site" } else { self.site };
        format!("{site}-{machine}").chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
    }

    /// Leaves the report on a site partition.
    ///
    /// # Errors
    /// It cannot be written: nobody should stop for that.
    pub fn leave_on(&self, device: &str) -> Result<(), Fault> {
        let at = Path::new(AT);
        mounts::mount_once("vfat", device, at, MsFlags::empty(), "utf8,flush")?;
        let written = self.write_to(&at.join("report").join(self.name()));
        written.and(mounts::unmount(at))
    }

    fn write_to(&self, dir: &Path) -> Result<(), Fault> {
        self.files()?.iter().try_for_each(|(name, text)| write_whole(&dir.join(name), text.as_bytes(), 0o644))
    }
}

/// The kernel's messages so far; empty where they cannot be read.
fn kernel_log() -> String {
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open("/dev/kmsg");
    let Ok(mut file) = file else { return String::new() };
    let mut lines: Vec<String> = Vec::new();
    let mut record = [0; 8192];
    loop {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(count) => lines.extend(line(&String::from_utf8_lossy(&record[..count]))),
            // A record that was overwritten meanwhile; the next one is there.
            Err(error) if error.raw_os_error() == Some(nix::libc::EPIPE) => {}
            Err(_) => break,
        }
    }
    let mut bytes = 0;
    let fit = lines.iter().rev().take_while(|line| {
        bytes += line.len();
        bytes <= LOG
    });
    let dropped = lines.len() - fit.count();
    lines[dropped..].concat()
}

/// A record as `dmesg` shows it. It is `priority,sequence,microseconds,flags;text` (kernel: ABI/testing/dev-kmsg).
fn line(record: &str) -> Option<String> {
    let (head, text) = record.split_once(';')?;
    let micros: u64 = head.split(',').nth(2)?.parse().ok()?;
    Some(format!("[{:5}.{:06}] {}\n", micros / 1_000_000, micros % 1_000_000, text.lines().next()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatehouse_model::State;

    #[test]
    fn a_record_is_a_line_of_dmesg() {
        let record = "6,339,5140900,-;NET: Registered protocol family 10\n SUBSYSTEM=net\n";
        assert_eq!(line(record).as_deref(), Some("[    5.140900] NET: Registered protocol family 10\n"));
        assert_eq!(line("torn"), None);
    }

    #[test]
    fn a_report_lies_under_a_name_that_any_computer_takes() {
        let facts: Facts = serde_json::from_str(
            r#"{"disks":[],"links":[],"memory":null,"cpus":1,"firmware":"bios","hypervisor":null,"virtualisation":[],
                "boot-disk":null,"boot-id":"","dmi":{"serial":"AB/12: x"}}"#,
        )
        .unwrap();
        let event = Event {
            ts: 1,
            host: "north".into(),
            phase: "self-install".into(),
            action: "copying".into(),
            state: State::Failed,
            percent: None,
            message: "no".into(),
        };
        let told = Told { site: "north", summary: "a\nb\n", facts: &facts, events: &[event] };
        assert_eq!(told.name(), "north-AB-12--x");
        assert_eq!(Told { site: "", ..told }.name(), "no-site-AB-12--x");
        let dir = tempfile::tempdir().unwrap();
        told.write_to(&dir.path().join("report")).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join("report").join(name)).unwrap();
        assert_eq!(read("summary.txt"), "a\r\nb\r\n");
        assert_eq!(serde_json::from_str::<Facts>(&read("machine.json")).unwrap(), facts);
        assert_eq!(read("events.jsonl").lines().count(), 1);
    }
}
