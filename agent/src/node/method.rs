//! The steps of an install: `install.imethod_<tag>` as a closed set, so that a misspelt one is a fault before
//! anything is written.

use gatehouse_lcfg::Profile;
use gatehouse_model::{Doing as _, Fault};

/// One step of an install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// `fstab preparedisks`: partition, format, mount.
    Disks,
    /// `packages install`: put the files of the profile's packages down.
    Packages,
    /// `network install`: name, interfaces, resolvers.
    Network,
    /// `hosts install`: `/etc/hosts`.
    Hosts,
    /// `auth install`: root's password and keys, further users.
    Auth,
    /// `openssh install`: the server's settings and host keys.
    OpenSsh,
    /// `grub install`: what the node's boot loader shall start.
    Grub,
    /// `client install`: the agent and the node's credentials.
    Client,
    /// `%settz%`: the time zone of `install.timezone`.
    SetTimeZone,
    /// `%umount%`: sync and unmount the new root.
    Unmount,
    /// `%oneshot%`: a line for the new root's shell.
    OneShot(String),
}

/// The methods that are one fixed text, as the profile writes them.
const FIXED: [(&str, Method); 10] = [
    ("fstab preparedisks", Method::Disks),
    ("packages install", Method::Packages),
    ("network install", Method::Network),
    ("hosts install", Method::Hosts),
    ("auth install", Method::Auth),
    ("openssh install", Method::OpenSsh),
    ("grub install", Method::Grub),
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
    pub fn parse(text: &str) -> Result<Self, Fault> {
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
        FIXED.iter().find(|(known, _)| *known == name).map(|(_, method)| method.clone()).ok_or_else(|| {
            let known: Vec<&str> = FIXED.iter().map(|(known, _)| *known).collect();
            Fault::new(format!("method {text:?} is not known"))
                .help(format!("write one of {} or %oneshot% COMMAND", known.join(", ")))
        })
    }
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
            let method = Method::parse(text).doing(|| format!("reading install.imethod_{tag}"))?;
            Ok((tag.to_owned(), method))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_method() {
        for (text, method) in FIXED {
            assert_eq!(Method::parse(text).expect(text), method);
            assert_eq!(Method::parse(&format!(" {text}  /root ")).expect(text), method);
        }
        let shell = Method::parse("%oneshot%  rm -f /x && true /y").expect("a shell line");
        assert_eq!(shell, Method::OneShot("rm -f /x && true /y".into()));
    }

    #[test]
    fn names_what_it_does_not_know() {
        for text in
            ["", "fstab", "fstab preparedisk", "%reboot%", "packages install now", "%oneshot%", "/root"]
        {
            let fault = Method::parse(text).expect_err(text);
            assert!(fault.to_string().starts_with("method "), "{fault}");
        }
        let fault = Method::parse("updaterpms install").expect_err("not ours");
        assert!(fault.render().contains("\"updaterpms install\" is not known"), "{}", fault.render());
    }
}
