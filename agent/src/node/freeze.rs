//! A node holds still for a moment, while the host takes a snapshot of its stores: what its filesystems have in memory is
//! written, and whoever writes to them waits.
//!
//! A process of its own does it, which lets go when it is told to, when whoever started it ends, or when its time is
//! over: neither a host that is gone nor a client that is started anew leaves a node frozen.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::Args;
use gatehouse_model::{Doing as _, Fault};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::host::sys;

/// What the process says once all is frozen.
const FROZEN: &str = "frozen";
/// This program, also where its file has been replaced by a newer one.
const OWN: &str = "/proc/self/exe";
/// The longest that may be asked for, in seconds: a watchdog of the node's own would wait a minute.
const LONGEST: u16 = 40;
/// Kinds of file systems that can be frozen.
const KINDS: [&str; 6] = ["btrfs", "ext2", "ext3", "ext4", "f2fs", "xfs"];

/// `gatehouse-agent node freeze`.
#[derive(Args, Clone, Copy, Debug)]
pub struct FreezeOptions {
    /// After how many seconds it lets go by itself
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=i64::from(LONGEST)))]
    seconds: u16,
}

/// Freezes this machine's filesystems until standard input ends, or the time is over.
///
/// # Errors
/// One of them cannot be frozen; none is then.
pub fn run(options: FreezeOptions) -> Result<(), Fault> {
    // Whoever must let go must not be the one that the kernel ends for want of memory.
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    let table = fs::read_to_string("/proc/self/mountinfo").doing(|| "reading /proc/self/mountinfo")?;
    let mut dirs = Vec::new();
    for path in mounted(&table) {
        let dir = File::open(&path).doing(|| format!("opening {}", path.display()))?;
        dirs.push((path, dir));
    }
    // Most of it before anybody waits.
    nix::unistd::sync();
    let mut frozen = Held(Vec::new());
    for (path, dir) in dirs {
        sys::freeze(dir.as_fd()).doing(|| format!("freezing {}", path.display()))?;
        frozen.0.push(dir);
    }
    let mut out = std::io::stdout();
    writeln!(out, "{FROZEN}").and_then(|()| out.flush()).doing(|| "writing to stdout")?;
    let stdin = std::io::stdin();
    let mut wait = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let most = PollTimeout::from(options.seconds.saturating_mul(1000));
    // However the waiting ends, it is over.
    while poll(&mut wait, most) == Err(Errno::EINTR) {}
    Ok(())
}

/// Lets go, the last first.
struct Held(Vec<File>);

impl Drop for Held {
    fn drop(&mut self) {
        while let Some(dir) = self.0.pop() {
            // What cannot be thawed is not frozen.
            let _ = sys::thaw(dir.as_fd());
        }
    }
}

/// Where file systems of disks are mounted that are written to, each once; the last mounted first, so that one that lies
/// in a file of another goes before it. From the text of /proc/self/mountinfo (proc(5)).
fn mounted(table: &str) -> Vec<PathBuf> {
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for line in table.lines() {
        let Some((mount, device)) = line.split_once(" - ") else { continue };
        let (mount, device): (Vec<&str>, Vec<&str>) =
            (mount.split(' ').collect(), device.split(' ').collect());
        let ([_, _, id, _, place, options, ..], [kind, _, own, ..]) = (&mount[..], &device[..]) else {
            continue;
        };
        let written = [options, own].iter().all(|words| words.split(',').any(|word| word == "rw"));
        if written && KINDS.contains(kind) && !seen.contains(id) {
            seen.push(*id);
            // Whoever has a blank in the name of a directory finds it as \040.
            found.push(PathBuf::from(place.replace("\\040", " ")));
        }
    }
    found.reverse();
    found
}

/// The filesystems of this node, frozen by a process of its own; thawed when this is dropped.
#[derive(Debug)]
pub struct Frozen {
    child: Child,
}

impl Frozen {
    /// Has them frozen for at most so long.
    ///
    /// # Errors
    /// One of them cannot be.
    pub fn start(at_most: Duration) -> Result<Self, Fault> {
        let seconds = at_most.as_secs().clamp(1, LONGEST.into());
        let mut child = Command::new(OWN)
            .args(["node", "freeze", "--seconds", &seconds.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .doing(|| "starting gatehouse-agent node freeze")?;
        let mut said = String::new();
        if let Some(out) = &mut child.stdout {
            BufReader::new(out).read_line(&mut said).doing(|| "freezing the filesystems")?;
        }
        if said.trim_end() == FROZEN {
            return Ok(Self { child });
        }
        let output = child.wait_with_output().doing(|| "freezing the filesystems")?;
        Err(Fault::new(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }

    /// Whether they still are.
    pub fn holds(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Thaws them; whether they were frozen until now.
    pub fn end(mut self) -> bool {
        let held = self.holds();
        self.let_go();
        held
    }

    fn let_go(&mut self) {
        drop(self.child.stdin.take());
        // It ends at once, or in its time.
        let _ = self.child.wait();
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.let_go();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_disks_that_are_written_to_are_frozen_and_the_root_last() {
        let table = "\
            22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
            23 22 0:5 / /dev rw,nosuid shared:2 - devtmpfs udev rw,size=1k\n\
            30 22 254:1 / /srv/a\\040b rw - xfs /dev/ubda2 rw,noquota\n\
            31 22 254:1 /x /mnt rw - xfs /dev/ubda2 rw,noquota\n\
            32 22 254:2 / /boot ro,relatime shared:4 - ext4 /dev/ubda3 rw\n\
            33 22 254:3 / /efi rw shared:5 - vfat /dev/ubda4 rw\n\
            34 22 0:40 / /home rw master:3 - nfs ce:/home rw,vers=4\n\
            bad line\n";
        assert_eq!(mounted(table), [PathBuf::from("/srv/a b"), PathBuf::from("/")]);
    }
}
