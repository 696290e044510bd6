//! The real install path in a network namespace: server, installer, driver and stores, on User Mode Linux.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gatehouse_tests::{Try, gatehouse, has, open_to_all, outcome, run, site, try_uml};

const INSTALL: Duration = Duration::from_secs(600);

/// One trial serves many checks: a cut in the middle of the install, the resumed install, the node itself, its
/// credentials, and stopping in order.
#[test]
fn a_node_is_cut_off_installed_and_left_without_a_token() {
    if !has(&["ip", "ssh", "unshare"]) {
        return;
    }
    let temp = tempfile::Builder::new().prefix("gatehouse-uml-").tempdir_in("/var/tmp").expect("a directory");
    open_to_all(temp.path());
    let (site, dir) = (site("minimal", temp.path()), temp.path().join("trial"));

    let mut cut = try_uml(&site, &dir, &[]);
    cut.wait_for("unpacking layer", INSTALL);
    cut.kill();
    no_uml_is_left(&dir);

    let mut resumed = try_uml(&site, &dir, &["--resume"]);
    resumed.wait_for("running; log in", INSTALL);
    assert!(resumed.saw("node/node1: installing done"), "the cut install was not finished");

    let seen =
        resumed.ssh("node1", "hostname; findmnt -no FSTYPE /; systemctl is-system-running; dpkg --audit");
    assert_eq!(seen.stdout, "node1\next4\nrunning\n", "{seen:?}");
    let secrets =
        resumed.ssh("node1", "find / -xdev -name passport.json; stat -c %a /var/lib/gatehouse/client");
    assert_eq!(secrets.stdout, "700\n", "{secrets:?}");
    assert!(
        !dir.join("vms/node1/conf/install-initrd").exists(),
        "the initramfs with the token is still there"
    );

    let ended = resumed.interrupt();
    outcome(&ended);
    no_uml_is_left(&dir);

    let again = try_uml(&site, &dir, &["--resume", "--exit"]).end();
    outcome(&again);
    assert!(!again.stderr.contains("installing started"), "an installed node was installed again");
}

#[test]
fn an_ordinary_user_needs_no_root() {
    if !has(&["ip", "ssh", "unshare", "newuidmap", "setpriv"]) {
        return;
    }
    if run(Command::new("id").arg("-u")).stdout.trim() != "0" {
        println!("skipped, because the other test already runs as an ordinary user");
        return;
    }
    let user = "gatehouse-test";
    if run(Command::new("id").arg(user)).code != 0 {
        assert!(std::env::var_os("CI").is_none(), "there is no user {user}; run ci/setup");
        println!("skipped, because there is no user {user}");
        return;
    }
    let temp =
        tempfile::Builder::new().prefix("gatehouse-user-").tempdir_in("/var/tmp").expect("a directory");
    let home = temp.path();
    let site = site("minimal", home);
    // The programs and what belongs to them, where that user can read them.
    let share = home.join("share");
    for (from, to) in [("overlays", "overlays"), ("site-templates", "site-templates")] {
        copy(&gatehouse_tests::top().join(from), &share.join("share/gatehouse").join(to));
    }
    for name in ["gatehouse", "gatehouse-agent"] {
        copy(&gatehouse().with_file_name(name), &share.join("bin").join(name));
    }
    share_packages(home);
    assert_eq!(run(Command::new("chown").arg("-R").arg(user).arg(home)).code, 0);
    let dir = home.join("trial");
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", user, "--regid", user, "--init-groups", "--reset-env"])
        .arg(share.join("bin/gatehouse"));
    command
        .arg("try")
        .arg(&site)
        .args(["--vmm", "uml", "--exit", "--json", "--cache"])
        .arg(home.join("cache"));
    command.arg("--dir").arg(&dir).current_dir(home);
    let ended = Try::start(&mut command, &dir).end();
    outcome(&ended);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().expect("it has one")).expect("made");
    assert_eq!(run(Command::new("cp").arg("-r").arg(from).arg(to)).code, 0, "copying {}", from.display());
}

/// The packages that the first test has fetched; the roots are built anew, as that user.
fn share_packages(home: &Path) {
    let cache = std::env::var("XDG_CACHE_HOME")
        .unwrap_or_else(|_| format!("{}/.cache", std::env::var("HOME").unwrap_or_default()));
    let debs = Path::new(&cache).join("gatehouse/deb");
    if debs.is_dir() {
        copy(&debs, &home.join("cache/deb"));
    }
}

fn no_uml_is_left(dir: &Path) {
    let mark = format!("uml_dir={}", dir.display());
    for _ in 0..100 {
        let running = run(Command::new("pgrep").args(["-f", &mark]));
        if running.stdout.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("a node runs on after its trial has ended");
}
