//! The making of a domain, which goes on where the agent ends: `xl create` holds a lock as its input for as long as it
//! works (its monitor, which stays, has another input), and whoever has a domain run waits for that. One that is half
//! made would run without its disks.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use gatehouse_model::{Doing as _, Fault};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// How often it is looked whether an earlier one has ended.
const LOOK: Duration = Duration::from_millis(200);

/// The lock, once nobody makes the domain any more.
///
/// # Errors
/// An earlier making does not end in time; the file cannot be made.
pub(super) fn lock(file: &Path, at_most: Duration) -> Result<Flock<File>, Fault> {
    let doing = || format!("waiting for an earlier xl create to let {} go", file.display());
    let begun = Instant::now();
    let mut open = File::create(file).doing(|| format!("opening {}", file.display()))?;
    loop {
        match Flock::lock(open, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((held, Errno::EAGAIN)) if begun.elapsed() < at_most => open = held,
            Err((_, errno)) => return Err(errno).doing(doing),
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_program_holds_the_lock_when_its_agent_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("making-ce");
        let made = lock(&file, Duration::ZERO).expect("nobody makes it");
        // As xl's monitor does, what stays has another input.
        let script = "sleep 0.5; sleep 20 </dev/null >/dev/null 2>&1 &";
        let input = made.try_clone().expect("shared");
        let mut child = Command::new("sh").args(["-c", script]).stdin(input).spawn().expect("started");
        // The agent ends without having unlocked anything.
        let ours = made.as_raw_fd();
        std::mem::forget(made);
        nix::unistd::close(ours).expect("closed");
        lock(&file, Duration::ZERO).expect_err("it is being made");
        let again = lock(&file, Duration::from_secs(15)).expect("it is made");
        child.wait().expect("buried");
        drop(again);
        lock(&file, Duration::ZERO).expect("nobody makes it");
    }
}
