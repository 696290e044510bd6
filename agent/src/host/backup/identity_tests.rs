use gatehouse_model::site::VmmKind;

use super::*;
use crate::host::backup::reader;

const SITE: &str = include_str!("../../../../site-templates/minimal/site.toml");

/// A host with a site and keys, whose nodes are installed.
fn host(dir: &Path, words: &str) -> Paths {
    let paths = Paths::trial(dir, dir);
    for (name, text) in [
        ("authority/ca.crt", words),
        ("authority/ca.key", words),
        ("host/ssh/ssh_host_ed25519_key", words),
        ("site.git/refs/heads/main", words),
        ("site.git/objects/ab/cd", words),
        ("site/site.toml", SITE),
        ("journal.jsonl", words),
        ("reports/1", words),
    ] {
        write_whole(&paths.state.join(name), text.as_bytes(), 0o600).expect("written");
    }
    let node = "node1".parse().expect("a name");
    write_whole(&Record::path(&paths, &node), b"{}", 0o644).expect("written");
    paths
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn another_machine_becomes_the_host() {
    let (one, other) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("another"));
    let old = host(one.path(), "old");
    let site = read_site(&old.site()).expect("a site");
    let (bytes, manifest, _) = back_up(&old, &site).expect("backed up");
    assert_eq!(manifest.authority, Digest::of(b"old"));

    let new = host(other.path(), "new");
    let node: NodeName = "node1".parse().expect("a name");
    let mut arrival = Arrival::begin(&new).expect("room");
    reader::read(&bytes[..], &mut arrival).expect("whole");
    assert!(!take_up(&new).expect("nothing counts yet"));
    arrival.commit().expect("committed");
    assert_eq!(installed(&new, &site), std::slice::from_ref(&node));
    assert!(take_up(&new).expect("put in place"));
    for name in ["authority/ca.key", "host/ssh/ssh_host_ed25519_key", "site.git/objects/ab/cd"] {
        let path = new.state.join(name);
        assert_eq!(text(&path), "old", "{name}");
        assert_eq!(fs::metadata(path).expect("there").permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(text(&new.state.join("replaced/authority/ca.key")), "new");
    assert_eq!(text(&new.state.join("journal.jsonl")), "new", "of this machine's disks");
    assert!(installed(&new, &site).is_empty() && awaits(&new, &node).exists());
    assert!(!take_up(&new).expect("once"));
}

#[test]
fn a_site_comes_to_a_machine_with_another_vmm() {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = host(dir.path(), "old");
    let with_rate = SITE.replace("vcpus = 1\n", "disk-rate = \"1MiB/s\"\n").replace("\"xen\"", "\"kvm\"");
    let with_two = SITE.replace("vcpus = 1\n", "vcpus = 2\n");
    let own = dir.path().join("own");
    for (text, vmm, expected) in [
        (SITE, "xen", Ok((vec![], VmmKind::Xen))),
        (SITE, "kvm", Ok((vec!["host.vmm"], VmmKind::Kvm))),
        (&with_rate, "kvm", Ok((vec![], VmmKind::Kvm))),
        (&with_rate, "xen", Err(Exit::Problem)),
        (&with_two, "uml", Err(Exit::Problem)),
    ] {
        let here = SITE.replace("\"xen\"", &format!("\"{vmm}\""));
        write_whole(&own.join("site.toml"), here.as_bytes(), 0o644).expect("written");
        write_whole(&paths.site().join("site.toml"), text.as_bytes(), 0o644).expect("written");
        let (bytes, ..) = back_up(&paths, &read_site(&paths.site()).expect("a site")).expect("backed up");
        let mut arrival = Arrival::begin(&paths).expect("room");
        reader::read(&bytes[..], &mut arrival).expect("whole");
        let found = arrival.suit(&own).map_err(|fault| fault.exit_status());
        assert_eq!(found.clone().map(|(site, kept)| (kept, site.host.vmm)), expected);
        let arrived = read_site(&paths.state.join("restoring/state/site")).expect("a site");
        assert!(found.is_err() || found.is_ok_and(|(site, _)| site == arrived));
    }
}

/// As on a host: state is one filesystem, the nodes' are another. What is known of a machine of its own comes with the host,
/// also where the power is cut in the middle.
#[test]
fn what_is_known_of_a_machine_of_its_own_comes_along() {
    let (one, other) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("another"));
    let stores = tempfile::tempdir_in("/dev/shm").expect("another filesystem");
    let machine =
        "\n[[node]]\nname = \"m1\"\naddress = \"10.0.2.22\"\nmachine = { mac = \"00:16:3e:12:34:56\" }\n";
    let (old, mut new) = (host(one.path(), "old"), host(other.path(), "new"));
    new.vms = stores.path().to_owned();
    write_whole(&old.site().join("site.toml"), (SITE.to_owned() + machine).as_bytes(), 0o644)
        .expect("written");
    let node: NodeName = "m1".parse().expect("a name");
    for (paths, words) in [(&old, "old"), (&new, "new")] {
        write_whole(&Record::path(paths, &node), words.as_bytes(), 0o644).expect("written");
    }
    let (bytes, manifest, _) = back_up(&old, &read_site(&old.site()).expect("a site")).expect("backed up");
    let mut arrival = Arrival::begin(&new).expect("room");
    reader::read(&bytes[..], &mut arrival).expect("whole");
    arrival.commit().expect("committed");
    // A cut between its two halves.
    let conf = new.conf(&node);
    bring(&new.state.join("restored/vms/m1/conf"), &conf.with_extension("restored")).expect("brought");
    assert!(take_up(&new).expect("put in place") && !take_up(&new).expect("once"));
    assert_eq!(text(&Record::path(&new, &node)), "old");
    assert_eq!(text(&conf.with_extension("replaced").join("installed.json")), "new");
    assert_eq!(restored_from(&new).expect("read"), Some(manifest));
}

#[test]
fn what_is_thrown_away_changes_nothing_and_a_node_is_no_host() {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = host(dir.path(), "old");
    let site = read_site(&paths.site()).expect("a site");
    let (bytes, ..) = back_up(&paths, &site).expect("backed up");
    {
        let mut arrival = Arrival::begin(&paths).expect("room");
        assert!(reader::read(&bytes[..bytes.len() / 2], &mut arrival).is_err());
    }
    assert!(!restoring(&paths).exists() && !take_up(&paths).expect("nothing"));
}

#[test]
fn only_what_belongs_to_a_host_has_a_place() {
    for (name, good) in [
        ("state/authority/ca.key", true),
        ("state/site.git/objects/ab/cd", true),
        ("vms/ce/conf/installed.json", true),
        ("vms/ce/fs/disk0", false),
        ("state/journal.jsonl", false),
        ("state/reports/1", false),
        ("state/authority", false),
        ("state/authority/../../x", false),
        ("/state/authority/x", false),
        ("etc/passwd", false),
    ] {
        assert_eq!(has_place(name), good, "{name}");
    }
}
