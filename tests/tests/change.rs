//! A site that changes while it runs, by `git push` as the operations centre does it: on User Mode Linux.

use std::fs;
use std::path::Path;
use std::time::Duration;

use gatehouse_tests::work::{Work, append, in_file, nodes, state, within};
use gatehouse_tests::{Try, has, open_to_all, outcome, site, try_uml};
use serde_json::{Value, json};

const INSTALL: Duration = Duration::from_secs(600);
/// How long a change may take from the push to the nodes that it concerns.
const REACHED: Duration = Duration::from_secs(10);

/// How long packages may take: dpkg does its work in between.
const CHANGED: Duration = Duration::from_secs(60);

/// What `site.toml` says of one more node; its source is three lines.
const NODE2: &str = "
[[node]]
name = \"node2\"
address = \"10.0.2.22\"
memory = \"512MiB\"
disk = \"4GiB\"
";
const SOURCE2: &str = "#include <gatehouse/site.h>\n#include <site/node.h>\nprofile.comment     came while the site was running\n";

/// One trial serves all: what is refused, what reaches a node that runs, a node that comes and one that goes.
#[test]
fn a_running_site_is_changed_by_pushing_to_it() {
    if !has(&["git", "ip", "ssh", "unshare"]) {
        return;
    }
    let temp =
        tempfile::Builder::new().prefix("gatehouse-change-").tempdir_in("/var/tmp").expect("a directory");
    open_to_all(temp.path());
    let (site, dir) = (site("minimal", temp.path()), temp.path().join("trial"));
    in_file(&site.join("site.toml"), "# extra = [\"less\"]", "extra = [\"less\"]");
    let mut trial = try_uml(&site, &dir, &[]);
    trial.wait_for("running; log in", INSTALL);
    let work = Work::clone_of(&dir, temp.path());

    a_broken_push_is_refused_whole(&trial, &work);
    a_node_comes(&trial, &work);
    a_resource_reaches_the_node_that_it_concerns(&trial, &work);
    a_package_comes_and_goes(&trial, &work);
    a_node_is_held_to_its_limits(&trial, &work);
    a_node_is_resized(&trial, &work);
    a_node_goes(&trial, &dir, &work);

    outcome(&trial.interrupt());
}

fn a_broken_push_is_refused_whole(trial: &Try, work: &Work) {
    let before = work.newest();
    let (source, toml) = (work.file("lcfg/source/node1"), work.file("site.toml"));
    let lines = fs::read_to_string(&source).expect("read").lines().count();
    append(&source, "fstab.nonsense      yes\n");
    let refused = work.push("break a source");
    assert_ne!(refused.code, 0, "{refused:?}");
    let place = format!("lcfg/source/node1:{}: ", lines + 1);
    assert!(refused.stderr.contains(&place), "{place:?} is not in {}", refused.stderr);

    // In site.toml as well.
    in_file(&toml, "memory = \"512MiB\"", "memory = \"512\"");
    let refused = work.push("break site.toml too");
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.stderr.contains("site.toml:"), "{}", refused.stderr);

    assert_eq!(work.newest(), before, "a refused push is there");
    assert_eq!(nodes(trial).len(), 1, "a refused push has changed the nodes");
    work.start_over();
}

fn a_node_comes(trial: &Try, work: &Work) {
    let node1 = fs::read_to_string(work.file("lcfg/source/node1")).expect("read");
    let common = node1.replace("#include <gatehouse/site.h>\n", "").replace("profile.comment ", "// ");
    let common: String =
        common.lines().filter(|line| !line.starts_with("//")).flat_map(|line| [line, "\n"]).collect();
    fs::write(work.file("lcfg/include/site/node.h"), common).expect("written");
    append(&work.file("site.toml"), NODE2);
    fs::write(work.file("lcfg/source/node2"), SOURCE2).expect("written");
    let seen = trial.gatectl(&["site", "diff", &work.dir.display().to_string()]);
    assert!(seen.code == 0 && seen.stdout.contains("node2: added"), "{seen:?}");
    assert_eq!(nodes(trial).len(), 1, "looking has changed something");

    work.must_push("add a node");
    within(INSTALL, "node2 up", || state(trial, "node2") == "running");
    assert_eq!(state(trial, "node1"), "running");
}

/// A header that one node reads changes: nothing but one component of that node runs, and the other's profile stays.
fn a_resource_reaches_the_node_that_it_concerns(trial: &Try, work: &Work) {
    let file = "!profile.components mADD(file)\nfile.files hello\nfile.file_hello /etc/hello\nfile.tmpl_hello good morning\n";
    fs::write(work.file("lcfg/include/site/hello.h"), file).expect("written");
    append(&work.file("lcfg/source/node1"), "#include <site/hello.h>\n");
    work.must_push("add a file");
    let has = |text: &'static str| move || trial.ssh("node1", "cat /etc/hello").stdout.starts_with(text);
    within(REACHED, "the file", has("good morning"));
    within(REACHED, "both nodes as their profiles say", || {
        nodes(trial)
            .iter()
            .all(|node| node["profile"]["published"]["etag"] == node["profile"]["acknowledged"]["etag"])
    });

    let (ran, other) = (configured(trial, "node1"), profile_of(trial, "node2"));
    in_file(&work.file("lcfg/include/site/hello.h"), "good morning", "good evening");
    work.must_push("change it");
    within(REACHED, "its change", has("good evening"));
    within(REACHED, "its acknowledgement", || profile_of(trial, "node1")["changed"] == json!(["file"]));
    assert_eq!(configured(trial, "node1")[ran.len()..], ["file: configured"]);
    assert_eq!(profile_of(trial, "node2")["published"], other["published"], "what does not concern it");
}

/// What the node's client says that it has configured, from its start on.
fn configured(trial: &Try, name: &str) -> Vec<String> {
    let said = trial.ssh(name, "journalctl -q -o cat -u gatehouse-client | grep ': configured'");
    said.stdout.lines().map(str::to_owned).collect()
}

fn profile_of(trial: &Try, name: &str) -> Value {
    nodes(trial).into_iter().find(|node| node["name"] == name).expect("a node")["profile"].take()
}

fn a_package_comes_and_goes(trial: &Try, work: &Work) {
    let there =
        || trial.ssh("node1", "dpkg-query -W -f '${db:Status-Status}' less").stdout.trim_end() == "installed";
    assert!(!there(), "it has the package already");
    append(&work.file("lcfg/packages/minimal.pkgs"), "less=*\n");
    work.must_push("add a package from the pool");
    within(CHANGED, "the package", there);

    in_file(&work.file("lcfg/packages/minimal.pkgs"), "less=*\n", "");
    work.must_push("remove it again");
    within(CHANGED, "the node without the package", || !there());

    append(&work.file("lcfg/packages/minimal.pkgs"), "nano=*\n");
    let refused = work.push("add a package that the pool does not have");
    assert!(refused.code != 0 && refused.stderr.contains("packages.extra"), "{refused:?}");
    work.start_over();
}

/// `gatectl node set` changes single values, in the file and in force, and what it refuses changes nothing.
fn a_node_is_held_to_its_limits(trial: &Try, work: &Work) {
    let set = |args: &[&str]| trial.gatectl(&[&["node", "set", "node1"], args].concat());
    let (newest, boot) = (work.newest(), boot_of(trial, "node1"));
    for (args, code) in [(&["--weight", "0"][..], 2), (&["--vcpus", "2"], 2), (&[], 2)] {
        let refused = set(args);
        assert_eq!(refused.code, code, "{refused:?}");
    }
    assert_eq!(work.newest(), newest, "a refused change is there");

    let done = set(&["--network-rate", "8Mbit/s", "--weight", "64", "--memory", "600MiB"]);
    assert_eq!(done.code, 0, "{done:?}");
    let said = "node1: at once, weight 256 becomes 64\nnode1: at once, network-rate none becomes 8Mbit/s\n\
                node1: at its next start, memory 512MiB becomes 600MiB\n";
    assert!(done.stdout.starts_with(said), "{done:?}");
    assert_eq!(boot_of(trial, "node1"), boot, "it was started again");
    work.pull();
    let toml = fs::read_to_string(work.file("site.toml")).expect("read");
    assert!(toml.contains("\nweight = 64\n"), "{toml}");

    // 4 MiB at 1 MB a second; without the rate it takes a tenth of that.
    let begun = std::time::Instant::now();
    let came = trial.ssh("node1", "head -c 4194304 /dev/zero").stdout.len();
    let seconds = begun.elapsed().as_secs_f64();
    println!("{came} bytes from node1 in {seconds:.1} s at 8 Mbit/s");
    let top = top(trial, "node1");
    let held = top["not-held"].to_string();
    assert!(held.contains("network-rate") || seconds > 3.0, "{seconds} s: {held}");
    assert!(top["usage"]["sent"].as_u64() > Some(4 << 20), "{top}");
    assert!(top["usage"]["memory"].as_u64() > Some(32 << 20) && top["allocated"].as_u64() > Some(0), "{top}");
    assert!(top["cpu-percent"].as_f64().is_some() && top["limits"]["weight"] == 64, "{top}");

    let done = set(&["--network-rate", "none", "--weight", "none", "--memory", "512MiB"]);
    assert_eq!(done.code, 0, "{done:?}");
    work.pull();
}

/// What `gatectl top` says of a node.
fn top(trial: &Try, name: &str) -> Value {
    let seen = trial.gatectl(&["top", "--once", "--json"]);
    assert_eq!(seen.code, 0, "{seen:?}");
    let top: Value = serde_json::from_str(&seen.stdout).expect("JSON");
    let nodes = top["nodes"].as_array().expect("nodes");
    nodes.iter().find(|node| node["name"] == name).expect(name).clone()
}

/// More memory and a larger disk: its VM is another one, its file system has the room, and what is on it stays.
fn a_node_is_resized(trial: &Try, work: &Work) {
    assert_eq!(trial.ssh("node1", "echo kept >/root/kept; sync").code, 0);
    let before = boot_of(trial, "node1");
    let toml = fs::read_to_string(work.file("site.toml")).expect("read");
    fs::write(work.file("site.toml"), larger(&toml)).expect("written");
    work.must_push("larger nodes");
    within(CHANGED, "node1 started again", || {
        let now = boot_of(trial, "node1");
        state(trial, "node1") == "running" && !now.is_empty() && now != before
    });
    let seen = trial.ssh("node1", "cat /root/kept; free -m | awk '/^Mem/ { print ($2 > 512) }'");
    assert_eq!(seen.stdout, "kept\n1\n", "{seen:?}");
    within(REACHED, "its room", || {
        let size = trial.ssh("node1", "df --output=size --block-size=1M / | tail -n 1").stdout;
        size.trim().parse::<u64>().is_ok_and(|mib| mib > 4500)
    });
}

/// What `site.toml` says of the nodes then.
fn larger(toml: &str) -> String {
    toml.replace("\nmemory = \"512MiB\"", "\nmemory = \"640MiB\"")
        .replace("\ndisk = \"4GiB\"", "\ndisk = \"5GiB\"")
}

/// The kernel's id of a node's boot; empty while it cannot be asked.
fn boot_of(trial: &Try, name: &str) -> String {
    trial.ssh(name, "cat /proc/sys/kernel/random/boot_id").stdout
}

fn a_node_goes(trial: &Try, dir: &Path, work: &Work) {
    // Without its section and its source it is gone; its disk is not.
    in_file(&work.file("site.toml"), &larger(NODE2), "");
    fs::remove_file(work.file("lcfg/source/node2")).expect("removed");
    work.must_push("remove the node");
    within(REACHED, "node2 gone", || nodes(trial).len() == 1);
    assert!(dir.join("vms/node2/fs/disk0").exists(), "its disk was thrown away");
    assert_eq!(state(trial, "node1"), "running");
}
