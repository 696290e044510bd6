//! A number for each node, kept with its configuration: the driver's devices and users are named by it, so that two
//! nodes must never have the same one, whatever came and went in the site meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use gatehouse_model::{Doing as _, Fault, NodeName};

use crate::host::files::write_whole;
use crate::paths::Paths;

/// Two nodes that begin at once must not find the same number free.
static CHOOSING: Mutex<()> = Mutex::new(());

/// A node's number; the lowest that no other node on this machine has, when it asks for the first time.
///
/// # Errors
/// The nodes' directories cannot be read or written.
pub(super) fn of(paths: &Paths, node: &NodeName) -> Result<u32, Fault> {
    let _only = CHOOSING.lock().unwrap_or_else(PoisonError::into_inner);
    let file = paths.conf(node).join("number");
    if let Some(number) = read(&file) {
        return Ok(number);
    }
    let mut taken = BTreeSet::new();
    for entry in fs::read_dir(&paths.vms).doing(|| format!("reading {}", paths.vms.display()))?.flatten() {
        taken.extend(read(&entry.path().join("conf/number")));
    }
    let number = (0..=u32::MAX).find(|number| !taken.contains(number)).unwrap_or(u32::MAX);
    write_whole(&file, format!("{number}\n").as_bytes(), 0o644)?;
    Ok(number)
}

fn read(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_and_are_never_shared() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = Paths::trial(dir.path(), dir.path());
        fs::create_dir_all(&paths.vms).expect("made");
        let number = |name: &str| of(&paths, &name.parse().expect("a name")).expect("a number");
        assert_eq!((number("ce"), number("se"), number("ce")), (0, 1, 0));
        fs::remove_dir_all(paths.vms.join("ce")).expect("removed");
        assert_eq!((number("wn"), number("ui"), number("se")), (0, 2, 1));
    }
}
