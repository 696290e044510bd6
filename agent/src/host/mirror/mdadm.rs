//! Mirrors of md, by `mdadm` of the system's root.

use std::fs;
use std::path::{Path, PathBuf};

use gatehouse_model::{Doing as _, Fault};

use super::{Array, Halves};
use crate::host::real::in_root;

const MDADM: &str = "/usr/sbin/mdadm";
/// Where a member's data begins: room for what md says of itself, and for the map of what is to be filled again.
const DATA: &str = "--data-offset=1M";

/// Whether a mirror runs.
pub fn runs(array: Array) -> bool {
    let state = fs::read_to_string(sys(array).join("md/array_state")).unwrap_or_default();
    !matches!(state.trim(), "" | "clear" | "inactive")
}

/// Whether a partition is one of a running mirror's halves, filled or being filled.
pub fn has(array: Array, part: &str) -> bool {
    sys(array).join("slaves").join(part).exists()
}

/// Puts a mirror together from halves that are of the same age; it runs with one alone.
///
/// # Errors
/// mdadm's own words.
pub fn assemble(root: &Path, array: Array, halves: &Halves) -> Result<(), Fault> {
    if runs(array) || halves.run.is_empty() {
        return Ok(());
    }
    let (device, parts) = (dev(array.device()), paths(&halves.run));
    let words: Vec<&str> =
        ["--assemble", "--run", &device].into_iter().chain(parts.iter().map(String::as_str)).collect();
    in_root(root, MDADM, &words)
        .map(drop)
        .doing(|| format!("putting the mirror {} together", array.device()))
        .map_err(|fault| fault.help("start it with the other disk alone; nothing was changed"))
}

/// Makes a mirror of what there is of its partitions. A second one that fails is left out: it is joined later, or replaced.
///
/// # Errors
/// mdadm's own words.
pub fn make(root: &Path, array: Array, pair: &str, parts: &[String]) -> Result<(), Fault> {
    let there: Vec<String> =
        parts.iter().filter(|part| Path::new("/dev").join(part).exists()).cloned().collect();
    if there.len() > 1 && create(root, array, pair, &there).is_ok() {
        return Ok(());
    }
    create(root, array, pair, &there[..1.min(there.len())])
}

/// What was never written differs between the halves until md has copied it, in the background: they are not taken to be
/// equal, so that a later comparison finds nothing but faults.
fn create(root: &Path, array: Array, pair: &str, parts: &[String]) -> Result<(), Fault> {
    let (device, parts) = (dev(array.device()), paths(parts));
    let (id, name) = (format!("--uuid={}", colons(&array.id(pair))), format!("--name={}", array.part()));
    let mut words = vec!["--create", &device, "--run", "--metadata=1.2", "--level=1", "--raid-devices=2"];
    words.extend(["--homehost=any", "--bitmap=internal", DATA, &id, &name]);
    words.extend(parts.iter().map(String::as_str));
    words.extend(["missing"].iter().take(2_usize.saturating_sub(parts.len())));
    in_root(root, MDADM, &words).map(drop)
}

/// Has a running mirror fill a partition again, only with what has changed where that is known.
///
/// # Errors
/// mdadm's own words.
pub fn join(root: &Path, array: Array, part: &str) -> Result<(), Fault> {
    let (device, part) = (dev(array.device()), dev(part));
    if in_root(root, MDADM, &[&device, "--re-add", &part]).is_ok() {
        return Ok(());
    }
    // What is on it may be of another mirror, or too old.
    let _ = in_root(root, MDADM, &["--zero-superblock", &part]);
    in_root(root, MDADM, &[&device, "--add", &part]).map(drop)
}

fn sys(array: Array) -> PathBuf {
    Path::new("/sys/block").join(array.device())
}

fn dev(name: &str) -> String {
    format!("/dev/{name}")
}

fn paths(names: &[String]) -> Vec<String> {
    names.iter().map(|name| dev(name)).collect()
}

/// mdadm's way to write an id.
fn colons(id: &str) -> String {
    let words: Vec<&str> = (0..id.len()).step_by(8).filter_map(|at| id.get(at..at + 8)).collect();
    words.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_in_four_words() {
        assert_eq!(colons("0123456789abcdef0123456789abcdef"), "01234567:89abcdef:01234567:89abcdef");
    }
}
