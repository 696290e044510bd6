//! The installer's initramfs for one start of one node: the depot's archives and the node's passport behind them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use gatehouse_model::{Doing as _, Fault};

use crate::wire::{PASSPORT_PATH, Passport};

/// Writes the initramfs, readable by its owner only: the passport holds the token.
///
/// # Errors
/// An archive cannot be read or the file not be written.
pub fn write(archives: &[&Path], passport: &Passport, to: &Path) -> Result<(), Fault> {
    let doing = || format!("writing {}", to.display());
    if to.exists() {
        fs::remove_file(to).doing(doing)?;
    }
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).doing(doing)?;
    let mut length = 0;
    for archive in archives {
        let mut file = File::open(archive).doing(|| format!("opening {}", archive.display()))?;
        length += io::copy(&mut file, &mut out).doing(doing)?;
        // The kernel looks for the next archive at a multiple of four (buffer-format.rst).
        let pad = (4 - length % 4) % 4;
        out.write_all(&[0; 3][..usize::try_from(pad).unwrap_or(0)]).doing(doing)?;
        length += pad;
    }
    out.write_all(&of_passport(passport)?).doing(doing)
}

/// The archive that holds only the passport, for a boot loader that puts the archives together itself.
///
/// # Errors
/// None that can be mended: the passport is not JSON.
pub fn of_passport(passport: &Passport) -> Result<Vec<u8>, Fault> {
    let json = serde_json::to_vec(passport).doing(|| "writing a passport")?;
    Ok(cpio(&[("gatehouse", None), (PASSPORT_PATH, Some(&json))]))
}

/// An uncompressed `newc` archive of directories (no contents) and files, for root only.
fn cpio(members: &[(&str, Option<&[u8]>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, (name, body)) in members.iter().enumerate() {
        let mode = if body.is_some() { 0o100_600 } else { 0o040_700 };
        member(&mut out, name, index + 1, mode, body.unwrap_or_default());
    }
    member(&mut out, "TRAILER!!!", 0, 0, &[]);
    out
}

fn member(out: &mut Vec<u8>, name: &str, inode: usize, mode: usize, body: &[u8]) {
    out.extend_from_slice(b"070701");
    for field in [inode, mode, 0, 0, 1, 0, body.len(), 0, 0, 0, 0, name.len() + 1, 0] {
        out.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(body);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_reads_it_back() {
        let bytes = cpio(&[("gatehouse", None), ("gatehouse/x", Some(b"token"))]);
        assert_eq!(bytes.len() % 4, 0);
        let child = Command::new("cpio")
            .args(["-i", "--to-stdout", "--quiet", "gatehouse/x"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            assert!(std::env::var_os("CI").is_none(), "cpio is missing");
            eprintln!("skipped, because cpio is missing");
            return;
        };
        child.stdin.take().expect("piped").write_all(&bytes).expect("written");
        let output = child.wait_with_output().expect("ended");
        assert_eq!(output.stdout, b"token");
    }
}
