//! The site directory's history: a bare git repository in state that people push to. git does the work.

use std::fs;
use std::path::{Path, PathBuf};

use gatehouse_model::{Doing as _, Fault};

use super::files::write_whole;
use super::import::SiteFiles;
use crate::paths::Paths;
use crate::tool;

/// The one branch.
pub const BRANCH: &str = "main";
/// In the repository: the commit whose files are the site directory that counts.
const TAKEN_UP: &str = "gatehouse-taken-up";

/// The repository.
#[derive(Clone, Debug)]
pub struct Repository {
    dir: PathBuf,
    /// As whom the machine itself commits.
    email: String,
}

impl Repository {
    /// The machine's repository, made at the first time; its hooks ask the agent of these paths.
    ///
    /// # Errors
    /// git is missing or the disk is full.
    pub fn open(paths: &Paths, host: &str) -> Result<Self, Fault> {
        let repository = Self { dir: paths.repository(), email: format!("root@{host}") };
        if !repository.dir.join("HEAD").exists() {
            let dir = repository.dir.to_string_lossy();
            tool::run("git", &["init", "--quiet", "--bare", "--initial-branch", BRANCH, &dir])?;
            for setting in ["receive.denyNonFastForwards", "receive.denyDeletes"] {
                repository.git(&["config", setting, "true"])?;
            }
        }
        let agent = std::env::current_exe().doing(|| "finding this program's own file")?;
        for (hook, verb) in [("pre-receive", "receive"), ("post-receive", "received")] {
            let trial = paths.trial.as_ref().map(|dir| format!(" --trial {}", quoted(dir)));
            let text =
                format!("#!/bin/sh\nexec {} ctl{} site {verb}\n", quoted(&agent), trial.unwrap_or_default());
            let path = repository.dir.join("hooks").join(hook);
            write_whole(&path, text.as_bytes(), 0o755)?;
        }
        Ok(repository)
    }

    /// Enters the files of a directory as the newest commit, unless they are that already; answers with the commit.
    ///
    /// # Errors
    /// The disk is full.
    pub fn commit(&self, files: &Path, message: &str) -> Result<String, Fault> {
        let tree = format!("--work-tree={}", files.display());
        self.git(&[&tree, "add", "--all", "--force", "."])?;
        let tree_now = self.git(&["write-tree"])?;
        let head = self.newest();
        if let Some(head) = &head
            && self.git(&["rev-parse", &format!("{head}^{{tree}}")])? == tree_now
        {
            return Ok(head.clone());
        }
        let tree_now = tree_now.trim();
        let parent: Vec<&str> = head.iter().flat_map(|head| ["-p", head.as_str()]).collect();
        let (name, email) = ("user.name=gatehouse", format!("user.email={}", self.email));
        let mut args = vec!["-c", name, "-c", &email, "commit-tree", tree_now, "-m", message];
        args.extend(parent);
        let commit = self.git(&args)?.trim().to_owned();
        self.git(&["update-ref", &format!("refs/heads/{BRANCH}"), &commit])?;
        Ok(commit)
    }

    /// The newest commit; none in an empty repository.
    pub fn newest(&self) -> Option<String> {
        let found = self.git(&["rev-parse", "--verify", "--quiet", &format!("refs/heads/{BRANCH}")]);
        found.ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// The commit that was taken up last.
    pub fn taken_up(&self) -> Option<String> {
        fs::read_to_string(self.dir.join(TAKEN_UP)).ok().map(|text| text.trim().to_owned())
    }

    /// Notes that a commit's files are what counts now.
    ///
    /// # Errors
    /// The disk is full.
    pub fn set_taken_up(&self, commit: &str) -> Result<(), Fault> {
        write_whole(&self.dir.join(TAKEN_UP), format!("{commit}\n").as_bytes(), 0o644)
    }

    /// The commits, newest first, a line each.
    ///
    /// # Errors
    /// git's own words.
    pub fn log(&self) -> Result<String, Fault> {
        self.git(&["log", "--format=%h %ci %an: %s", BRANCH])
    }

    fn git(&self, args: &[&str]) -> Result<String, Fault> {
        let dir = format!("--git-dir={}", self.dir.display());
        // Run by the agent, git finds no home directory; by another user in a namespace, another owner.
        let mut all =
            vec!["HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1", "git", "-c", "safe.directory=*", &dir];
        all.extend(args);
        tool::run("env", &all)
    }
}

/// The files of a commit, as seen by the hook that runs in the repository and may see what is not accepted yet.
///
/// # Errors
/// There is no such commit; it holds something else than files.
pub fn files_of(commit: &str) -> Result<SiteFiles, Fault> {
    let mut child = std::process::Command::new("git")
        .args(["archive", "--format=tar", commit])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .doing(|| "starting git archive")?;
    let files = child.stdout.take().map_or_else(|| Ok(SiteFiles::new()), super::import::from_tar);
    let status = child.wait().doing(|| "waiting for git archive")?;
    if status.success() { files } else { Err(Fault::new(format!("git archive ended with {status}"))) }
}

/// A path as a word of a shell's.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_what_differs_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = Paths::trial(dir.path(), dir.path());
        fs::create_dir_all(paths.site()).expect("made");
        fs::write(paths.site().join("site.toml"), "a").expect("written");
        let repository = Repository::open(&paths, "gate.example.org").expect("made");
        assert_eq!(repository.newest(), None);
        let first = repository.commit(&paths.site(), "first").expect("committed");
        assert_eq!(repository.commit(&paths.site(), "again").expect("the same"), first);
        fs::write(paths.site().join("site.toml"), "b").expect("written");
        let second = repository.commit(&paths.site(), "second").expect("committed");
        assert_ne!(first, second);
        assert_eq!(repository.newest().as_deref(), Some(second.as_str()));
        let log = repository.log().expect("a log");
        assert_eq!(log.lines().count(), 2, "{log}");
        assert!(log.lines().next().is_some_and(|line| line.ends_with("gatehouse: second")), "{log}");
        assert_eq!(repository.taken_up(), None);
        repository.set_taken_up(&second).expect("noted");
        assert_eq!(repository.taken_up(), Some(second));
        Repository::open(&paths, "gate.example.org").expect("opened again");
    }
}
