//! Room on the host's filesystems: stores are sparse, so the disk can fill long after an install.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gatehouse_model::{Doing as _, Event, Fault, State};
use nix::sys::statvfs::statvfs;

use crate::control::board::{Board, now_millis};

/// From so many percent on people are warned.
const LITTLE: u8 = 80;
/// From so many percent on nothing is installed: what runs must be able to go on writing.
const FULL: u8 = 90;
/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(60);

/// How much of the filesystem below a directory is used, in percent of what may be used.
pub(super) fn used(dir: &Path) -> Result<u8, Fault> {
    let room = statvfs(dir).doing(|| format!("asking how full {} is", dir.display()))?;
    Ok(percent(room.blocks() - room.blocks_free(), room.blocks_available()))
}

/// As df(1) counts: blocks kept for root are neither used nor free.
fn percent(used: u64, available: u64) -> u8 {
    let percent = (used * 100).div_ceil((used + available).max(1));
    u8::try_from(percent).unwrap_or(100)
}

/// Refuses an install on a disk that is nearly full.
///
/// # Errors
/// There is no room.
pub(super) fn check(dir: &Path) -> Result<(), Fault> {
    refuse(dir, used(dir)?)
}

/// Refuses what would fill a disk with so many bytes more.
///
/// # Errors
/// There is no room for them.
pub(in crate::host) fn check_for(dir: &Path, bytes: u64) -> Result<(), Fault> {
    let room = statvfs(dir).doing(|| format!("asking how full {} is", dir.display()))?;
    let blocks = bytes.div_ceil(room.fragment_size().max(1));
    let used = room.blocks() - room.blocks_free() + blocks;
    let percent = percent(used, room.blocks_available().saturating_sub(blocks));
    if percent < FULL {
        return Ok(());
    }
    let mib = bytes.div_ceil(1 << 20);
    let what = format!("{mib} MiB more would fill {} to {percent} %", dir.display());
    Err(Fault::new(what).help("remove what is not needed there; the nodes must be able to go on writing"))
}

fn refuse(dir: &Path, percent: u8) -> Result<(), Fault> {
    if percent < FULL {
        return Ok(());
    }
    let what = format!("{} is {percent} % full; from {FULL} % on nothing is installed", dir.display());
    Err(Fault::new(what).help("remove what is not needed there, or give the machine a larger disk"))
}

/// Warns on the board whenever another percent above the first mark is used, in a thread of its own.
pub(super) fn watch(board: std::sync::Arc<Board>, host: String, dirs: Vec<PathBuf>) {
    std::thread::spawn(move || {
        let mut told = vec![0; dirs.len()];
        loop {
            for (dir, told) in dirs.iter().zip(&mut told) {
                // A filesystem that cannot be asked has worse faults, which others tell.
                let percent = used(dir).unwrap_or(0);
                if percent >= LITTLE && percent > *told {
                    board.tell(warning(&host, dir, percent));
                }
                *told = percent;
            }
            std::thread::sleep(LOOK);
        }
    });
}

fn warning(host: &str, dir: &Path, percent: u8) -> Event {
    Event {
        ts: now_millis(),
        host: host.to_owned(),
        phase: "disks".to_owned(),
        action: format!("filling {}", dir.display()),
        state: State::Progress,
        percent: None,
        message: format!(
            "{percent} % used; at {FULL} % no node can be installed: remove what is not needed there"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_install_needs_room() {
        for (used, available, expected) in [(0, 100, 0), (1, 999, 1), (90, 10, 90), (100, 0, 100), (0, 0, 0)]
        {
            assert_eq!(percent(used, available), expected);
        }
        let dir = Path::new("/srv/vms");
        refuse(dir, FULL - 1).expect("there is room");
        let fault = refuse(dir, 93).expect_err("there is none");
        assert_eq!(fault.to_string(), "/srv/vms is 93 % full; from 90 % on nothing is installed");
        assert!(used(Path::new("/")).expect("a filesystem") <= 100);
    }
}
