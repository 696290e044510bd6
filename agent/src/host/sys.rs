//! System calls that no safe crate wraps: the only file with unsafe code.
#![allow(unsafe_code, reason = "system calls without a safe wrapper; each says why it is sound")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::libc;

/// Has a program started with another root directory.
pub fn enter_root<'a>(command: &'a mut Command, root: &Path) -> &'a mut Command {
    let root: PathBuf = root.to_owned();
    // SAFETY: between fork and exec only two system calls are made; an error becomes a number without memory
    // being allocated, and the path was allocated before.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::chroot(&root)?;
            nix::unistd::chdir("/")?;
            Ok(())
        })
    }
}

/// Sets an extended attribute of an open file.
///
/// # Errors
/// The file system refuses it.
pub fn set_file_attribute(file: BorrowedFd<'_>, name: &str, value: &[u8]) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the name ends with a zero byte, and the pointer and length describe one live slice.
    let result =
        unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What BLKPG takes (linux/blkpg.h).
#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    number: i32,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

#[repr(C)]
struct BlkpgArgument {
    operation: i32,
    flags: i32,
    length: i32,
    data: *mut BlkpgPartition,
}

const BLKPG: libc::Ioctl = 0x1269;
const BLKPG_ADD_PARTITION: i32 = 1;

/// Tells the kernel of one new partition, in bytes. Reading the whole table again would need a disk of which
/// nothing is mounted.
///
/// # Errors
/// The kernel knows a partition of this number or place already, or the place is not on the disk.
pub fn add_partition(disk: BorrowedFd<'_>, number: u32, start: u64, length: u64) -> io::Result<()> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut partition = BlkpgPartition {
        start: i64::try_from(start).map_err(invalid)?,
        length: i64::try_from(length).map_err(invalid)?,
        number: i32::try_from(number).map_err(invalid)?,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let size = i32::try_from(size_of::<BlkpgPartition>()).map_err(invalid)?;
    let mut argument =
        BlkpgArgument { operation: BLKPG_ADD_PARTITION, flags: 0, length: size, data: &raw mut partition };
    // SAFETY: the request takes a pointer to this structure, whose layout is the kernel's; it and what it
    // points to live until the call returns.
    let result = unsafe { libc::ioctl(disk.as_raw_fd(), BLKPG, &raw mut argument) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a file the twin of another one on the same filesystem: they share their blocks until one of them changes.
///
/// # Errors
/// The filesystem cannot do that, or they are not on the same one.
pub fn clone_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the request takes a file descriptor by value, and both are open until the call returns.
    let result = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `_IOWR('X', 119, int)` and `_IOWR('X', 120, int)` of linux/fs.h.
const FIFREEZE: libc::Ioctl = 0xc004_5877;
const FITHAW: libc::Ioctl = 0xc004_5878;

/// Writes out what a filesystem has in memory, and holds up whoever writes to it from then on; by any directory of it.
///
/// # Errors
/// The filesystem cannot do that, or is held up already.
pub fn freeze(dir: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the kernel looks at neither request's argument.
    let result = unsafe { libc::ioctl(dir.as_raw_fd(), FIFREEZE, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets those go on that [`freeze`] has held up.
///
/// # Errors
/// Nothing was held up.
pub fn thaw(dir: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: as above.
    let result = unsafe { libc::ioctl(dir.as_raw_fd(), FITHAW, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
