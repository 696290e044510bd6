//! `openssh`: the server's settings and host keys.

use std::fs;

use gatehouse_model::{Doing as _, Fault};

use super::work::Work;
use crate::node::render;

const SETTINGS: &str = "/etc/ssh/sshd_config.d/gatehouse.conf";

pub(super) fn configure(work: &mut Work<'_>) -> Result<(), Fault> {
    let permit = Some(work.get("permitroot")).filter(|word| !word.is_empty());
    work.write(SETTINGS, 0o644, &render::sshd(permit.unwrap_or("prohibit-password")))?;
    if !work.is_running() {
        // A key that came with the packages would be the same on every node.
        for entry in fs::read_dir(work.target.at("/etc/ssh")).doing(|| "reading /etc/ssh")?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("ssh_host_") {
                fs::remove_file(entry.path()).doing(|| "removing old host keys")?;
            }
        }
    }
    // Makes those that are missing, and no others.
    work.target.run("/usr/bin/ssh-keygen", &["-A"])?;
    if work.settle()? { work.reload("ssh.service") } else { Ok(()) }
}
