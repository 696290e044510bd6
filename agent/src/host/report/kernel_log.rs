//! The kernel's log, without a program: an initramfs has no dmesg.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;

/// Longest record (`PRINTK_MESSAGE_MAX` of the kernel's include/linux/printk.h): a shorter buffer is refused.
const RECORD: usize = 2048;
/// A log that grows while it is read ends somewhere: the kernel's buffer holds fewer records than this.
const MOST: usize = 100_000;

/// All that the kernel still knows, in lines as dmesg prints them; empty where it may not be read.
pub fn read() -> String {
    let mut log = String::new();
    let options = &mut OpenOptions::new();
    let Ok(mut kmsg) = options.read(true).custom_flags(nix::libc::O_NONBLOCK).open("/dev/kmsg") else {
        return log;
    };
    let mut buffer = [0; 4 * RECORD];
    for _ in 0..MOST {
        match kmsg.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                let record = String::from_utf8_lossy(&buffer[..count]);
                log.push_str(&line(&record).unwrap_or_default());
            }
            // It was overwritten while it was read; the next read goes on behind the gap.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(_) => break,
        }
    }
    log
}

/// A record of `/dev/kmsg` (Documentation/ABI/testing/dev-kmsg): `priority,number,microseconds,flags;text`, and lines of
/// properties that begin with a blank.
fn line(record: &str) -> Option<String> {
    let (head, text) = record.split_once(';')?;
    let micros: u64 = head.split(',').nth(2)?.parse().ok()?;
    let text = text.lines().next().unwrap_or_default();
    Some(format!("[{:>5}.{:06}] {text}\n", micros / 1_000_000, micros % 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_become_lines() {
        let record = "6,339,5140900,-;usb 1-1: new device\n SUBSYSTEM=usb\n DEVICE=c189:1\n";
        assert_eq!(line(record).as_deref(), Some("[    5.140900] usb 1-1: new device\n"));
        assert_eq!(line("12,1,0,-,caller=T1;a;b\n").as_deref(), Some("[    0.000000] a;b\n"));
        assert_eq!(line("no record"), None);
    }
}
