//! The real install path in a network namespace, on User Mode Linux, without root: server, installer, driver and stores.
//! What a driver must do stands in `contract.rs`.

use std::path::Path;
use std::process::Command;

use gatehouse_tests::{Try, gatehouse, has, outcome, run, site};

#[test]
fn an_ordinary_user_needs_no_root() {
    if !has(&["ip", "ssh", "unshare", "newuidmap", "setpriv"]) {
        return;
    }
    if run(Command::new("id").arg("-u")).stdout.trim() != "0" {
        println!("skipped, because all tests already run as an ordinary user");
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

/// The packages that others have fetched; the roots are built anew, as that user.
fn share_packages(home: &Path) {
    let cache = std::env::var("XDG_CACHE_HOME")
        .unwrap_or_else(|_| format!("{}/.cache", std::env::var("HOME").unwrap_or_default()));
    let debs = Path::new(&cache).join("gatehouse/deb");
    if debs.is_dir() {
        copy(&debs, &home.join("cache/deb"));
    }
}
