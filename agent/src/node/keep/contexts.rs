//! The contexts that are active on this node: lines `name=value` in a file, set by `node context`.

use gatehouse_lcfg::Profile;
use gatehouse_model::Fault;

use crate::node::target::Target;

const FILE: &str = "/var/lib/gatehouse/client/contexts";

/// Active contexts in the order in which they were set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contexts {
    active: Vec<(String, String)>,
}

impl Contexts {
    /// What is active while a node is installed.
    pub fn install() -> Self {
        let mut contexts = Self::default();
        contexts.set("install", "yes");
        contexts
    }

    /// Sets a context; one that is there already keeps its place.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.active.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.active.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Reads lines `name=value`.
    ///
    /// # Errors
    /// The first line of another form, and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut contexts = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let named = line.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
            let plain = |name: &str| {
                name.starts_with(|c: char| c.is_ascii_alphabetic())
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            };
            match named {
                Some((name, value)) if plain(name) => contexts.set(name, value),
                _ => return Err(format!("{line:?} is not a context; write name=value, such as install=yes")),
            }
        }
        Ok(contexts)
    }

    /// The contexts with their values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.active.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// A profile as it holds in some contexts.
pub fn in_contexts(profile: &Profile, _contexts: &Contexts) -> Profile {
    profile.clone()
}

/// The contexts that are active on a node.
///
/// # Errors
/// Its file has a line that is not one.
pub fn read(target: &Target) -> Result<Contexts, Fault> {
    Contexts::parse(&target.read(FILE)).map_err(|what| Fault::new(what).help(format!("correct {FILE}")))
}

/// Sets a context, or with an empty value takes it out. What is active from now on.
///
/// # Errors
/// The text is not `name=value`, or the file cannot be written.
pub fn set(target: &Target, text: &str) -> Result<Contexts, Fault> {
    let given = Contexts::parse(text).map_err(Fault::new)?;
    let Some((name, value)) = given.iter().next() else {
        return Err(Fault::new("no context is given").help("write name=value, such as net=home"));
    };
    let mut contexts = Contexts::default();
    let before = read(target)?;
    for (known, old) in before.iter().filter(|(known, _)| !value.is_empty() || *known != name) {
        contexts.set(known, old);
    }
    if !value.is_empty() {
        contexts.set(name, value);
    }
    let lines: Vec<String> = contexts.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    target.write(FILE, 0o600, lines.concat().as_bytes())?;
    Ok(contexts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_set_changed_and_taken_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let target = Target::new(dir.path());
        let active =
            |contexts: &Contexts| contexts.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>();
        for (text, expected) in [
            ("net=home", vec!["net=home"]),
            ("load=high", vec!["net=home", "load=high"]),
            ("net=work", vec!["net=work", "load=high"]),
            ("net=", vec!["load=high"]),
        ] {
            assert_eq!(active(&set(&target, text).expect(text)), expected, "{text}");
            assert_eq!(active(&read(&target).expect("a good file")), expected, "{text}");
        }
        for text in ["", "net", "1net=x", "=x"] {
            assert!(set(&target, text).is_err(), "{text}");
        }
    }
}
