//! Hosts whose nodes run within their processor's own virtualisation, which the emulated one has as well: under KVM, and
//! under Xen's PVH. What a host without Xen holds its nodes to, and how another machine takes its place, of any vmm.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use gatehouse_tests::work::{add_node2, add_recipient, in_file, share_way_in, within};
use gatehouse_tests::{Try, gatehouse, has, open_to_all, outcome, run_gatehouse, site, try_uml};
use serde_json::Value;

const BOOT: Duration = Duration::from_secs(1800);
const STARTED: Duration = Duration::from_secs(600);
const HOST: &str = "minimal";
const NODES: [&str; 2] = ["node1", "node2"];

fn is_possible() -> bool {
    if std::env::var_os("GATEHOUSE_FULL").is_none() {
        println!("skipped, because it takes long; `ci/test --full` runs it");
        return false;
    }
    has(&["age", "age-keygen", "ip", "qemu-system-x86_64", "ssh", "unshare"])
}

#[test]
fn a_host_runs_its_nodes_under_pvh_and_takes_those_of_user_mode_linux() {
    if !is_possible() {
        return;
    }
    let temp = tempfile::Builder::new().prefix("gatehouse-pvh-").tempdir_in("/var/tmp").expect("a directory");
    open_to_all(temp.path());
    let at = |name: &str| temp.path().join(name);
    let site = site(HOST, temp.path());
    add_recipient(&site, &at("key"));

    let mut other = try_uml(&site, &at("uml"), &[]);
    other.wait_for("running; log in", BOOT);
    assert_eq!(other.ssh("node1", "echo moved >/root/word; sync").code, 0);
    let moved = "cat /root/word /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub";
    let theirs = other.ssh("node1", moved).stdout;
    assert_eq!(other.gatectl(&["backup", "--all", "-o", &text(&at("kept"))]).code, 0);
    outcome(&other.interrupt());

    let dir = at("trial");
    share_way_in(&at("uml"), &dir);
    let mut machine = trial(&site, &dir, &["--resume", "--processor", "nested-paging"]);
    machine.wait_for("running; log in", BOOT);
    let guests = |machine: &Try| on_host(machine, "xl list -l node1 | grep -o '\"type\": \"pvh*\"'");
    assert_eq!(guests(&machine), "\"type\": \"pvh\"\n");
    let seen = machine.ssh("node1", "systemctl is-system-running; dpkg --audit");
    assert_eq!(seen.stdout, "running\n", "{seen:?}");
    let set = on_host(&machine, "gatectl node set node1 --memory 384MiB");
    assert_eq!(set, "node1: at once, memory 512MiB becomes 384MiB\n");
    assert!(on_host(&machine, "gatectl node log node1").contains("node1 login:"));

    // A whole site comes from another vmm: this machine becomes its host, with its node.
    let packed =
        Command::new("tar").args(["-cf", &text(&at("kept.tar")), "-C", &text(temp.path()), "kept"]).status();
    assert!(packed.is_ok_and(|status| status.success()));
    send(&machine, &at("kept.tar"));
    restore(&machine, &at("key"), "--replace");
    within(STARTED, "the node of the other machine", || machine.ssh("node1", moved).stdout == theirs);
    assert_eq!(guests(&machine), "\"type\": \"pvh\"\n");
    outcome(&machine.interrupt());

    let mut machine = trial(&site, &dir, &["--resume"]);
    machine.wait_for("running; log in", BOOT);
    assert!(!machine.saw("installing started"), "it was installed again");
    assert_eq!(guests(&machine), "\"type\": \"pv\"\n");
    assert_eq!(machine.ssh("node1", moved).stdout, theirs);
    outcome(&machine.interrupt());
}

#[test]
fn a_host_runs_its_nodes_with_kvm_and_another_takes_its_place() {
    if !is_possible() {
        return;
    }
    let temp =
        tempfile::Builder::new().prefix("gatehouse-host-").tempdir_in("/var/tmp").expect("a directory");
    let at = |name: &str| temp.path().join(name);
    let site = site(HOST, temp.path());
    in_file(&site.join("site.toml"), "vmm = \"xen\"", "vmm = \"kvm\"");
    add_node2(&site);
    add_recipient(&site, &at("key"));
    let built = run_gatehouse(&["build", &text(&site), "-o", &text(&at("out"))]);
    assert_eq!(built.code, 0, "{built:?}");

    // Without nested paging: emulated, that takes two to four times as long, and one of two nodes may stand still for minutes.
    let mut first = trial(&at("out"), &at("first"), &[]);
    first.wait_for("running; log in", BOOT);
    the_nodes_have_the_processor_itself(&first);
    weights_and_caps_hold(&first);
    a_disk_keeps_to_its_rate(&first);
    a_node_grows(&first);
    a_snapshot_shares_its_blocks(&first);
    let who = who(&first);
    on_host(&first, "gatectl backup --all -o /var/lib/gatehouse/kept");
    fetch(&first, "kept", &temp.path().join("kept.tar"));
    first.kill();

    share_way_in(&at("first"), &at("second"));
    let mut second = trial(&at("out"), &at("second"), &["--resume"]);
    second.wait_for("installing", BOOT);
    send(&second, &temp.path().join("kept.tar"));
    restore(&second, &at("key"), "");
    second.wait_for("running; log in", BOOT);
    assert_eq!(self::who(&second), who, "these are others");
    assert!(!second.saw("installing done"), "one was installed");
    outcome(&second.interrupt());
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn trial(image: &Path, dir: &Path, more: &[&str]) -> Try {
    let mut command = Command::new(gatehouse());
    command.arg("try").arg(image).args(["--json", "--timeout", "1800", "--dir"]).arg(dir).args(more);
    Try::start(&mut command, dir)
}

fn on_host(machine: &Try, command: &str) -> String {
    let done = machine.ssh(HOST, command);
    assert_eq!(done.code, 0, "{command}: {done:?}");
    done.stdout
}

fn the_nodes_have_the_processor_itself(machine: &Try) {
    let log = on_host(machine, "gatectl log");
    assert!(log.contains("the nodes run with KVM"), "{log}");
    for node in NODES {
        let seen = machine.ssh(node, "systemd-detect-virt; systemctl is-system-running; dpkg --audit");
        assert_eq!(seen.stdout, "kvm\nrunning\n", "{seen:?}");
    }
    // Each as a user of its own, who alone may read its disk.
    let users =
        on_host(machine, "stat -c '%a %u' /srv/vms/*/fs/disk0; ps -C qemu-system-x86_64 -o uid= | sort");
    let words: Vec<&str> = users.split_whitespace().collect();
    assert_eq!(words, ["600", "70000", "600", "70001", "70000", "70001"]);
}

/// Two nodes want all of the one processor: they have it by their weights. Then one keeps to its cap.
fn weights_and_caps_hold(machine: &Try) {
    let burn = |node: &str, seconds: u32| {
        let command = format!("timeout {seconds} sh -c 'while :; do :; done' >/dev/null 2>&1 </dev/null &");
        assert_eq!(machine.ssh(node, &command).code, 0, "{node}");
    };
    let spent = || -> [f64; 3] {
        let top: Value = serde_json::from_str(&on_host(machine, "gatectl top --once --json")).expect("JSON");
        let of = |at: usize| top["nodes"][at]["usage"]["cpu-seconds"].as_f64().expect("a figure");
        [top["at"].as_f64().expect("a time") / 1000.0, of(0), of(1)]
    };
    let during = |seconds: u32| -> [f64; 3] {
        let before = spent();
        on_host(machine, &format!("sleep {seconds}"));
        let after = spent();
        std::array::from_fn(|at| after[at] - before[at])
    };
    on_host(machine, "gatectl node set node1 --weight 64 && gatectl node set node2 --weight 512");
    burn("node1", 60);
    burn("node2", 60);
    let [time, light, heavy] = during(20);
    println!("in {time:.1} s: node1, of weight 64, {light:.1} s; node2, of weight 512, {heavy:.1} s");
    assert!(heavy > 4.0 * light && heavy > 0.4 * time, "{light:.1} s and {heavy:.1} s of {time:.1} s");

    let done = "while pgrep -x timeout >/dev/null; do sleep 1; done";
    for node in NODES {
        assert_eq!(machine.ssh(node, done).code, 0);
    }
    on_host(machine, "gatectl node set node1 --weight none --cap 25 && gatectl node set node2 --weight none");
    burn("node1", 40);
    let [time, capped, _] = during(20);
    println!("in {time:.1} s: node1, capped at 25 %, {capped:.1} s");
    assert!(capped < 0.35 * time && capped > 0.1 * time, "{capped:.1} s of {time:.1} s");
    on_host(machine, "gatectl node set node1 --cap none");
}

fn a_disk_keeps_to_its_rate(machine: &Try) {
    let wrote = machine.ssh("node2", "dd if=/dev/urandom of=/root/data bs=1M count=24 conv=fsync");
    assert_eq!(wrote.code, 0, "{wrote:?}");
    let read = || {
        // What the host itself keeps of the disk in its memory comes from no disk.
        on_host(machine, "sync; echo 3 >/proc/sys/vm/drop_caches");
        let read = "s=$(date +%s%N); dd if=/root/data of=/dev/null bs=1M iflag=direct 2>/dev/null; \
                    e=$(date +%s%N); echo $(((e - s) / 1000000))";
        let seen = machine.ssh("node2", read);
        seen.stdout.trim().parse::<f64>().expect("milliseconds") / 1000.0
    };
    let free = read();
    on_host(machine, "gatectl node set node2 --disk-rate 2MiB/s");
    let held = read();
    println!("24 MiB read in {free:.1} s, and at 2 MiB/s in {held:.1} s");
    assert!(held > 8.0 && held > 2.0 * free, "{held:.1} s, before {free:.1} s");
    on_host(machine, "gatectl node set node2 --disk-rate none");
}

fn a_node_grows(machine: &Try) {
    let size = || machine.ssh("node2", "df --output=size -m / | tail -n 1").stdout;
    let before: u64 = size().trim().parse().expect("a number");
    on_host(machine, "gatectl node resize node2 --disk 6GiB");
    within(STARTED, "more room on the node", || {
        size().trim().parse::<u64>().is_ok_and(|now| now > before + 1500)
    });
}

/// The node goes on while its backup waits for somebody to read it.
fn a_snapshot_shares_its_blocks(machine: &Try) {
    on_host(machine, "(gatectl node backup node1 -o - | sleep 30) >/dev/null 2>&1 </dev/null &");
    within(STARTED, "a snapshot that shares its blocks", || {
        let seen = machine.ssh(HOST, "filefrag -v /srv/vms/node1/snapshot/disk0");
        seen.stdout.contains("shared")
    });
    assert_eq!(machine.ssh("node1", "echo goes on >/root/word; sync").code, 0);
    within(STARTED, "the snapshot to go", || {
        machine.ssh(HOST, "test ! -e /srv/vms/node1/snapshot").code == 0
    });
}

/// What tells nodes and host from any other, and would be another after an install.
fn who(machine: &Try) -> String {
    let node = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub";
    let nodes = NODES.map(|name| machine.ssh(name, node).stdout);
    let host =
        on_host(machine, "cd /var/lib/gatehouse && sha256sum authority/ca.key host/ssh/ssh_host_ed25519_key");
    assert!(nodes.iter().all(|node| !node.is_empty()), "{nodes:?}");
    nodes.join("") + &host
}

/// The site whose backups were sent there.
fn restore(machine: &Try, key: &Path, more: &str) {
    let key = std::fs::read_to_string(key).expect("the key");
    on_host(machine, &format!("umask 077; echo '{}' >/run/key", key.trim()));
    on_host(machine, &format!("gatectl restore /var/lib/gatehouse/kept --identity /run/key {more}"));
}

fn fetch(machine: &Try, name: &str, to: &Path) {
    let file = std::fs::File::create(to).expect("made");
    let command = format!("tar -C /var/lib/gatehouse -cf - {name}");
    let status = ssh(machine, &command).stdout(file).status().expect("ssh starts");
    assert!(status.success(), "{command}");
}

fn send(machine: &Try, from: &Path) {
    let file = std::fs::File::open(from).expect("opened");
    let status = ssh(machine, "tar -C /var/lib/gatehouse -xf -").stdin(file).status().expect("ssh starts");
    assert!(status.success());
}

fn ssh(machine: &Try, command: &str) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(machine.dir().join("ssh/config")).args(["-o", "BatchMode=yes", HOST, command]);
    ssh.stdin(Stdio::null());
    ssh
}
