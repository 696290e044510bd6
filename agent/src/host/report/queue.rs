//! Reports that wait on a machine until they are sent: `reports/` of what the agent keeps, a file each, in order.
//!
//! ```text
//! 0001.self-install.installed.<boot>.json          the report: these bytes are what is signed and sent
//! 0001.self-install.installed.<boot>.answer.json   what was answered last; none: it was never tried
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use gatehouse_model::{Doing as _, Fault};
use serde::{Deserialize, Serialize};

use super::medium::word;
use super::{Ending, Phase, Report};
use crate::host::files::write_whole;

/// So many reports are kept: at most 2 MiB each, and a machine makes a few in its life.
const KEPT: usize = 20;
/// How names end.
const REPORT: &str = ".json";
const ANSWER: &str = ".answer.json";

/// What a receiver's answer means for a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It has it.
    Accepted,
    /// It does not want it, now or later.
    Refused,
    /// It did not answer, or could not take it now.
    Later,
}

/// What came of sending a report, the last time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Answer {
    /// Seconds since 1970 by the machine's clock.
    pub at: u64,
    /// Where it was sent.
    pub url: String,
    /// What that means.
    pub verdict: Verdict,
    /// The receiver's status and words, or why there are none.
    pub words: String,
}

/// One report in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Its number; it grows with each.
    pub number: u32,
    /// The last answer to it.
    pub answer: Option<Answer>,
    name: String,
}

impl Queued {
    /// Whether it is still to be sent. What one address refused another may take.
    pub fn waits_for(&self, url: &str) -> bool {
        match &self.answer {
            None => true,
            Some(answer) => match answer.verdict {
                Verdict::Accepted => false,
                Verdict::Refused => answer.url != url,
                Verdict::Later => true,
            },
        }
    }

    fn is_accepted(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.verdict == Verdict::Accepted)
    }
}

/// The queue of a machine.
#[derive(Clone, Debug)]
pub struct Queue {
    dir: PathBuf,
    key: PathBuf,
}

impl Queue {
    /// The queue in a directory of what the agent keeps, beside the machine's ssh host key.
    pub fn of(state: &Path) -> Self {
        Self { dir: state.join("reports"), key: state.join("host/ssh/ssh_host_ed25519_key") }
    }

    /// The private key that reports are signed with.
    pub fn key(&self) -> &Path {
        &self.key
    }

    /// Adds a report with the machine's public key, unless it is there already: one start of a machine gives one report
    /// of a phase and an ending. Old ones make room, those first that were sent.
    ///
    /// # Errors
    /// The disk is full, or the machine has no key.
    pub fn put(&self, report: Report) -> Result<(), Fault> {
        let Report { phase, result, .. } = report;
        let about = format!(".{phase}.{result}.{}", word(&report.facts.boot_id));
        let all = self.list()?;
        if all.iter().any(|queued| queued.name.ends_with(&about)) {
            return Ok(());
        }
        let public = self.key.with_extension("pub");
        let key = fs::read_to_string(&public).doing(|| format!("reading {}", public.display()))?;
        let report = Report { host_key: Some(key.trim().to_owned()), ..report };
        let body = serde_json::to_vec(&report).doing(|| "writing a report as JSON")?;
        let number = all.last().map_or(1, |last| last.number + 1);
        write_whole(&self.dir.join(format!("{number:04}{about}{REPORT}")), &body, 0o600)?;
        surplus(&all).into_iter().try_for_each(|queued| self.remove(queued))
    }

    /// Every report of the queue, oldest first.
    ///
    /// # Errors
    /// The directory cannot be read, or something in it is damaged.
    pub fn list(&self) -> Result<Vec<Queued>, Fault> {
        if !self.dir.exists() {
            return Ok(Vec::new());
        }
        let doing = || format!("reading {}", self.dir.display());
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir).doing(doing)? {
            let file = entry.doing(doing)?.file_name().to_string_lossy().into_owned();
            let name = file.strip_suffix(REPORT).filter(|_| !file.ends_with(ANSWER));
            let number = name.and_then(|name| name.split('.').next()?.parse().ok());
            if let (Some(name), Some(number)) = (name, number) {
                all.push(Queued { number, answer: self.answer(name)?, name: name.to_owned() });
            }
        }
        all.sort_by_key(|queued| queued.number);
        Ok(all)
    }

    fn answer(&self, name: &str) -> Result<Option<Answer>, Fault> {
        let path = self.dir.join(format!("{name}{ANSWER}"));
        if !path.exists() {
            return Ok(None);
        }
        let doing = || format!("reading {}", path.display());
        serde_json::from_slice(&fs::read(&path).doing(doing)?).doing(doing).map(Some)
    }

    /// Whether it holds a report that ended so.
    pub fn has(&self, phase: Phase, result: Ending) -> bool {
        let about = format!(".{phase}.{result}.");
        self.list().is_ok_and(|all| all.iter().any(|queued| queued.name.contains(&about)))
    }

    /// A report's own bytes, as they are sent.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn body(&self, queued: &Queued) -> Result<String, Fault> {
        let path = self.dir.join(format!("{}{REPORT}", queued.name));
        fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))
    }

    /// Notes what was answered to a report, if that is news: a dead network is no reason to write all the time.
    ///
    /// # Errors
    /// The disk is full, most likely.
    pub fn note(&self, queued: &Queued, answer: &Answer) -> Result<(), Fault> {
        let known = |old: &Answer| {
            (&old.url, old.verdict, &old.words) == (&answer.url, answer.verdict, &answer.words)
        };
        if queued.answer.as_ref().is_some_and(known) {
            return Ok(());
        }
        let text = serde_json::to_vec(answer).doing(|| "writing an answer as JSON")?;
        write_whole(&self.dir.join(format!("{}{ANSWER}", queued.name)), &text, 0o600)
    }

    /// Has refused reports wait again: somebody says that they are wanted now.
    ///
    /// # Errors
    /// The queue cannot be read or written.
    pub fn forgive(&self) -> Result<(), Fault> {
        for queued in self.list()? {
            if let Some(answer) = queued.answer.clone().filter(|answer| answer.verdict == Verdict::Refused) {
                self.note(&queued, &Answer { verdict: Verdict::Later, ..answer })?;
            }
        }
        Ok(())
    }

    fn remove(&self, queued: &Queued) -> Result<(), Fault> {
        // The report goes first: an answer alone is nothing.
        for ending in [REPORT, ANSWER] {
            let path = self.dir.join(format!("{}{ending}", queued.name));
            if path.exists() {
                fs::remove_file(&path).doing(|| format!("removing {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// Those that make room for one more.
fn surplus(all: &[Queued]) -> Vec<&Queued> {
    let (sent, unsent): (Vec<_>, Vec<_>) = all.iter().partition(|queued| queued.is_accepted());
    sent.into_iter().chain(unsent).take((all.len() + 1).saturating_sub(KEPT)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{put_key, report};
    use super::*;

    fn answered(verdict: Verdict) -> Answer {
        Answer { at: 1, url: "https://a/".into(), verdict, words: "no".into() }
    }

    fn another(boot: u32) -> Report {
        let mut report = report(Phase::FirstBoot, None);
        report.facts.boot_id = format!("../boot {boot}");
        report
    }

    #[test]
    fn each_report_is_there_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::of(dir.path());
        assert_eq!(queue.list().unwrap(), []);
        let fault = queue.put(another(1)).unwrap_err();
        assert!(fault.to_string().contains("ssh_host_ed25519_key.pub"), "{fault}");
        let key = put_key(dir.path());
        for boot in [2, 1, 2] {
            queue.put(another(boot)).unwrap();
        }
        let all = queue.list().unwrap();
        assert_eq!(all.iter().map(|queued| queued.number).collect::<Vec<_>>(), [1, 2]);
        let sent: Report = serde_json::from_str(&queue.body(&all[0]).unwrap()).unwrap();
        assert_eq!((sent.facts.boot_id.as_str(), sent.host_key), ("../boot 2", Some(key)));
        assert!(queue.has(Phase::FirstBoot, Ending::Installed));
        assert!(!queue.has(Phase::SelfInstall, Ending::Installed));
    }

    #[test]
    fn old_reports_make_room_those_first_that_were_sent() {
        let dir = tempfile::tempdir().unwrap();
        put_key(dir.path());
        let queue = Queue::of(dir.path());
        for boot in 0..20 {
            queue.put(another(boot)).unwrap();
        }
        let sent = &queue.list().unwrap()[4];
        queue.note(sent, &answered(Verdict::Accepted)).unwrap();
        queue.put(another(20)).unwrap();
        queue.put(another(21)).unwrap();
        let left: Vec<u32> = queue.list().unwrap().iter().map(|queued| queued.number).collect();
        let wanted: Vec<u32> = (2..=22).filter(|number| *number != 5).collect();
        assert_eq!(left, wanted);
        assert_eq!(fs::read_dir(dir.path().join("reports")).unwrap().count(), 20);
    }

    #[test]
    fn what_was_refused_waits_for_another_address() {
        let queued = |verdict: Option<Verdict>| Queued {
            number: 1,
            answer: verdict.map(answered),
            name: "0001.first-boot.installed.x".into(),
        };
        for (verdict, same, other) in [
            (None, true, true),
            (Some(Verdict::Accepted), false, false),
            (Some(Verdict::Refused), false, true),
            (Some(Verdict::Later), true, true),
        ] {
            let queued = queued(verdict);
            assert_eq!((queued.waits_for("https://a/"), queued.waits_for("https://b/")), (same, other));
        }
    }
}
