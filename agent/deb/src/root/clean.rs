//! Takes out of a configured tree what only says when and where it was configured.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use gatehouse_model::{Doing as _, Fault};

/// Files that are made anew on the machine, or are only a trace of the build: each with its reason.
const GONE: [(&str, &str); 15] = [
    ("etc/passwd-", "passwd's backup"),
    ("etc/group-", "passwd's backup"),
    ("etc/shadow-", "passwd's backup"),
    ("etc/gshadow-", "passwd's backup"),
    ("etc/subuid-", "passwd's backup"),
    ("etc/subgid-", "passwd's backup"),
    ("etc/.pwd.lock", "a lock"),
    ("etc/resolv.conf", "written on the machine"),
    ("var/lib/dpkg/lock", "a lock"),
    ("var/lib/dpkg/lock-frontend", "a lock"),
    ("var/lib/dpkg/triggers/Lock", "a lock"),
    ("var/lib/systemd/random-seed", "a secret"),
    ("etc/munge/munge.key", "a secret; munge's postinst makes it"),
    ("var/lib/dbus/machine-id", "an identity; dbus reads /etc/machine-id"),
    ("var/cache/ldconfig/aux-cache", "inode numbers of the building machine"),
];

/// Directories whose contents go.
const EMPTIED: [&str; 4] = ["var/cache/apt", "var/lib/apt/lists", "run", "tmp"];

/// Cleans a tree.
pub(super) fn clean(root: &Path) -> Result<(), Fault> {
    for (name, _) in GONE {
        remove(&root.join(name))?;
    }
    for dir in EMPTIED {
        empty(&root.join(dir), &|_| true)?;
    }
    // Without contents it is no trace: programs write some logs only where a package has made the file.
    empty(&root.join("var/log"), &|meta| meta.is_file() && meta.len() > 0)?;
    for name in names(&root.join("etc/ssh"))? {
        if name.starts_with("ssh_host_") {
            remove(&root.join("etc/ssh").join(name))?;
        }
    }
    for dir in ["var/lib/dpkg", "var/cache/debconf"] {
        for name in names(&root.join(dir))?.iter().filter(|name| name.ends_with("-old")) {
            remove(&root.join(dir).join(name))?;
        }
    }
    // Says that caches are as new as /usr, so that systemd does not make them again at the first boot.
    for stamp in ["etc/.updated", "var/.updated"] {
        fs::write(root.join(stamp), "").doing(|| format!("writing /{stamp}"))?;
    }
    let id = root.join("etc/machine-id");
    fs::write(&id, "").doing(|| "emptying machine-id")?;
    fs::set_permissions(&id, fs::Permissions::from_mode(0o444)).doing(|| "emptying machine-id")
}

fn remove(path: &Path) -> Result<(), Fault> {
    if fs::symlink_metadata(path).is_ok() {
        fs::remove_file(path).doing(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

/// Removes files below a directory but keeps its directories: their owners and modes are the packages'.
fn empty(dir: &Path, goes: &dyn Fn(&fs::Metadata) -> bool) -> Result<(), Fault> {
    for name in names(dir)? {
        let path = dir.join(name);
        let meta = fs::symlink_metadata(&path).doing(|| format!("reading {}", path.display()))?;
        if meta.is_dir() {
            empty(&path, goes)?;
        } else if goes(&meta) {
            remove(&path)?;
        }
    }
    Ok(())
}

fn names(dir: &Path) -> Result<Vec<String>, Fault> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(dir).doing(|| format!("reading {}", dir.display()))?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}
