//! A small node compiles fast enough that a server can do so for every change.

use std::time::{Duration, Instant};

use gatehouse_lcfg::{Sources, compile};
use gatehouse_model as _;
use proptest as _;
use quick_xml as _;
use regex_lite as _;
use serde as _;

#[test]
fn a_small_node_compiles_well_below_a_millisecond() {
    let mut sources = Sources::new();
    sources.insert(
        "source/web",
        "#include <a.h>\nnetwork.ipaddr_eth0 10.0.0.2\n!profile.packages mADD(nginx=*)\n",
    );
    sources.insert("include/a.h", "network.interfaces eth0\nprofile.packages @a.pkgs\nfstab.disks xvda\n");
    sources.insert("packages/a.pkgs", "openssh-server=*\nlinux-image-amd64=*\n");
    let once = || {
        let start = Instant::now();
        compile(&sources, "web", "").unwrap();
        start.elapsed()
    };
    // The best of many, because the machine does other things too; unoptimised code gets ten times as long.
    let best = (0..200).map(|_| once()).min().unwrap();
    let limit = Duration::from_millis(if cfg!(debug_assertions) { 10 } else { 1 });
    println!("{best:?}");
    assert!(best < limit, "{best:?}");
}
