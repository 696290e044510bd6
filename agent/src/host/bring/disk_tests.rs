//! Installs onto files: from nothing, anew, and cut off at any point.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::PathBuf;

use gatehouse_disk::{FatLimits, read_fat};
use gatehouse_model::{CONTENTS, ContentPart, Digest, FileRef, Site};
use proptest::prelude::*;

use super::*;
use crate::host::bring::plan::{self, ROOT};
use crate::host::claim::ClaimKind;
use crate::host::facts::{DiskFact, PartFact};
use crate::host::import::SiteFiles;
use crate::host::journal::LateJournal;
use crate::host::run::run;
use crate::host::target::{Standing, Target, Targets};
use crate::node::download::Source;

const MIB: u64 = 1 << 20;
const DISK: u64 = 7 << 30;

/// A medium with small pieces, which breaks for good after so many bytes.
struct Fake {
    pieces: BTreeMap<String, Vec<u8>>,
    list: Vec<u8>,
    sites: SiteFiles,
    breaks: Option<usize>,
}

struct Bytes(Vec<u8>, Option<usize>);

impl Source for Bytes {
    fn open(&self, from: u64) -> Result<Box<dyn Read + Send>, Fault> {
        let from = usize::try_from(from).unwrap();
        let end = self.1.map_or(self.0.len(), |most| most.clamp(from, self.0.len()));
        Ok(Box::new(Cursor::new(self.0[from..end].to_vec())))
    }
}

impl Medium for Fake {
    fn list(&self) -> &[u8] {
        &self.list
    }

    fn sites(&self) -> &SiteFiles {
        &self.sites
    }

    fn piece(&self, piece: &FileRef) -> Result<Box<dyn Source>, Fault> {
        Ok(Box::new(Bytes(self.pieces[&piece.path].clone(), self.breaks)))
    }
}

fn medium(breaks: Option<usize>) -> (Fake, Contents) {
    let text = |length: usize, salt: u8| {
        (0..length).map(|at| u8::try_from(at % 251).unwrap() ^ salt).collect::<Vec<u8>>()
    };
    let (mut boot, mut core) = (text(512, 1), text(2048, 2));
    boot[510..].copy_from_slice(&[0x55, 0xaa]);
    boot[0x64] = 0xff;
    core[0x1fc..0x200].copy_from_slice(&[3, 0, 0x20, 0x08]);
    let pieces = BTreeMap::from([
        ("slot-a/boot.img".to_owned(), boot),
        ("slot-a/core.img".to_owned(), core),
        ("slot-a/vmlinuz".to_owned(), text(100_000, 3)),
        ("image/root-a".to_owned(), text(1_500_000, 4)),
        ("image/depot-a".to_owned(), text(700_000, 5)),
    ]);
    let piece = |path: &str| {
        let bytes = &pieces[path];
        FileRef { path: path.to_owned(), size: bytes.len() as u64, sha256: Digest::of(bytes) }
    };
    let names = [("gh-bios", 1), ("gh-esp", 34), ("gh-site", 34), ("gh-root-a", 2), ("gh-depot-a", 2)];
    let part = |(number, (name, mib)): (u32, (&str, u64))| ContentPart {
        number,
        name: name.into(),
        bytes: mib * MIB,
    };
    let contents = Contents {
        schema: 1,
        builder: "test".into(),
        epoch: 1 << 30,
        partitions: (1..).zip(names).map(part).collect(),
        boot: piece("slot-a/boot.img"),
        core: piece("slot-a/core.img"),
        root: piece("image/root-a"),
        depot: piece("image/depot-a"),
        esp: ["slot-a/boot.img", "slot-a/core.img", "slot-a/vmlinuz"].map(piece).to_vec(),
    };
    let list = serde_json::to_vec(&contents).unwrap();
    let sites = SiteFiles::from([("site.toml".to_owned(), SITE.as_bytes().to_vec())]);
    (Fake { pieces, list, sites, breaks }, contents)
}

const SITE: &str = include_str!("../../../../site-templates/minimal/site.toml");

fn planned(disk: &DiskFact, standing: &Standing, medium: &Fake, contents: &Contents) -> BringPlan {
    let site = Site::parse(SITE).unwrap();
    let target = Target { disk: disk.name.clone(), standing: standing.clone() };
    let targets = Targets { disks: vec![target.clone()], mirror: false, pair: None };
    let claim = plan::claim(site.name.as_str(), &targets, Digest::of(&medium.list), "");
    plan::plan(&site, disk, &target, &claim, contents).unwrap()
}

/// One install with so many steps before the power fails; the answer is whether it came to its end.
fn install(disk: &DiskFact, standing: &Standing, breaks: Option<usize>, steps: usize) -> bool {
    let (medium, contents) = medium(breaks);
    let site = Site::parse(SITE).unwrap();
    let mut plan = planned(disk, standing, &medium, &contents);
    let whole = steps >= plan.steps.len();
    plan.steps.truncate(steps);
    let was = match standing {
        Standing::Reinstall { id, .. } => Some(id.as_str()),
        _ => None,
    };
    let fats = Fats::new(&medium.list, &site, &medium.sites, was);
    let mut new = NewDisk::open(&plan, &medium, &contents, fats, Box::new(drop)).unwrap();
    let mut journal = LateJournal::new(std::path::Path::new("/nowhere/journal"), "b");
    match run(&plan.steps, &mut new, &mut journal, &mut drop) {
        Ok(_) => whole,
        Err(fault) => {
            println!("{fault}");
            false
        }
    }
}

fn disk(dir: &tempfile::TempDir, sector_size: u64) -> DiskFact {
    let path: PathBuf = dir.path().join("disk");
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path).unwrap();
    file.set_len(DISK).unwrap();
    DiskFact { name: path.to_str().unwrap().into(), bytes: DISK, sector_size, ..DiskFact::default() }
}

fn table_of(disk: &DiskFact) -> Option<Table> {
    read_table(&mut File::open(&disk.name).unwrap(), disk.sector_size).ok().flatten()
}

/// Whether something starts from it; then everything must be there.
fn is_whole(disk: &DiskFact) -> bool {
    let own = |table: &Table| {
        table.health != Health::PrimaryLost && table.parts.iter().any(|part| part.number == 1)
    };
    let Some(table) = table_of(disk).filter(own) else { return false };
    let (medium, contents) = medium(None);
    let window = |name: &str| {
        let part = table.parts.iter().find(|part| part.name == name).unwrap();
        part.window(File::open(&disk.name).unwrap(), disk.sector_size)
    };
    let esp: BTreeMap<String, Vec<u8>> =
        read_fat(window(ESP), FatLimits::default()).unwrap().into_iter().collect();
    assert_eq!(esp[CONTENTS], medium.list);
    assert!(
        esp.contains_key("gatehouse/installed") && esp["slot-a/vmlinuz"] == medium.pieces["slot-a/vmlinuz"]
    );
    for (name, piece) in [(ROOT, &contents.root), (plan::DEPOT, &contents.depot)] {
        let mut bytes = vec![0; usize::try_from(piece.size).unwrap()];
        window(name).read_exact(&mut bytes).unwrap();
        assert_eq!(Digest::of(&bytes), piece.sha256, "{name}");
    }
    let site = read_fat(window(SITE_PART), FatLimits::default()).unwrap();
    assert!(site.iter().any(|(path, bytes)| path == "boot.cfg" && bytes.ends_with(b"set to=self\n")));
    true
}

const SITE_PART: &str = "gh-site";

#[test]
fn a_blank_disk_of_either_sector_size_is_installed() {
    for sector_size in [512, 4096] {
        let dir = tempfile::tempdir().unwrap();
        let disk = disk(&dir, sector_size);
        assert!(install(&disk, &Standing::Blank, None, 9));
        assert!(is_whole(&disk), "{sector_size}");
        let first = table_of(&disk).unwrap();
        // A second install of the same disk has other ids.
        assert!(install(&disk, &Standing::Erase { lost: String::new() }, None, 9));
        assert_ne!(table_of(&disk).unwrap().disk_guid, first.disk_guid);
    }
}

/// What is kept of an installed disk: partitions 8 and 9 with something in them.
fn with_state(disk: &DiskFact) -> (DiskFact, u64) {
    let table = table_of(disk).unwrap();
    let (start, mut parts) = (200 * MIB, table.parts.clone());
    let kept = Slice { number: 8, name: "gh-state".into(), start, bytes: 8 * MIB };
    parts.push(kept.to_part([8; 16], disk.sector_size));
    let new = CheckedTable::new(parts.clone(), table.disk_guid, DISK, disk.sector_size).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&disk.name).unwrap();
    write_table(&new, &mut Synced(&file)).unwrap();
    file.write_all_at(b"what cannot be made again", start).unwrap();
    let partitions = parts.iter().map(|part| PartFact {
        number: part.number,
        name: part.name.clone(),
        start: part.start(disk.sector_size),
        bytes: part.bytes(disk.sector_size),
        ..PartFact::default()
    });
    (DiskFact { partitions: partitions.collect(), ..disk.clone() }, start)
}

/// A table that is damaged, or gone, between the first step of a reinstall and its last one.
#[test]
fn no_table_is_written_without_what_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let blank = disk(&dir, 512);
    assert!(install(&blank, &Standing::Blank, None, 9));
    let (disk, _) = with_state(&blank);
    let standing = Standing::Reinstall { id: "id-1".into(), lose_all: false };
    assert!(!install(&disk, &standing, None, 5));
    let (medium, contents) = medium(None);
    let site = Site::parse(SITE).unwrap();
    let plan = planned(&disk, &standing, &medium, &contents);
    let fats = Fats::new(&medium.list, &site, &medium.sites, None);
    let mut new = NewDisk::open(&plan, &medium, &contents, fats, Box::new(drop)).unwrap();
    let write = plan.steps.last().unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&disk.name).unwrap();
    // Only the first one leaves the mark of a table.
    for (at, damage, said) in
        [(60, &[0xff][..], "reading the partition table"), (0, &[0; 512][..], "gh-state of ")]
    {
        for header in [512, DISK - 512] {
            file.write_all_at(damage, header + at).unwrap();
        }
        let fault = new.apply(write).unwrap_err().to_string();
        assert!(fault.contains(said), "{fault}");
        assert!(said.starts_with("gh-state") || new.holds(write).is_err());
        assert!(table_of(&disk).is_none(), "a table was written");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Cut between any two steps, or by a medium that breaks anywhere in a piece: nothing half-written starts, and the
    /// next try comes to the same end. A reinstall keeps state whatever happens.
    #[test]
    fn whatever_is_cut_is_gone_on_with(cuts in prop::collection::vec((0_usize..7, prop::option::of(0_usize..1_600_000)), 1..4), again in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = disk(&dir, 512);
        let mut standing = Standing::Blank;
        let mut kept = None;
        if again {
            prop_assert!(install(&disk, &Standing::Blank, None, 9));
            let (with, at) = with_state(&disk);
            (disk, kept) = (with, Some(at));
            standing = Standing::Reinstall { id: "id-1".into(), lose_all: false };
        }
        for (steps, breaks) in cuts {
            let done = install(&disk, &standing, breaks, steps);
            // Before its first step a reinstall has changed nothing.
            prop_assert!(done || steps == 0 || !is_whole(&disk));
        }
        prop_assert!(install(&disk, &standing, None, 9));
        prop_assert!(is_whole(&disk));
        if let Some(at) = kept {
            let mut bytes = [0; 25];
            File::open(&disk.name).unwrap().read_exact_at(&mut bytes, at).unwrap();
            prop_assert_eq!(&bytes, b"what cannot be made again");
            prop_assert!(table_of(&disk).unwrap().parts.iter().any(|part| part.name == "gh-state"));
        }
        let mut block = [0; BLOCK];
        File::open(&disk.name).unwrap().read_exact_at(&mut block, CLAIM_AT).unwrap();
        let keeps = matches!(Claim::from_block(&block).unwrap().kind, ClaimKind::Reinstall { .. });
        prop_assert_eq!(keeps, again);
    }
}

#[path = "pair_tests.rs"]
mod pair;
