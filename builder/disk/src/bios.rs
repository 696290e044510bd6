//! GRUB's boot code for BIOS machines, put on a disk without grub-install.

use std::io::{SeekFrom, Write};

use gatehouse_model::{Doing, Fault};

use crate::{Device, Window};

/// BIOS machines count in sectors of this size; GRUB for them knows no other.
const SECTOR: usize = 512;
/// Where boot.img keeps the sector that core.img starts at.
const CORE_SECTOR: usize = 0x5c;
/// The jump over the check of the drive's number; two NOPs let boot.img trust what the BIOS says.
const DRIVE_CHECK: usize = 0x66;
/// In core.img's first sector: where its second sector is, how many follow, and where in memory they go.
const REST_SECTOR: usize = 0x1f4;
const REST_COUNT: usize = 0x1fc;
const REST_SEGMENT: usize = 0x1fe;
/// What the MBR's owners keep: a FAT's parameters, the disk's signature and the partition records.
const KEPT: [std::ops::Range<usize>; 2] = [0x03..0x5a, 0x1b8..SECTOR];

/// Writes core.img from sector `core_lba` on, into at most `core_sectors_available` sectors, and then boot.img
/// into the first sector, both told where to find what follows. The partition table must be there already.
pub fn embed_grub<D: Device>(
    device: &mut D,
    boot_img: &[u8],
    core_img: &[u8],
    core_lba: u64,
    core_sectors_available: u64,
) -> Result<(), Fault> {
    let sectors = core_img.len().div_ceil(SECTOR) as u64;
    if sectors > core_sectors_available {
        return Err(Fault::new(format!(
            "core.img needs {sectors} sectors and the BIOS boot partition has {core_sectors_available}"
        )));
    }
    let sector = SECTOR as u64;
    let start = core_lba.checked_mul(sector).filter(|start| *start != 0);
    let start = start.ok_or_else(|| Fault::new(format!("core.img cannot lie at sector {core_lba}")))?;
    let core = patched_core(core_img, core_lba)?;
    let mut mbr = [0; SECTOR];
    device.seek(SeekFrom::Start(0)).doing(|| "reading the MBR")?;
    device.read_exact(&mut mbr).doing(|| "reading the MBR")?;
    let boot = patched_boot(boot_img, &mbr, core_lba)?;

    let room = core_sectors_available.saturating_mul(sector);
    let mut window = Window::new(&mut *device, "the BIOS boot partition", start, room);
    window.write_all(&core).doing(|| "writing core.img")?;
    window.flush().doing(|| "writing core.img")?;
    device.seek(SeekFrom::Start(0)).doing(|| "writing boot.img")?;
    device.write_all(&boot).doing(|| "writing boot.img")?;
    device.flush().doing(|| "writing boot.img")
}

fn patched_core(core_img: &[u8], core_lba: u64) -> Result<Vec<u8>, Fault> {
    let mut core = core_img.to_vec();
    core.resize(core_img.len().next_multiple_of(SECTOR), 0);
    let rest = (core.len() / SECTOR).checked_sub(1).and_then(|rest| u16::try_from(rest).ok());
    let half = |at: usize| core.get(at..at + 2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    if rest.is_none_or(|rest| rest == 0 || half(REST_COUNT) != Some(rest))
        || half(REST_SEGMENT) != Some(0x0820)
    {
        return Err(Fault::new("core.img is not a core image of grub-mkimage for i386-pc"));
    }
    core[REST_SECTOR..REST_SECTOR + 8].copy_from_slice(&(core_lba + 1).to_le_bytes());
    Ok(core)
}

fn patched_boot(boot_img: &[u8], mbr: &[u8; SECTOR], core_lba: u64) -> Result<[u8; SECTOR], Fault> {
    let mut boot: [u8; SECTOR] = boot_img
        .try_into()
        .ok()
        .filter(|boot: &[u8; SECTOR]| boot[510..] == [0x55, 0xaa] && boot[0x64] == 0xff)
        .ok_or_else(|| Fault::new("boot.img is not GRUB's boot sector for i386-pc"))?;
    if mbr[510..] != [0x55, 0xaa] {
        return Err(Fault::new("the disk has no MBR").help("write the partition table first"));
    }
    boot[CORE_SECTOR..CORE_SECTOR + 8].copy_from_slice(&core_lba.to_le_bytes());
    boot[DRIVE_CHECK..DRIVE_CHECK + 2].fill(0x90);
    for kept in KEPT {
        boot[kept.clone()].copy_from_slice(&mbr[kept]);
    }
    Ok(boot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn images() -> (Vec<u8>, Vec<u8>) {
        let mut boot = vec![0xb0; 512];
        boot[0x64] = 0xff;
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        let mut core = vec![0xc0; 1400];
        core[REST_COUNT..SECTOR].copy_from_slice(&[2, 0, 0x20, 0x08]);
        (boot, core)
    }

    fn disk() -> Cursor<Vec<u8>> {
        let mut bytes = vec![0x11; 64 * 512];
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        Cursor::new(bytes)
    }

    #[test]
    fn every_byte_is_where_grub_looks_for_it() {
        let (boot, core) = images();
        let mut disk = disk();
        embed_grub(&mut disk, &boot, &core, 40, 3).unwrap();
        let bytes = disk.into_inner();

        let mut mbr = boot.clone();
        mbr[0x03..=0x59].fill(0x11);
        mbr[0x1b8..=0x1fd].fill(0x11);
        mbr[0x5c..0x64].copy_from_slice(&[40, 0, 0, 0, 0, 0, 0, 0]);
        mbr[0x66..0x68].copy_from_slice(&[0x90, 0x90]);
        assert_eq!(bytes[..512], mbr);

        let mut first = core[..512].to_vec();
        first[0x1f4..0x1fc].copy_from_slice(&[41, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[40 * 512..41 * 512], first);
        assert_eq!(bytes[41 * 512..40 * 512 + 1400], core[512..]);
        assert!(bytes[40 * 512 + 1400..43 * 512].iter().all(|byte| *byte == 0));
        assert!(bytes[512..40 * 512].iter().chain(&bytes[43 * 512..]).all(|byte| *byte == 0x11));
    }

    #[test]
    fn wrong_images_change_nothing() {
        let (boot, core) = images();
        let text = |disk: &mut Cursor<Vec<u8>>, boot: &[u8], core: &[u8], room| {
            let before = disk.get_ref().clone();
            let fault = embed_grub(disk, boot, core, 40, room).unwrap_err().to_string();
            assert_eq!(*disk.get_ref(), before);
            fault
        };
        let not_core = "core.img is not a core image of grub-mkimage for i386-pc";
        assert_eq!(
            text(&mut disk(), &boot, &core, 2),
            "core.img needs 3 sectors and the BIOS boot partition has 2"
        );
        assert_eq!(text(&mut disk(), &boot, &core[..1000], 3), not_core);
        assert_eq!(text(&mut disk(), &boot, &[], 3), not_core);
        assert_eq!(text(&mut disk(), &core, &core, 3), "boot.img is not GRUB's boot sector for i386-pc");
        assert_eq!(text(&mut Cursor::new(vec![0; 64 * 512]), &boot, &core, 3), "the disk has no MBR");
    }
}
