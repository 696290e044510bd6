use std::fs;

use gatehouse_model::{Digest, Doing as _, Refusal};

use super::medium::{read_from, write_to};
use super::*;
use crate::host::facts::{Dmi, Firmware, LinkFact};

pub(super) fn facts() -> Facts {
    let mac = "02:00:5e:00:00:01".parse().unwrap();
    let link = LinkFact {
        name: "eth0".into(),
        mac,
        driver: Some("virtio_net".into()),
        carrier: Some(true),
        speed: None,
        path: None,
    };
    let dmi = Dmi { serial: Some("SN/1 a".into()), product: Some("R640".into()), vendor: None };
    Facts {
        disks: Vec::new(),
        links: vec![link],
        memory: Some(4 << 30),
        cpus: 2,
        firmware: Firmware::Bios,
        hypervisor: None,
        virtualisation: Vec::new(),
        boot_disk: None,
        boot_id: "6f1a".into(),
        dmi,
    }
}

fn event(state: State, message: &str) -> Event {
    let (host, phase) = ("gate".into(), "self-install".into());
    let action = "copying the depot".into();
    Event { ts: 1_767_225_605_000, host, phase, action, state, percent: None, message: message.into() }
}

pub(super) fn report(phase: Phase, fault: Option<&Fault>) -> Report {
    let facts = facts();
    let events = [event(State::Started, ""), event(State::Progress, "half"), event(State::Succeeded, "")];
    let account = Account {
        phase,
        at: 1_767_225_600,
        site: "gate",
        facts: &facts,
        contents: Some(Digest::of(b"list")),
        plan: Some("1 copying the depot\n"),
        events: &events,
        kernel_log: "[    0.000000] Linux\n",
    };
    Report::of(&account, fault)
}

/// All that is on a medium afterwards, as one text.
fn below(dir: &std::path::Path) -> String {
    let mut out = String::new();
    for (name, bytes) in crate::host::import::read(&dir.join("report")).unwrap() {
        write!(out, "== {name}\n{}", String::from_utf8(bytes).unwrap()).unwrap();
    }
    out
}

#[test]
fn a_report_on_a_medium_is_for_any_computer_and_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let report = report(Phase::SelfInstall, None);
    write_to(dir.path(), &report).unwrap();
    // This is all that a report holds: what is added to it is looked at for secrets first.
    let golden = include_str!("golden.txt");
    let said = below(dir.path());
    if std::env::var_os("BLESS").is_some() {
        fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/host/report/golden.txt"), &said).unwrap();
    } else {
        assert_eq!(said, golden, "BLESS=1 rewrites it");
    }
    assert_eq!(read_from(dir.path(), &report.machine), std::slice::from_ref(&report));
    let other = Machine { serial: Some("2".into()), ..report.machine.clone() };
    assert_eq!(read_from(dir.path(), &other), []);
}

#[test]
fn a_report_replaces_the_one_before_and_leaves_other_phases() {
    let dir = tempfile::tempdir().unwrap();
    let first = report(Phase::SelfInstall, None);
    let refusal = Fault::from(Refusal::new("no disk matches", "name another"));
    let broken = Err::<(), _>(Fault::new("no room")).doing(|| "copying").unwrap_err();
    for fault in [None, Some(&refusal), Some(&broken)] {
        write_to(dir.path(), &report(Phase::FirstBoot, fault)).unwrap();
        write_to(dir.path(), &first).unwrap();
    }
    let name = "report/gate-SN-1-a-first-boot.partial";
    assert!(!dir.path().join(name).exists());
    fs::create_dir_all(dir.path().join(name)).unwrap();
    fs::write(dir.path().join(name).join("machine.json"), "{").unwrap();
    let found = read_from(dir.path(), &first.machine);
    let endings: Vec<_> = found.iter().map(|report| (report.phase, report.result)).collect();
    assert_eq!(endings, [(Phase::SelfInstall, Ending::Installed), (Phase::FirstBoot, Ending::Failed)]);
    let said = &found[1].summary;
    assert!(said.starts_with("first-boot: failed\nsite gate, machine SN/1 a (R640)\n"), "{said}");
    assert!(said.contains("\nWhy:\nerror: copying: no room\n"), "{said}");
    assert_eq!(report(Phase::FirstBoot, Some(&refusal)).result, Ending::Refused);
}

#[test]
fn what_is_too_long_loses_its_beginning() {
    assert_eq!(end_of("a\nbb\ncc\n", 8), "a\nbb\ncc\n");
    assert_eq!(end_of("a\nbb\ncc\n", 7), "bb\ncc\n");
    assert_eq!(end_of("a\nbb\ncc\n", 6), "bb\ncc\n");
    assert_eq!(end_of("a\nbb\ncc\n", 5), "cc\n");
    assert_eq!(end_of("abc", 2), "");
    assert_eq!(end_of("ä\nb\n", 4), "b\n");
    let events: Vec<Event> = (0..20_000).map(|n| event(State::Progress, &n.to_string())).collect();
    let kept = newest(&events);
    assert_eq!(kept.last(), events.last());
    let bytes: usize = kept.iter().map(|event| event.to_line().len() + 1).sum();
    assert!((EVENTS_LIMIT - 300..=EVENTS_LIMIT).contains(&bytes), "{bytes}");
}

/// Makes a machine's ssh host key where a queue looks for it, and returns its public part.
pub(super) fn put_key(state: &std::path::Path) -> String {
    let dir = state.join("host/ssh");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("ssh_host_ed25519_key");
    let args = ["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"].map(std::ffi::OsStr::new);
    crate::tool::run("ssh-keygen", &[&args[..], &[path.as_os_str()]].concat()).unwrap();
    fs::read_to_string(path.with_extension("pub")).unwrap().trim().to_owned()
}
