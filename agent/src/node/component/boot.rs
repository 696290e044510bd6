//! `boot`: units that are started at boot, and units that are not.

use gatehouse_model::{Doing as _, Fault};

use super::work::Work;

pub(super) fn configure(work: &mut Work<'_>) -> Result<(), Fault> {
    for unit in work.words("services") {
        on(work, &full_name(unit)).doing(|| format!("enabling {unit}"))?;
    }
    for unit in work.words("disabled") {
        off(work, &full_name(unit)).doing(|| format!("disabling {unit}"))?;
    }
    Ok(())
}

fn on(work: &mut Work<'_>, unit: &str) -> Result<(), Fault> {
    if work.owns_unit(unit) {
        work.keep_unit(unit);
    }
    if !is_enabled(work, unit) {
        work.own_unit(unit)?;
        work.target.run("systemctl", &["--quiet", "enable", unit])?;
    }
    if work.is_running() { work.systemctl(&["start", unit]) } else { Ok(()) }
}

fn off(work: &mut Work<'_>, unit: &str) -> Result<(), Fault> {
    if is_enabled(work, unit) {
        work.target.run("systemctl", &["--quiet", "disable", unit])?;
    }
    if work.is_running() { work.systemctl(&["stop", unit]) } else { Ok(()) }
}

/// Units that nobody enables (static, generated) count as enabled: they are started all the same.
fn is_enabled(work: &Work<'_>, unit: &str) -> bool {
    work.target.run("systemctl", &["--quiet", "is-enabled", unit]).is_ok()
}

fn full_name(unit: &str) -> String {
    if unit.contains('.') { unit.to_owned() } else { format!("{unit}.service") }
}
