//! Network interfaces during a start.

use std::path::Path;
use std::time::{Duration, Instant};

use super::facts::Facts;
use super::{real, survey};
use crate::tool;

/// How long a NIC may take to see its cable, where the site asks for that.
const CARRIER: Duration = Duration::from_secs(8);

/// Brings every interface up, for one that is down does not say whether a cable is in it; and looks until all have one
/// or it takes too long. `root` is where `ip` comes from; none: the initramfs has it.
pub fn await_carriers(facts: &mut Facts, root: Option<&Path>) {
    for link in &facts.links {
        let words = ["link", "set", &link.name, "up"];
        // One that cannot be brought up has no cable either.
        let _ = match root {
            Some(root) => real::in_root(root, "/usr/bin/ip", &words),
            None => tool::run("ip", &words),
        };
    }
    let begun = Instant::now();
    while begun.elapsed() < CARRIER {
        facts.links = survey::links(Path::new("/"));
        if facts.links.iter().all(|link| link.carrier == Some(true)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}
