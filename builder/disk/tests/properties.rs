//! Properties of tables and filesystems, over layouts and file trees that nobody thought of.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::sync::OnceLock;

use gatehouse_disk::{
    CheckedTable, FatFile, FatLimits, FatSpec, FatTree, Health, NewPart, PartKind, Planned, Room, Table,
    grown, layout, read_fat, read_table, write_fat, write_table,
};
use gatehouse_model::{Digest, Size};
use proptest::prelude::*;

/// A disk that keeps only what was written, so that it may be as large as disks are.
struct Sparse {
    blocks: BTreeMap<u64, Vec<u8>>,
    len: u64,
    position: u64,
}

const BLOCK: u64 = 4096;

impl Sparse {
    fn new(len: u64) -> Self {
        Self { blocks: BTreeMap::new(), len, position: 0 }
    }

    fn span(&self, wanted: usize) -> (u64, usize, usize) {
        let (block, offset) = (self.position / BLOCK, usize::try_from(self.position % BLOCK).unwrap());
        let left = usize::try_from(self.len.saturating_sub(self.position).min(BLOCK)).unwrap();
        (block, offset, wanted.min(4096 - offset).min(left))
    }
}

impl Read for Sparse {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let (block, offset, take) = self.span(buffer.len());
        match self.blocks.get(&block) {
            Some(bytes) => buffer[..take].copy_from_slice(&bytes[offset..offset + take]),
            None => buffer[..take].fill(0),
        }
        self.position += take as u64;
        Ok(take)
    }
}

impl Write for Sparse {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let (block, offset, take) = self.span(bytes.len());
        let kept = self.blocks.entry(block).or_insert_with(|| vec![0; 4096]);
        kept[offset..offset + take].copy_from_slice(&bytes[..take]);
        self.position += take as u64;
        Ok(take)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Seek for Sparse {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.position = match to {
            SeekFrom::Start(position) => position,
            SeekFrom::End(by) => self.len.checked_add_signed(by).unwrap(),
            SeekFrom::Current(by) => self.position.checked_add_signed(by).unwrap(),
        };
        Ok(self.position)
    }
}

fn kinds() -> impl Strategy<Value = PartKind> {
    prop_oneof![
        Just(PartKind::BiosBoot),
        Just(PartKind::Esp),
        Just(PartKind::BasicData),
        Just(PartKind::LinuxData),
        (1..255_u8).prop_map(|byte| PartKind::Other([byte; 16])),
    ]
}

/// Names, kinds and sizes for an image, its first MiB, its sector size, and MiB that its disk has left over.
fn layouts() -> impl Strategy<Value = (Vec<Planned>, u64, u64, u64)> {
    let part = (proptest::string::string_regex("[a-zA-Z0-9 äß€-]{0,36}").unwrap(), kinds(), 1..1_u64 << 33);
    let parts = proptest::collection::vec(part, 0..20).prop_map(|parts| {
        let planned = |(number, (name, kind, bytes)): (u32, (String, PartKind, u64))| {
            let guid = Digest::of(&number.to_le_bytes()).uuid();
            Planned { name, kind, guid, size: Size::bytes(bytes) }
        };
        (1..).zip(parts).map(planned).collect()
    });
    (parts, 1..64_u64, prop_oneof![Just(512_u64), Just(4096)], 0..10_000_u64)
}

const DISK: [u8; 16] = [0xd1; 16];

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_accepted_is_written_and_read_back((plan, first, sector, spare) in layouts()) {
        let (parts, bytes) = layout(&plan, first, sector);
        let bytes = bytes + (spare << 20);
        let table = CheckedTable::new(parts, DISK, bytes, sector).unwrap();
        let mut disk = Sparse::new(bytes);
        write_table(&table, &mut disk).unwrap();
        let read = read_table(&mut disk, sector).unwrap().unwrap();
        prop_assert_eq!(read.parts.as_slice(), table.parts());
        prop_assert_eq!((read.disk_guid, read.disk_bytes, read.health), (DISK, bytes, Health::Whole));
    }

    #[test]
    fn growing_never_moves_a_partition((plan, first, sector, spare) in layouts(), rest: bool, more in 0..5_u32) {
        let (parts, disk_bytes) = layout(&plan, first, sector);
        let old = CheckedTable::new(parts.clone(), DISK, disk_bytes, sector).unwrap();
        let mut disk = Sparse::new(disk_bytes);
        write_table(&old, &mut disk).unwrap();
        disk.len = disk_bytes + (spare << 20);

        let table: Table = read_table(&mut disk, sector).unwrap().unwrap();
        let wanted = (0..more).map(|index| NewPart {
            number: 100 + index,
            name: format!("new {index}"),
            kind: PartKind::LinuxData,
            guid: Digest::of(&(1000 + index).to_le_bytes()).uuid(),
            room: if rest && index + 1 == more { Room::Rest } else { Room::Exactly(Size::mib(700)) },
        });
        match grown(&table, disk.len, &wanted.collect::<Vec<_>>()) {
            Ok(new) => {
                prop_assert_eq!(&new.parts()[..parts.len()], &parts[..]);
                prop_assert_eq!(new.parts().len(), parts.len() + more as usize);
                write_table(&new, &mut disk).unwrap();
                let read = read_table(&mut disk, sector).unwrap().unwrap();
                prop_assert_eq!(read.parts.as_slice(), new.parts());
                prop_assert_eq!(read.health, Health::Whole);
            }
            Err(_) => prop_assert!(spare < u64::from(more) * 701 + 2, "there was room"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_is_read_back(
        tree in proptest::collection::btree_map("([a-dé]{1,9}[ .]?[a-d]{1,20}/){0,3}[e-h]{1,60}", 0..70_000_usize, 0..60),
    ) {
        let tree = tree.into_iter().map(|(path, size)| {
            let seed = Digest::of(path.as_bytes());
            (path, seed.bytes().iter().copied().cycle().take(size).collect::<Vec<u8>>())
        });
        let tree = tree.collect::<BTreeMap<_, _>>();
        let files = tree.iter().rev().map(|(path, bytes)| FatFile::bytes(path, bytes)).collect();
        let mut image = Cursor::new(vec![0; 33 << 20]);
        let spec = FatSpec { label: "T".into(), volume_id: 1, epoch: 1, sector_size: 512 };
        write_fat(&mut image, &spec, files).unwrap();
        let read = read_fat(&mut image, FatLimits::default()).unwrap();
        prop_assert_eq!(read, tree.into_iter().collect::<Vec<_>>());
    }
}

/// A filesystem with some directories, made once.
fn sound() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let file =
            |number: u8| FatFile::bytes(format!("dir{}/a long name {number}", number % 5), vec![number; 900]);
        let mut image = Cursor::new(vec![0; 33 << 20]);
        let spec = FatSpec { label: "T".into(), volume_id: 1, epoch: 1, sector_size: 512 };
        write_fat(&mut image, &spec, (0..30).map(file).collect()).unwrap();
        image.into_inner()
    })
}

/// A place that matters: in the boot sector, in the table of clusters, or in the first directories.
fn places() -> impl Strategy<Value = usize> {
    let word = |at: usize| u32::from_le_bytes(sound()[at..at + 4].try_into().unwrap()) as usize;
    let data = (32 + 2 * word(36)) * 512;
    prop_oneof![0..90_usize, 32 * 512..32 * 512 + 400_usize, data..data + 20_000]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_never_ends_in_a_panic(damage in proptest::collection::vec((places(), any::<u8>()), 1..6)) {
        let mut image = Damaged { position: 0, damage };
        if let Ok(tree) = FatTree::read(&mut image, FatLimits::default()) {
            prop_assert!(tree.files.keys().all(|path| !path.split('/').any(|name| name == "..")));
        }
    }
}

/// The sound filesystem with some bytes changed, without a copy of it.
struct Damaged {
    position: u64,
    damage: Vec<(usize, u8)>,
}

impl Read for Damaged {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let from = usize::try_from(self.position).unwrap().min(sound().len());
        let take = buffer.len().min(sound().len() - from);
        buffer[..take].copy_from_slice(&sound()[from..from + take]);
        for (at, byte) in &self.damage {
            if (from..from + take).contains(at) {
                buffer[at - from] = *byte;
            }
        }
        self.position += take as u64;
        Ok(take)
    }
}

impl Seek for Damaged {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(by) => (sound().len() as u64).checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = position.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
