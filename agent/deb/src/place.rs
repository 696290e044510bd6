//! Where a path of a package really lies: links on the way are followed inside the root and never out of it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use gatehouse_model::{Doing, Fault};

use crate::claims::Claims;

/// As many links as Linux follows.
const MAX_LINKS: u32 = 40;

/// Resolves paths for one package. Real directories are never removed while packages are unpacked, so a resolved
/// directory stays one, and what is resolved once may be remembered.
#[derive(Debug)]
pub struct Places<'a> {
    claims: &'a Claims,
    known: HashMap<PathBuf, PathBuf>,
    make: bool,
}

impl<'a> Places<'a> {
    /// Makes directories that are missing.
    pub fn new(claims: &'a Claims) -> Self {
        Self { claims, known: HashMap::new(), make: true }
    }

    /// Only looks: what is missing is named as if it were there.
    pub fn looking(claims: &'a Claims) -> Self {
        Self { claims, known: HashMap::new(), make: false }
    }

    /// The real directory behind a relative path without `.` and `..`.
    pub fn directory(&mut self, path: &Path) -> Result<PathBuf, Fault> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(PathBuf::new());
        };
        if let Some(real) = self.known.get(path) {
            return Ok(real.clone());
        }
        let parent = self.directory(parent)?;
        let real = self.enter(&parent, name, &mut MAX_LINKS.clone())?;
        self.known.insert(path.to_owned(), real.clone());
        Ok(real)
    }

    /// The path with its parent resolved and its last part as it is.
    pub fn entry(&mut self, path: &Path) -> Result<PathBuf, Fault> {
        let name = path.file_name().ok_or_else(|| Fault::new("an entry has no name"))?;
        let parent = self.directory(path.parent().unwrap_or(Path::new("")))?;
        Ok(parent.join(name))
    }

    fn enter(&self, parent: &Path, name: &OsStr, links: &mut u32) -> Result<PathBuf, Fault> {
        let child = parent.join(name);
        let path = self.claims.root().join(&child);
        let found = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !self.make {
                    return Ok(child);
                }
                self.claims.directory(&child, None)?;
                fs::symlink_metadata(&path)
            }
            found => found,
        };
        let found = found.doing(|| format!("looking at /{}", child.display()))?;
        if found.is_dir() {
            return Ok(child);
        }
        if !found.is_symlink() {
            return Err(Fault::new(format!("/{} is not a directory", child.display())));
        }
        *links = links
            .checked_sub(1)
            .ok_or_else(|| Fault::new(format!("/{} is behind too many links", child.display())))?;
        let target = fs::read_link(&path).doing(|| format!("reading link /{}", child.display()))?;
        let mut at = parent.to_owned();
        for component in target.components() {
            match component {
                Component::RootDir | Component::Prefix(_) => at = PathBuf::new(),
                Component::CurDir => {}
                // Popping the empty path stays in the root, as it does in a real one.
                Component::ParentDir => drop(at.pop()),
                Component::Normal(name) => at = self.enter(&at, name, links)?,
            }
        }
        Ok(at)
    }
}

/// A name of an archive without `./` before and `/` behind; empty for the root itself.
pub fn clean(name: &[u8]) -> Result<PathBuf, Fault> {
    let wrong = || Fault::new(format!("{:?} may not stand in a package", String::from_utf8_lossy(name)));
    if name.contains(&b'\n') || name.contains(&0) {
        return Err(wrong());
    }
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(name)).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(wrong()),
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_never_lead_out_of_the_root() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("root");
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        let links = [
            ("usr/bin", "bin"),
            ("/usr/bin", "abs"),
            ("../../../usr/../../etc", "up"),
            ("/", "top"),
            ("a", "b"),
            ("b", "a"),
        ];
        for (target, link) in links {
            symlink(target, root.join(link)).unwrap();
        }
        let claims = Claims::new(&root);
        let mut places = Places::new(&claims);
        let table = [
            ("bin", "usr/bin"),
            ("abs", "usr/bin"),
            ("up/x", "etc/x"),
            ("top/top/abs/new", "usr/bin/new"),
            ("", ""),
        ];
        for (path, real) in table {
            assert_eq!(places.directory(Path::new(path)).unwrap(), Path::new(real), "{path}");
            assert!(root.join(real).is_dir());
        }
        assert!(places.directory(Path::new("a/x")).is_err());
        assert!(!scratch.path().join("etc").exists());
        assert_eq!(places.entry(Path::new("bin/bin")).unwrap(), Path::new("usr/bin/bin"));
    }

    #[test]
    fn names_are_cleaned_or_refused() {
        assert_eq!(clean(b"./usr//bin/").unwrap(), Path::new("usr/bin"));
        assert_eq!(clean(b"./").unwrap(), Path::new(""));
        assert_eq!(clean(b"/etc/x").unwrap(), Path::new("etc/x"));
        for name in [&b"../x"[..], b"a/../../x", b"a\nb", b"a\0b"] {
            assert!(clean(name).is_err());
        }
    }
}
