//! The parts of an install that are no component's: what each installed node has of its own.

use std::fs;
use std::path::Path;

use gatehouse_lcfg::Profile;
use gatehouse_model::{Doing as _, Fault};

use crate::node::client::{Credentials, Fetched, Home};
use crate::node::disks::{self, Made};
use crate::node::keep::journal::{DIRECTORY, Journal};
use crate::node::target::Target;
use crate::node::{overlay, render};

/// The installed node's agent.
const AGENT: &str = "/usr/lib/gatehouse/gatehouse-agent";
/// Who the installed node is, and which server it listens to.
pub const HOME: &str = "/etc/gatehouse/node.json";
/// The installed node's certificate.
pub const CERTIFICATE: &str = "/var/lib/gatehouse/client/certificate.pem";
/// Its key.
pub const KEY: &str = "/var/lib/gatehouse/client/key.pem";

/// `/etc/fstab`, and what each installed disk has of its own.
///
/// # Errors
/// What the file system says.
pub fn identity(target: &Target, made: &[Made]) -> Result<(), Fault> {
    target.write("/etc/fstab", 0o644, render::fstab(&disks::mounts(made)).as_bytes())?;
    // Written here and not left to the first boot: at a power cut before that is committed to the disk the node
    // would come up as another one.
    let id = disks::random_uuid()?.replace('-', "");
    target.write("/etc/machine-id", 0o444, format!("{id}\n").as_bytes())?;
    Ok(())
}

/// `client install`: the agent, its credentials, the profile that is being applied, and the files that every node
/// has.
///
/// # Errors
/// What the file system says.
pub fn client(
    target: &Target,
    home: &Home,
    own: &Credentials,
    agent: &Path,
    fetched: &Fetched,
    journal: &mut Journal,
) -> Result<(), Fault> {
    target.directory(DIRECTORY, 0o700)?;
    target.write(CERTIFICATE, 0o600, own.certificate.as_bytes())?;
    target.write(KEY, 0o600, own.key.as_bytes())?;
    target.write(HOME, 0o644, serde_json::to_string_pretty(home)?.as_bytes())?;
    journal.keep_profile(&fetched.etag, &fetched.xml)?;
    let program = fs::read(agent).doing(|| format!("reading {}", agent.display()))?;
    target.write(AGENT, 0o755, &program)?;
    overlay::lay_over(target)?;
    let getty = "/etc/systemd/system/getty.target.wants/getty@tty0.service";
    target.link(getty, "/usr/lib/systemd/system/getty@.service")?;
    target.enable("gatehouse-client.service", "multi-user.target").map(drop)
}

/// `%settz%`.
///
/// # Errors
/// The zone is not known to the new root.
pub fn timezone(target: &Target, profile: &Profile) -> Result<(), Fault> {
    let zone = profile.get("install", "timezone").filter(|zone| !zone.is_empty()).unwrap_or("Etc/UTC");
    let file = format!("/usr/share/zoneinfo/{zone}");
    if zone.split('/').any(|part| part == "..") || !target.has(&file) {
        return Err(Fault::new(format!("install.timezone is {zone:?}, and {file} does not exist"))
            .help("write a name such as Europe/Dublin, and have tzdata in the node's packages"));
    }
    target.link("/etc/localtime", &file)?;
    target.write("/etc/timezone", 0o644, format!("{zone}\n").as_bytes()).map(drop)
}
