//! `ntp`: time servers, for the program that the node has for its clock.

use std::fmt::Write as _;

use gatehouse_model::Fault;

use super::work::Work;

const CHRONY: &str = "/etc/chrony/sources.d/gatehouse.sources";
const TIMESYNCD: &str = "/etc/systemd/timesyncd.conf.d/gatehouse.conf";

pub(super) fn configure(work: &mut Work<'_>) -> Result<(), Fault> {
    let servers = work.words("servers");
    let chrony = work.target.has("/usr/sbin/chronyd");
    let timesyncd = work.target.has("/usr/lib/systemd/systemd-timesyncd");
    if servers.is_empty() {
        // What is left of earlier ones goes.
    } else if chrony {
        let mut text = String::new();
        for server in &servers {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "server {server} iburst");
        }
        work.write_own(CHRONY, 0o644, &text)?;
    } else if timesyncd {
        work.write_own(TIMESYNCD, 0o644, &format!("[Time]\nNTP={}\n", servers.join(" ")))?;
    } else {
        return Err(Fault::new("ntp.servers is set, and this node has no program for its clock")
            .help("add chrony or systemd-timesyncd to the node's package list"));
    }
    if !work.settle()? {
        return Ok(());
    }
    work.restart(if chrony { "chrony.service" } else { "systemd-timesyncd.service" })
}
