//! Site directories on the site partition and in state: what of them counts, copying, comparing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use gatehouse_model::{Doing as _, Fault};

use super::files::write_whole;

/// What a machine writes there itself, or makes from the site directory; at the top only.
const NOT_SITE: [&str; 2] = ["boot.cfg", "report"];
/// What desktop systems leave on every stick, in lower case.
const STRAY: [&str; 9] = [
    ".ds_store",
    ".fseventsd",
    ".spotlight-v100",
    ".trashes",
    "$recycle.bin",
    "desktop.ini",
    "found.000",
    "system volume information",
    "thumbs.db",
];

/// The files of a site directory by their names in it.
pub type SiteFiles = BTreeMap<String, Vec<u8>>;

/// Reads a site directory without what does not belong to it.
///
/// # Errors
/// A file cannot be read.
pub fn read(dir: &Path) -> Result<SiteFiles, Fault> {
    let mut files = SiteFiles::new();
    collect(dir, "", &mut files)?;
    Ok(files)
}

fn collect(dir: &Path, prefix: &str, files: &mut SiteFiles) -> Result<(), Fault> {
    for entry in fs::read_dir(dir).doing(|| format!("reading {}", dir.display()))? {
        let path = entry.doing(|| format!("reading {}", dir.display()))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if is_stray(&name) || (prefix.is_empty() && NOT_SITE.contains(&name.as_str())) {
            continue;
        }
        let meta = fs::metadata(&path).doing(|| format!("reading {}", path.display()))?;
        if meta.is_dir() {
            collect(&path, &format!("{prefix}{name}/"), files)?;
        } else if meta.is_file() {
            let bytes = fs::read(&path).doing(|| format!("reading {}", path.display()))?;
            files.insert(format!("{prefix}{name}"), bytes);
        }
    }
    Ok(())
}

fn is_stray(name: &str) -> bool {
    let lower = name.to_lowercase();
    lower.starts_with("._") || lower.starts_with(".trash-") || STRAY.contains(&lower.as_str())
}

/// Writes a site directory: there as a whole, or not at all.
///
/// # Errors
/// The disk is full, most likely.
pub fn write(files: &SiteFiles, dir: &Path) -> Result<(), Fault> {
    let partial = dir.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).doing(|| format!("removing {}", partial.display()))?;
    }
    fs::create_dir_all(&partial).doing(|| format!("making {}", partial.display()))?;
    for (name, bytes) in files {
        // FAT keeps no modes.
        let mode = if name.starts_with("components/") { 0o755 } else { 0o644 };
        write_whole(&partial.join(name), bytes, mode)?;
    }
    fs::rename(&partial, dir).doing(|| format!("making {}", dir.display()))?;
    let parent = dir.parent().unwrap_or(Path::new("/"));
    fs::File::open(parent).and_then(|dir| dir.sync_all()).doing(|| format!("syncing {}", parent.display()))
}

/// The names of files that differ between two site directories.
pub fn differences(a: &SiteFiles, b: &SiteFiles) -> Vec<String> {
    let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
    names.sort();
    names.dedup();
    names.into_iter().filter(|name| a.get(*name) != b.get(*name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_stick_is_imported_without_strays() {
        let dir = tempfile::tempdir().unwrap();
        let stick = dir.path().join("stick");
        for name in [
            "site.toml",
            "lcfg/source/node1",
            "components/x",
            "files/.profile",
            "System Volume Information/a",
            "lcfg/._source",
            "report/boot.txt",
            "boot.cfg",
            "lcfg/boot.cfg",
        ] {
            let path = stick.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        let files = read(&stick).unwrap();
        let names: Vec<&String> = files.keys().collect();
        assert_eq!(
            names,
            ["components/x", "files/.profile", "lcfg/boot.cfg", "lcfg/source/node1", "site.toml"]
        );
        let to = dir.path().join("state/site");
        fs::create_dir_all(to.with_extension("partial")).unwrap();
        fs::write(to.with_extension("partial").join("torn"), "").unwrap();
        write(&files, &to).unwrap();
        let copy = read(&to).unwrap();
        assert_eq!(copy, files);
        let mode = |name: &str| fs::metadata(to.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("components/x"), mode("site.toml")), (0o755, 0o644));
        let mut changed = copy;
        changed.remove("site.toml");
        changed.insert("new".into(), vec![]);
        assert_eq!(differences(&changed, &files), ["new", "site.toml"]);
    }
}
