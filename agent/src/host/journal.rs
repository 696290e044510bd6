//! What was begun and what was done, as JSON lines, appended and synced before the next step.
//!
//! Begun but not done means: look again. A torn last line is dropped.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use gatehouse_model::{Doing as _, Fault};
use serde::{Deserialize, Serialize};

use super::run::Outcome;

/// How an action ended, or that it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It is about to be done.
    Begin,
    /// It was verified.
    Done,
    /// It broke.
    Failed,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Entry {
    /// The action's key.
    pub key: String,
    /// What happened.
    pub phase: Phase,
    /// With `done`: whether anything had to be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// With `failed`: the fault.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The kernel's name for the boot.
    pub boot: String,
}

impl Entry {
    /// The entry as one line with its newline.
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("an entry holds only text");
        line.push('\n');
        line
    }
}

/// Reads a journal; returns its entries and the length of what is whole.
///
/// # Errors
/// A line that is whole is not an entry.
pub fn parse(text: &str) -> Result<(Vec<Entry>, usize), Fault> {
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let mut entries = Vec::new();
    for (number, line) in (1..).zip(text[..whole].lines()) {
        entries.push(serde_json::from_str(line).doing(|| format!("reading line {number} of the journal"))?);
    }
    Ok((entries, whole))
}

/// Where `run` writes what it does.
pub trait Journal {
    /// Whether an action was ever finished on this machine.
    ///
    /// # Errors
    /// The journal cannot be read.
    fn finished(&mut self, key: &str) -> Result<bool, Fault>;

    /// Adds an entry; it is on the disk when this returns, if there is a disk for it yet.
    ///
    /// # Errors
    /// It cannot be written.
    fn add(&mut self, key: &str, phase: Phase, outcome: Option<Outcome>, message: &str) -> Result<(), Fault>;
}

/// A journal that is kept in memory until the directory of its file is there.
#[derive(Debug)]
pub struct LateJournal {
    path: PathBuf,
    boot: String,
    file: Option<File>,
    waiting: Vec<Entry>,
    done: BTreeMap<String, bool>,
}

impl LateJournal {
    /// A journal in this file, or in memory until its directory exists.
    pub fn new(path: &Path, boot: &str) -> Self {
        Self {
            path: path.to_owned(),
            boot: boot.to_owned(),
            file: None,
            waiting: Vec::new(),
            done: BTreeMap::new(),
        }
    }

    /// Moves to the file as soon as it can be: what it held comes first, then what was kept in memory.
    fn settle(&mut self) -> Result<(), Fault> {
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        if self.file.is_some() || !dir.is_dir() {
            return Ok(());
        }
        let doing = || format!("opening the journal {}", self.path.display());
        let mut file = OpenOptions::new().append(true).create(true).open(&self.path).doing(doing)?;
        let bytes = std::fs::read(&self.path).doing(doing)?;
        // Only a torn last line can be anything but text.
        let (entries, whole) = parse(&String::from_utf8_lossy(&bytes)).doing(doing)?;
        if whole < bytes.len() {
            file.set_len(whole as u64).doing(doing)?;
        }
        for entry in entries {
            *self.done.entry(entry.key).or_default() |= entry.phase == Phase::Done;
        }
        let lines: String = self.waiting.drain(..).map(|entry| entry.to_line()).collect();
        file.write_all(lines.as_bytes()).doing(doing)?;
        file.sync_all().doing(doing)?;
        File::open(dir).and_then(|dir| dir.sync_all()).doing(doing)?;
        self.file = Some(file);
        Ok(())
    }
}

impl Journal for LateJournal {
    fn finished(&mut self, key: &str) -> Result<bool, Fault> {
        self.settle()?;
        Ok(self.done.get(key).copied().unwrap_or(false))
    }

    fn add(&mut self, key: &str, phase: Phase, outcome: Option<Outcome>, message: &str) -> Result<(), Fault> {
        self.settle()?;
        *self.done.entry(key.to_owned()).or_default() |= phase == Phase::Done;
        let entry = Entry {
            key: key.to_owned(),
            phase,
            outcome,
            message: message.to_owned(),
            boot: self.boot.clone(),
        };
        let Some(file) = &mut self.file else {
            self.waiting.push(entry);
            return Ok(());
        };
        file.write_all(entry.to_line().as_bytes())
            .and_then(|()| file.sync_data())
            .doing(|| format!("writing the journal {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_in_memory_comes_behind_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("late/journal.jsonl");
        let mut journal = LateJournal::new(&path, "boot-1");
        journal.add("grow-table", Phase::Begin, None, "").unwrap();
        journal.add("grow-table", Phase::Done, Some(Outcome::Changed), "").unwrap();
        assert!(journal.finished("grow-table").unwrap());
        std::fs::create_dir(dir.path().join("late")).unwrap();
        let old = "{\"key\":\"make-vms\",\"phase\":\"done\",\"outcome\":\"changed\",\"boot\":\"boot-0\"}\n";
        std::fs::write(&path, format!("{old}{{\"key\":\"import-s\u{fffd}")).unwrap();
        assert!(journal.finished("make-vms").unwrap());
        journal.add("import-site", Phase::Failed, None, "no room").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            format!(
                "{old}{}\n{}\n{}\n",
                r#"{"key":"grow-table","phase":"begin","boot":"boot-1"}"#,
                r#"{"key":"grow-table","phase":"done","outcome":"changed","boot":"boot-1"}"#,
                r#"{"key":"import-site","phase":"failed","message":"no room","boot":"boot-1"}"#
            )
        );
        assert_eq!(parse(&text).unwrap().0.len(), 4);
        let mut next = LateJournal::new(&path, "boot-2");
        assert!(next.finished("grow-table").unwrap());
        assert!(!next.finished("import-site").unwrap());
    }

    #[test]
    fn a_damaged_line_is_a_fault() {
        let fault = parse("{}\n").unwrap_err().to_string();
        assert!(fault.starts_with("reading line 1 of the journal: missing field"), "{fault}");
        assert_eq!(parse("half").unwrap(), (vec![], 0));
    }
}
