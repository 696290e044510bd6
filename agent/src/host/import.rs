//! Site directories on the site partition and in state: what of them counts, copying, comparing.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path};

use gatehouse_model::{Doing as _, Fault};
use nix::fcntl::{AT_FDCWD, RenameFlags};

/// What a machine writes there itself, or makes from the site directory; at the top only.
const NOT_SITE: [&str; 2] = ["boot.cfg", "report"];
/// What desktop systems leave on every stick, and whoever keeps a site in git, in lower case.
const STRAY: [&str; 10] = [
    ".ds_store",
    ".fseventsd",
    ".git",
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

/// Reads a site directory from a tar stream, as git and tar(1) write them.
///
/// # Errors
/// It is no tar stream; it holds links or devices, or names that lead out of it.
pub fn from_tar(stream: impl Read) -> Result<SiteFiles, Fault> {
    let mut files = SiteFiles::new();
    let mut archive = tar::Archive::new(stream);
    for entry in archive.entries().doing(|| "reading the tar stream")? {
        let mut entry = entry.doing(|| "reading the tar stream")?;
        let path = entry.path().doing(|| "reading a name in the tar stream")?.into_owned();
        let kind = entry.header().entry_type();
        let parts: Option<Vec<String>> = path
            .components()
            .filter(|part| *part != Component::CurDir)
            .map(|part| match part {
                Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
                _ => None,
            })
            .collect();
        let parts = parts
            .filter(|_| kind.is_file() || kind.is_dir() || kind.is_pax_global_extensions())
            .ok_or_else(|| {
                Fault::new(format!("{} is no file of a site directory", path.display()))
                    .help("a site directory has files and directories only, no links")
            })?;
        let top = |name: &String| NOT_SITE.contains(&name.as_str());
        if !kind.is_file() || parts.iter().any(|part| is_stray(part)) || parts.first().is_some_and(top) {
            continue;
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).doing(|| format!("reading {}", path.display()))?;
        files.insert(parts.join("/"), bytes);
    }
    // Whoever writes the stream still writes what fills its last block.
    io::copy(&mut archive.into_inner(), &mut io::sink()).doing(|| "reading the tar stream to its end")?;
    Ok(files)
}

/// Writes a site directory: there as a whole, or not at all. One that is there is replaced in the same instant.
///
/// # Errors
/// The disk is full, most likely.
pub fn write(files: &SiteFiles, dir: &Path) -> Result<(), Fault> {
    let partial = dir.with_extension("partial");
    remove(&partial)?;
    fs::create_dir_all(&partial).doing(|| format!("making {}", partial.display()))?;
    for (name, bytes) in files {
        put(&partial.join(name), bytes, mode(name))?;
    }
    // After all have been written: the first then takes most others along.
    sync_below(&partial)?;
    if fs::symlink_metadata(dir).is_ok() {
        let exchange = RenameFlags::RENAME_EXCHANGE;
        nix::fcntl::renameat2(AT_FDCWD, &partial, AT_FDCWD, dir, exchange)
            .doing(|| format!("replacing {}", dir.display()))?;
    } else {
        fs::rename(&partial, dir).doing(|| format!("making {}", dir.display()))?;
    }
    let parent = dir.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|dir| dir.sync_all()).doing(|| format!("syncing {}", parent.display()))?;
    remove(&partial)
}

/// The mode of a file of a site directory: FAT keeps none.
pub fn mode(name: &str) -> u32 {
    if name.starts_with("components/") { 0o755 } else { 0o644 }
}

fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Fault> {
    let doing = || format!("writing {}", path.display());
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).doing(doing)?;
    fs::write(path, bytes).doing(doing)?;
    fs::set_permissions(path, Permissions::from_mode(mode)).doing(doing)
}

fn sync_below(path: &Path) -> Result<(), Fault> {
    if path.is_dir() {
        for entry in fs::read_dir(path).doing(|| format!("reading {}", path.display()))? {
            sync_below(&entry.doing(|| format!("reading {}", path.display()))?.path())?;
        }
    }
    File::open(path).and_then(|file| file.sync_all()).doing(|| format!("syncing {}", path.display()))
}

/// Removes a directory, or a file or the link that a trial has in its place, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), Fault> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    removed.doing(|| format!("removing {}", path.display()))
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

    #[test]
    fn a_stream_is_read_to_its_end_and_links_are_refused() {
        let stream = |link: bool| {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(3);
            tar.append_data(&mut header, "./lcfg/source/ce", &b"ab\n"[..]).unwrap();
            if link {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                tar.append_link(&mut header, "lcfg/source/se", "ce").unwrap();
            }
            // git fills its last block up to 10 KiB.
            let mut bytes = tar.into_inner().unwrap();
            bytes.resize(10 << 10, 0);
            bytes
        };
        let bytes = stream(false);
        let mut left = &bytes[..];
        let files = from_tar(&mut left).unwrap();
        assert_eq!(files.into_iter().collect::<Vec<_>>(), [("lcfg/source/ce".to_owned(), b"ab\n".to_vec())]);
        assert_eq!(left.len(), 0, "its writer would be told that nobody reads it");
        let fault = from_tar(&stream(true)[..]).unwrap_err();
        assert!(fault.render().contains("no links"), "{}", fault.render());
    }
}
