//! Which halves make a mirror, by what they say of themselves.

use super::*;
use crate::host::claim::{Claim, ClaimKind};
use crate::host::md::Member;

fn disk(name: &str, member: Option<(u64, bool, bool)>) -> DiskFact {
    let member =
        member.map(|(events, alone, filling)| Member { array: Array::State.id("p"), events, alone, filling });
    let part = |number: u32, name: &str, member| PartFact {
        number,
        name: name.into(),
        member,
        ..PartFact::default()
    };
    let claim = Claim {
        contents: Digest::of(b""),
        site: "minimal".into(),
        kind: ClaimKind::Install,
        pair: Some("p".into()),
    };
    let partitions = vec![part(2, "gh-esp", None), part(4, "gh-root-a", None), part(8, "gh-state", member)];
    DiskFact { name: name.into(), partitions, claim: Some(claim), ..DiskFact::default() }
}

type Half = Option<(u64, bool, bool)>;

fn decided(booted: Half, partner: Option<Half>) -> (String, Option<String>, Option<String>) {
    let (booted, partner) = (disk("vda", booted), partner.map(|half| disk("vdb", half)));
    let halves = halves(
        &Pair { id: "p", booted: &booted, partner: partner.as_ref(), unfinished: false },
        Array::State,
    );
    (halves.run.join(" "), halves.join, halves.apart)
}

#[test]
fn the_newest_half_counts() {
    let part = |name: &str| Some(name.to_owned());
    for (booted, partner, run, join, apart) in [
        // Never made; both there; one missing.
        (None, Some(None), "", None, None),
        (Some((7, false, false)), Some(Some((7, false, false))), "vda8 vdb8", None, None),
        (Some((7, false, false)), None, "vda8", None, None),
        // Power failed between writing one and the other.
        (Some((7, false, false)), Some(Some((8, false, false))), "vdb8 vda8", None, None),
        // The other one was away: it is behind, whichever was started from, and by however little.
        (Some((90, true, false)), Some(Some((7, false, false))), "vda8", part("vdb8"), None),
        (Some((7, false, false)), Some(Some((90, true, false))), "vdb8", part("vda8"), None),
        (Some((8, true, false)), Some(Some((7, false, false))), "vda8", part("vdb8"), None),
        (Some((90, false, false)), Some(Some((7, false, false))), "vda8", part("vdb8"), None),
        // Each has run without the other: neither is taken for a copy.
        (Some((90, true, false)), Some(Some((99, true, false))), "vdb8", None, part("vda8")),
        (Some((99, true, false)), Some(Some((99, true, false))), "vda8", None, part("vdb8")),
        // A new disk; one that is being filled, and never counts by itself.
        (Some((9, true, false)), Some(None), "vda8", part("vdb8"), None),
        (None, Some(Some((9, true, false))), "vdb8", part("vda8"), None),
        (Some((9, false, false)), Some(Some((9, false, true))), "vda8 vdb8", None, None),
        (Some((9, false, true)), Some(Some((9, false, false))), "vdb8 vda8", None, None),
        (Some((9, false, true)), None, "vda8", None, None),
    ] {
        assert_eq!(decided(booted, partner), (run.to_owned(), join, apart), "{booted:?} {partner:?}");
    }
}

#[test]
fn a_member_of_another_mirror_is_none() {
    let mut old = disk("vdb", Some((99, true, false)));
    for part in &mut old.partitions {
        part.member = part.member.take().map(|member| Member { array: "0".repeat(32), ..member });
    }
    let booted = disk("vda", Some((7, true, false)));
    let halves =
        halves(&Pair { id: "p", booted: &booted, partner: Some(&old), unfinished: false }, Array::State);
    assert_eq!((halves.run, halves.join.as_deref()), (vec!["vda8".to_owned()], Some("vdb8")));
}

#[test]
fn a_pair_is_of_two_disks_of_one_claim() {
    let mut facts: Facts = serde_json::from_str(
        "{\"disks\":[],\"links\":[],\"memory\":null,\"cpus\":1,\"firmware\":\"bios\",\"hypervisor\":null,\
         \"virtualisation\":[],\"boot-disk\":\"vda\",\"boot-id\":\"\"}",
    )
    .unwrap();
    let booted = disk("vda", None);
    let mut other = disk("vdb", None);
    let claim = other.claim.as_mut().unwrap();
    claim.pair = Some("q".into());
    facts.disks = vec![booted.clone(), other.clone(), disk("vdc", None)];
    let found = pair(&booted, &facts).unwrap().unwrap();
    assert_eq!(found.partner.map(|disk| disk.name.as_str()), Some("vdc"));
    // A broken one, or one that cannot be written to, is as good as none.
    facts.disks[2].trouble = Some("I/O error".into());
    assert!(pair(&booted, &facts).unwrap().unwrap().partner.is_none());
    facts.disks = vec![booted.clone(), disk("vdb", None), disk("vdc", None)];
    assert!(pair(&booted, &facts).unwrap_err().what.starts_with("the mirror is of two disks, and these"));
    other.claim = None;
    assert!(pair(&other, &facts).unwrap().is_none());
}

#[test]
fn a_half_without_its_claim_is_refused() {
    let mut half = disk("vda", Some((7, true, false)));
    check_claimed(&half).unwrap();
    half.claim.as_mut().unwrap().pair = None;
    let refusal = check_claimed(&half).unwrap_err();
    assert!(refusal.what.starts_with("vda8 (gh-state) is half of a mirror"), "{}", refusal.what);
    half.claim = None;
    check_claimed(&half).unwrap_err();
    check_claimed(&DiskFact { claim: None, ..disk("vda", None) }).unwrap();
}

#[test]
fn equal_disks_may_differ_by_a_little() {
    let of = |gib: u64, sector_size| DiskFact { bytes: gib << 30, sector_size, ..DiskFact::default() };
    check_alike(&of(1000, 512), &of(991, 512)).unwrap();
    check_alike(&of(1000, 512), &of(985, 512)).unwrap_err();
    check_alike(&of(1000, 512), &of(1000, 4096)).unwrap_err();
    assert!(usable(of(1000, 512).bytes, true) < of(985, 512).bytes);
    assert_eq!(usable(1000, false), 1000);
}
