//! Package by package: a node that is installed from the pool is the same as one installed from a layer, and the pool
//! is a repository that apt takes packages from.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gatehouse_tests::roots::Exclusions;
use gatehouse_tests::{Try, has, outcome, site, try_uml};

const INSTALL: Duration = Duration::from_secs(1200);

/// What apt says of the pool on a node: its own sources and state, so that nothing of the node is changed.
const APT: &str = "set -e
    dir=$(mktemp -d); mkdir -p $dir/lists/partial $dir/cache/archives/partial; cd $dir; umask 022; chmod 755 $dir
    apt-get -o Dir::State::Lists=$dir/lists -o Dir::Cache=$dir/cache -o APT::Update::Error-Mode=any update
    apt-get -o Dir::State::Lists=$dir/lists -o Dir::Cache=$dir/cache download libstdc++6
    dpkg-deb --info libstdc*.deb >/dev/null && echo taken";

/// Starts a trial of a site and answers it when its node is up.
fn started(site: &Path, dir: &Path) -> Try {
    let mut trial = try_uml(site, dir, &[]);
    trial.wait_for("running; log in", INSTALL);
    trial
}

fn ended(trial: Try) -> f64 {
    let seconds = outcome(&trial.interrupt())["nodes"][0]["install-seconds"].as_f64();
    seconds.expect("a figure")
}

fn without_layers(temp: &Path) -> PathBuf {
    fs::create_dir(temp.join("pool")).expect("made");
    let site = site("minimal", &temp.join("pool"));
    let path = site.join("site.toml");
    let text =
        fs::read_to_string(&path).expect("read").replace("[packages]\n", "[packages]\nlayers = false\n");
    fs::write(&path, text).expect("written");
    site
}

#[test]
fn both_ways_give_the_same_tree_and_apt_takes_the_pool() {
    if !has(&["ip", "ssh", "unshare"]) {
        return;
    }
    let temp =
        tempfile::Builder::new().prefix("gatehouse-pool-").tempdir_in("/var/tmp").expect("a directory");
    // As root each node's process is a user of its own, which must be able to pass through.
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).expect("set");
    let at = |name: &str| temp.path().join(name);

    let (by_pool, by_layer) = (without_layers(temp.path()), site("minimal", temp.path()));
    let trial = started(&by_pool, &at("by-pool"));
    assert!(!at("by-pool/depot/layers").exists(), "the depot has layers");
    assert!(trial.saw("installing packages"), "the node was not installed package by package");
    let apt = trial.ssh("node1", APT);
    assert!(apt.code == 0 && apt.stdout.ends_with("taken\n"), "{apt:?}");
    let ours = trial.packed("node1", &at("pool.tar"));
    let pool_seconds = ended(trial);

    // The same versions, whatever the archive has in the meantime.
    fs::copy(by_pool.join("site.lock"), by_layer.join("site.lock")).expect("locked");
    let trial = started(&by_layer, &at("by-layer"));
    assert!(trial.saw("unpacking layer"), "the node was not installed from a layer");
    let theirs = trial.packed("node1", &at("layer.tar"));
    println!("install: {pool_seconds} s from the pool, {} s from a layer", ended(trial));

    let exclusions = Exclusions::parse(include_str!("pool.exclusions"), &["two nodes"]);
    let left = exclusions.apply(&ours.differences(&theirs));
    assert!(left.is_empty(), "{} differences between the two ways:\n{}", left.len(), left.join("\n"));
}
