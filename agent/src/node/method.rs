//! The steps of an install: `install.imethod_<tag>` as a closed set, so that a misspelt one is a fault before
//! anything is written.

use gatehouse_lcfg::Profile;
use gatehouse_model::{Doing as _, Fault};

use crate::node::component::{self, Doer};

/// One step of an install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// `fstab preparedisks`: partition, format, mount.
    Disks,
    /// `packages install`: put the files of the profile's packages down.
    Packages,
    /// `client install`: the agent and the node's credentials.
    Client,
    /// `%settz%`: the time zone of `install.timezone`.
    SetTimeZone,
    /// `%umount%`: sync and unmount the new root.
    Unmount,
    /// `%oneshot%`: a line for the new root's shell.
    OneShot(String),
    /// `COMPONENT install`: what the component does on a running node, done to the new root.
    Install(String),
    /// `COMPONENT METHOD`, for a component with a program of the site's own.
    Program(String, String),
}

/// The methods that are one fixed text, as the profile writes them. Those of `updaterpms` are older sources' words.
const FIXED: [(&str, Method); 6] = [
    ("fstab preparedisks", Method::Disks),
    ("packages install", Method::Packages),
    ("updaterpms install", Method::Packages),
    ("client install", Method::Client),
    ("%settz%", Method::SetTimeZone),
    ("%umount%", Method::Unmount),
];

impl Method {
    /// Reads a method string. One absolute path behind it is the original's target root: accepted, and
    /// without effect, because this installer's new root is always in the same place.
    ///
    /// # Errors
    /// The method is none of those known here; the fault lists them.
    pub fn parse(text: &str, profile: &Profile) -> Result<Self, Fault> {
        let text = text.trim();
        if let Some(line) = text.strip_prefix("%oneshot%") {
            let line = line.trim();
            return if line.is_empty() {
                Err(Fault::new("method %oneshot% has no command; write a shell line behind it"))
            } else {
                Ok(Self::OneShot(line.to_owned()))
            };
        }
        let mut words: Vec<&str> = text.split_whitespace().collect();
        if words.len() > 1 && words.last().is_some_and(|word| word.starts_with('/')) {
            words.pop();
        }
        let name = words.join(" ");
        if let Some((_, method)) = FIXED.iter().find(|(known, _)| *known == name) {
            return Ok(method.clone());
        }
        let known = |component: &str| component::doer(profile, component);
        match words[..] {
            [component, method] => match (known(component), method) {
                (Some(Doer::Program(_)), _) => Ok(Self::Program(component.to_owned(), method.to_owned())),
                (Some(Doer::BuiltIn(_)), "install") => Ok(Self::Install(component.to_owned())),
                _ => Err(unknown(text)),
            },
            _ => Err(unknown(text)),
        }
    }
}

fn unknown(text: &str) -> Fault {
    let fixed = FIXED.iter().map(|(known, _)| (*known).to_owned());
    let built_in = component::built_in().map(|name| format!("{name} install"));
    let known: Vec<String> = fixed.chain(built_in).collect();
    Fault::new(format!("method {text:?} is not known")).help(format!(
        "write one of {} or %oneshot% COMMAND, or put a program of that name into the site's components",
        known.join(", ")
    ))
}

/// The steps of a profile's install with their tags, in order.
///
/// # Errors
/// There are none, one has no method string, or one is not known.
pub fn steps(profile: &Profile) -> Result<Vec<(String, Method)>, Fault> {
    let tags = profile.tags("install", "installmethods");
    if tags.is_empty() {
        return Err(Fault::new("the profile has no install.installmethods")
            .help("list the steps of the install in the node's source, see the template minimal"));
    }
    tags.into_iter()
        .map(|tag| {
            let text = profile.get("install", &format!("imethod_{tag}")).unwrap_or_default();
            let method = Method::parse(text, profile).doing(|| format!("reading install.imethod_{tag}"))?;
            Ok((tag.to_owned(), method))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use gatehouse_lcfg::{Component, Resource};

    use super::*;

    /// A profile of a site with a program for `motd` and one that takes the place of `ntp`.
    fn profile() -> Profile {
        let resource = |name: &str, value: &str| {
            (name.to_owned(), Resource { value: value.to_owned(), ..Resource::default() })
        };
        let digest = "0".repeat(64);
        let resources = [
            resource("programs", "motd ntp"),
            resource("program_motd", &digest),
            resource("program_ntp", &digest),
        ];
        let component = Component { resources: resources.into(), ..Component::default() };
        Profile { components: vec![("profile".into(), component)], ..Profile::default() }
    }

    #[test]
    fn reads_every_method() {
        let profile = profile();
        let parse = |text: &str| Method::parse(text, &profile).expect(text);
        for (text, method) in FIXED {
            assert_eq!(parse(text), method);
            assert_eq!(parse(&format!(" {text}  /root ")), method);
        }
        for name in component::built_in().filter(|name| *name != "ntp") {
            assert_eq!(parse(&format!("{name} install /root")), Method::Install(name.into()));
        }
        assert_eq!(parse("motd start"), Method::Program("motd".into(), "start".into()));
        assert_eq!(parse("ntp install"), Method::Program("ntp".into(), "install".into()));
        assert_eq!(parse("%oneshot%  rm -f /x && true /y"), Method::OneShot("rm -f /x && true /y".into()));
    }

    #[test]
    fn names_what_it_does_not_know() {
        let bad =
            ["", "fstab", "fstab preparedisk", "%reboot%", "packages install now", "%oneshot%", "/root"];
        for text in bad.into_iter().chain(["network start", "slurm install"]) {
            let fault = Method::parse(text, &profile()).expect_err(text);
            assert!(fault.to_string().starts_with("method "), "{fault}");
        }
        let fault = Method::parse("lilo install", &profile()).expect_err("not ours");
        assert!(fault.render().contains("\"lilo install\" is not known"), "{}", fault.render());
        assert!(fault.render().contains("grub install"), "{}", fault.render());
    }
}
