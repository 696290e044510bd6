//! Stanzas of dpkg's status file, written as dpkg writes them and read back.

use std::cmp::Ordering;

use gatehouse_model::Fault;

use crate::relation::{canonical, version_text};
use crate::{Control, Paragraph};

/// dpkg's own order of the fields it knows; others follow in the order of the package.
const ORDER: [&str; 24] = [
    "Package",
    "Essential",
    "Protected",
    "Status",
    "Priority",
    "Section",
    "Installed-Size",
    "Origin",
    "Maintainer",
    "Bugs",
    "Architecture",
    "Multi-Arch",
    "Source",
    "Version",
    "Replaces",
    "Provides",
    "Depends",
    "Pre-Depends",
    "Recommends",
    "Suggests",
    "Breaks",
    "Conflicts",
    "Enhances",
    "Conffiles",
];
const RELATIONS: [&str; 9] = [
    "Replaces",
    "Provides",
    "Depends",
    "Pre-Depends",
    "Recommends",
    "Suggests",
    "Breaks",
    "Conflicts",
    "Enhances",
];
/// Fields of an archive's index or of dpkg's own book-keeping; a package's own claims to them are dropped.
const FOREIGN: [&str; 8] = [
    "Config-Version",
    "Filename",
    "Size",
    "MD5sum",
    "MSDOS-Filename",
    "Triggers-Pending",
    "Triggers-Awaited",
    "Description",
];

/// The stanza of a package that is unpacked and not configured.
pub fn stanza(control: &Control) -> Paragraph {
    let mut out = Paragraph::default();
    for name in ORDER {
        if let Some(value) = known(control, name) {
            out.set(name, value);
        }
    }
    if let Some(text) = control.fields().get("Description") {
        out.set("Description", text);
    }
    for (name, value) in control.fields().iter() {
        let listed = ORDER.iter().chain(&FOREIGN).any(|known| known.eq_ignore_ascii_case(name));
        if !listed && !value.is_empty() {
            out.set(name, value);
        }
    }
    out
}

fn known(control: &Control, name: &str) -> Option<String> {
    if name == "Status" {
        return Some("install ok unpacked".to_owned());
    }
    if name == "Conffiles" {
        return conffiles(control);
    }
    let value = control.fields().get(name)?;
    let value = match name {
        "Essential" | "Protected" if !value.eq_ignore_ascii_case("yes") => return None,
        "Multi-Arch" if value.eq_ignore_ascii_case("no") => return None,
        "Priority" => value.to_ascii_lowercase(),
        "Version" => version_text(value),
        _ if RELATIONS.contains(&name) => canonical(value),
        _ => value.to_owned(),
    };
    (!value.is_empty()).then_some(value)
}

/// dpkg computes the digests when it configures; until then every conffile is new.
fn conffiles(control: &Control) -> Option<String> {
    let all = control.conffiles();
    let line = |file: &crate::Conffile| {
        let flag = if file.remove_on_upgrade { " remove-on-upgrade" } else { "" };
        format!("\n {} newconffile{flag}", file.path)
    };
    (!all.is_empty()).then(|| all.iter().map(line).collect())
}

/// A package of a status file.
#[derive(Clone, Debug)]
pub struct Installed {
    /// The field `Package`.
    pub name: String,
    /// The field `Version`; empty for a package that is only remembered.
    pub version: String,
    /// The field `Architecture`.
    pub architecture: String,
    /// What is wanted: `install`, `hold`, `deinstall`, `purge` or `unknown`.
    pub want: String,
    /// `ok` or `reinstreq`.
    pub flag: String,
    /// `installed`, `unpacked`, `triggers-pending` and so on.
    pub state: String,
    /// The whole stanza.
    pub fields: Paragraph,
}

impl Installed {
    /// Reads a stanza of a status file.
    pub fn new(fields: Paragraph) -> Result<Self, Fault> {
        let text = |name: &str| fields.get(name).unwrap_or_default().to_owned();
        let (name, status) = (text("Package"), text("Status"));
        let words: Vec<_> = status.split_whitespace().map(str::to_owned).collect();
        let Ok([want, flag, state]) = <[String; 3]>::try_from(words) else {
            return Err(Fault::new(format!("the status of {name:?} is {status:?} and not three words")));
        };
        let (version, architecture) = (text("Version"), text("Architecture"));
        Ok(Self { name, version, architecture, want, flag, state, fields })
    }

    /// The name as dpkg's database has it: with the architecture where the name alone is not enough.
    pub fn database_name(&self) -> String {
        match self.fields.get("Multi-Arch") {
            Some("same") => format!("{}:{}", self.name, self.architecture),
            None | Some(_) => self.name.clone(),
        }
    }

    /// Whether dpkg would note a trigger's activation for this package now.
    pub fn hears_triggers(&self) -> bool {
        ["installed", "triggers-pending", "triggers-awaited"].contains(&self.state.as_str())
    }

    /// dpkg's order of stanzas: by name, then by architecture.
    pub fn order(&self, other: &Self) -> Ordering {
        self.name.cmp(&other.name).then_with(|| self.architecture.cmp(&other.architecture))
    }
}
