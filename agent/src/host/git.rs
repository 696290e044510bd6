//! The site directory's history: a bare git repository in state that people push to. git does the work.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gatehouse_model::{Doing as _, Fault};

use super::files::write_whole;
use super::import::{self, SiteFiles};
use crate::paths::Paths;
use crate::tool;

/// The one branch.
pub const BRANCH: &str = "main";
/// What every push has to keep to. A site is some hundred files of text, whose modes are given by their places: what
/// comes from a stick has none, and what is taken up has others than were pushed.
const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = false\n\tbare = true\n\tfsync = all\n\
    [gc]\n\tautoDetach = false\n[receive]\n\tdenyDeletes = true\n\tdenyNonFastForwards = true\n\
    \tfsckObjects = true\n\tmaxInputSize = 64m\n";
/// The files are bytes here: what a site says of line ends and of archives is for its author's own git.
const ATTRIBUTES: &str = "* -text -ident -filter -working-tree-encoding -export-ignore -export-subst\n";
/// Files by which one run of git keeps others away; at the agent's start none of them can be somebody's.
const LOCKS: [&str; 4] = ["HEAD.lock", "index.lock", "packed-refs.lock", "refs/heads/main.lock"];
/// In a namespace the repository seems to be another user's.
const SAFE: [&str; 2] = ["-c", "safe.directory=*"];
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
    /// The machine's repository as it is, to read.
    pub fn at(paths: &Paths) -> Self {
        Self { dir: paths.repository(), email: "root@localhost".to_owned() }
    }

    /// The machine's repository, made at the first time; its hooks ask the agent of these paths.
    ///
    /// # Errors
    /// git is missing or the disk is full.
    pub fn open(paths: &Paths, host: &str, agent: &Path) -> Result<Self, Fault> {
        let repository = Self { dir: paths.repository(), email: format!("root@{host}") };
        let dir = &repository.dir;
        if !dir.join("HEAD").exists() {
            tool::run(
                "git",
                &["init", "--quiet", "--bare", "--initial-branch", BRANCH, &dir.to_string_lossy()],
            )?;
        }
        for name in LOCKS {
            // What a power cut has left would keep git waiting for ever; where there is none, all is well.
            let _ = fs::remove_file(dir.join(name));
        }
        // Whatever the sources hold is in here too, passwords' hashes among it.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).doing(|| "closing the repository")?;
        write_whole(&dir.join("config"), CONFIG.as_bytes(), 0o644)?;
        write_whole(&dir.join("info/attributes"), ATTRIBUTES.as_bytes(), 0o644)?;
        for (hook, verb) in [("pre-receive", "receive"), ("post-receive", "received")] {
            let trial = paths.trial.as_ref().map(|dir| format!(" --trial {}", quoted(dir)));
            let text =
                format!("#!/bin/sh\nexec {} ctl{} site {verb}\n", quoted(agent), trial.unwrap_or_default());
            write_whole(&dir.join("hooks").join(hook), text.as_bytes(), 0o755)?;
        }
        Ok(repository)
    }

    /// Enters the files of a directory as the newest commit, unless they are that already; answers with the commit.
    ///
    /// # Errors
    /// The disk is full.
    pub fn commit(&self, files: &Path, message: &str) -> Result<String, Fault> {
        let tree = format!("--work-tree={}", files.display());
        let head = self.newest();
        if let Some(head) = &head {
            // The index knows nothing of pushes, and the modes are those of the newest commit.
            self.git(&["read-tree", head])?;
        }
        self.git(&[&tree, "add", "--all", "--force", "."])?;
        let tree_now = self.git(&["write-tree"])?;
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
        // Fails where a push has moved it meanwhile, which then counts.
        let old = head.unwrap_or_default();
        self.git(&["update-ref", &format!("refs/heads/{BRANCH}"), &commit, &old])?;
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

    /// The files of a commit; a hook also sees those of a push that is not accepted yet.
    ///
    /// # Errors
    /// There is no such commit; it holds something else than files.
    pub fn files(&self, commit: &str) -> Result<SiteFiles, Fault> {
        let doing = || format!("reading commit {commit}");
        let mut git = Command::new("git");
        let mut child = git
            .args(SAFE)
            .arg(format!("--git-dir={}", self.dir.display()))
            .args(["archive", "--format=tar", commit])
            .stdout(Stdio::piped())
            .spawn()
            .doing(doing)?;
        let pipe =
            child.stdout.take().ok_or_else(|| Fault::new("git has no standard output")).doing(doing)?;
        let files = import::from_tar(pipe);
        let status = child.wait().doing(doing)?;
        // What is wrong with a file comes first: git then only found nobody who reads on.
        let files = files?;
        if status.success() { Ok(files) } else { Err(Fault::new(format!("git archive ended with {status}"))) }
    }

    /// Who made a commit.
    ///
    /// # Errors
    /// There is no such commit.
    pub fn author(&self, commit: &str) -> Result<String, Fault> {
        Ok(self.git(&["log", "--max-count=1", "--format=%an", commit])?.trim().to_owned())
    }

    /// Whether a commit is the other, or comes after it.
    pub fn follows(&self, new: &str, old: &str) -> bool {
        // It also fails where they have nothing in common.
        self.git(&["merge-base", new, old]).is_ok_and(|base| base.trim() == old)
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
        let mut all = vec!["HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1", "git"];
        all.extend(SAFE);
        all.push(&dir);
        all.extend(args);
        tool::run("env", &all)
    }
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
        let repository = Repository::open(&paths, "gate.example.org", Path::new("/agent")).expect("made");
        assert_eq!(repository.newest(), None);
        let first = repository.commit(&paths.site(), "first").expect("committed");
        assert_eq!(repository.commit(&paths.site(), "again").expect("the same"), first);
        let mode =
            |mode| fs::set_permissions(paths.site().join("site.toml"), fs::Permissions::from_mode(mode));
        mode(0o755).expect("set");
        assert_eq!(repository.commit(&paths.site(), "with another mode").expect("the same"), first);
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
        Repository::open(&paths, "gate.example.org", Path::new("/agent")).expect("opened again");
    }
}
