//! Golden plans: `golden/NAME/{site.toml,facts.json,cmdline}` and the `plan.txt` they make. `BLESS=1` rewrites.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::host::facts::PartFact;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/host/golden")
}

fn read(case: &Path) -> (Site, Facts, KernelArgs) {
    let text = |name: &str| fs::read_to_string(case.join(name)).unwrap();
    let facts = serde_json::from_str(&text("facts.json")).unwrap();
    (Site::parse(&text("site.toml")).unwrap(), facts, KernelArgs::parse(&text("cmdline")).unwrap())
}

#[test]
fn every_plan_is_as_it_was() {
    let mut cases: Vec<PathBuf> =
        fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    for case in cases {
        let (site, facts, args) = read(&case);
        let text = match plan(&site, &facts, &args) {
            Ok(plan) => plan.to_string(),
            Err(refusal) => format!("refusal: {}\nhelp: {}\n", refusal.what, refusal.help),
        };
        let path = case.join("plan.txt");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        assert_eq!(
            text,
            fs::read_to_string(&path).unwrap_or_default(),
            "{}; if meant, BLESS=1",
            path.display()
        );
    }
}

proptest! {
    /// Whatever the disk's size, the plan fits it, or is refused; and it is the same once it is carried out.
    #[test]
    fn a_plan_fits_and_stays(mib in 3000_u64..40_000, odd in 0_u64..2048, sector_size in prop::sample::select(vec![512_u64, 4096])) {
        let (site, mut facts, args) = read(&golden().join("self"));
        let disk = facts.disks.iter_mut().find(|disk| disk.name == "vda").unwrap();
        (disk.bytes, disk.sector_size) = (mib * MIB + odd * 4096, sector_size);
        let Ok(first) = plan(&site, &facts, &args) else { return Ok(()) };
        let Action::GrowTable { parts, .. } = &first.actions[0] else { panic!("the table comes first") };
        let disk = facts.disks.iter_mut().find(|disk| disk.name == "vda").unwrap();
        let mut at = disk.partitions.iter().map(|part| part.start + part.bytes).max().unwrap();
        for part in parts {
            prop_assert!(at % MIB == 0 && part.bytes % MIB == 0 && part.bytes > 0);
            disk.partitions.push(PartFact { number: part.number, name: part.name.clone(), start: at, bytes: part.bytes, ..PartFact::default() });
            at += part.bytes;
        }
        prop_assert!(at + 128 * 128 + sector_size <= disk.bytes);
        prop_assert!(parts[3].bytes >= stores(&site) && parts[2].bytes >= LEAST_STATE);
        prop_assert_eq!(plan(&site, &facts, &KernelArgs { install_to: None, ..args }).unwrap(), first);
    }
}
