//! The contexts that are active on this node: lines `name=value` in a file, set by `node context`.

use gatehouse_lcfg::Contexts;
use gatehouse_model::Fault;

use crate::node::target::Target;

const FILE: &str = "/var/lib/gatehouse/client/contexts";

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
