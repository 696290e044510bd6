//! Golden machines: `golden-target/NAME/{disk.toml,facts.json,cmdline}` and what is decided of them, `target.txt`.
//! `BLESS=1` rewrites.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use gatehouse_model::{ContentPart, Contents, Digest, FileRef};
use proptest::prelude::*;

use super::*;
use crate::host::bring::plan::{claim, plan};

const SITE: &str = include_str!("../../../../site-templates/minimal/site.toml");
const RULE: &str = "[[disk]]\nmin-size = \"8GiB\"\n";

fn site(rule: &str) -> Site {
    assert!(SITE.contains(RULE));
    Site::parse(&SITE.replace(RULE, &format!("[[disk]]\n{rule}\n"))).unwrap()
}

/// An image as large as that of the minimal site.
fn contents() -> Contents {
    let names = [("gh-bios", 1), ("gh-esp", 512), ("gh-site", 64), ("gh-root-a", 576), ("gh-depot-a", 384)];
    let part = |(number, (name, mib)): (u32, (&str, u64))| ContentPart {
        number,
        name: name.into(),
        bytes: mib << 20,
    };
    let piece = |path: &str, mib: u64| FileRef {
        path: path.into(),
        size: mib << 20,
        sha256: Digest::of(path.as_bytes()),
    };
    Contents {
        schema: 1,
        builder: "test".into(),
        epoch: 0,
        partitions: (1..).zip(names).map(part).collect(),
        boot: piece("boot", 0),
        core: piece("core", 0),
        root: piece("root", 375),
        depot: piece("depot", 224),
        esp: Vec::new(),
    }
}

fn decided(site: &Site, facts: &Facts, args: &KernelArgs) -> Result<String, Refusal> {
    let targets = targets(site, facts, args)?;
    let claim = claim(site.name.as_str(), &targets, Digest::of(b"contents"), "pair-1");
    let mut said = String::new();
    for target in &targets.disks {
        let plan = plan(site, facts.disk(&target.disk).unwrap(), target, &claim, &contents())?;
        write!(said, "{target}\n{plan}").unwrap();
    }
    Ok(said)
}

#[test]
fn every_machine_is_decided_as_it_was() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/host/golden-target");
    let mut cases: Vec<PathBuf> = fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 24);
    for case in cases {
        let text = |name: &str| fs::read_to_string(case.join(name)).unwrap_or_default();
        let facts: Facts = serde_json::from_str(&text("facts.json")).unwrap();
        let args = KernelArgs::parse(&text("cmdline")).unwrap();
        let said = decided(&site(&text("disk.toml")), &facts, &args)
            .unwrap_or_else(|refusal| format!("refusal: {}\nhelp: {}\n", refusal.what, refusal.help));
        if std::env::var_os("BLESS").is_some() {
            fs::write(case.join("target.txt"), &said).unwrap();
        }
        assert_eq!(said, text("target.txt"), "{}; if meant, BLESS=1", case.display());
    }
}

/// A disk of any kind.
fn any_disk() -> impl Strategy<Value = DiskFact> {
    let claim = prop::option::weighted(
        0.2,
        any::<bool>().prop_map(|lose_all| Claim {
            contents: Digest::of(b"x"),
            site: "minimal".into(),
            kind: if lose_all {
                ClaimKind::Install
            } else {
                ClaimKind::Reinstall { id: "id-1".into(), lose_all }
            },
            pair: None,
        }),
    );
    let part = prop::sample::select(vec!["", "gh-esp", "gh-root-a", "gh-state", "gh-vms", "data"]);
    let flags = any::<[bool; 4]>();
    (4_u64..64, prop::option::of(1_u32..4), prop::collection::vec(part, 0..4), claim, flags).prop_map(
        |(gib, id, parts, claim, [used, read_only, lost, holds])| DiskFact {
            bytes: gib << 30,
            sector_size: 512,
            id: id.map(|id| format!("id-{id}")),
            partitions: (1..)
                .zip(parts)
                .map(|(number, name)| crate::host::facts::PartFact {
                    number,
                    name: name.into(),
                    start: u64::from(number) << 30,
                    bytes: 1 << 29,
                    ..Default::default()
                })
                .collect(),
            claim,
            used_by: if used && read_only { vec!["md0".into()] } else { Vec::new() },
            read_only: read_only && !used,
            primary_lost: lost,
            holds: if holds { vec!["ntfs".into()] } else { Vec::new() },
            ..DiskFact::default()
        },
    )
}

proptest! {
    /// Whatever the machine: never the medium, what is in use or read-only, or what somebody still needs.
    #[test]
    fn no_wrong_disk(disks in prop::collection::vec(any_disk(), 1..5), always in any::<bool>(), reinstall in prop::option::of(1_u32..4)) {
        let mut disks = disks;
        for (letter, disk) in ('a'..).zip(&mut disks) {
            disk.name = format!("sd{letter}");
        }
        let facts: Facts = serde_json::from_str(&format!(
            "{{\"disks\":{},\"links\":[],\"memory\":null,\"cpus\":1,\"firmware\":\"bios\",\"hypervisor\":null,\
             \"virtualisation\":[],\"boot-disk\":\"sda\",\"boot-id\":\"\"}}",
            serde_json::to_string(&disks).unwrap()
        )).unwrap();
        let args = KernelArgs { reinstall: reinstall.map(|id| format!("id-{id}")), ..KernelArgs::default() };
        let rule = if always { "sort = \"largest\"\nerase = \"always\"" } else { "sort = \"largest\"" };
        let Ok(mut chosen) = targets(&site(rule), &facts, &args) else { return Ok(()) };
        let chosen = chosen.disks.remove(0);
        let disk = facts.disk(&chosen.disk).unwrap();
        prop_assert!(disk.name != "sda" && !disk.read_only && disk.used_by.is_empty());
        let bare = disk.holds.is_empty() && disk.partitions.is_empty();
        match chosen.standing {
            Standing::Blank => prop_assert!(bare),
            Standing::Erase { .. } => prop_assert!(always && !disk.is_installed() && !is_kept(disk)),
            Standing::Resume(claim) => {
                prop_assert!(disk.claim.is_some() && !disk.is_installed());
                prop_assert!(claim.kind != ClaimKind::Install || (bare || disk.primary_lost) && !is_kept(disk));
            }
            Standing::Reinstall { id, .. } => prop_assert!(Some(id) == args.reinstall && args.reinstall == disk.id),
        }
    }
}
