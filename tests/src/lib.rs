//! The machine harness: runs the built programs as their users do, and looks at what they leave.
//!
//! The scenarios are in `tests/`; `ci/test` builds the programs first and runs them one after the other.

pub mod console;
pub mod emulator;
pub mod grid;
pub mod host;
pub mod lan;
pub mod process;
pub mod roots;
pub mod work;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::Value;

use roots::Tree;

/// The top of the source tree.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is below the top").to_owned()
}

/// The `gatehouse` program that `ci/build` has built.
///
/// # Panics
/// It was not built.
pub fn gatehouse() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| top().join("target"), PathBuf::from);
    let path = target.join("x86_64-unknown-linux-gnu/release/gatehouse");
    assert!(path.is_file(), "{} is missing; run ci/build", path.display());
    path
}

/// The builder's cache, as it finds it itself.
pub fn cache() -> PathBuf {
    let set = |name| std::env::var_os(name).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache"))).expect("HOME is set");
    base.join("gatehouse")
}

/// A copy of a template, so that locks and changes stay out of the source tree; and what somebody locked there stays out
/// of the tests.
pub fn site(template: &str, into: &Path) -> PathBuf {
    let to = into.join(template);
    let status = Command::new("cp")
        .arg("-r")
        .arg(top().join("site-templates").join(template))
        .arg(&to)
        .status()
        .expect("cp starts");
    assert!(status.success(), "copying the template {template}");
    match std::fs::remove_file(to.join("site.lock")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("removing its lock: {error}"),
        _ => to,
    }
}

/// Whether a test can run: a missing program is a reason to skip on a workstation and a failure in CI.
pub fn has(programs: &[&str]) -> bool {
    let dirs = std::env::var("PATH").unwrap_or_default();
    for program in programs {
        let there = |dir: &str| Path::new(dir).join(program).is_file();
        if !dirs.split(':').chain(["/usr/sbin", "/sbin"]).any(there) {
            assert!(std::env::var_os("CI").is_none(), "{program} is missing; run ci/setup");
            println!("skipped, because {program} is missing");
            return false;
        }
    }
    true
}

/// What a program printed and how it ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; -1 where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Ended {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs `gatehouse` with some arguments.
pub fn run_gatehouse(args: &[&str]) -> Ended {
    run(Command::new(gatehouse()).args(args))
}

/// Starts a trial of a site under User Mode Linux with its state in a directory.
pub fn try_uml(site: &Path, dir: &Path, more: &[&str]) -> Try {
    try_with("uml", site, dir, more)
}

/// The same under QEMU.
pub fn try_kvm(site: &Path, dir: &Path, more: &[&str]) -> Try {
    try_with("kvm", site, dir, more)
}

/// The same under any vmm.
pub fn try_with(vmm: &str, site: &Path, dir: &Path, more: &[&str]) -> Try {
    let mut command = Command::new(gatehouse());
    command.arg("try").arg(site).args(["--vmm", vmm, "--json", "--dir"]).arg(dir).args(more);
    Try::start(&mut command, dir)
}

/// Lets everybody pass through a directory: as root each node's process is a user of its own.
///
/// # Panics
/// It cannot be changed.
pub fn open_to_all(dir: &Path) {
    assert_eq!(run(Command::new("chmod").arg("755").arg(dir)).code, 0);
}

/// A running `gatehouse`, most often `gatehouse try`.
#[derive(Debug)]
pub struct Try {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    dir: PathBuf,
    stdout: Option<Receiver<String>>,
}

impl Try {
    /// Starts it with its state in a directory.
    pub fn start(command: &mut Command, dir: &Path) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let lines = read(child.stderr.take().expect("piped"));
        let stdout = Some(read(child.stdout.take().expect("piped")));
        Self { child, lines, seen: Vec::new(), dir: dir.to_owned(), stdout }
    }

    /// Waits for a line that holds some text.
    ///
    /// # Panics
    /// It does not come in time, or the trial ends before.
    pub fn wait_for(&mut self, text: &str, at_most: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < at_most {
            match self.lines.recv_timeout(Duration::from_secs(1)) {
                Ok(line) => {
                    println!("| {line}");
                    let found = line.contains(text);
                    self.seen.push(line);
                    if found {
                        return;
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => panic!("the trial ended before {text:?}"),
            }
        }
        panic!("{text:?} did not come within {at_most:?}");
    }

    /// The directory of its state.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether a line with some text has been seen.
    pub fn saw(&self, text: &str) -> bool {
        self.seen.iter().any(|line| line.contains(text))
    }

    /// Runs a command on the host or a node.
    pub fn ssh(&self, name: &str, command: &str) -> Ended {
        let config = self.dir.join("ssh/config");
        // An emulated host that installs nodes takes its time to greet anybody.
        let options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=300"];
        run(Command::new("ssh").arg("-F").arg(config).args(options).args([name, command]))
    }

    /// A running node's root, by way of a tar file.
    ///
    /// # Panics
    /// It cannot be packed.
    pub fn packed(&self, name: &str, to: &Path) -> Tree {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(self.dir.join("ssh/config")).args(["-o", "BatchMode=yes", name]);
        // journald keeps the time of its files in attributes of users', as bytes: where one of them ends a line, the
        // crate tar cannot read the record.
        command.arg(
            "tar --one-file-system --numeric-owner --format=posix --xattrs --xattrs-include='*' \
             --xattrs-exclude='user.*' -C / -cf - .",
        );
        let status = command.stdin(Stdio::null()).stdout(File::create(to).expect("made")).status();
        // 1: a file has changed while it was read, as logs do.
        assert!(status.is_ok_and(|status| matches!(status.code(), Some(0 | 1))), "tar failed");
        Tree::read(to)
    }

    /// Asks the trial's agent, as `gatectl` does.
    pub fn gatectl(&self, args: &[&str]) -> Ended {
        let agent = gatehouse().with_file_name("gatehouse-agent");
        run(Command::new(agent).arg("ctl").arg("--trial").arg(&self.dir).args(args))
    }

    /// Kills the trial and all that belongs to it, as a power cut would.
    pub fn kill(self) {
        drop(self);
    }

    /// Presses Ctrl-C and waits for the end.
    pub fn interrupt(self) -> Ended {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill starts").success());
        self.end()
    }

    /// Waits for the end.
    pub fn end(mut self) -> Ended {
        let stdout: Vec<String> = self.stdout.take().into_iter().flatten().collect();
        for line in &self.lines {
            println!("| {line}");
            self.seen.push(line);
        }
        let status: ExitStatus = self.child.wait().expect("it ends");
        Ended { code: status.code().unwrap_or(-1), stdout: stdout.join("\n"), stderr: self.seen.join("\n") }
    }
}

/// A scenario that fails leaves no machine behind.
impl Drop for Try {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let agent = format!("trial --dir {}", self.dir.display());
        // Under QEMU there is no such process: the emulator ends with `gatehouse try`.
        let _ = Command::new("pkill").args(["-KILL", "-f", "--", &agent]).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(pipe: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The object in the last line of a `--json` trial, checked to be a success with every node running.
pub fn outcome(ended: &Ended) -> Value {
    assert_eq!(ended.code, 0, "the trial failed:\n{}", ended.stderr);
    let last = ended.stdout.lines().last().expect("there is a line");
    let outcome: Value = serde_json::from_str(last).expect("it is JSON");
    assert_eq!(outcome["result"], "ok");
    for node in outcome["nodes"].as_array().expect("nodes") {
        assert_eq!(node["state"], "running", "{node}");
        assert!(node["install-seconds"].as_f64().expect("a figure") > 0.0, "{node}");
        assert!(node["ssh"].as_str().expect("a text").starts_with("127.0.0.1:"), "{node}");
    }
    outcome
}
