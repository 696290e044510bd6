//! Owners in archives are names; what number a name has, the root's own passwd and group say.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use gatehouse_model::{Doing, Fault};

/// The users and groups of a root; empty while it has none.
#[derive(Debug, Default)]
pub struct Owners {
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
}

impl Owners {
    /// Reads the two files, given where they really lie.
    pub fn read(passwd: &Path, group: &Path) -> Result<Self, Fault> {
        Ok(Self { users: table(passwd)?, groups: table(group)? })
    }

    /// The number of a user, the archive's own number where the root does not know the name.
    pub fn user(&self, name: &[u8], number: u32) -> u32 {
        lookup(&self.users, name, number)
    }

    /// The number of a group, likewise.
    pub fn group(&self, name: &[u8], number: u32) -> u32 {
        lookup(&self.groups, name, number)
    }
}

fn lookup(table: &HashMap<String, u32>, name: &[u8], number: u32) -> u32 {
    std::str::from_utf8(name).ok().and_then(|name| table.get(name)).copied().unwrap_or(number)
}

fn table(path: &Path) -> Result<HashMap<String, u32>, Fault> {
    // A link could lead out of the root; dpkg's own packages make these plain files.
    if fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Ok(HashMap::new());
    }
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read.doing(|| format!("reading {}", path.display()))?,
    };
    Ok(parse(&String::from_utf8_lossy(&text)))
}

fn parse(text: &str) -> HashMap<String, u32> {
    let mut table = HashMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(Ok(number))) = (fields.next(), fields.nth(1).map(str::parse)) {
            table.entry(name.to_owned()).or_insert(number);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_win_over_numbers() {
        let owners = Owners { users: parse("root:x:0:0::/:\nman:x:6:12::/:\nbad\n"), groups: HashMap::new() };
        assert_eq!(owners.user(b"man", 1000), 6);
        assert_eq!(owners.user(b"nobody-knows", 1000), 1000);
        assert_eq!(owners.group(b"man", 12), 12);
    }
}
