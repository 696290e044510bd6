//! Installs onto two files that are a mirror, cut off between any two steps, and gone on with by what is found on them.

use std::cell::Cell;

use super::*;
use crate::host::args::KernelArgs;
use crate::host::bring::carry_out;
use crate::host::facts::Facts;
use crate::host::mirror::{self, finish};
use crate::host::survey;
use crate::host::target::targets;

/// A disk of a machine that has power for so many steps; each is lost before it is done, or after.
struct Power<'a, 'b>(NewDisk<'b>, &'a Cell<usize>);

impl Host<Step> for Power<'_, '_> {
    fn holds(&mut self, step: &Step) -> Result<bool, Fault> {
        self.0.holds(step)
    }

    fn apply(&mut self, step: &Step) -> Result<(), Fault> {
        let left = self.1.get().checked_sub(1).ok_or_else(|| Fault::new("the power fails"))?;
        self.1.set(left);
        self.0.apply(step)
    }
}

fn facts(disks: &[DiskFact]) -> Facts {
    let seen = disks.iter().map(|disk| {
        let mut fact = DiskFact {
            name: disk.name.clone(),
            bytes: disk.bytes,
            sector_size: disk.sector_size,
            ..DiskFact::default()
        };
        survey::probe(std::path::Path::new("/"), &mut fact).unwrap();
        fact
    });
    let text = "{\"disks\":[],\"links\":[],\"memory\":null,\"cpus\":1,\"firmware\":\"bios\",\"hypervisor\":null,\
                \"virtualisation\":[],\"boot-disk\":null,\"boot-id\":\"b\"}";
    Facts { disks: seen.collect(), ..serde_json::from_str(text).unwrap() }
}

/// One start of the installer with power for so many steps; answers whether it came to its end.
fn bring(disks: &[DiskFact], args: &KernelArgs, steps: usize, pair: &str) -> bool {
    let (medium, contents) = medium(None);
    let site = Site::parse(&SITE.replace("min-size = \"8GiB\"", "mirror = true")).unwrap();
    let seen = facts(disks);
    let targets = targets(&site, &seen, args).unwrap_or_else(|refusal| panic!("{}", refusal.what));
    let claim = plan::claim(site.name.as_str(), &targets, Digest::of(&medium.list), pair);
    let was = match &claim.kind {
        ClaimKind::Reinstall { id, .. } => Some(id.as_str()),
        ClaimKind::Install => None,
    };
    let plan = |target: &Target| {
        plan::plan(&site, seen.disk(&target.disk).unwrap(), target, &claim, &contents).unwrap()
    };
    let plans: Vec<_> = targets.disks.iter().map(plan).collect();
    let fats = Fats::new(&medium.list, &site, &medium.sites, was);
    let power = Cell::new(steps);
    let open =
        |plan| Power(NewDisk::open(plan, &medium, &contents, fats.clone(), Box::new(drop)).unwrap(), &power);
    let mut new: Vec<_> = plans.iter().map(open).collect();
    carry_out(&plans, &mut new, "b", &mut drop).is_ok()
}

fn claim_of(disk: &DiskFact) -> Claim {
    facts(std::slice::from_ref(disk)).disks.remove(0).claim.unwrap()
}

fn two(dirs: &[tempfile::TempDir; 2]) -> Vec<DiskFact> {
    dirs.iter().map(|dir| disk(dir, 512)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Wherever it is cut: no disk starts that is not whole, none before both are, the next try comes to the same end, and
    /// a reinstall keeps state on both.
    #[test]
    fn a_mirror_is_gone_on_with(cuts in prop::collection::vec(0_usize..13, 0..4), again in any::<bool>(), named in any::<bool>()) {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut disks = two(&dirs);
        let mut args = KernelArgs::default();
        let mut kept = None;
        if again {
            prop_assert!(bring(&disks, &args, usize::MAX, "pair-1"));
            for disk in &mut disks {
                let (with, at) = with_state(disk);
                (*disk, kept) = (with, Some(at));
            }
            args.reinstall = facts(&disks).disks[1].id.clone();
        }
        let before = disks.iter().map(|disk| table_of(disk).map(|table| table.disk_guid)).collect::<Vec<_>>();
        let is_new = |(disk, before): (&DiskFact, &Option<[u8; 16]>)| {
            table_of(disk).map(|table| table.disk_guid) != *before && is_whole(disk)
        };
        let mut done = false;
        for steps in cuts {
            done = bring(&disks, &args, steps, "pair-2");
            let new: Vec<bool> = disks.iter().zip(&before).map(is_new).collect();
            prop_assert_eq!(done, new == [true, true]);
            if done {
                break;
            }
            // What was begun is known without the name, too.
            if steps > 0 && !named {
                args.reinstall = None;
            }
        }
        prop_assert!(done || bring(&disks, &args, usize::MAX, "pair-3"));
        let (one, other) = (claim_of(&disks[0]), claim_of(&disks[1]));
        prop_assert_eq!(&one, &other);
        prop_assert!(one.pair.is_some() && (!again || one.pair.as_deref() == Some("pair-1")));
        prop_assert_ne!(table_of(&disks[0]).unwrap().disk_guid, table_of(&disks[1]).unwrap().disk_guid);
        for disk in &disks {
            prop_assert!(is_whole(disk));
            let Some(at) = kept else { continue };
            let mut bytes = [0; 25];
            File::open(&disk.name).unwrap().read_exact_at(&mut bytes, at).unwrap();
            prop_assert_eq!(&bytes, b"what cannot be made again");
        }
    }
}

/// Between the last write to one disk and that to the other: the system that starts finishes the other one by itself.
#[test]
fn a_disk_whose_table_is_missing_is_finished_by_the_other() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let disks = two(&dirs);
    assert!(!bring(&disks, &KernelArgs::default(), 11, "pair-1"));
    let seen = facts(&disks);
    assert!(is_whole(&disks[0]) && !is_whole(&disks[1]));
    let pair = mirror::pair(&seen.disks[0], &seen).unwrap().unwrap();
    assert!(pair.unfinished && pair.partner.map(|disk| &disk.name) == Some(&disks[1].name));
    let finished = || finish::is_done(&disks[1].name, 512).unwrap();
    assert!(!finished());
    // It was not only about to be written: something has changed since.
    let file = OpenOptions::new().write(true).open(&disks[1].name).unwrap();
    file.write_all_at(b"damage", 70 * MIB + 100).unwrap();
    finish::finish(&disks[1].name, &disks[0].name, 512).unwrap();
    assert!(finished() && is_whole(&disks[1]));
    let (one, other) = (table_of(&disks[0]).unwrap(), table_of(&disks[1]).unwrap());
    assert!(one.disk_guid != other.disk_guid && one.parts[0].guid != other.parts[0].guid);
    let mut starts = [vec![0; 440], vec![0; 440]];
    for (disk, start) in disks.iter().zip(&mut starts) {
        File::open(&disk.name).unwrap().read_exact_at(start, 0).unwrap();
    }
    assert_eq!(starts[0], starts[1]);
    let seen = facts(&disks);
    assert!(!mirror::pair(&seen.disks[0], &seen).unwrap().unwrap().unfinished);
}

/// What was on a disk whose table cannot be read is not known: it is not given a new one.
#[test]
fn a_disk_whose_table_is_damaged_is_not_finished() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let disks = two(&dirs);
    assert!(bring(&disks, &KernelArgs::default(), usize::MAX, "pair-1"));
    let file = OpenOptions::new().write(true).open(&disks[1].name).unwrap();
    for header in [512, DISK - 512] {
        file.write_all_at(b"damage", header + 60).unwrap();
    }
    finish::finish(&disks[1].name, &disks[0].name, 512).unwrap_err();
    assert!(read_table(&mut File::open(&disks[1].name).unwrap(), 512).is_err());
}
