//! The contract of the vmm drivers (`agent/src/vmm/mod.rs`), as one list of checks on a running site: under User Mode
//! Linux, or under the vmm that `GATEHOUSE_VMM` names, which for Xen is a whole emulated host. The checks share their
//! boots; each leaves the site running.

use std::fs;
use std::path::Path;
use std::time::Duration;

use gatehouse_tests::host::Host;
use gatehouse_tests::process::of_node;
use gatehouse_tests::work::{add_node2, within};
use gatehouse_tests::{Ended, Try, has, open_to_all, outcome, run, site, try_with};
use serde_json::Value;

/// An emulated vmm needs most of it.
const INSTALL: Duration = Duration::from_secs(1200);
const START: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_secs(20);
/// The agent gives a node a minute to shut down, and looks at what comes of it.
const STOP: Duration = Duration::from_secs(80);

/// A running site, and what must stay as it is while one node of it is mistreated.
struct Site {
    host: Host,
    vmm: String,
    node1: String,
}

#[test]
fn the_vmm_keeps_the_contract() {
    if !has(&["ip", "ssh", "unshare", "setpriv", "kill"]) {
        return;
    }
    let vmm = std::env::var("GATEHOUSE_VMM").unwrap_or_else(|_| "uml".to_owned());
    let prefix = format!("gatehouse-contract-{vmm}-");
    let temp = tempfile::Builder::new().prefix(&prefix).tempdir_in("/var/tmp").expect("a directory");
    open_to_all(temp.path());
    let (site, dir) = (site("minimal", temp.path()), temp.path().join("trial"));
    add_node2(&site);

    let mut cut = try_with(&vmm, &site, &dir, &[]);
    cut.wait_for("unpacking layer", INSTALL);
    cut.kill();
    nothing_is_left(&dir);

    let mut trial = try_with(&vmm, &site, &dir, &["--resume"]);
    trial.wait_for("running; log in", INSTALL);
    assert!(trial.saw("node/node1: installing done"), "the cut install was not finished");
    let node1 = boot_of(&trial, "node1");
    let host = if vmm == "xen" { Host::emulated(trial, "minimal") } else { Host::here(trial) };
    let running = Site { host, vmm, node1 };

    a_node_is_as_the_site_says(&running);
    what_a_node_uses_is_known(&running);
    a_console_has_its_history_and_one_who_types(&running);
    what_a_running_node_has_is_changed(&running);
    what_is_lacking_is_refused(&running, &site, temp.path());
    if !running.host.is_emulated() {
        no_node_reads_what_is_anothers(&running, &dir);
    }
    a_node_is_stopped_in_order_and_started(&running);
    a_node_that_dies_is_started_again(&running);
    running_nodes_are_adopted(&running);
    what_a_node_uses_is_known(&running);
    a_start_without_an_agent_goes_on(&running);
    an_install_is_begun_again(&running);
    a_node_that_does_not_listen_is_ended(&running);

    outcome(&running.host.trial.interrupt());
    nothing_is_left(&dir);
    let again = try_with(&running.vmm, &site, &dir, &["--resume", "--exit"]).end();
    outcome(&again);
    assert!(!again.stderr.contains("installing started"), "an installed node was installed again");
}

impl Site {
    fn told(&self, node: &str, text: &str) -> bool {
        let log = self.host.gatectl(&["log"]).stdout;
        log.lines().any(|line| line.contains(&format!("node/{node}: ")) && line.contains(text))
    }

    /// The other node is well; and node1 has never stopped.
    fn is_whole(&self) {
        within(START, "node2 running", || state_now(&self.host, "node2") == "running");
        within(self.soon(), "node1 running", || state_now(&self.host, "node1") == "running");
        assert_eq!(boot_of(&self.host.trial, "node1"), self.node1, "node1 was started again");
    }

    fn order(&self, words: &[&str]) -> Ended {
        let ended = self.host.gatectl(words);
        assert_eq!(ended.code, 0, "{words:?}: {ended:?}");
        ended
    }

    fn soon(&self) -> Duration {
        self.host.patience(SOON)
    }
}

fn boot_of(trial: &Try, name: &str) -> String {
    trial.ssh(name, "cat /proc/sys/kernel/random/boot_id").stdout
}

/// The state of a node; empty while the agent is started again.
fn state_now(host: &Host, name: &str) -> String {
    let seen = host.gatectl(&["node", "list", "--json"]);
    let all: Value = serde_json::from_str(&seen.stdout).unwrap_or_default();
    let node = all.as_array().and_then(|all| all.iter().find(|node| node["name"] == name)).cloned();
    let node = node.unwrap_or_default();
    assert_ne!(node["state"], "failed", "{node}");
    node["state"].as_str().unwrap_or_default().to_owned()
}

fn a_node_is_as_the_site_says(site: &Site) {
    let asked = "hostname; findmnt -no FSTYPE /; systemctl is-system-running; dpkg --audit";
    let seen = site.host.trial.ssh("node1", asked);
    assert_eq!(seen.stdout, "node1\next4\nrunning\n", "{seen:?}");
    let secrets = "find / -xdev -name passport.json; stat -c %a /var/lib/gatehouse/client";
    let seen = site.host.trial.ssh("node1", secrets);
    assert_eq!(seen.stdout, "700\n", "{seen:?}");
    // The initramfs with the token.
    let left = if site.host.is_emulated() {
        site.host.trial.ssh("minimal", "ls /srv/vms/node1/conf").stdout.contains("install-initrd")
    } else {
        site.host.trial.dir().join("vms/node1/conf/install-initrd").exists()
    };
    assert!(!left, "the initramfs with the token is still there");
    // What it was given at its start: its kernel keeps some of it.
    let seen = site
        .host
        .trial
        .ssh("node2", "nproc; awk '/MemTotal/ { print ($2 > 300000 && $2 < 393216) }' /proc/meminfo");
    assert_eq!(seen.stdout, "1\n1\n", "{seen:?}");
}

fn what_a_node_uses_is_known(site: &Site) {
    let seen = site.order(&["top", "--once", "--json"]).stdout;
    let top: Value = serde_json::from_str(&seen).expect("it is JSON");
    for node in top["nodes"].as_array().expect("nodes") {
        let used = |what: &str| node["usage"][what].as_f64().unwrap_or_default();
        for what in ["cpu-seconds", "memory", "received", "sent"] {
            assert!(used(what) > 0.0, "{what}: {node}");
        }
        assert!(node["allocated"].as_u64() > Some(0), "{node}");
        assert!(node["allocated"].as_u64().is_some_and(|bytes| bytes > 100 << 20), "{node}");
    }
}

fn a_console_has_its_history_and_one_who_types(site: &Site) {
    let soon = site.soon();
    let install = site.order(&["node", "log", "node2", "--install"]).stdout;
    assert!(install.contains("node2: install done") && !install.contains("login:"), "{install}");
    let log = site.order(&["node", "log", "node2"]).stdout;
    assert!(log.contains("node2: install done") && log.contains("login:"), "{log}");

    let (mut ann, mut bob) =
        (site.host.console("node2", &["--all"]), site.host.console("node2", &["--lines", "3"]));
    ann.wait_for("node2: install done", soon);
    ann.wait_for("login: ", soon);
    bob.wait_for("login: ", soon);
    ann.type_keys("\r");
    ann.wait_for("login: ", soon);
    bob.wait_for("login: ", soon);
    bob.type_keys("x");
    bob.wait_for("has the keyboard", soon);
    let mut eve = site.host.console("node2", &["--take", "--lines", "0"]);
    ann.wait_for("has taken the keyboard over", soon);
    eve.type_keys("\r");
    eve.wait_for("login: ", soon);
    bob.leave();
    eve.leave();
    ann.type_keys("\r");
    ann.wait_for("login: ", soon);
}

/// Limits hold at once. Less memory does where the vmm can take it, and else waits for a start, which `--restart` is; what
/// was taken comes back.
fn what_a_running_node_has_is_changed(site: &Site) {
    let set = |words: &[&str]| site.order(&[&["node", "set", "node1"], words].concat()).stdout;
    let said = set(&["--network-rate", "8Mbit/s", "--weight", "64"]);
    for word in ["at once, weight 256 becomes 64", "at once, network-rate none becomes 8Mbit/s"] {
        assert!(said.contains(word), "{said}");
    }
    // 4 MiB at 1 MB a second; without the rate it takes a tenth of that.
    let begun = std::time::Instant::now();
    let came = site.host.trial.ssh("node1", "head -c 4194304 /dev/zero").stdout.len();
    let seconds = begun.elapsed().as_secs_f64();
    let seen = site.order(&["top", "--once", "--json"]).stdout;
    let top: Value = serde_json::from_str(&seen).expect("it is JSON");
    let node1 = top["nodes"].as_array().and_then(|all| all.iter().find(|node| node["name"] == "node1"));
    let held = node1.map(|node| node["not-held"].to_string()).unwrap_or_default();
    println!("{came} bytes from node1 in {seconds:.1} s at 8 Mbit/s; not held: {held}");
    assert!(held.contains("network-rate") || seconds > 3.0, "{seconds} s: {held}");
    set(&["--network-rate", "none", "--weight", "none"]);

    let memory = || {
        let seen = site.host.trial.ssh("node1", "awk '/MemTotal/ { print $2 }' /proc/meminfo").stdout;
        seen.trim().parse::<u64>().unwrap_or_default() / 1024
    };
    let before = memory();
    let said = set(&["--memory", "448MiB"]);
    let at_once = said.contains("at once, memory 512MiB becomes 448MiB");
    assert_eq!(at_once, site.vmm == "xen", "{said}");
    if at_once {
        within(site.soon(), "less memory", || memory() + 48 < before);
    }
    let said = set(&["--memory", "512MiB"]);
    assert_eq!(said.contains("at once, memory 448MiB becomes 512MiB"), at_once, "{said}");
    if at_once {
        within(site.soon(), "all of the memory", || memory() + 8 > before);
    }
    site.is_whole();
}

/// More processors than one: a vmm that has no limit takes the change, which is only looked at.
fn what_is_lacking_is_refused(site: &Site, from: &Path, temp: &Path) {
    let wish = temp.join("wish");
    assert_eq!(run(std::process::Command::new("cp").arg("-r").arg(from).arg(&wish)).code, 0);
    let toml = fs::read_to_string(wish.join("site.toml")).expect("read");
    let toml = toml.replace("vmm = \"xen\"", &format!("vmm = \"{}\"", site.vmm));
    fs::write(wish.join("site.toml"), toml.replace("vcpus = 1", "vcpus = 2")).expect("written");
    let seen = site.host.gatectl(&["site", "diff", &site.host.directory(&wish)]);
    let refused = seen.stderr.contains("uml gives a node at most 1");
    assert_eq!(refused, site.vmm == "uml", "{seen:?}");
}

/// Tried as the user of the one node's process on what is the other's. An ordinary user's trial has one user for all.
fn no_node_reads_what_is_anothers(site: &Site, dir: &Path) {
    let (one, two) = (of_node(dir, "node1").expect("runs"), of_node(dir, "node2").expect("runs"));
    if one.uid == two.uid {
        assert_ne!(
            run(std::process::Command::new("id").arg("-u")).stdout.trim(),
            "0",
            "both are user {}",
            one.uid
        );
        return;
    }
    let mut others = vec![two.file("mem"), two.file("maps"), two.file("environ")];
    for fd in fs::read_dir(two.file("fd")).expect("read").flatten() {
        others.push(fd.path());
    }
    others.extend(
        ["vms/node2/fs/disk0", "log/console-node2.log", "log/install-node2.log"].map(|name| dir.join(name)),
    );
    others.extend(["state/authority/ca.key", "run/console-node2.out"].map(|name| dir.join(name)));
    for path in others {
        assert!(!one.can_read(&path), "user {} of node1 can read {}", one.uid, path.display());
    }
    if site.vmm == "uml" {
        // Its root has its own files, and nobody else's processes.
        let root = one.file("root");
        let below = |path: &Path| root.join(path.strip_prefix("/").expect("absolute"));
        let names = |path: &Path| -> Vec<String> {
            let names = fs::read_dir(below(path)).expect("read").flatten();
            names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(names(&dir.join("vms")), ["node1"]);
        assert_eq!(names(Path::new("/proc")), ["cpuinfo"]);
        assert!(names(Path::new("/dev/shm")).is_empty(), "its memory has a name");
        assert!(!below(&dir.join("log")).exists() && !below(&dir.join("state")).exists());
    }
}

fn a_node_is_stopped_in_order_and_started(site: &Site) {
    // Not on its disk yet: only a shutdown in order puts it there.
    assert_eq!(site.host.trial.ssh("node2", "echo kept >/root/kept").code, 0);
    site.order(&["node", "stop", "node2"]);
    within(STOP + site.soon(), "node2 stopped", || state_now(&site.host, "node2") == "stopped");
    let log = site.order(&["node", "log", "node2", "--lines", "8"]).stdout;
    assert!(log.contains("reboot: "), "it was not shut down in order: {log}");
    // Twice is as good as once.
    site.order(&["node", "stop", "node2"]);
    site.order(&["node", "start", "node2"]);
    site.order(&["node", "start", "node2"]);
    within(START, "node2 running", || state_now(&site.host, "node2") == "running");
    assert_eq!(site.host.trial.ssh("node2", "cat /root/kept").stdout, "kept\n");
    site.is_whole();
}

fn a_node_that_dies_is_started_again(site: &Site) {
    site.host.kill_vm("node2");
    within(site.soon(), "its death told", || site.told("node2", "its vm ended"));
    site.is_whole();
    // While it starts, too.
    site.order(&["node", "restart", "node2"]);
    within(STOP + site.soon(), "node2 starting", || {
        state_now(&site.host, "node2") == "starting" && site.host.vm("node2").is_some()
    });
    site.host.kill_vm("node2");
    within(site.soon(), "its second death told", || site.told("node2", "starting again"));
    site.is_whole();
}

fn running_nodes_are_adopted(site: &Site) {
    let before = boot_of(&site.host.trial, "node2");
    let agent = site.host.agent();
    site.host.kill_agent();
    // Nobody reads the console now.
    assert_eq!(site.host.trial.ssh("node2", "echo meanwhile >/dev/console").code, 0);
    within(site.soon(), "another agent", || site.host.agent().is_some_and(|now| Some(now) != agent));
    site.is_whole();
    assert_eq!(boot_of(&site.host.trial, "node2"), before, "node2 was started again");
    assert!(site.told("node2", "adopting"), "its adoption was not told");
    let (soon, mut console) = (site.soon(), site.host.console("node2", &["--lines", "20"]));
    console.wait_for("meanwhile", soon);
    console.type_keys("\r");
    console.wait_for("login: ", soon);
    console.leave();
}

fn a_start_without_an_agent_goes_on(site: &Site) {
    site.order(&["node", "restart", "node2"]);
    within(STOP + site.soon(), "node2 starting", || {
        state_now(&site.host, "node2") == "starting" && site.host.vm("node2").is_some()
    });
    let before = site.host.vm("node2");
    site.host.kill_agent();
    site.is_whole();
    assert_eq!(site.host.vm("node2"), before, "it was started twice");
}

/// Whether the agent dies or the VM, an install that was cut off is done from the beginning, with nobody's help.
fn an_install_is_begun_again(site: &Site) {
    let installing = || {
        let log = site.order(&["node", "log", "node2", "--install"]).stdout;
        let unpacking = log.contains("unpacking layer") && !log.contains("node2: packages done");
        state_now(&site.host, "node2") == "installing" && unpacking && site.host.vm("node2").is_some()
    };
    site.order(&["node", "install", "node2"]);
    within(INSTALL, "node2 installing", installing);
    site.host.kill_vm("node2");
    within(site.soon(), "its end told", || site.told("node2", "installing again"));
    within(INSTALL, "node2 installing again", installing);
    site.host.kill_agent();
    within(INSTALL, "node2 installed", || state_now(&site.host, "node2") == "running");
    site.is_whole();
    assert_eq!(site.host.trial.ssh("node2", "ls /root/kept").stdout, "", "it was not installed anew");
    let all: Value =
        serde_json::from_str(&site.order(&["node", "list", "--json"]).stdout).expect("it is JSON");
    assert!(all.as_array().expect("nodes").iter().all(|node| node["message"] == ""), "{all}");
}

fn a_node_that_does_not_listen_is_ended(site: &Site) {
    site.host.freeze_vm("node2");
    site.order(&["node", "stop", "node2"]);
    within(STOP + site.soon(), "node2 stopped", || state_now(&site.host, "node2") == "stopped");
    assert_eq!(site.host.vm("node2"), None);
    site.order(&["node", "start", "node2"]);
    site.is_whole();
}

fn nothing_is_left(dir: &Path) {
    let left = || ["node1", "node2"].map(|node| of_node(dir, node)).into_iter().flatten().next();
    for _ in 0..100 {
        if left().is_none() {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("a node runs on after its trial has ended: {:?}", left());
}
