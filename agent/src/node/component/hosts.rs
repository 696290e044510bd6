//! `hosts`: `/etc/hosts`.

use gatehouse_model::Fault;

use super::work::Work;
use crate::node::render;

pub(super) fn configure(work: &mut Work<'_>) -> Result<(), Fault> {
    let entry = |tag: &str| (work.of("address", tag).to_owned(), work.of("names", tag).to_owned());
    let mut entries: Vec<_> = work.words("entries").into_iter().map(entry).collect();
    let own = work.home.address.to_string();
    if entries.iter().all(|(address, _)| *address != own) {
        let (node, domain) = (&work.home.node, &work.home.domain);
        entries.insert(0, (own, format!("{node}.{domain} {node}")));
    }
    work.write("/etc/hosts", 0o644, &render::hosts(&entries))
}
