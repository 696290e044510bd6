//! `hosts`: `/etc/hosts`.

use std::net::IpAddr;

use gatehouse_model::Fault;

use super::work::Work;
use crate::node::render;

pub(super) fn configure(work: &mut Work<'_>) -> Result<(), Fault> {
    let entry = |tag: &str| (work.of("address", tag).to_owned(), work.of("names", tag).to_owned());
    // What a map brings may have no address: a node that publishes only its name.
    let mut entries: Vec<_> = ["entries", "nodes"]
        .into_iter()
        .flat_map(|list| work.words(list))
        .map(entry)
        .filter(|(address, _)| address.parse::<IpAddr>().is_ok())
        .collect();
    let own = work.home.address.to_string();
    if entries.iter().all(|(address, _)| *address != own) {
        let (node, domain) = (&work.home.node, &work.home.domain);
        entries.insert(0, (own, format!("{node}.{domain} {node}")));
    }
    work.write("/etc/hosts", 0o644, &render::hosts(&entries))
}
