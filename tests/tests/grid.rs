//! The grid gateway as its users see it, on User Mode Linux: jobs, files, who may and who may not, and what it survives.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gatehouse_tests::work::{Work, in_file, state, within};
use gatehouse_tests::{Ended, Try, has, open_to_all, outcome, run, site, try_uml};
use serde_json::Value;

const INSTALL: Duration = Duration::from_secs(1200);
/// How long a node may take until it is well again after a start or an install.
const WELL: Duration = Duration::from_secs(300);
/// How long a change may take from the push to the nodes that it concerns.
const REACHED: Duration = Duration::from_secs(20);
const NODES: [&str; 4] = ["ce", "se", "ui", "wn"];
const JOB: &str = "globus-job-run ce.grid.example.org/jobmanager-pbs /bin/hostname";
const ALICE: &str = "
[[grid-user]]
name = \"alice\"
uid = 20001
dn = \"/O=Grid/OU=gateway/CN=Alice Example\"
";

/// One trial serves all checks.
#[test]
fn the_grid_gateway_is_real() {
    if !has(&["git", "ip", "ssh", "unshare"]) {
        return;
    }
    let temp =
        tempfile::Builder::new().prefix("gatehouse-grid-").tempdir_in("/var/tmp").expect("a directory");
    open_to_all(temp.path());
    let (site, dir) = (site("grid-gateway", temp.path()), temp.path().join("trial"));
    let mut trial = try_uml(&site, &dir, &["--evaluate=3"]);
    trial.wait_for("running; log in", INSTALL);

    a_job_goes_through_the_queue_to_the_worker(&trial);
    who_is_not_mapped_is_refused(&trial);
    a_node_gets_what_its_profile_says_and_nothing_else(&trial);
    secrets_are_where_they_belong_only(&trial, &dir);
    no_secret_is_in_a_layer(&dir);
    a_user_who_goes_is_shut_out(&trial, &Work::clone_of(&dir, temp.path()));
    nodes_start_anew_one_by_one(&trial);
    // The one that others depend on always; all for the long run.
    let full = std::env::var_os("GATEHOUSE_FULL").is_some();
    for node in if full { &["wn", "se", "ui", "ce"][..] } else { &["ce"] } {
        a_node_is_installed_anew(&trial, node);
    }
    let ended = trial.interrupt();
    every_command_succeeds(&outcome(&ended));

    // The host starts anew, with all that is on it.
    let mut again = try_uml(&site, &dir, &["--resume"]);
    again.wait_for("running; log in", INSTALL);
    assert!(!again.saw("installing started"), "an installed node was installed again");
    works_again(&again, "after the host's start");
    outcome(&again.interrupt());
}

/// Runs a command on the user interface as the site's user.
fn user(trial: &Try, command: &str) -> Ended {
    trial.ssh("ui", &format!("runuser -l alice -c '{command}'"))
}

fn every_command_succeeds(outcome: &Value) {
    let evaluation = &outcome["evaluation"];
    for name in ["globusrun", "globus-job-run", "globus-job-run-pbs", "replica", "gridftp-ls"] {
        let result = &evaluation[name];
        assert_eq!((&result["runs"], &result["failed"]), (&3.into(), &0.into()), "{name}: {evaluation}");
        assert!(result["mean"].as_f64().expect("seconds") > 0.0, "{evaluation}");
    }
}

fn a_job_goes_through_the_queue_to_the_worker(trial: &Try) {
    let seen = user(trial, JOB);
    assert_eq!(seen.stdout, "wn\n", "{seen:?}");
    let seen = user(trial, "globus-job-run ce.grid.example.org/jobmanager-fork /usr/bin/id -un");
    assert_eq!(seen.stdout, "alice\n", "{seen:?}");
}

/// The storage element's certificate is as good as any, and no user's.
fn who_is_not_mapped_is_refused(trial: &Try) {
    let as_host =
        "X509_USER_CERT=/etc/grid-security/hostcert.pem X509_USER_KEY=/etc/grid-security/hostkey.pem";
    let seen = trial.ssh("ce", &format!("{as_host} globusrun -a -r ce.grid.example.org"));
    assert_eq!(seen.code, 0, "its own certificate: {seen:?}");
    let copy = "tar c -C /etc/grid-security hostcert.pem hostkey.pem | base64 -w 0";
    let pair = trial.ssh("se", copy).stdout;
    let take = format!("cd $(mktemp -d) && echo {pair} | base64 -d | tar x && chown 0:0 host*");
    let ask =
        "X509_USER_CERT=$PWD/hostcert.pem X509_USER_KEY=$PWD/hostkey.pem globusrun -a -r ce.grid.example.org";
    let seen = trial.ssh("ui", &format!("{take} && {ask}"));
    assert!(seen.code != 0 && seen.stdout.contains("authentication"), "{seen:?}");
}

fn a_node_gets_what_its_profile_says_and_nothing_else(trial: &Try) {
    let agent = "/usr/lib/gatehouse/gatehouse-agent node";
    // Whoever's key it is: a worker has no program to make one.
    let make = "openssl req -new -newkey rsa:2048 -nodes -keyout /dev/null -subj /CN=x 2>/dev/null";
    let request = trial.ssh("se", make).stdout;
    let certificate = format!("{agent} certificate host --csr /tmp/csr");
    let secret = format!("{agent} secret munge");
    for (node, ask) in [("se", &secret), ("ui", &secret), ("ui", &certificate), ("wn", &certificate)] {
        let asked = trial.ssh(node, &format!("echo '{request}' >/tmp/csr; {ask}"));
        assert_eq!((asked.code, asked.stdout.as_str()), (3, ""), "{node} got {ask}: {asked:?}");
    }
    let told = trial.gatectl(&["log"]).stdout;
    assert!(told.contains("munge") && told.contains("refus"), "nobody was told: {told}");
}

fn secrets_are_where_they_belong_only(trial: &Try, dir: &Path) {
    let open = "find /etc /home /root /srv /var /tmp /run /storage -xdev -type f -perm -o=r -size -256k \
                -exec grep -l -E -e 'PRIVATE KEY-----' -e '[:][$](y|6|5|1)[$]' {} + 2>/dev/null; true";
    for node in NODES {
        let seen = trial.ssh(node, open);
        assert_eq!(seen.stdout, "", "world-readable on {node}: {seen:?}");
    }
    // The search does find what is there.
    let plant = "echo 'x:$6$salt$hash:1::::::' >/var/tmp/planted-hash && \
                 openssl genpkey -quiet -algorithm ed25519 -out /var/tmp/planted-key && chmod 644 /var/tmp/planted-*";
    let seen = trial.ssh("ui", &format!("{plant}; {open}; rm /var/tmp/planted-*"));
    let mut found: Vec<&str> = seen.stdout.lines().collect();
    found.sort_unstable();
    assert_eq!(found, ["/var/tmp/planted-hash", "/var/tmp/planted-key"], "{seen:?}");
    let modes = trial.ssh("ce", "stat -c '%a %U' /etc/grid-security/hostkey.pem /etc/munge/munge.key");
    assert_eq!(modes.stdout, "400 root\n400 munge\n", "{modes:?}");
    let shown = trial.gatectl(&["status", "--json"]).stdout;
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
    // What the trial keeps: logs and consoles, state that is not for root alone, the depot.
    let search = "grep -r -l -e 'PRIVATE KEY-----' --exclude-dir=fs --exclude-dir=ssh --exclude=agent . | while read -r file; do \
                  stat -c '%a %n' \"$file\"; done | grep -v '^[46]00 '; true";
    let found = run(Command::new("sh").args(["-c", search]).current_dir(dir));
    assert_eq!(found.stdout, "", "{found:?}");
}

/// Neither do the trees that nodes are installed from hold any: what a package makes at its install is made anew.
fn no_secret_is_in_a_layer(dir: &Path) {
    let layers = fs::read_dir(dir.join("depot/layers")).expect("there are layers");
    let layers: Vec<_> = layers.map(|layer| layer.expect("read").path()).collect();
    assert_eq!(layers.len(), NODES.len(), "{layers:?}");
    for layer in layers {
        let list = run(Command::new("tar").args(["--zstd", "--list", "--file"]).arg(&layer));
        assert_eq!(list.code, 0, "{list:?}");
        for bad in ["ssh_host_", "munge.key", "key.pem", "/ca.key", "passport.json"] {
            let found: Vec<&str> = list.stdout.lines().filter(|line| line.contains(bad)).collect();
            assert_eq!(found, [""; 0], "{}", layer.display());
        }
    }
}

fn a_user_who_goes_is_shut_out(trial: &Try, work: &Work) {
    let may = || user(trial, "globusrun -a -r ce.grid.example.org").code == 0;
    assert!(may());
    let copy =
        "cp /tmp/x509up_u20001 /root/proxy; X509_USER_PROXY=/root/proxy globusrun -a -r ce.grid.example.org";
    assert_eq!(trial.ssh("ui", copy).code, 0, "by a copy of the proxy");
    let toml = work.file("site.toml");
    in_file(&toml, ALICE, "");
    work.must_push("alice leaves");
    let still = "X509_USER_PROXY=/root/proxy globusrun -a -r ce.grid.example.org";
    within(REACHED, "alice shut out", || trial.ssh("ui", still).code != 0);

    let text = fs::read_to_string(&toml).expect("read");
    fs::write(&toml, text + ALICE).expect("written");
    work.must_push("alice comes back");
    within(WELL, "alice back", may);
}

fn nodes_start_anew_one_by_one(trial: &Try) {
    for node in NODES {
        assert_eq!(trial.gatectl(&["node", "restart", node]).code, 0);
        within(WELL, &format!("{node} well again"), || state(trial, node) == "running");
        works_again(trial, &format!("after the start of {node}"));
    }
}

fn a_node_is_installed_anew(trial: &Try, node: &str) {
    let others: Vec<&str> = NODES.into_iter().filter(|other| *other != node).collect();
    let boots = || {
        let boot = |other: &&str| trial.ssh(other, "cat /proc/sys/kernel/random/boot_id").stdout;
        others.iter().map(boot).collect::<Vec<_>>()
    };
    let before = boots();
    assert_eq!(trial.gatectl(&["node", "install", node]).code, 0);
    within(WELL, &format!("{node} away"), || state(trial, node) != "running");
    within(WELL, &format!("{node} well again"), || state(trial, node) == "running");
    works_again(trial, &format!("after the install of {node}"));
    assert_eq!(boots(), before, "others were started anew");
}

fn works_again(trial: &Try, when: &str) {
    for node in NODES {
        within(WELL, &format!("{node} well {when}"), || state(trial, node) == "running");
    }
    // A user interface that was installed anew has no files of its users.
    let replica = "head -c 1M /dev/urandom >$HOME/replica && grid-replica $HOME/replica";
    let seen = user(trial, &format!("grid-proxy-init -q && {JOB} && {replica}"));
    assert!(seen.code == 0 && seen.stdout.starts_with("wn\n"), "{when}: {seen:?}");
}
