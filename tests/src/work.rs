//! A running site as the operations centre sees it: its repository, and the states of its nodes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Ended, Try, run};

/// A clone of the trial's site, as somebody at the operations centre has it.
#[derive(Debug)]
pub struct Work {
    /// The directory.
    pub dir: PathBuf,
}

impl Work {
    /// Clones the site of the trial in a directory.
    ///
    /// # Panics
    /// It cannot be cloned.
    pub fn clone_of(trial: &Path, into: &Path) -> Self {
        let work = Self { dir: into.join("work") };
        let from = trial.join("state/site.git");
        let cloned = run(Command::new("git").arg("clone").arg("--quiet").arg(&from).arg(&work.dir));
        assert_eq!(cloned.code, 0, "{cloned:?}");
        work
    }

    /// The path of a file of the site.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn git(&self, args: &[&str]) -> Ended {
        let who = ["-c", "user.name=operations", "-c", "user.email=operations@example.org"];
        run(Command::new("git").arg("-C").arg(&self.dir).args(who).args(args))
    }

    /// Commits what is there and pushes it.
    pub fn push(&self, message: &str) -> Ended {
        assert_eq!(self.git(&["add", "--all"]).code, 0);
        let committed = self.git(&["commit", "--quiet", "-m", message]);
        assert_eq!(committed.code, 0, "{committed:?}");
        let pushed = self.git(&["push", "origin", "main"]);
        print!("{}", pushed.stderr);
        pushed
    }

    /// The same, which must go well.
    pub fn must_push(&self, message: &str) {
        let pushed = self.push(message);
        assert_eq!(pushed.code, 0, "{pushed:?}");
    }

    /// The commit that is `main` on the machine.
    pub fn newest(&self) -> String {
        let seen = self.git(&["ls-remote", "origin", "refs/heads/main"]);
        assert_eq!(seen.code, 0, "{seen:?}");
        seen.stdout
    }

    /// Fetches what was changed on the machine.
    pub fn pull(&self) {
        let pulled = self.git(&["pull", "--quiet", "--ff-only", "origin", "main"]);
        assert_eq!(pulled.code, 0, "{pulled:?}");
    }

    /// Throws away what was refused.
    pub fn start_over(&self) {
        assert_eq!(self.git(&["reset", "--quiet", "--hard", "origin/main"]).code, 0);
    }
}

/// Puts text behind a file.
///
/// # Panics
/// It cannot be read or written.
pub fn append(path: &Path, text: &str) {
    let before = fs::read_to_string(path).expect("read");
    fs::write(path, before + text).expect("written");
}

/// Replaces text in a file, which must be there.
///
/// # Panics
/// It is not there.
pub fn in_file(path: &Path, what: &str, with: &str) {
    let before = fs::read_to_string(path).expect("read");
    assert!(before.contains(what), "{} has no {what:?}:\n{before}", path.display());
    fs::write(path, before.replace(what, with)).expect("written");
}

/// Gives a copy of the template `minimal` a second node.
///
/// # Panics
/// It cannot be written.
pub fn add_node2(site: &Path) {
    let node =
        "\n[[node]]\nname = \"node2\"\naddress = \"10.0.2.22\"\nmemory = \"384MiB\"\ndisk = \"4GiB\"\n";
    append(&site.join("site.toml"), node);
    fs::copy(site.join("lcfg/source/node1"), site.join("lcfg/source/node2")).expect("copied");
}

/// Has a site's host encrypt its backups to a new key, which is put into a file.
///
/// # Panics
/// age is missing, or a file cannot be written.
pub fn add_recipient(site: &Path, key: &Path) {
    let made = run(Command::new("age-keygen").arg("-o").arg(key));
    assert_eq!(made.code, 0, "{made:?}");
    let said = fs::read_to_string(key).expect("the key");
    let recipient = said.lines().find_map(|line| line.strip_prefix("# public key: ")).expect("its recipient");
    append(&site.join("site.toml"), &format!("\n[backup]\nrecipient = \"{recipient}\"\n"));
}

/// Has a trial, which is still to be started with `--resume`, let in whoever may into another: a site that comes back
/// from its backup lets in the same people.
///
/// # Panics
/// A file cannot be copied.
pub fn share_way_in(first: &Path, second: &Path) {
    fs::create_dir_all(second.join("ssh")).expect("made");
    fs::write(second.join(".gatehouse-trial"), "").expect("written");
    for name in ["id", "id.pub"] {
        fs::copy(first.join("ssh").join(name), second.join("ssh").join(name)).expect("copied");
    }
}

/// The nodes on the board.
///
/// # Panics
/// The agent does not answer.
pub fn nodes(trial: &Try) -> Vec<Value> {
    let seen = trial.gatectl(&["node", "list", "--json"]);
    assert_eq!(seen.code, 0, "{seen:?}");
    serde_json::from_str(&seen.stdout).expect("a list of nodes")
}

/// The state of a node on the board; empty where there is no such node.
///
/// # Panics
/// It has failed.
pub fn state(trial: &Try, name: &str) -> String {
    let all = nodes(trial);
    let node = all.iter().find(|node| node["name"] == name);
    let state = node.and_then(|node| node["state"].as_str()).unwrap_or_default().to_owned();
    assert_ne!(state, "failed", "{all:?}");
    state
}

/// Waits for something.
///
/// # Panics
/// It does not come in time.
pub fn within(time: Duration, what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < time, "{what} did not come within {time:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("{what} after {:.1} s", begun.elapsed().as_secs_f64());
}
