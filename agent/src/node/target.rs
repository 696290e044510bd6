//! A node's root: the new one while it is being filled, or the running system's own. Writes its files, runs its
//! programs, lets go of it. What is already as it should be is not touched.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, fchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gatehouse_model::{Doing as _, Fault};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::host::run::Outcome;
use crate::host::sys;
use crate::tool;

/// What the new root's programs may need of the running system.
const BINDS: [&str; 3] = ["/proc", "/sys", "/dev"];
/// What a file is called until it is whole.
const PARTIAL: &str = ".gatehouse-new";

/// A node's root.
#[derive(Clone, Debug)]
pub struct Target {
    root: PathBuf,
}

impl Target {
    /// The root below a directory.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The root of the running system.
    pub fn running() -> Self {
        Self::new(Path::new("/"))
    }

    /// Whether it is the running system's: services run in it, and power may fail at any time.
    pub fn is_running(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The real place of a path of the installed node.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Whether there is something at a path; a link counts as what it leads to.
    pub fn has(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    /// Reads a file; one that is not there is empty.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_default()
    }

    /// Makes a directory and those above it; the last one gets this mode.
    ///
    /// # Errors
    /// What the file system says.
    pub fn directory(&self, path: &str, mode: u32) -> Result<Outcome, Fault> {
        let place = self.at(path);
        if fs::symlink_metadata(&place).is_ok_and(|found| found.is_dir() && has_mode(&found, mode)) {
            return Ok(Outcome::Already);
        }
        fs::create_dir_all(&place)
            .and_then(|()| fs::set_permissions(&place, Permissions::from_mode(mode)))
            .doing(|| format!("making {path}"))?;
        Ok(Outcome::Changed)
    }

    /// Writes a file, whole or not at all, if it is not so already. One that is there keeps its owner; a link there
    /// is replaced, not followed, because its target would be looked up in the running system.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, path: &str, mode: u32, contents: &[u8]) -> Result<Outcome, Fault> {
        self.replace(path, Some(mode), contents).doing(|| format!("writing {path}"))
    }

    /// Changes a text file that has its own owner and mode, such as `/etc/shadow`.
    ///
    /// # Errors
    /// It is not there, or what the file system says.
    pub fn edit(&self, path: &str, change: impl FnOnce(&str) -> String) -> Result<Outcome, Fault> {
        let old = fs::read_to_string(self.at(path)).doing(|| format!("reading {path}"))?;
        self.replace(path, None, change(&old).as_bytes()).doing(|| format!("writing {path}"))
    }

    fn replace(&self, path: &str, mode: Option<u32>, contents: &[u8]) -> io::Result<Outcome> {
        let place = self.at(path);
        let old = fs::symlink_metadata(&place).ok().filter(Metadata::is_file);
        let mode = mode.or_else(|| old.as_ref().map(|old| old.mode() & 0o7777)).unwrap_or(0o644);
        if old.as_ref().is_some_and(|old| has_mode(old, mode) && old.len() == contents.len() as u64)
            && fs::read(&place)? == contents
        {
            return Ok(Outcome::Already);
        }
        let above = place.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(above)?;
        let partial = partial(&place);
        remove_if_there(&partial)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(contents)?;
        if let Some(old) = &old
            && (old.uid(), old.gid()) != (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
        {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        // Behind the change of owner, which takes some of the bits away.
        file.set_permissions(Permissions::from_mode(mode))?;
        // A new root is synced whole at its end.
        if self.is_running() {
            file.sync_all()?;
        }
        fs::rename(&partial, &place)?;
        if self.is_running() {
            File::open(above)?.sync_all()?;
        }
        Ok(Outcome::Changed)
    }

    /// Removes a file or a link; one that is not there is removed already.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self, path: &str) -> Result<Outcome, Fault> {
        remove_if_there(&self.at(path)).doing(|| format!("removing {path}"))
    }

    /// Makes a symbolic link, in place of whatever file has its name.
    ///
    /// # Errors
    /// What the file system says.
    pub fn link(&self, path: &str, to: &str) -> Result<Outcome, Fault> {
        let place = self.at(path);
        if fs::read_link(&place).is_ok_and(|found| found == Path::new(to)) {
            return Ok(Outcome::Already);
        }
        let work = || {
            if let Some(above) = place.parent() {
                fs::create_dir_all(above)?;
            }
            let partial = partial(&place);
            remove_if_there(&partial)?;
            symlink(to, &partial)?;
            fs::rename(&partial, &place)
        };
        work().doing(|| format!("linking {path}"))?;
        Ok(Outcome::Changed)
    }

    /// Has a unit started at boot.
    ///
    /// # Errors
    /// What the file system says.
    pub fn enable(&self, unit: &str, wanted_by: &str) -> Result<Outcome, Fault> {
        let own = format!("/etc/systemd/system/{unit}");
        let from = if self.has(&own) { own } else { format!("/usr/lib/systemd/system/{unit}") };
        self.link(&format!("/etc/systemd/system/{wanted_by}.wants/{unit}"), &from)
    }

    /// Gives a file to a user.
    ///
    /// # Errors
    /// What the file system says.
    pub fn owner(&self, path: &str, uid: u32, gid: u32) -> Result<Outcome, Fault> {
        let place = self.at(path);
        let work = || {
            let found = fs::symlink_metadata(&place)?;
            if (found.uid(), found.gid()) == (uid, gid) {
                return Ok(Outcome::Already);
            }
            chown(&place, Some(uid), Some(gid)).map(|()| Outcome::Changed)
        };
        work().doing(|| format!("giving {path} to user {uid}"))
    }

    /// Lets the new root's programs see the running system's devices and processes.
    ///
    /// # Errors
    /// A mount fails.
    pub fn bind(&self) -> Result<(), Fault> {
        for path in BINDS {
            let place = self.at(path);
            fs::create_dir_all(&place).doing(|| format!("making {path}"))?;
            mount(Some(path), &place, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .doing(|| format!("mounting {path} in the new root"))?;
        }
        Ok(())
    }

    /// A program of this root, to be started in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        if !self.is_running() {
            sys::enter_root(&mut command, &self.root);
        }
        command
    }

    /// Runs a program of this root in it.
    ///
    /// # Errors
    /// It cannot be started, or fails.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String, Fault> {
        let output = self.command(program).args(args).output().doing(|| format!("starting {program}"))?;
        tool::finish(program, &output)
    }

    /// Syncs and unmounts everything below, the latest mount first, and has the disks write their caches out.
    ///
    /// # Errors
    /// Something is still busy, or the disk fails.
    pub fn release(&self) -> Result<(), Fault> {
        nix::unistd::sync();
        let text = fs::read_to_string("/proc/self/mounts").doing(|| "reading /proc/self/mounts")?;
        let mut devices = Vec::new();
        for line in text.lines().rev() {
            let mut words = line.split(' ');
            let (Some(device), Some(point)) = (words.next(), words.next()) else { continue };
            if !Path::new(point).starts_with(&self.root) {
                continue;
            }
            umount2(point, MntFlags::empty()).doing(|| format!("unmounting {point}"))?;
            if device.starts_with("/dev/") {
                devices.push(device.to_owned());
            }
        }
        for device in devices {
            // The file systems were mounted without barriers: this is where the disk must have it all.
            File::open(&device).and_then(|disk| disk.sync_all()).doing(|| format!("syncing {device}"))?;
        }
        Ok(())
    }
}

fn has_mode(found: &Metadata, mode: u32) -> bool {
    found.mode() & 0o7777 == mode
}

/// Where a file grows until it is whole: beside it, and hidden from programs that read all files of a directory.
fn partial(place: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(place.file_name().unwrap_or_default());
    name.push(PARTIAL);
    place.with_file_name(name)
}

fn remove_if_there(place: &Path) -> io::Result<Outcome> {
    match fs::remove_file(place) {
        Ok(()) => Ok(Outcome::Changed),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Outcome::Already),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_so_already_is_not_touched() {
        let dir = tempfile::tempdir().expect("a directory");
        let target = Target::new(dir.path());
        let inode = |path: &str| fs::symlink_metadata(target.at(path)).expect("there").ino();
        assert_eq!(target.write("/etc/a", 0o640, b"one").expect("written"), Outcome::Changed);
        let first = inode("/etc/a");
        assert_eq!(target.write("/etc/a", 0o640, b"one").expect("there"), Outcome::Already);
        assert_eq!(inode("/etc/a"), first);
        assert_eq!(target.edit("/etc/a", |old| format!("{old} two")).expect("edited"), Outcome::Changed);
        assert_eq!(target.edit("/etc/a", ToOwned::to_owned).expect("there"), Outcome::Already);
        let found = fs::metadata(target.at("/etc/a")).expect("there");
        assert_eq!((found.mode() & 0o7777, target.read("/etc/a").as_str()), (0o640, "one two"));
        assert_eq!(target.write("/etc/a", 0o644, b"one two").expect("another mode"), Outcome::Changed);

        assert_eq!(target.link("/etc/l", "/etc/a").expect("linked"), Outcome::Changed);
        assert_eq!(target.link("/etc/l", "/etc/a").expect("there"), Outcome::Already);
        assert_eq!(target.write("/etc/l", 0o644, b"a file now").expect("written"), Outcome::Changed);
        assert_eq!(target.read("/etc/a"), "one two", "the link was not followed");
        assert_eq!(target.remove("/etc/l").expect("removed"), Outcome::Changed);
        assert_eq!(target.remove("/etc/l").expect("gone"), Outcome::Already);
        assert!(target.edit("/etc/none", ToOwned::to_owned).is_err());
        let left: Vec<_> = fs::read_dir(target.at("/etc")).expect("there").flatten().collect();
        assert_eq!(left.len(), 1, "nothing half written is left: {left:?}");
    }
}
