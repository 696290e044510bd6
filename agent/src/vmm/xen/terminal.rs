//! A terminal without anybody at it.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use gatehouse_model::{Doing as _, Fault};
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

/// Its two ends: ours, and that of the program which believes that somebody is there. Bytes pass as they are, and no
/// other program inherits either. Once the program has ended, ours has nothing more to read but an error.
///
/// # Errors
/// There are no more terminals.
pub(super) fn make() -> Result<(File, File), Fault> {
    let work = || {
        // openpty would leave a moment in which a program that is started meanwhile inherits both.
        let ours = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let mut options = OpenOptions::new();
        let theirs =
            options.read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(ptsname_r(&ours)?)?;
        let mut settings = tcgetattr(&theirs)?;
        cfmakeraw(&mut settings);
        tcsetattr(&theirs, SetArg::TCSANOW, &settings)?;
        Ok::<_, Fault>((File::from(ours.as_fd().try_clone_to_owned()?), theirs))
    };
    work().doing(|| "making a terminal")
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn bytes_pass_as_they_are_until_the_program_ends() {
        let (mut ours, mut theirs) = make().expect("a terminal");
        let mut bytes = [0; 16];
        ours.write_all(b"a\r\x03\x1d").expect("typed");
        let count = theirs.read(&mut bytes).expect("read");
        assert_eq!(&bytes[..count], b"a\r\x03\x1d");
        theirs.write_all(b"b\n").expect("shown");
        drop(theirs);
        let count = ours.read(&mut bytes).expect("read");
        assert_eq!(&bytes[..count], b"b\n", "nothing was echoed, and nothing is lost");
        assert!(ours.read(&mut bytes).is_err(), "it has ended");
    }
}
