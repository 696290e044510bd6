//! A console that outlives the agent: two named pipes, of which the node's process holds both ends of each. What it writes
//! while no agent is there waits in the pipe; when that is full, what writes to the console in the node waits, too, and
//! goes on with the next agent (measured with Debian 13's User Mode Linux: no byte is lost, no processor time is used).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use gatehouse_model::{Doing as _, Fault, NodeName};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;

use crate::paths::Paths;

/// How much waits for an agent, in bytes: what any user may ask for (`/proc/sys/fs/pipe-max-size`).
const ROOM: i32 = 1 << 20;

/// The ends of a node's console.
#[derive(Debug)]
pub struct Ends {
    /// What the node writes is read here; ends with the node.
    pub output: File,
    /// What is written here is typed to the node.
    pub input: File,
}

fn names(paths: &Paths, node: &NodeName) -> [PathBuf; 2] {
    ["in", "out"].map(|end| paths.run.join(format!("console-{node}.{end}")))
}

/// Makes fresh pipes: the node's standard input and output, and our ends of them.
///
/// # Errors
/// They cannot be made.
pub fn make(paths: &Paths, node: &NodeName) -> Result<((File, File), Ends), Fault> {
    let [typed, shown] = names(paths, node);
    for name in [&typed, &shown] {
        match fs::remove_file(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).doing(|| format!("removing {}", name.display()));
            }
            _ => {}
        }
        // Only the agent opens them by their names; the node's user is given them open.
        nix::unistd::mkfifo(name, Mode::S_IRUSR | Mode::S_IWUSR)
            .doing(|| format!("making {}", name.display()))?;
    }
    // Both ways, so that neither end is ever closed for the node; without waiting, so that a full pipe stops what writes
    // to the console and not the node's kernel.
    let both = |name: &Path| {
        let flags = OFlag::O_NONBLOCK.bits();
        let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(name);
        opened.doing(|| format!("opening {}", name.display()))
    };
    let theirs = (both(&typed)?, both(&shown)?);
    // Less room is no reason to do without a console.
    let _ = fcntl(&theirs.1, FcntlArg::F_SETPIPE_SZ(ROOM));
    let ours = open(&typed, &shown)?.ok_or_else(|| Fault::new("the console's pipes have no other end"))?;
    Ok((theirs, ours))
}

/// Our ends of the pipes of a node that an earlier agent has started; none where it made none, or the node has ended.
///
/// # Errors
/// They cannot be opened.
pub fn reopen(paths: &Paths, node: &NodeName) -> Result<Option<Ends>, Fault> {
    let [typed, shown] = names(paths, node);
    if !typed.exists() || !shown.exists() {
        return Ok(None);
    }
    open(&typed, &shown)
}

fn open(typed: &Path, shown: &Path) -> Result<Option<Ends>, Fault> {
    let doing = |name: &Path| format!("opening {}", name.display());
    // A pipe that nobody holds at its other end would otherwise be waited for.
    let mut options = OpenOptions::new();
    options.custom_flags(OFlag::O_NONBLOCK.bits());
    let output = options.read(true).open(shown).doing(|| doing(shown))?;
    let input = match options.read(false).write(true).open(typed) {
        Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => return Ok(None),
        opened => opened.doing(|| doing(typed))?,
    };
    for end in [&output, &input] {
        fcntl(end, FcntlArg::F_SETFL(OFlag::empty())).doing(|| "setting up the console's pipes")?;
    }
    Ok(Some(Ends { output, input }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn what_a_node_writes_waits_for_the_next_agent() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = Paths::trial(dir.path(), dir.path());
        fs::create_dir_all(&paths.run).expect("made");
        let node: NodeName = "ce".parse().expect("a name");
        assert!(reopen(&paths, &node).expect("looked").is_none());
        let ((mut stdin, mut stdout), first) = make(&paths, &node).expect("made");
        drop(first);
        stdout.write_all(b"meanwhile").expect("it waits");
        let mut next = reopen(&paths, &node).expect("opened").expect("there");
        let mut seen = [0; 9];
        next.output.read_exact(&mut seen).expect("read");
        assert_eq!(&seen, b"meanwhile");
        next.input.write_all(b"key").expect("written");
        let mut typed = [0; 3];
        stdin.read_exact(&mut typed).expect("read");
        assert_eq!(&typed, b"key");
        // A full pipe is told at once; and the end of the node is the end of its console.
        let full = (0..).find_map(|_| stdout.write(&[0; 1 << 12]).err()).expect("full");
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        drop((stdin, stdout));
        next.output.read_to_end(&mut Vec::new()).expect("ends");
        drop(next);
        assert!(reopen(&paths, &node).expect("looked").is_none());
    }
}
