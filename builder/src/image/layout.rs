//! Where everything lies in the image, and what it is called: ids derive from the lock and the builder's version.

use std::fmt::Write as _;

use gatehouse_disk::{CheckedTable, Part, PartKind, Planned, layout};
use gatehouse_model::{Digest, Fault, Size};

use super::parts::Parts;
use super::{SECTOR, VERSION};

/// GPT names.
pub const BIOS: &str = "gh-bios";
/// The EFI system partition.
pub const ESP: &str = "gh-esp";
/// The site partition.
pub const SITE: &str = "gh-site";
/// Slot A's root.
pub const ROOT: &str = "gh-root-a";
/// Slot A's depot.
pub const DEPOT: &str = "gh-depot-a";

/// GRUB's core image has some 200 KB.
const BIOS_SIZE: Size = Size::mib(1);
/// Xen, kernel and an initrd with firmware for two slots, and GRUB for UEFI.
const ESP_SIZE: Size = Size::mib(512);
const SITE_SIZE: Size = Size::mib(64);
/// Slots are a multiple of this.
const SLOT_UNIT: u64 = 64 << 20;

/// The source of every id in one image.
#[derive(Clone, Debug)]
pub struct Ids(Digest);

impl Ids {
    /// The ids of images made by this builder of this lock.
    pub fn of(lock: &Digest) -> Self {
        Self(Digest::of(format!("gatehouse image {VERSION} {lock}").as_bytes()))
    }

    fn digest(&self, what: &str) -> Digest {
        Digest::of(format!("{} {what}", self.0).as_bytes())
    }

    /// A GUID in RFC byte order.
    pub fn guid(&self, what: &str) -> [u8; 16] {
        self.digest(what).uuid()
    }

    /// A UUID as programs take it.
    pub fn uuid(&self, what: &str) -> String {
        let mut text = String::with_capacity(36);
        for (index, byte) in self.guid(what).iter().enumerate() {
            if [4, 6, 8, 10].contains(&index) {
                text.push('-');
            }
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// The serial number of a FAT.
    pub fn volume(&self, what: &str) -> u32 {
        let digest = self.digest(what);
        let [a, b, c, d, ..] = *digest.bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}

/// The checked table of an image.
#[derive(Debug)]
pub struct Layout {
    /// The table.
    pub table: CheckedTable,
}

impl Layout {
    /// Places the parts of an image.
    ///
    /// # Errors
    /// The table is wrong, which would be a mistake in this file.
    pub fn of(parts: &Parts) -> Result<Self, Fault> {
        Self::new(&parts.ids, slot(parts.root.size), slot(parts.depot_fs.size))
    }

    fn new(ids: &Ids, root: Size, depot: Size) -> Result<Self, Fault> {
        let planned = [
            (BIOS, PartKind::BiosBoot, BIOS_SIZE),
            (ESP, PartKind::Esp, ESP_SIZE),
            (SITE, PartKind::BasicData, SITE_SIZE),
            (ROOT, PartKind::LinuxData, root),
            (DEPOT, PartKind::LinuxData, depot),
        ]
        .map(|(name, kind, size)| Planned {
            name: name.to_owned(),
            kind,
            guid: ids.guid(name),
            size,
        });
        let (parts, bytes) = layout(&planned, 1, SECTOR);
        let table = CheckedTable::new(parts, ids.guid("disk"), bytes, SECTOR);
        table.map(|table| Self { table }).map_err(|wrong| Fault::new(wrong.join("; ")))
    }

    /// A partition by its name.
    ///
    /// # Errors
    /// There is none, which would be a mistake in this file.
    pub fn part(&self, name: &str) -> Result<&Part, Fault> {
        let found = self.table.parts().iter().find(|part| part.name == name);
        found.ok_or_else(|| Fault::new(format!("the image has no partition {name}")))
    }
}

/// A slot that holds so many bytes, with half as much again for later versions of the same.
fn slot(bytes: u64) -> Size {
    Size::bytes((bytes + bytes / 2).max(1).next_multiple_of(SLOT_UNIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_have_the_numbers_and_names_that_the_machine_expects() {
        let ids = Ids::of(&Digest::of(b"lock"));
        let layout = Layout::new(&ids, slot(100 << 20), slot(1)).expect("a good table");
        let found: Vec<_> =
            layout.table.parts().iter().map(|p| (p.number, p.name.as_str(), p.bytes(SECTOR) >> 20)).collect();
        assert_eq!(found, [(1, BIOS, 1), (2, ESP, 512), (3, SITE, 64), (4, ROOT, 192), (5, DEPOT, 64)]);
        assert_eq!(layout.table.disk_bytes() >> 20, 1 + 1 + 512 + 64 + 192 + 64 + 1);
    }

    #[test]
    fn ids_differ_by_thing_and_by_lock() {
        let ids = Ids::of(&Digest::of(b"lock"));
        assert_eq!(ids.uuid(ROOT), Ids::of(&Digest::of(b"lock")).uuid(ROOT));
        assert_ne!(ids.guid(ROOT), ids.guid(DEPOT));
        assert_ne!(ids.guid(ROOT), Ids::of(&Digest::of(b"other")).guid(ROOT));
        assert_ne!(ids.volume(ESP), ids.volume(SITE));
        assert_eq!(ids.uuid(ROOT).len(), 36);
        assert_eq!(&ids.uuid(ROOT)[14..15], "8");
    }
}
