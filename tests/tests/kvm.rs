//! The install path under QEMU, natively in a network namespace; and one disk under two virtual machine monitors.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use gatehouse_model::evaluation::Evaluation;
use gatehouse_tests::grid;
use gatehouse_tests::roots::Exclusions;
use gatehouse_tests::work::{nodes, state, within};
use gatehouse_tests::{Try, gatehouse, has, open_to_all, outcome, run, site, try_kvm, try_uml};

/// An emulated node takes ten times as long as one under User Mode Linux.
const INSTALL: Duration = Duration::from_secs(1800);

fn is_possible() -> bool {
    if std::env::var_os("GATEHOUSE_FULL").is_none() {
        println!("skipped, because it takes long; `ci/test --full` runs it");
        return false;
    }
    has(&["ip", "ssh", "unshare", "qemu-system-x86_64", "setpriv"])
}

fn temp() -> tempfile::TempDir {
    let temp = tempfile::Builder::new().prefix("gatehouse-kvm-").tempdir_in("/var/tmp").expect("a directory");
    open_to_all(temp.path());
    temp
}

#[test]
fn a_node_runs_under_qemu_and_its_disk_is_that_of_user_mode_linux() {
    if !is_possible() {
        return;
    }
    let temp = temp();
    let at = |name: &str| temp.path().join(name);
    let site = site("minimal", temp.path());

    let mut trial = try_uml(&site, &at("uml"), &[]);
    trial.wait_for("running; log in", INSTALL);
    let theirs = trial.packed("node1", &at("uml.tar"));
    let uml = seconds(trial);

    let mut trial = try_kvm(&site, &at("kvm"), &[]);
    trial.wait_for("running; log in", INSTALL);
    let ours = trial.packed("node1", &at("kvm.tar"));
    let seen = trial.ssh("node1", "systemd-detect-virt; systemctl is-system-running; dpkg --audit");
    assert!(["qemu\nrunning\n", "kvm\nrunning\n"].contains(&seen.stdout.as_str()), "{seen:?}");
    the_console_asks_for_a_name(&at("kvm"));
    a_stopped_node_starts_again(&trial);
    a_killed_node_is_started_again(&trial, &at("kvm"));
    println!("install: {uml} s under User Mode Linux, {} s under QEMU", seconds(trial));
    no_qemu_is_left(&at("kvm"));

    let exclusions = include_str!("pool.exclusions").to_owned() + include_str!("kvm.exclusions");
    let exclusions = Exclusions::parse(&exclusions, &["two nodes", "two monitors"]);
    let left = exclusions.apply(&ours.differences(&theirs));
    assert!(left.is_empty(), "{} differences between the two monitors:\n{}", left.len(), left.join("\n"));

    // The disk that was made under one starts under the other.
    let moved = try_kvm(&site, &at("uml"), &["--resume", "--exit"]).end();
    outcome(&moved);
    assert!(!moved.stderr.contains("installing started"), "the node was installed again");
    // And the other way round, where it gets the modules of that kernel by itself.
    let mut moved = try_uml(&site, &at("kvm"), &["--resume"]);
    moved.wait_for("running; log in", INSTALL);
    let seen =
        moved.ssh("node1", "ls /lib/modules/$(uname -r)/modules.dep && systemctl is-system-running --wait");
    assert_eq!((seen.code, seen.stdout.ends_with("\nrunning\n")), (0, true), "{seen:?}");
    assert!(!moved.saw("installing started"), "the node was installed again");
    outcome(&moved.interrupt());
}

/// The reference site: what its users do, and the trees of all its nodes.
#[test]
fn the_grid_gateway_runs_under_qemu_and_its_disks_are_those_of_user_mode_linux() {
    if !is_possible() {
        return;
    }
    let temp = temp();
    let site = site("grid-gateway", temp.path());
    let theirs = grid::trees_under_uml(&site, temp.path());

    let mut trial = try_kvm(&site, &temp.path().join("kvm"), &["--timeout", "3600"]);
    trial.wait_for("running; log in", INSTALL * 2);
    let left = grid::differences(&trial, &theirs, &["two nodes", "two monitors"], temp.path());
    assert!(left.is_empty(), "{} differences between the two monitors:\n{}", left.len(), left.join("\n"));
    let seen = trial.gatectl(&["evaluate", "--json", "--runs", "1", "--slow-runs", "1"]);
    let found: Evaluation = serde_json::from_str(&seen.stdout).expect("an evaluation");
    assert!(found.tests.len() > 4 && found.tests.iter().all(|figures| figures.failed == 0), "{seen:?}");
    outcome(&trial.interrupt());
}

fn seconds(trial: Try) -> f64 {
    outcome(&trial.interrupt())["nodes"][0]["install-seconds"].as_f64().expect("a figure")
}

/// As somebody sees it who attaches, presses Enter and leaves.
fn the_console_asks_for_a_name(dir: &Path) {
    let words = "(sleep 1; printf '\\r'; sleep 5; printf '\\035') | \"$0\" ctl --trial \"$1\" node console node1 -n 0";
    within(Duration::from_secs(120), "a console that asks for a name", || {
        let agent = gatehouse().with_file_name("gatehouse-agent");
        run(Command::new("sh").args(["-c", words]).arg(agent).arg(dir)).stdout.contains("node1 login:")
    });
}

/// By the power button, and not by force: its file system was written out.
fn a_stopped_node_starts_again(trial: &Try) {
    let begun = Instant::now();
    let stopped = trial.gatectl(&["node", "stop", "node1"]);
    assert_eq!(stopped.code, 0, "{stopped:?}");
    within(INSTALL, "a stopped node", || state(trial, "node1") == "stopped");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(60), "it was ended by force after {took:?}");
    let started = trial.gatectl(&["node", "start", "node1"]);
    assert_eq!(started.code, 0, "{started:?}");
    within(INSTALL, "a started node", || state(trial, "node1") == "running");
    let seen = trial.ssh(
        "node1",
        "journalctl --boot=-1 --quiet --no-pager --unit=systemd-logind --grep='Power key' | wc -l",
    );
    assert_ne!(seen.stdout, "0\n", "{seen:?}");
}

fn a_killed_node_is_started_again(trial: &Try, dir: &Path) {
    let number = || fs::read_to_string(dir.join("run/kvm/node1/pid")).unwrap_or_default().trim().to_owned();
    let before = number();
    // Its number is that within the trial's own namespace.
    let marked = run(Command::new("pkill").args(["-KILL", "-f", &mark(dir)]));
    assert_eq!(marked.code, 0, "{marked:?}");
    within(INSTALL, "a node that was killed and runs again", || {
        number() != before && state(trial, "node1") == "running"
    });
    assert_eq!(nodes(trial).len(), 1);
}

/// What the command lines of a trial's nodes have, and nothing else has.
fn mark(dir: &Path) -> String {
    format!("pidfile {}/run/kvm/", dir.display())
}

fn no_qemu_is_left(dir: &Path) {
    within(Duration::from_secs(20), "no node left", || {
        run(Command::new("pgrep").args(["-f", &mark(dir)])).stdout.is_empty()
    });
}
