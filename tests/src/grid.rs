//! The trees of the reference site's nodes under one monitor and another.

use std::path::Path;
use std::time::Duration;

use crate::roots::{Difference, Exclusions, Tree};
use crate::{Try, outcome, try_uml};

/// The nodes of the site.
pub const NODES: [&str; 4] = ["ce", "se", "ui", "wn"];
const INSTALL: Duration = Duration::from_secs(1200);
/// What services write as long as they run: some of it is there or not by chance, and it says nothing of an install.
const STATE: [&str; 5] = [
    "var/lib/slurm/",
    "var/log/globus-gatekeeper.log",
    "var/log/gridftp",
    "var/log/munge/",
    "var/log/slurm/",
];

/// The nodes' trees as they are installed and started under User Mode Linux.
///
/// # Panics
/// They are not.
pub fn trees_under_uml(site: &Path, temp: &Path) -> [Tree; 4] {
    let mut trial = try_uml(site, &temp.join("uml"), &[]);
    trial.wait_for("running; log in", INSTALL);
    let trees = NODES.map(|node| trial.packed(node, &temp.join("packed.tar")));
    outcome(&trial.interrupt());
    trees
}

/// How the trees of a trial differ from those, but for what is excluded in these sections; a line each.
///
/// # Panics
/// They cannot be packed.
pub fn differences(trial: &Try, theirs: &[Tree; 4], sections: &[&str], temp: &Path) -> Vec<String> {
    let lists =
        ["pool", "kvm", "grid"].map(|name| crate::top().join(format!("tests/tests/{name}.exclusions")));
    let lists = lists.map(|path| std::fs::read_to_string(path).expect("a list"));
    let exclusions = Exclusions::parse(&lists.concat(), sections);
    let mut all = Vec::new();
    for (node, theirs) in NODES.iter().zip(theirs) {
        let found = trial.packed(node, &temp.join("packed.tar")).differences(theirs);
        let on = |found: Difference| Difference { values: format!("{} ({node})", found.values), ..found };
        let counts = |found: &Difference| !STATE.iter().any(|state| found.path.starts_with(state));
        all.extend(found.into_iter().filter(counts).map(on));
    }
    exclusions.apply(&all)
}
