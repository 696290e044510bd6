//! The surroundings of a node's process: a root directory with its own files and nothing else, a user of its own, and no
//! way to get more. Started as a program before the vmm's, which it then becomes: no process is added.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use gatehouse_model::{Doing as _, Fault};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{Gid, Uid, pivot_root, setgid, setgroups, setsid, setuid};

/// This program, even where its file was replaced meanwhile.
pub const AGENT: &str = "/proc/self/exe";
/// What every node's process may use; what this machine lacks is left out. User Mode Linux looks for features of the
/// processor in the last; of /proc it needs nothing else (measured with Debian 13's), so it sees no other process.
const SHARED: [&str; 5] = ["/dev/null", "/dev/random", "/dev/urandom", "/dev/net/tun", "/proc/cpuinfo"];
/// A node's memory is a file here, without a name and in a filesystem of its own.
const MEMORY: &str = "dev/shm";

/// `gatehouse-agent confine`.
#[derive(Args, Clone, Debug)]
pub struct ConfineOptions {
    /// An empty directory to make the root in
    #[arg(long)]
    root: PathBuf,
    /// A file or directory that can be read, under its own name
    #[arg(long)]
    read: Vec<PathBuf>,
    /// A file or directory that can be written, under its own name
    #[arg(long)]
    write: Vec<PathBuf>,
    /// The user and group to be; without it, this one without any of its rights in this user namespace
    #[arg(long)]
    uid: Option<u32>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    argv: Vec<OsString>,
}

impl ConfineOptions {
    /// As arguments of the agent.
    pub fn of(root: &Path, read: &[&Path], write: &[&Path], uid: Option<u32>) -> Vec<String> {
        let mut argv = vec!["confine".to_owned(), "--root".to_owned(), root.display().to_string()];
        for (option, paths) in [("--read", read), ("--write", write)] {
            argv.extend(paths.iter().flat_map(|path| [option.to_owned(), path.display().to_string()]));
        }
        argv.extend(uid.into_iter().flat_map(|uid| ["--uid".to_owned(), uid.to_string()]));
        argv.push("--".to_owned());
        argv
    }
}

/// Becomes the program; returns only if that fails.
///
/// # Errors
/// The surroundings cannot be made; the program cannot be started.
pub fn run(options: &ConfineOptions) -> Result<(), Fault> {
    let mut command = Command::new(&options.argv[0]);
    command.args(&options.argv[1..]);
    if let Some(home) = Path::new(&options.argv[0]).parent() {
        command.current_dir(home);
    }
    // Fails where it is a session's first process already.
    let _ = setsid();
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC).doing(|| "making namespaces")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).doing(|| "making mounts private")?;
    fill(options).doing(|| format!("making the surroundings in {}", options.root.display()))?;
    enter(&options.root).doing(|| "entering the surroundings")?;
    become_user(options.uid).doing(|| "giving up rights")?;
    Err(command.exec()).doing(|| format!("starting {}", options.argv[0].to_string_lossy()))
}

fn fill(options: &ConfineOptions) -> Result<(), Fault> {
    let root = &options.root;
    empty(root, "mode=755,size=1m")?;
    let shared = SHARED.map(PathBuf::from).into_iter().filter(|path| path.exists());
    for path in shared.chain(options.write.iter().cloned()) {
        show(root, &path, MsFlags::empty())?;
    }
    for path in &options.read {
        show(root, path, MsFlags::MS_RDONLY)?;
    }
    let memory = root.join(MEMORY);
    fs::create_dir_all(&memory)?;
    empty(&memory, "mode=1777,size=100%")?;
    // Nothing can be put beside what is shown.
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(None::<&str>, root, None::<&str>, flags, None::<&str>).doing(|| "closing the root")
}

fn empty(at: &Path, options: &str) -> Result<(), Fault> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options))
        .doing(|| format!("mounting {}", at.display()))
}

/// Shows a file or directory below another root under its own name.
fn show(root: &Path, path: &Path, more: MsFlags) -> Result<(), Fault> {
    let at = root.join(path.strip_prefix("/").unwrap_or(path));
    let doing = || format!("showing {}", path.display());
    if path.is_dir() {
        fs::create_dir_all(&at).doing(doing)?;
    } else {
        fs::create_dir_all(at.parent().unwrap_or(root)).doing(doing)?;
        File::create(&at).doing(doing)?;
    }
    mount(Some(path), &at, None::<&str>, MsFlags::MS_BIND, None::<&str>).doing(doing)?;
    // In a user namespace flags may be added and none be taken away.
    let flags = kept(statvfs(&at).doing(doing)?.flags()) | MsFlags::MS_NOSUID | more;
    mount(None::<&str>, &at, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, None::<&str>)
        .doing(doing)
}

/// The flags of a mount, as they are given to make it so.
fn kept(flags: FsFlags) -> MsFlags {
    let table = [
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    table.into_iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, flag)| flag).collect()
}

fn enter(root: &Path) -> Result<(), Fault> {
    std::env::set_current_dir(root)?;
    // The old root comes to lie over the new one, and is taken away (pivot_root(2), notes).
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    Ok(std::env::set_current_dir("/")?)
}

fn become_user(uid: Option<u32>) -> Result<(), Fault> {
    match uid {
        Some(uid) => {
            setgroups(&[])?;
            setgid(Gid::from_raw(uid))?;
            setuid(Uid::from_raw(uid))?;
        }
        // All nodes have one user then. In a namespace below, it has no rights over what is outside of it, which
        // includes the memory of other nodes' processes (ptrace(2), access mode checking).
        None => unshare(CloneFlags::CLONE_NEWUSER)?,
    }
    Ok(nix::sys::prctl::set_no_new_privs()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        options: ConfineOptions,
    }

    #[test]
    fn its_arguments_are_read_back() {
        let paths = [Path::new("/k"), Path::new("/i")];
        let mut argv = ConfineOptions::of(Path::new("/r"), &paths, &[Path::new("/s")], Some(70_000));
        argv.extend(["/k/linux", "--mem", "x"].map(str::to_owned));
        let options = Program::try_parse_from(argv).expect("read").options;
        assert_eq!(options.read, paths);
        assert_eq!((options.write, options.uid), (vec![PathBuf::from("/s")], Some(70_000)));
        assert_eq!(options.argv, ["/k/linux", "--mem", "x"]);
    }
}
