//! `gatehouse verify`: whether what was delivered is still what was built.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Component, Path};

use gatehouse_disk::Table;
use gatehouse_model::{Digest, Doing as _, Exit, Fault, FileRef, ImageManifest, ImagePart};

use super::{Delivery, damage};
use crate::cache::digest_file;
use crate::image::netboot::{self, PXE};
use crate::image::{
    BMAP, LOCK, MANIFEST, SECTOR, SUMS, digest_inside, digest_of, installs, map_of, next, site_of,
};
use crate::{cli, parallel, term};

/// `gatehouse verify`.
///
/// # Errors
/// A digest does not match, a file is missing or damaged (exit 5): all of them are listed.
pub fn run(args: &cli::Verify) -> Result<(), Fault> {
    let delivery = Delivery::open(&args.out)?;
    next::refuse(&delivery.image).map_err(|cut| Fault::from(cut).exit(Exit::Mismatch))?;
    let Some(manifest) = &delivery.manifest else {
        let text =
            format!("there is no manifest for {}, so nothing says what it must be", delivery.image.display());
        return Err(Fault::new(text)
            .exit(Exit::Mismatch)
            .help("copy manifest.json and SHA256SUMS along with the image"));
    };
    let bar = term::bar("taking digests", term::Unit::Time, 0);
    let checks: [Check<'_>; 6] = [
        &|| sums(&delivery.dir, &required(manifest), MANIFEST),
        &|| Ok(pxe(&delivery)),
        &|| partitions(&delivery, manifest),
        &|| Ok(map(&delivery, manifest)),
        &|| Ok(compressed(&delivery.dir, manifest)),
        &|| Ok(site(&delivery, manifest)),
    ];
    let wrong = parallel::each(&checks, parallel::processors(), |check| check())?;
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    bar.finish();
    if wrong.is_empty() {
        println!("{}: every digest matches", delivery.image.display());
        return Ok(());
    }
    let text = format!("{} is not what was built:\n  {}", delivery.dir.display(), wrong.join("\n  "));
    Err(Fault::new(text)
        .exit(Exit::Mismatch)
        .help("copy the directory again from where it was built, or build it anew with `gatehouse build`"))
}

/// Answers with a line for each thing that does not match.
type Check<'a> = &'a (dyn Fn() -> Result<Vec<String>, Fault> + Sync);

/// What SHA256SUMS must name: by the names of files, with their digests where somebody else knows them too.
type Required = BTreeMap<String, Option<Digest>>;

/// That of the directory of a build. An image whose sites were changed has no digest.
fn required(manifest: &ImageManifest) -> Required {
    let image = manifest.image.sha256.map(|sha256| (manifest.image.path.clone(), Some(sha256)));
    let compressed = manifest.compressed.as_ref().map(|file| (file.path.clone(), Some(file.sha256)));
    let told = [BMAP, MANIFEST].map(|name| (name.to_owned(), None));
    image.into_iter().chain(compressed).chain(told).collect()
}

/// Every file that SHA256SUMS names, and those that it must name; `by` knows the digests of some.
fn sums(dir: &Path, required: &Required, by: &str) -> Result<Vec<String>, Fault> {
    let path = dir.join(SUMS);
    let Ok(text) = fs::read_to_string(&path) else { return Ok(vec![format!("{SUMS} is missing")]) };
    let files: Result<Vec<_>, String> = text.lines().map(sum).collect();
    let files = match files {
        Ok(files) => files,
        Err(wrong) => return Ok(vec![wrong]),
    };
    let mut wrong = Vec::new();
    for (name, known) in required {
        match files.iter().find(|(_, file)| file == name) {
            None => wrong.push(format!("{SUMS} does not name {name}")),
            Some((digest, _)) if known.is_some_and(|known| known != *digest) => {
                wrong.push(format!("{SUMS} and {by} have different digests of {name}"));
            }
            Some(_) => {}
        }
    }
    let judged = parallel::each(&files, parallel::processors(), |(digest, name)| {
        Ok(match digest_file(&dir.join(name)) {
            Err(error) => Some(format!("{name} cannot be read: {error}")),
            Ok((found, _)) if found == *digest => None,
            Ok((found, _)) => Some(format!("{name} has the digest {found}, {SUMS} says {digest}")),
        })
    })?;
    Ok(wrong.into_iter().chain(judged.into_iter().flatten()).collect())
}

/// What machines that start from the network are given, if that was built too: whole, and the same as the image.
fn pxe(delivery: &Delivery) -> Vec<String> {
    let Some(dir) = delivery.pxe() else { return Vec::new() };
    let judge = || {
        let named = netboot::named(&dir)?;
        let wrong = sums(&dir, &named, "its list of contents")?;
        let (installs, site) = (installs(&delivery.image)?, site_of(&delivery.image)?);
        Ok::<_, Fault>([wrong, netboot::differences(&dir, &installs, &site)?].concat())
    };
    let wrong = judge().unwrap_or_else(|fault| vec![fault.to_string()]);
    wrong.into_iter().map(|wrong| format!("in {PXE}: {wrong}")).collect()
}

/// Whether the map is that of an image that has no digest of its own; else SHA256SUMS tells.
fn map(delivery: &Delivery, manifest: &ImageManifest) -> Vec<String> {
    if manifest.image.sha256.is_some() {
        return Vec::new();
    }
    let there = fs::read_to_string(delivery.dir.join(BMAP)).unwrap_or_default();
    match map_of(&delivery.image, &[]) {
        Err(fault) => vec![format!("{} cannot be mapped: {fault}", manifest.image.path)],
        Ok(found) if found == there => Vec::new(),
        Ok(_) => vec![format!("{BMAP} is not the map of {}", manifest.image.path)],
    }
}

/// One line of SHA256SUMS.
fn sum(line: &str) -> Result<(Digest, String), String> {
    let wrong = || format!("{SUMS} has a line of another form: {line:?}");
    let (digest, name) = line.split_once("  ").ok_or_else(wrong)?;
    // Names lead nowhere else.
    if name.is_empty() || !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(wrong());
    }
    Ok((digest.parse().map_err(|_| wrong())?, name.to_owned()))
}

/// The partition table, and the partitions' contents.
fn partitions(delivery: &Delivery, manifest: &ImageManifest) -> Result<Vec<String>, Fault> {
    let table = match delivery.table() {
        Ok(table) => table,
        Err(fault) => return Ok(vec![format!("the partition table is damaged: {fault}")]),
    };
    let mut wrong = tables(&table, &manifest.partitions);
    for part in &manifest.partitions {
        let Some(digest) = part.sha256 else { continue };
        let file = File::open(&delivery.image).doing(|| format!("opening {}", delivery.image.display()))?;
        match digest_of(file, part) {
            Err(error) => wrong.push(format!("partition {} cannot be read: {error}", part.name)),
            Ok(found) if found == digest => {}
            Ok(found) => {
                wrong.push(format!(
                    "partition {} has the digest {found}, the manifest says {digest}",
                    part.name
                ));
            }
        }
    }
    Ok(wrong)
}

/// How a table differs from the manifest's partitions.
fn tables(table: &Table, parts: &[ImagePart]) -> Vec<String> {
    let mut wrong: Vec<String> = damage(table.health).into_iter().map(str::to_owned).collect();
    let told: Vec<_> = parts.iter().map(|p| (p.number, p.name.as_str(), p.offset, p.length)).collect();
    let found = table.parts.iter().map(|p| (p.number, p.name.as_str(), p.start(SECTOR), p.bytes(SECTOR)));
    let found: Vec<_> = found.collect();
    for part in told.iter().filter(|part| !found.contains(part)) {
        wrong.push(format!(
            "the partition table has no {} {} of {} bytes at {}",
            part.0, part.1, part.3, part.2
        ));
    }
    for part in found.iter().filter(|part| !told.contains(part)) {
        wrong.push(format!("the manifest has no {} {} of {} bytes at {}", part.0, part.1, part.3, part.2));
    }
    wrong
}

/// Whether the compressed image is the image.
fn compressed(dir: &Path, manifest: &ImageManifest) -> Vec<String> {
    let Some(FileRef { path, .. }) = &manifest.compressed else { return Vec::new() };
    match digest_inside(&dir.join(path)) {
        Err(error) => vec![format!("{path} cannot be decompressed: {error}")],
        Ok(found) if manifest.image.sha256 == Some(found) => Vec::new(),
        Ok(found) => vec![format!("{path} decompresses to {found}, which is not the image's digest")],
    }
}

/// Whether the site partition can be read and has the lock that the image was built from.
fn site(delivery: &Delivery, manifest: &ImageManifest) -> Vec<String> {
    let files = match site_of(&delivery.image) {
        Ok(files) => files,
        Err(fault) => return vec![fault.to_string()],
    };
    let locks = files.iter().filter(|(path, _)| path == LOCK || path.ends_with(&format!("/{LOCK}")));
    let other = locks.filter(|(_, bytes)| Digest::of(bytes) != manifest.lock);
    other
        .map(|(path, _)| format!("{path} on the site partition is not the lock that was built from"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_sums_names_a_file_beside_it() {
        let digest = Digest::of(b"x");
        for name in ["a.img", "b/a.img"] {
            assert_eq!(sum(&format!("{digest}  {name}")), Ok((digest, name.to_owned())));
        }
        let wrong = ["../a", "/a", "b/../../a"].map(|name| format!("{digest}  {name}"));
        for line in
            ["", "abc  a.img", &format!("{digest} a.img")].into_iter().chain(wrong.iter().map(|line| &**line))
        {
            assert!(sum(line).is_err(), "{line}");
        }
    }

    #[test]
    fn every_file_that_differs_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("a"), "a").expect("written");
        fs::write(dir.path().join("b"), "b").expect("written");
        let line = |bytes: &[u8], name: &str| format!("{}  {name}\n", Digest::of(bytes));
        fs::write(dir.path().join(SUMS), line(b"a", "a") + &line(b"a", "b") + &line(b"", "c"))
            .expect("written");
        let looked = |required: &Required| sums(dir.path(), required, "another").expect("looked");
        let wrong = looked(&Required::new());
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong[0].starts_with("b has the digest") && wrong[1].starts_with("c cannot be read"));

        let required = [("a", Some(b"a")), ("b", Some(b"b")), ("c", None), ("d", None)];
        let required = required.map(|(name, bytes)| (name.to_owned(), bytes.map(|bytes| Digest::of(bytes))));
        let wrong = looked(&required.into());
        assert_eq!(wrong.len(), 4, "{wrong:?}");
        assert_eq!(wrong[0], "SHA256SUMS and another have different digests of b");
        assert_eq!(wrong[1], "SHA256SUMS does not name d");
    }
}
