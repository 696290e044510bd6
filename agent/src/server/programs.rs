//! The programs of a site's components: given by their digest to the nodes whose own profile names them.

use std::fs;
use std::path::Path;

use gatehouse_lcfg::Profile;
use gatehouse_model::{Digest, Doing as _, Fault};

/// Larger programs are not read: components are scripts.
const LARGEST: u64 = 64 << 20;

/// Whether a node's published profile names a program.
pub(super) fn is_named(profile: &str, digest: &Digest) -> bool {
    let Ok(profile) = Profile::from_xml(profile) else { return false };
    let wanted = digest.to_string();
    let named = |name: &str| profile.get("profile", &format!("program_{name}")) == Some(wanted.as_str());
    profile.tags("profile", "programs").into_iter().any(named)
}

/// The program of this digest among the site's components. The files are read anew each time: one that was changed
/// since the profile was compiled has another digest, and is not given in place of the old one.
///
/// # Errors
/// The site's components cannot be read.
pub(super) fn find(components: &Path, digest: &Digest) -> Result<Option<Vec<u8>>, Fault> {
    if !components.is_dir() {
        return Ok(None);
    }
    let doing = || format!("reading {}", components.display());
    for entry in fs::read_dir(components).doing(doing)? {
        let entry = entry.doing(doing)?;
        // Not followed: a link in a pushed site directory must not give away another file of this machine.
        let about = entry.metadata().doing(doing)?;
        if !about.is_file() || about.len() > LARGEST {
            continue;
        }
        let bytes = fs::read(entry.path()).doing(|| format!("reading {}", entry.path().display()))?;
        if Digest::of(&bytes) == *digest {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_site_are_given() {
        let dir = tempfile::tempdir().expect("a directory");
        let components = dir.path().join("components");
        assert_eq!(find(&components, &Digest::of(b"x")).expect("nothing there"), None);
        fs::create_dir(&components).expect("made");
        fs::write(components.join("motd"), "#!/bin/sh\n").expect("written");
        fs::write(dir.path().join("secret"), "secret").expect("written");
        std::os::unix::fs::symlink("../secret", components.join("link")).expect("linked");
        let found = find(&components, &Digest::of(b"#!/bin/sh\n")).expect("readable");
        assert_eq!(found.as_deref(), Some(b"#!/bin/sh\n".as_slice()));
        assert_eq!(find(&components, &Digest::of(b"secret")).expect("readable"), None);
    }
}
