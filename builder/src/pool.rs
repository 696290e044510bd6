//! The depot's pool: every package of every node and of `packages.extra`, laid out as an apt repository.
//!
//! The index is made here, once: reading hundreds of packages at each start would cost an emulated machine minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Component, Path};

use flate2::{Compression, GzBuilder};
use gatehouse_deb::Deb;
use gatehouse_model::{Doing as _, Fault, FileRef, LockedPackage, PackageId, Pool, SET_EXTRA};

use crate::cache::Cache;
use crate::depot::{Contents, add};

/// Puts the packages and their index into the depot.
///
/// # Errors
/// A package cannot be read, or the directory not be written.
pub fn make(contents: &Contents<'_>, cache: &Cache, to: &Path) -> Result<Pool, Fault> {
    let lock = contents.lock;
    let sets = lock.node_sets().chain(lock.set(SET_EXTRA));
    let wanted: BTreeSet<&PackageId> = sets.flat_map(|set| &set.packages).collect();
    let known = lock.by_id();
    let mut packages = BTreeMap::new();
    let mut index = String::new();
    for (id, package) in wanted.into_iter().filter_map(|id| Some((id, known.get(id)?))) {
        let from = cache.deb(&package.sha256);
        let file = add(to, &from, &place(package))?;
        let control = Deb::open(&from)?.into_control();
        let entry = gatehouse_deb::index_entry(&control, &file.path, file.size, &file.sha256);
        index.push_str(&entry.to_string());
        index.push('\n');
        packages.insert(id.clone(), file);
    }
    let suite = contents.packages.suite.clone();
    let name = format!("dists/{suite}/main/binary-amd64/Packages");
    let packed = format!("{name}.gz");
    let index = vec![put(to, &name, index.as_bytes())?, put(to, &packed, &gzip(index.as_bytes())?)?];
    Ok(Pool { suite, epoch: contents.epoch, index, packages })
}

/// Where a package lies in the pool: as in its own archive, and below `pool/` whatever that archive looks like.
fn place(package: &LockedPackage) -> String {
    let parts = Path::new(&package.path).components().filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    let path = parts.collect::<Vec<_>>().join("/");
    if path.starts_with("pool/") { path } else { format!("pool/{path}") }
}

fn put(to: &Path, name: &str, bytes: &[u8]) -> Result<FileRef, Fault> {
    let path = to.join(name);
    let doing = || format!("writing {}", path.display());
    fs::create_dir_all(path.parent().unwrap_or(to)).doing(doing)?;
    fs::write(&path, bytes).doing(doing)?;
    let size = u64::try_from(bytes.len()).doing(doing)?;
    Ok(FileRef { path: name.to_owned(), size, sha256: gatehouse_model::Digest::of(bytes) })
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    // No name and no time in the header: the same index gives the same bytes.
    let mut packed = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    packed.write_all(bytes).and_then(|()| packed.finish()).doing(|| "compressing the pool's index")
}

#[cfg(test)]
mod tests {
    use gatehouse_model::Digest;

    use super::*;

    #[test]
    fn a_package_lies_below_the_pool() {
        for (path, expected) in [
            ("pool/main/a/apt/apt_3_amd64.deb", "pool/main/a/apt/apt_3_amd64.deb"),
            ("./apt_3_amd64.deb", "pool/apt_3_amd64.deb"),
            ("../debs//apt_3_amd64.deb", "pool/debs/apt_3_amd64.deb"),
        ] {
            let package = LockedPackage {
                name: "apt".into(),
                version: "3".into(),
                architecture: "amd64".into(),
                size: 1,
                sha256: Digest::of(b""),
                archive: "main".into(),
                path: path.into(),
                source: "apt".into(),
                source_version: "3".into(),
            };
            assert_eq!(place(&package), expected);
        }
    }
}
