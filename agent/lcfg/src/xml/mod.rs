//! The profile format, namespace `profile-1.1`: written for LCFG's clients, read as strictly as they do.

mod date;
mod read;
mod record;
mod tree;
mod write;

pub(crate) use read::read;
pub(crate) use tree::FILE;
pub(crate) use write::{components, head, is_writable, packages, tail, write};

/// What the name of every record ends in.
const RECORD: &str = "_RECORD";

/// A tag as `cfg:name` carries it: an underscore before a digit or underscore.
fn escape_tag(tag: &str) -> String {
    let plain = !tag.starts_with(|c: char| c.is_ascii_digit() || c == '_');
    if plain { tag.to_owned() } else { format!("_{tag}") }
}

/// The tag that `cfg:name` means.
fn unescape_tag(name: &str) -> &str {
    if name.len() >= 2 { name.strip_prefix('_').unwrap_or(name) } else { name }
}
