//! Backups as their users make them, on User Mode Linux: of a node while it writes, and of a whole site, which comes back
//! on another machine without being installed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use gatehouse_tests::work::{add_recipient, share_way_in, state, within};
use gatehouse_tests::{Try, gatehouse, has, open_to_all, outcome, run, site, try_uml};
use serde_json::Value;

const INSTALL: Duration = Duration::from_secs(600);
/// How long a node may take to stop and to start again, beside other work.
const STARTED: Duration = Duration::from_secs(300);
/// Writes a line a tenth of a second, each on the disk before the next.
const WRITER: &str = "nohup sh -c 'n=0; while :; do n=$((n + 1)); echo $n >>/root/lines; sync /root/lines; sleep 0.1; done' \
    >/dev/null 2>&1 &";

#[test]
fn a_site_comes_back_from_its_backups() {
    if !has(&["age", "age-keygen", "bash", "ip", "restic", "ssh", "unshare", "zstd"]) {
        return;
    }
    let temp =
        tempfile::Builder::new().prefix("gatehouse-backup-").tempdir_in("/var/tmp").expect("a directory");
    open_to_all(temp.path());
    let site = site("minimal", temp.path());
    let key = temp.path().join("key");
    add_recipient(&site, &key);
    let (first, second) = (temp.path().join("first"), temp.path().join("second"));
    let kept = temp.path().join("kept");
    let mut trial = try_uml(&site, &first, &[]);
    trial.wait_for("running; log in", INSTALL);

    let node = a_node_goes_back(&trial, temp.path());
    what_is_damaged_is_refused(&trial, &node);
    a_backup_goes_over_ssh(&trial, temp.path());
    restic_keeps_versions(&trial, temp.path());
    assert_eq!(trial.ssh("node1", "echo moved >/root/word; sync").code, 0);
    let who = who(&trial);
    let done = trial.gatectl(&["backup", "--all", "-o", &text(&kept), "--json"]);
    assert_eq!((done.code, done.stdout.lines().count()), (0, 2), "{done:?}");
    no_key_is_readable(&first, &kept.join("host.tar.zst.age"));
    outcome(&trial.interrupt());

    another_machine_becomes_the_site(&site, (&first, &second), (&kept, &key), &who);
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// What tells a node from any other, and would be another after an install.
fn who(trial: &Try) -> String {
    let said = trial.ssh("node1", "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub /root/word");
    assert_eq!(said.code, 0, "{said:?}");
    said.stdout
}

/// Backed up while it writes, changed, and brought back.
fn a_node_goes_back(trial: &Try, dir: &Path) -> PathBuf {
    let file = dir.join("node1.tar.zst");
    assert_eq!(trial.ssh("node1", &format!("echo before >/root/word; sync; {WRITER}")).code, 0);
    let done = trial.gatectl(&["node", "backup", "node1", "-o", &text(&file), "--json"]);
    assert_eq!(done.code, 0, "{done:?}");
    let done: Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!(done["state"], "frozen", "{done}");
    let (bytes, data) = (done["bytes"].as_u64().expect("a number"), done["data"].as_u64().expect("a number"));
    assert!(data < bytes / 3, "holes were read: {done}");
    within(STARTED, "the snapshot to go", || !dir.join("first/vms/node1/snapshot").exists());
    let lines = trial.ssh("node1", "echo after >/root/word; sleep 1; wc -l </root/lines").stdout;
    let seen = trial.gatectl(&["backup", "inspect", &text(&file)]);
    assert!(seen.code == 0 && seen.stdout.contains("were frozen"), "{seen:?}");

    let refused = trial.gatectl(&["node", "restore", "node1", &text(&file)]);
    assert!(refused.code == 3 && refused.stderr.contains("--replace"), "{refused:?}");
    let done = trial.gatectl(&["node", "restore", "node1", &text(&file), "--replace"]);
    assert_eq!(done.code, 0, "{done:?}");
    within(STARTED, "the node from its backup", || {
        state(trial, "node1") == "running" && trial.ssh("node1", "cat /root/word").stdout == "before\n"
    });
    // What was written before the freeze is there, whole, and nothing of later.
    let found = trial.ssh("node1", "cat /root/lines");
    let found: Vec<u64> = found.stdout.lines().map(|line| line.parse().expect("a whole line")).collect();
    let count = found.len() as u64;
    assert_eq!(found, (1..=count).collect::<Vec<_>>());
    assert!(count < lines.trim().parse().expect("a number"), "{count} lines of {lines}");
    within(STARTED, "the old disks to go", || !dir.join("first/vms/node1/replaced").exists());
    let checked = trial.ssh("node1", "dmesg | grep -ci 'ext4.*error'");
    assert_eq!(checked.stdout.trim(), "0", "{checked:?}");
    file
}

fn what_is_damaged_is_refused(trial: &Try, file: &Path) {
    let mut bytes = fs::read(file).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let wrong = file.with_file_name("wrong");
    fs::write(&wrong, bytes).expect("written");
    assert_eq!(trial.gatectl(&["backup", "verify", &text(file)]).code, 0);
    assert_eq!(trial.gatectl(&["backup", "verify", &text(&wrong)]).code, 5);
    let refused = trial.gatectl(&["node", "restore", "node1", &text(&wrong), "--replace"]);
    assert_eq!(refused.code, 5, "{refused:?}");
    assert_eq!(state(trial, "node1"), "running", "it was stopped for nothing");
}

/// To the node itself, which is the only one here that lets anybody in. As it has its name only when it is whole, one that
/// is given up leaves nothing that looks like a backup.
fn a_backup_goes_over_ssh(trial: &Try, dir: &Path) {
    let bin = dir.join("bin");
    fs::create_dir(&bin).expect("made");
    let ssh = format!("#!/bin/sh\nexec /usr/bin/ssh -F {}/ssh/config \"$@\"\n", text(trial.dir()));
    fs::write(bin.join("ssh"), ssh).expect("written");
    fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).expect("set");
    let path = format!("{}:{}", text(&bin), std::env::var("PATH").unwrap_or_default());
    let gatectl = || {
        let mut command = Command::new(gatehouse().with_file_name("gatehouse-agent"));
        command.arg("ctl").arg("--trial").arg(trial.dir()).env("PATH", &path);
        command
    };
    let place = "ssh://node1/var/tmp/own";
    let there = || trial.ssh("node1", "ls /var/tmp | grep own").stdout;

    let mut given_up = gatectl();
    // Ctrl-C reaches all that was started from the shell, ssh too.
    given_up.args(["node", "backup", "node1", "-o", place]).stdin(Stdio::null()).process_group(0);
    let given_up = given_up.stderr(Stdio::piped()).spawn().expect("it starts");
    within(STARTED, "the first bytes", || there().starts_with("own.") && there().ends_with(".partial\n"));
    assert_eq!(run(Command::new("kill").args(["-INT", "--", &format!("-{}", given_up.id())])).code, 0);
    let said = String::from_utf8(given_up.wait_with_output().expect("it ends").stderr).expect("text");
    assert!(said.contains("interrupted; nothing of it is left"), "{said}");
    within(STARTED, "nothing left of it", || there().is_empty());
    within(STARTED, "the snapshot to go", || !trial.dir().join("vms/node1/snapshot").exists());

    let done = run(gatectl().args(["node", "backup", "node1", "-o", place]));
    assert_eq!((done.code, there().as_str()), (0, "own\n"), "{done:?}");
    let done = run(gatectl().args(["backup", "verify", place]));
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(trial.ssh("node1", "rm /var/tmp/own").code, 0);
}

/// As README.md has it: what has not changed since is found there, and the latest whole one comes back.
fn restic_keeps_versions(trial: &Try, dir: &Path) {
    let pipe = |commands: &str| {
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", commands]).env("RESTIC_PASSWORD", "x");
        bash.env("RESTIC_REPOSITORY", dir.join("restic")).env("XDG_CACHE_HOME", dir);
        bash.env("GATECTL", gatehouse().with_file_name("gatehouse-agent")).env("DIR", trial.dir());
        let done = run(&mut bash);
        assert_eq!(done.code, 0, "{done:?}");
        done.stdout
    };
    let backup = || -> u64 {
        let said = pipe(
            "mark=unfinished-$(date +%s)
             $GATECTL ctl --trial $DIR node backup node1 -o - | zstd -dc \
             | restic backup --json --tag $mark --stdin --stdin-filename node1.tar &&
             restic tag --tag $mark --set node1",
        );
        let summary = said.lines().find(|line| line.contains("data_added")).expect("a summary");
        let summary: Value = serde_json::from_str(summary).expect("JSON");
        summary["data_added"].as_u64().expect("a number")
    };
    pipe("restic init");
    let first = backup();
    assert_eq!(trial.ssh("node1", "echo latest >/root/word; sync").code, 0);
    let second = backup();
    println!("restic took {} MiB, and then {} MiB more", first >> 20, second >> 20);
    assert!(second < first / 4, "{second} of {first}");
    assert_eq!(trial.ssh("node1", "echo lost >/root/word; sync").code, 0);
    pipe("echo cut off | restic backup --tag unfinished-1 --stdin --stdin-filename node1.tar");
    pipe(
        "restic dump --tag node1 latest node1.tar | zstd -c | $GATECTL ctl --trial $DIR node restore node1 - --replace",
    );
    within(STARTED, "the node from restic", || {
        state(trial, "node1") == "running" && trial.ssh("node1", "cat /root/word").stdout == "latest\n"
    });
}

fn no_key_is_readable(trial: &Path, file: &Path) {
    let key = fs::read_to_string(trial.join("state/authority/ca.key")).expect("the key");
    let line = key.lines().nth(1).expect("a line").as_bytes();
    let bytes = fs::read(file).expect("read");
    assert!(bytes.starts_with(b"age-encryption.org/v1\n"));
    assert!(!bytes.windows(line.len()).any(|part| part == line));
}

/// A trial of its own is the second machine. It would be installed; it becomes the host, and its node is restored.
fn another_machine_becomes_the_site(
    site: &Path,
    (first, second): (&Path, &Path),
    (kept, key): (&Path, &Path),
    who: &str,
) {
    share_way_in(first, second);
    let mut trial = try_uml(site, second, &["--resume"]);
    trial.wait_for("installing", INSTALL);
    let restore = ["restore", &text(kept), "--identity", &text(key)];
    let done = trial.gatectl(&restore);
    assert!(done.code == 0 && done.stderr.contains("--resume"), "{done:?}");
    trial.kill();

    let mut trial = try_uml(site, second, &["--resume"]);
    trial.wait_for("this machine is the host of the backup", STARTED);
    within(STARTED, "the agent", || trial.gatectl(&["status"]).code == 0);
    assert_eq!(state(&trial, "node1"), "absent");
    let done = trial.gatectl(&restore);
    assert_eq!(done.code, 0, "{done:?}");
    trial.wait_for("running; log in", STARTED);
    assert_eq!(self::who(&trial), who, "it is another node");
    assert!(!trial.saw("installing started"), "it was installed");
    for name in ["authority/ca.key", "pool"] {
        let same =
            run(Command::new("diff").arg("-r").args([first, second].map(|dir| dir.join("state").join(name))));
        assert_eq!(same.code, 0, "{same:?}");
    }
    let log = trial.gatectl(&["site", "log"]);
    assert_eq!(log.code, 0, "{log:?}");
    outcome(&trial.interrupt());
}
