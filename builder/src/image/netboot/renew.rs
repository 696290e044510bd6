//! A `pxe/` that is there already: other sites put into it, compared with the image, removed where it is another one's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use gatehouse_model::{Contents, Digest, Doing as _, Fault};

use super::{IPXE, LIST, LOADERS, MENU, Menus, PXE, SITES, remove, sites, small, sums};
use crate::image::parts::Parts;
use crate::image::site_part::Content;
use crate::image::{SUMS, put};
use crate::term;

/// The files that change with the sites, in the order in which they are written.
#[derive(Debug)]
pub struct Renewed {
    dir: PathBuf,
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Renewed {
    /// Makes them of other sites.
    ///
    /// # Errors
    /// The directory is damaged.
    pub fn of(dir: &Path, site: &[Content]) -> Result<Self, Fault> {
        let files = renewed(dir, site).doing(|| format!("reading {}", dir.display())).map_err(|fault| {
            fault.help(format!("make it anew with `gatehouse build --format {PXE}`, or remove it"))
        })?;
        Ok(Self { dir: dir.to_owned(), files })
    }

    /// Writes them, each whole or not at all. Until the last is there, a machine that starts refuses what does not belong
    /// to its menu.
    ///
    /// # Errors
    /// The disk is full.
    pub fn put(&self) -> Result<(), Fault> {
        self.files.iter().try_for_each(|(path, bytes)| put(&self.dir, path, bytes))
    }
}

fn renewed(dir: &Path, site: &[Content]) -> Result<Vec<(&'static str, Vec<u8>)>, Fault> {
    let (list, contents) = list(dir)?;
    let tar = sites(site, contents.epoch)?;
    let menus = Menus::of(&list, &tar, site)?;
    let mut files = vec![(SITES, tar), (MENU, menus.grub(None).into()), (IPXE, menus.ipxe(None).into())];
    let old = fs::read_to_string(dir.join(SUMS)).doing(|| format!("reading {SUMS}"))?;
    // What does not change keeps its digest, so that damage stays to be seen.
    let mut sums: BTreeMap<&str, String> =
        old.lines().filter_map(|line| line.split_once("  ")).map(|(sum, path)| (path, sum.into())).collect();
    sums.extend(files.iter().map(|(path, bytes)| (*path, Digest::of(bytes).to_string())));
    let text = sums.iter().fold(String::new(), |text, (path, sum)| text + &format!("{sum}  {path}\n"));
    files.push((SUMS, text.into()));
    Ok(files)
}

/// The list of what is installed, as it stands there and as it is read.
fn list(dir: &Path) -> Result<(Vec<u8>, Contents), Fault> {
    let bytes = fs::read(dir.join(LIST)).doing(|| format!("reading {LIST}"))?;
    let contents = serde_json::from_slice(&bytes).doing(|| format!("reading {LIST}"))?;
    Ok((bytes, contents))
}

/// Every file that the directory must have, with its digest where the list of what is installed knows it.
///
/// # Errors
/// That list is damaged.
pub fn named(dir: &Path) -> Result<BTreeMap<String, Option<Digest>>, Fault> {
    let (_, contents) = list(dir)?;
    let small = LOADERS.into_iter().chain([LIST, SITES, MENU, IPXE]).map(|path| (path.to_owned(), None));
    let esp = contents.esp.iter().map(|file| (format!("esp/{}", file.path), Some(file.sha256)));
    let large = [&contents.root, &contents.depot].map(|file| (file.path.clone(), Some(file.sha256)));
    Ok(small.chain(esp).chain(large).collect())
}

/// How the directory differs from the image beside it: the image's list of what is installed, and its sites.
///
/// # Errors
/// A file cannot be read.
pub fn differences(dir: &Path, installs: &[u8], site: &[Content]) -> Result<Vec<String>, Fault> {
    let (found, contents) = list(dir)?;
    let tar = fs::read(dir.join(SITES)).doing(|| format!("reading {SITES}"))?;
    let mut wrong = Vec::new();
    if found != installs {
        wrong.push(format!("{LIST} is that of another image"));
    }
    if tar != sites(site, contents.epoch)? {
        wrong.push(format!("{SITES} has other sites than the image"));
    }
    Ok(wrong)
}

/// Removes the directory unless it is just what would be made now: machines would install something else from it than
/// what the image beside it has.
///
/// # Errors
/// It cannot be removed.
pub fn remove_other(out: &Path, parts: &Parts, contents: &Contents, site: &[Content]) -> Result<(), Fault> {
    let (dir, wanted) = (out.join(PXE), sums(&small(parts, contents, site)?, contents));
    if fs::read(dir.join(SUMS)).is_ok_and(|there| there == wanted.as_bytes()) {
        return Ok(());
    }
    term::say(&format!("removing {PXE}/, which is of another build; `--format {PXE}` makes it anew"));
    remove(&dir).doing(|| format!("removing {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use gatehouse_model::FileRef;

    use super::*;

    fn contents() -> Contents {
        let file =
            |path: &str| FileRef { path: path.to_owned(), size: 1, sha256: Digest::of(path.as_bytes()) };
        Contents {
            schema: 1,
            builder: "0".to_owned(),
            epoch: 7,
            partitions: Vec::new(),
            boot: file("slot-a/boot.img"),
            core: file("slot-a/core.img"),
            root: file("image/root-a"),
            depot: file("image/depot-a"),
            esp: vec![file("slot-a/vmlinuz")],
        }
    }

    #[test]
    fn other_sites_change_what_names_them_and_nothing_else() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = temp.path();
        let site = |name: &str| vec![("sites/x/site.toml".to_owned(), name.as_bytes().to_vec())];
        fs::create_dir(dir.join("grub")).expect("made");
        let list = serde_json::to_vec(&contents()).expect("text");
        fs::write(dir.join(LIST), &list).expect("written");
        assert!(Renewed::of(dir, &site("a")).is_err(), "it has no digests");
        let old = format!("{}  image/root-a\n{}  {SITES}\n", Digest::of(b"r"), Digest::of(b"old"));
        fs::write(dir.join(SUMS), old).expect("written");
        for name in ["a", "b"] {
            Renewed::of(dir, &site(name)).and_then(|renewed| renewed.put()).expect("written");
            assert_eq!(differences(dir, &list, &site(name)).expect("looked"), [""; 0]);
        }
        assert_eq!(differences(dir, b"{}", &site("a")).expect("looked").len(), 2);
        let sums = fs::read_to_string(dir.join(SUMS)).expect("read");
        let line = |path: &str, bytes: &[u8]| format!("{}  {path}\n", Digest::of(bytes));
        assert!(sums.contains(&line("image/root-a", b"r")), "{sums}");
        for path in [SITES, MENU, IPXE] {
            let bytes = fs::read(dir.join(path)).expect("there");
            assert!(sums.contains(&line(path, &bytes)), "{path}: {sums}");
            let tar = Digest::of(&fs::read(dir.join(SITES)).expect("read")).to_string();
            assert!(path == SITES || String::from_utf8(bytes).expect("text").contains(&tar), "{path}");
        }
    }

    #[test]
    fn every_piece_must_be_there() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join(LIST), serde_json::to_vec(&contents()).expect("text")).expect("written");
        let named = named(dir.path()).expect("read");
        assert_eq!(named.len(), 9);
        assert_eq!(named["esp/slot-a/vmlinuz"], Some(Digest::of(b"slot-a/vmlinuz")));
        assert_eq!(named[MENU], None);
    }
}
