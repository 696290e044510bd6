//! The packages of an installed node: what differs between its profile and dpkg's database, and apt as the engine
//! that changes it.

pub mod plan;
mod run;
pub mod sources;

use gatehouse_deb::{Installed, read_status};
use gatehouse_lcfg::Profile;
use gatehouse_model::{Doing as _, Fault};

use self::plan::{Plan, Present, Rules, Wanted};
use crate::node::packages::exact;
use crate::node::target::Target;

pub use run::carry_out;

/// What has to be changed so that the running node has the packages of a profile.
///
/// # Errors
/// dpkg's database cannot be read, or the profile names a package without its exact version.
pub fn look(target: &Target, profile: &Profile, at_boot: bool) -> Result<Plan, Fault> {
    let status = read_status(target.root())?;
    let own = status.iter().find(|package| package.name == "dpkg").map(|dpkg| dpkg.architecture.clone());
    let native = own.unwrap_or_else(|| "amd64".to_owned());
    let present = status.iter().filter_map(present).collect::<Vec<_>>();
    let wanted = wanted(profile)?;
    // Nobody means a node without any package: such a profile leaves the packages to others.
    if wanted.is_empty() {
        return Ok(Plan::default());
    }
    Ok(plan::plan(&present, &wanted, &rules(profile, native, at_boot)))
}

/// A package that is on the node, whole or not.
fn present(package: &Installed) -> Option<Present> {
    let gone = matches!(package.state.as_str(), "not-installed" | "config-files");
    (!gone).then(|| Present {
        name: package.name.clone(),
        version: package.version.clone(),
        architecture: package.architecture.clone(),
        whole: package.state == "installed" && package.flag == "ok",
        essential: package.fields.get("Essential") == Some("yes"),
    })
}

/// The packages of a profile.
///
/// # Errors
/// One has no exact version or architecture.
pub fn wanted(profile: &Profile) -> Result<Vec<Wanted>, Fault> {
    let one = |spec| {
        let id = exact(spec)?;
        let flags = spec.flags.as_deref().unwrap_or_default();
        Ok(Wanted { at_boot: flags.contains('b'), id })
    };
    profile.packages.iter().map(one).collect()
}

fn rules(profile: &Profile, native: String, at_boot: bool) -> Rules {
    let yes = |resource| profile.get("apt", resource).is_some_and(|value| value == "yes");
    let flags: Vec<&str> = profile.tags("updaterpms", "flags");
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Rules {
        native,
        keep_unknown: yes("keep_unknown"),
        keep_auto: profile.get("apt", "keep_auto").is_none_or(|value| value == "yes"),
        at_boot: at_boot || flags.contains(&"-f"),
        kernel: release.trim().to_owned(),
    }
}

/// Whether the profile asks to be told only: the flag `-t` of updaterpms.
pub fn only_told(profile: &Profile) -> bool {
    profile.tags("updaterpms", "flags").contains(&"-t")
}

/// The boot that the node is in.
///
/// # Errors
/// `/proc` is not mounted.
pub fn boot_id() -> Result<String, Fault> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).doing(|| format!("reading {path}"))?;
    Ok(text.trim().to_owned())
}
