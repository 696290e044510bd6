//! What programs in a tree need around them: the kernel's filesystems, devices, and the same few variables.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use gatehouse_model::{Doing as _, Fault};
use nix::mount::MsFlags;

/// Device files that maintainer scripts use; bound from outside because a user namespace may not make any.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Mounts what a running system has, each fresh.
pub(super) fn mount(root: &Path) -> Result<(), Fault> {
    let fresh = |kind: &str, to: &Path, options: Option<&str>| {
        fs::create_dir_all(to).doing(|| format!("making {}", to.display()))?;
        nix::mount::mount(Some(kind), to, Some(kind), MsFlags::empty(), options)
            .doing(|| format!("mounting {kind} on {}", to.display()))
    };
    fresh("proc", &root.join("proc"), None)?;
    // In a sticky directory that everyone may write, the kernel lets nobody open another's device for creating.
    for (dir, mode) in [("run", "mode=0755"), ("tmp", "mode=1777"), ("dev", "mode=0755")] {
        fresh("tmpfs", &root.join(dir), Some(mode))?;
    }
    for name in DEVICES {
        bind(&Path::new("/dev").join(name), &root.join("dev").join(name))?;
    }
    for (to, at) in [("/proc/self/fd", "fd"), ("/proc/self/fd/0", "stdin"), ("/proc/self/fd/1", "stdout")] {
        symlink(to, root.join("dev").join(at)).doing(|| format!("making /dev/{at}"))?;
    }
    fs::create_dir_all(root.join("dev/shm")).doing(|| "making /dev/shm")
}

/// Shows a file of the building machine under a name in the tree.
pub(super) fn bind(from: &Path, to: &Path) -> Result<(), Fault> {
    fs::write(to, "").doing(|| format!("making {}", to.display()))?;
    nix::mount::mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .doing(|| format!("binding {} to {}", from.display(), to.display()))
}

/// Makes a tree just like another one in an empty directory; owners, times and hard links are kept.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), Fault> {
    let doing = || format!("copying {}", from.display());
    // GNU cp shares blocks where the filesystem can, which a loop over the files would have to learn anew.
    let status =
        Command::new("cp").args(["-a", "--reflink=auto", "-T"]).arg(from).arg(to).status().doing(doing)?;
    if status.success() { Ok(()) } else { Err(Fault::new(format!("cp ended with {status}"))).doing(doing) }
}

/// Takes away what [`mount`] has mounted, with everything below it.
pub(super) fn unmount(root: &Path) {
    for dir in ["proc", "run", "tmp", "dev"] {
        // Not mounted is what is wanted.
        let _ = nix::mount::umount2(&root.join(dir), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Runs a program in the tree with the same few variables everywhere; a fault quotes its last lines.
pub(super) fn chroot(root: &Path, epoch: u64, args: &[&str]) -> Result<(), Fault> {
    chroot_heard(root, epoch, args, &|_| ())
}

/// As [`chroot`], and hears each line that the program prints.
pub(super) fn chroot_heard(
    root: &Path,
    epoch: u64,
    args: &[&str],
    heard: &dyn Fn(&str),
) -> Result<(), Fault> {
    let mut command = Command::new("chroot");
    command
        .arg(root)
        .args(args)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .env("HOME", "/root")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("DEBCONF_NONINTERACTIVE_SEEN", "true")
        .env("DPKG_MAINTSCRIPT_ARCH", "amd64")
        .env("DPKG_ADMINDIR", "/var/lib/dpkg")
        .env("DPKG_ROOT", "")
        .env("SYSTEMD_OFFLINE", "1")
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .stdin(Stdio::null());
    let (status, words) = listen(&mut command, heard).doing(|| "running chroot")?;
    if status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&words);
    Err(Fault::new(format!("{} ended with {status}:\n{}", args[0], telling(&words).join("\n"))))
}

/// Runs a program to its end; answers with all that it said, its complaints last.
fn listen(command: &mut Command, heard: &dyn Fn(&str)) -> io::Result<(ExitStatus, Vec<u8>)> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stderr = child.stderr.take().map(|mut pipe| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            // What cannot be read is not worth losing the status for.
            let _ = pipe.read_to_end(&mut text);
            text
        })
    });
    let mut words = Vec::new();
    let mut stdout = child.stdout.take().map(BufReader::new);
    while let Some(pipe) = &mut stdout {
        let before = words.len();
        if pipe.read_until(b'\n', &mut words)? == 0 {
            break;
        }
        heard(String::from_utf8_lossy(&words[before..]).trim_end());
    }
    words.extend(stderr.and_then(|thread| thread.join().ok()).unwrap_or_default());
    Ok((child.wait()?, words))
}

/// The lines that say what went wrong: those before dpkg's first error, whose script they are from, else the last.
fn telling(words: &str) -> Vec<&str> {
    let lines: Vec<&str> = words.lines().collect();
    let error = lines.iter().position(|line| line.starts_with("dpkg: error processing"));
    let end = error.map_or(lines.len(), |at| lines.len().min(at + 2));
    lines[end.saturating_sub(20)..end].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_script_that_failed_is_quoted() {
        let before = "Setting up a (1) ...\nSetting up b (1) ...\nb: no such thing\n";
        let error = "dpkg: error processing package b (--configure):\n installed b package post-installation script subprocess returned error exit status 1\n";
        let after = "Setting up c (1) ...\n".repeat(30);
        let text = format!("{before}{error}{after}");
        let told = telling(&text);
        assert_eq!(told.len(), 5);
        assert_eq!(told[2], "b: no such thing");
        assert_eq!(telling(&after).len(), 20);
    }
}
