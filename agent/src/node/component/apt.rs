//! `apt`: where the node's own apt finds packages, for people who look; what changes packages has its own sources.

use gatehouse_model::Fault;

use super::work::Work;
use crate::node::apt::sources;

const MIRROR: &str = "/etc/apt/sources.list.d/gatehouse-mirror.sources";

pub(super) fn configure(work: &mut Work<'_>) -> Result<(), Fault> {
    let release = work.target.read("/etc/os-release");
    let text = sources::mirrors(&sources::of_profile(work.profile), &sources::suite(&release), |path| {
        work.target.has(path)
    });
    work.write_some(MIRROR, 0o644, &text)
}
