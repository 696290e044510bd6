//! Empty machines on a LAN of their own: they start from the network, are installed, and start from their disks from
//! then on, though the network stays first. `gatehouse serve` makes a host of one, a site's install server a node.

use std::fs::{self, File};
use std::time::Duration;

use gatehouse_tests::lan::{BOOT, Lan, Machine, approve, is_possible, wait_for_state};
use gatehouse_tests::work::in_file;
use gatehouse_tests::{Try, gatehouse, open_to_all, run_gatehouse, site, try_uml};

fn temp() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("gatehouse-net-").tempdir_in("/var/tmp").expect("a directory")
}

/// Until its node runs, and through one more start: a BIOS beside another DHCP server, UEFI without one.
fn starts_from_the_network(uefi: bool) {
    if !is_possible() {
        return;
    }
    let temp = temp();
    let (site, out) = (site("minimal", temp.path()), temp.path().join("out").display().to_string());
    in_file(&site.join("site.toml"), "vcpus = 2", "vcpus = 1");
    let built = run_gatehouse(&["build", &site.display().to_string(), "-o", &out, "--format", "pxe"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    File::create(temp.path().join("disk.img")).and_then(|disk| disk.set_len(24 << 30)).expect("made");

    let lan = if uefi { Lan::new() } else { Lan::new().with_router() };
    let mut serve = lan.inside(&gatehouse().display().to_string());
    serve.args(["serve", &out, "--interface", "gh0"]);
    if uefi {
        serve.args(["--range", "10.0.2.100", "10.0.2.120"]);
    }
    let mut server = Try::start(&mut serve, temp.path());
    server.wait_for("Ctrl-C ends it", Duration::from_secs(30));
    let mut machine = Machine::start(&lan, temp.path(), 2, uefi);
    server.wait_for("52:54:00:12:34:56: asks", BOOT);
    server.wait_for("esp/slot-a/initrd.img", BOOT);
    server.wait_for("52:54:00:12:34:56 (minimal): claiming and clearing vda", BOOT);
    server.wait_for("restarting: done", BOOT);
    let events = temp.path().join("events.jsonl");
    machine.wait_for(&events, "\"phase\":\"node/node1\",\"action\":\"starting\",\"state\":\"succeeded\"");
    let console = fs::read(temp.path().join("console.log")).expect("read");
    assert!(String::from_utf8_lossy(&console).contains("handing over to"), "the network did not hand over");
    drop(machine);

    fs::write(&events, "").expect("written");
    let mut again = Machine::start(&lan, temp.path(), 2, uefi);
    again.wait_for(&events, "\"phase\":\"server\",\"action\":\"server\",\"state\":\"succeeded\"");
    let told = fs::read_to_string(&events).expect("read");
    assert!(!told.contains("self-install") && !told.contains("making ext4"), "{told}");
}

/// The machine that is node2 of a site: approved by what its console shows, installed, started from its disk; and once
/// more, after somebody has asked for that.
fn becomes_a_node(uefi: bool) {
    if !is_possible() {
        return;
    }
    let temp = temp();
    open_to_all(temp.path());
    let (site, dir) = (site("minimal", temp.path()), temp.path().join("trial"));
    let path = site.join("site.toml");
    let machine =
        "[[node]]\nname = \"node2\"\naddress = \"10.0.2.22\"\nmachine = { mac = \"52:54:00:12:34:56\" }\n";
    let text = fs::read_to_string(&path).expect("read");
    fs::write(&path, text.replace("[access]", &format!("{machine}\n[access]"))).expect("written");
    fs::copy(site.join("lcfg/source/node1"), site.join("lcfg/source/node2")).expect("copied");
    File::create(temp.path().join("disk.img")).and_then(|disk| disk.set_len(8 << 30)).expect("made");

    let mut trial = try_uml(&site, &dir, &[]);
    trial.wait_for("running; log in", BOOT);
    let lan = Lan::of_trial(&dir);
    for turn in 0..2 {
        let mut machine = Machine::start(&lan, temp.path(), 1, uefi);
        approve(&trial, "node2", &mut machine, &temp.path().join("console.log"));
        let node = wait_for_state(&trial, "node2", "running");
        assert!(node["install-seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{node}");
        machine.wait_for(&temp.path().join("console.log"), "handing over to hd");
        let seen =
            trial.ssh("node2", "hostname; uname -r; lsblk -no PARTLABEL; systemctl --failed --no-legend");
        assert!(seen.stdout.starts_with("node2\n") && !seen.stdout.contains("cloud"), "{seen:?}");
        assert!(seen.stdout.contains("gh:bios\ngh:node2\ndisk0p1\n"), "{seen:?}");
        assert!(!seen.stdout.contains(".service"), "{seen:?}");
        if turn == 0 {
            assert_eq!(trial.gatectl(&["node", "stop", "node2"]).code, 2, "it has a power button of its own");
            assert_eq!(trial.gatectl(&["node", "install", "node2"]).code, 0);
        }
    }
    outcome_of_vms(&trial.interrupt());
}

/// The outcome as it was when the trial was up: the machine had not come yet.
fn outcome_of_vms(ended: &gatehouse_tests::Ended) {
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let last: serde_json::Value =
        serde_json::from_str(ended.stdout.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&last["result"], &last["nodes"][0]["state"]), (&"ok".into(), &"running".into()), "{last}");
}

#[test]
fn a_bios_starts_from_the_network() {
    starts_from_the_network(false);
}

#[test]
fn uefi_starts_from_the_network() {
    starts_from_the_network(true);
}

#[test]
fn a_machine_with_a_bios_becomes_a_node() {
    becomes_a_node(false);
}

#[test]
fn a_machine_with_uefi_becomes_a_node() {
    becomes_a_node(true);
}
