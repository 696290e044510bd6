//! UEFI's own list of what it starts: the new disk comes first in it, whatever the machine was started from.

use std::path::Path;

use gatehouse_model::Fault;
use nix::mount::MsFlags;

use crate::host::mounts;
use crate::tool;

/// Where the firmware's variables are shown.
const VARIABLES: &str = "/sys/firmware/efi/efivars";
/// What the entry is called.
const LABEL: &str = "Gatehouse";
/// GRUB on the boot partition, in the place where firmware looks by itself: a machine that forgets the entry starts too.
const LOADER: &str = "\\EFI\\BOOT\\BOOTX64.EFI";

/// Whether the machine was started by UEFI, whose variables can be written.
pub fn is_uefi() -> bool {
    Path::new("/sys/firmware/efi").is_dir()
}

/// Puts the loaders of some disks' partitions first, in this order. Entries of earlier installs go: their disk may be the
/// same.
///
/// # Errors
/// efibootmgr's own words. The machine starts from the disk all the same, if nothing else comes before it.
pub fn start_first(loaders: &[(String, u32)]) -> Result<(), Fault> {
    mounts::mount_once("efivarfs", "efivarfs", Path::new(VARIABLES), MsFlags::empty(), "")?;
    for number in entries(&tool::run::<&str>("efibootmgr", &[])?) {
        tool::run("efibootmgr", &["--quiet", "--bootnum", number, "--delete-bootnum"])?;
    }
    // Each new entry comes before all others.
    for (disk, esp) in loaders.iter().rev() {
        let (disk, part) = (format!("/dev/{disk}"), esp.to_string());
        let words =
            ["--quiet", "--create", "--disk", &disk, "--part", &part, "--label", LABEL, "--loader", LOADER];
        tool::run("efibootmgr", &words)?;
    }
    Ok(())
}

/// The numbers of our entries in efibootmgr's list: `Boot0003* Gatehouse\tHD(2,GPT,…)`.
fn entries(list: &str) -> Vec<&str> {
    list.lines().filter_map(entry).collect()
}

fn entry(line: &str) -> Option<&str> {
    let (number, rest) = line.strip_prefix("Boot")?.split_at_checked(4)?;
    let label = rest.trim_start_matches('*').trim_start().split('\t').next()?;
    (number.bytes().all(|byte| byte.is_ascii_hexdigit()) && label == LABEL).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_entries_are_ours() {
        let list = "BootCurrent: 0001\nTimeout: 0 seconds\nBootOrder: 0001,0000,000A\nBoot0000* UiApp\tFvVol(7cb8)\n\
                    Boot0001* Gatehouse\tHD(2,GPT,11,0x1000,0x100000)/File(\\EFI)\nBoot0002* Gatehouse too\tPci(0)\n\
                    Boot000A  Gatehouse\tHD(2,GPT,12)\n";
        assert_eq!(entries(list), ["0001", "000A"]);
    }
}
