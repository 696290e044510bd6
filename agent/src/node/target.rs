//! The new root while it is being filled: writing its files, running its programs, letting go of it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use gatehouse_model::{Doing as _, Fault};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::host::sys;
use crate::tool;

/// What the new root's programs may need of the running system.
const BINDS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// The new root.
#[derive(Clone, Debug)]
pub struct Target {
    root: PathBuf,
}

impl Target {
    /// The root below a directory.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The real place of a path of the installed node.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Reads a file; one that is not there is empty.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_default()
    }

    /// Makes a directory and those above it; the last one gets this mode.
    ///
    /// # Errors
    /// What the file system says.
    pub fn directory(&self, path: &str, mode: u32) -> Result<(), Fault> {
        let place = self.at(path);
        fs::create_dir_all(&place)
            .and_then(|()| fs::set_permissions(&place, Permissions::from_mode(mode)))
            .doing(|| format!("making {path}"))
    }

    /// Writes a file anew. One that is there keeps its owner; a link there is replaced, not followed, because
    /// its target would be looked up in the running system.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, path: &str, mode: u32, contents: &[u8]) -> Result<(), Fault> {
        let place = self.at(path);
        let work = || {
            if let Some(above) = place.parent() {
                fs::create_dir_all(above)?;
            }
            if fs::symlink_metadata(&place).is_ok_and(|found| found.is_symlink()) {
                fs::remove_file(&place)?;
            }
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&place)?;
            file.set_permissions(Permissions::from_mode(mode))?;
            file.write_all(contents)
        };
        work().doing(|| format!("writing {path}"))
    }

    /// Changes a text file that has its own owner and mode, such as `/etc/shadow`.
    ///
    /// # Errors
    /// It is not there, or what the file system says.
    pub fn edit(&self, path: &str, change: impl FnOnce(&str) -> String) -> Result<(), Fault> {
        let place = self.at(path);
        let old = fs::read_to_string(&place).doing(|| format!("reading {path}"))?;
        fs::write(&place, change(&old)).doing(|| format!("writing {path}"))
    }

    /// Makes a symbolic link, in place of whatever file has its name.
    ///
    /// # Errors
    /// What the file system says.
    pub fn link(&self, path: &str, to: &str) -> Result<(), Fault> {
        let place = self.at(path);
        let work = || {
            if let Some(above) = place.parent() {
                fs::create_dir_all(above)?;
            }
            if fs::symlink_metadata(&place).is_ok() {
                fs::remove_file(&place)?;
            }
            symlink(to, &place)
        };
        work().doing(|| format!("linking {path}"))
    }

    /// Has a unit started at boot.
    ///
    /// # Errors
    /// What the file system says.
    pub fn enable(&self, unit: &str, wanted_by: &str) -> Result<(), Fault> {
        let own = format!("/etc/systemd/system/{unit}");
        let from = if self.at(&own).exists() { own } else { format!("/usr/lib/systemd/system/{unit}") };
        self.link(&format!("/etc/systemd/system/{wanted_by}.wants/{unit}"), &from)
    }

    /// Gives a file to a user.
    ///
    /// # Errors
    /// What the file system says.
    pub fn owner(&self, path: &str, uid: u32, gid: u32) -> Result<(), Fault> {
        chown(self.at(path), Some(uid), Some(gid)).doing(|| format!("giving {path} to user {uid}"))
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

    /// Runs a program of the new root in it.
    ///
    /// # Errors
    /// It cannot be started, or fails.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String, Fault> {
        let mut command = std::process::Command::new(program);
        command.args(args).stdin(std::process::Stdio::null());
        sys::enter_root(&mut command, &self.root);
        let output = command.output().doing(|| format!("starting {program} in the new root"))?;
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
