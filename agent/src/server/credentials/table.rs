//! Who may have what: the node's own profile says it, and nothing else does.

use gatehouse_lcfg::Profile;
use gatehouse_model::{NodeName, Site, Subject};

/// How a node calls its own certificate.
pub(super) const HOST: &str = "host";
/// Longest name of a secret, which is also that of a file.
const LONGEST: usize = 32;

/// What a node may have, as the profile says that was compiled for it here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::server) struct Entitled {
    certificates: Vec<String>,
    secrets: Vec<String>,
}

/// Whose certificate it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// The node itself.
    Host {
        /// Its subject.
        subject: Subject,
        /// Its names in DNS.
        names: [String; 2],
    },
    /// A user of the Grid.
    User(Subject),
}

impl Entitled {
    /// Reads it from the node's profile.
    pub(super) fn of(profile: &Profile) -> Self {
        let words = |resource: &str| {
            let value = profile.get("credentials", resource).unwrap_or_default();
            value.split_whitespace().map(str::to_owned).collect()
        };
        Self { certificates: words("certificates"), secrets: words("secrets") }
    }

    /// Whether a node is to ask for a certificate by this name.
    pub(in crate::server) fn lists(&self, name: &str) -> bool {
        self.certificates.iter().any(|known| known == name)
    }

    /// Whose certificate a node gets by a name, or why it gets none.
    pub(super) fn certificate(&self, site: &Site, node: &NodeName, name: &str) -> Result<Holder, String> {
        let grid = site.grid.as_ref().ok_or("the site has neither [grid] nor [[grid-user]]")?;
        if !self.lists(name) {
            return Err(format!("credentials.certificates of its profile does not have {name:?}"));
        }
        if name == HOST {
            let names = [format!("{node}.{}", site.domain), node.to_string()];
            return Ok(Holder::Host { subject: grid.base.named(&names[0]), names });
        }
        let user = grid.user(name).ok_or_else(|| format!("the site has no grid-user {name:?}"))?;
        if !user.dn.is_below(&grid.base) {
            return Err(format!("{} is not below {}", user.dn, grid.base));
        }
        Ok(Holder::User(user.dn.clone()))
    }

    /// Whether a node gets a secret, or why not.
    pub(super) fn secret(&self, name: &str) -> Result<(), String> {
        if !self.secrets.iter().any(|known| known == name) {
            return Err(format!("credentials.secrets of its profile does not have {name:?}"));
        }
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        let first = name.starts_with(|c: char| c.is_ascii_lowercase());
        if !first || name.len() > LONGEST || !name.chars().all(good) {
            return Err(format!(
                "{name:?} is not a secret's name; write lower-case letters, digits, hyphens and underscores"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::fixture::node;

    #[test]
    fn the_table_is_the_profile_and_the_site() {
        let base = include_str!("../../../../site-templates/minimal/site.toml");
        let plain = Site::parse(base).expect("a site");
        let site =
            Site::parse(&format!("{base}\n[[grid-user]]\nname = \"alice\"\nuid = 20001\n")).expect("a site");
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let entitled = Entitled {
            certificates: words(&["host", "alice", "bob"]),
            secrets: words(&["munge", "../x", "Upper"]),
        };
        let ask = |site, name| entitled.certificate(site, &node("ce"), name);
        let names = ["ce.minimal.example.org".to_owned(), "ce".to_owned()];
        let subject = "/O=Grid/OU=minimal/CN=ce.minimal.example.org".parse().expect("a subject");
        assert_eq!(ask(&site, "host"), Ok(Holder::Host { subject, names }));
        let alice = "/O=Grid/OU=minimal/CN=alice".parse().expect("a subject");
        assert_eq!(ask(&site, "alice"), Ok(Holder::User(alice)));
        assert_eq!(ask(&site, "bob"), Err("the site has no grid-user \"bob\"".into()));
        assert!(ask(&site, "carol").unwrap_err().contains("credentials.certificates"));
        assert!(ask(&plain, "host").unwrap_err().contains("[grid]"));
        assert!(Entitled::default().certificate(&site, &node("ce"), "host").is_err());

        let mut moved = site.clone();
        let grid = moved.grid.as_mut().expect("a Grid site");
        grid.users[0].dn = "/O=Other/CN=alice".parse().expect("a subject");
        assert!(ask(&moved, "alice").unwrap_err().contains("not below"));

        assert_eq!(entitled.secret("munge"), Ok(()));
        for name in ["", "other", "../x", "Upper"] {
            assert!(entitled.secret(name).is_err(), "{name}");
        }
    }
}
