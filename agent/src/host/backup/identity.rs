//! What makes a host this host: its authorities and what they have signed, its keys, its site with the history. With it
//! another machine becomes the host, and its nodes' backups can be restored there.
//!
//! ```text
//! state/…  vms/<machine>/conf/…  ─► age ─► anywhere ─► state/restoring ─► checked ─► state/restored
//!                                                        ─► at the agent's next start: in place, old things aside
//! state/restored-from.json       what that backup said of itself
//! ```

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use gatehouse_model::site::keep_machine;
use gatehouse_model::{Digest, Doing as _, Exit, Fault, NodeName, Site};

use super::manifest::{HostBackup, Manifest, Of, SCHEMA};
use super::reader::Take;
use super::writer::Writer;
use crate::control::board::now_millis;
use crate::host::command::read_site;
use crate::host::etc;
use crate::host::files::write_whole;
use crate::host::import::{self, remove};
use crate::host::lifecycle::record::Record;
use crate::host::lifecycle::restore::awaits;
use crate::paths::Paths;

/// What of state is kept, in the order in which it is read: a repository's references before what they name, so that a
/// push meanwhile leaves none that names nothing. Of the rest, the journal is of this machine's disks, and reports are
/// of its install.
const KEPT: [&str; 8] = ["authority", "grid", "host", "pool", "profiles", "secrets", "site", "site.git"];
const LAST: &str = "site.git/objects";
/// The manifest of the backup that a host was restored from.
const FROM: &str = "restored-from.json";

/// One file.
struct Piece {
    name: String,
    mode: u32,
    bytes: Vec<u8>,
}

/// SHA-256 of the certificate of the host's authority; none before the agent's first start.
///
/// # Errors
/// It cannot be read.
pub fn authority(paths: &Paths) -> Result<Option<Digest>, Fault> {
    let path = paths.state.join("authority/ca.crt");
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(Digest::of(&bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing(|| format!("reading {}", path.display())),
    }
}

/// What the backup says of itself that this host was restored from last; none where it never was.
///
/// # Errors
/// It cannot be read.
pub fn restored_from(paths: &Paths) -> Result<Option<Manifest>, Fault> {
    let path = paths.state.join(FROM);
    match fs::read(&path) {
        Ok(bytes) => {
            Ok(Some(serde_json::from_slice(&bytes).doing(|| format!("reading {}", path.display()))?))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing(|| format!("reading {}", path.display())),
    }
}

/// The nodes that are installed in VMs of this host.
pub fn installed(paths: &Paths, site: &Site) -> Vec<NodeName> {
    let names = site.vms().map(|node| node.name.clone());
    names.filter(|name| Record::path(paths, name).exists()).collect()
}

/// Writes the backup of a host, which is not encrypted yet.
///
/// # Errors
/// Something cannot be read; the agent was never started here.
pub fn back_up(paths: &Paths, site: &Site) -> Result<(Vec<u8>, Manifest, Digest), Fault> {
    let authority = authority(paths)?
        .ok_or_else(|| Fault::new("this host has no authority yet").help("start the agent first"))?;
    let pieces = collect(paths, site)?;
    let bytes = pieces.iter().map(|piece| piece.bytes.len() as u64).sum();
    let manifest = Manifest {
        schema: SCHEMA,
        made: now_millis(),
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        site: format!("{}.{}", site.name, site.domain),
        authority,
        of: Of::Host(HostBackup { nodes: site.vms().map(|node| node.name.clone()).collect(), bytes }),
    };
    let mut writer = Writer::begin(Vec::new(), &manifest)?;
    for piece in &pieces {
        writer.file(&piece.name, piece.mode, &piece.bytes)?;
    }
    let (bytes, digest) = writer.finish()?;
    Ok((bytes, manifest, digest))
}

fn collect(paths: &Paths, site: &Site) -> Result<Vec<Piece>, Fault> {
    let mut pieces = Vec::new();
    for name in KEPT {
        // Of a trial it is a link to the directory; what does not belong to it is left out as everywhere.
        if name == "site" {
            let files = import::read(&paths.site())?;
            pieces.extend(files.into_iter().map(|(name, bytes)| {
                let mode = import::mode(&name);
                Piece { name: format!("state/site/{name}"), mode, bytes }
            }));
        } else {
            walk(&paths.state.join(name), &format!("state/{name}"), &mut pieces)?;
        }
    }
    walk(&paths.state.join(LAST), &format!("state/{LAST}"), &mut pieces)?;
    for node in site.machines() {
        walk(&paths.conf(&node.name), &format!("vms/{}/conf", node.name), &mut pieces)?;
    }
    Ok(pieces)
}

fn walk(dir: &Path, name: &str, pieces: &mut Vec<Piece>) -> Result<(), Fault> {
    let doing = || format!("reading {}", dir.display());
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.doing(doing)?,
    };
    let mut entries = entries.collect::<Result<Vec<_>, _>>().doing(doing)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        let path = entry.path();
        let meta = match entry.metadata() {
            // What is written anew all the time may go between two looks.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            meta => meta.doing(|| format!("reading {}", path.display()))?,
        };
        if meta.is_dir() && name != format!("state/{LAST}") {
            walk(&path, &name, pieces)?;
        } else if meta.is_file() {
            let bytes = match fs::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                bytes => bytes.doing(|| format!("reading {}", path.display()))?,
            };
            pieces.push(Piece { name, mode: meta.permissions().mode() & 0o777, bytes });
        }
    }
    Ok(())
}

fn restoring(paths: &Paths) -> PathBuf {
    paths.state.join("restoring")
}

fn restored(paths: &Paths) -> PathBuf {
    paths.state.join("restored")
}

/// A host's backup on its way in; thrown away unless it is committed.
#[derive(Debug)]
pub struct Arrival {
    dir: PathBuf,
    to: PathBuf,
    committed: bool,
}

impl Arrival {
    /// An empty place.
    ///
    /// # Errors
    /// The disk is full.
    pub fn begin(paths: &Paths) -> Result<Self, Fault> {
        let dir = restoring(paths);
        remove(&dir)?;
        DirBuilder::new().mode(0o700).create(&dir).doing(|| format!("making {}", dir.display()))?;
        Ok(Self { dir, to: restored(paths), committed: false })
    }

    /// Has the site that came in keep what this machine's site says of the machine: its disk and NIC, and its vmm, as its
    /// image has no other. Answers the site, and which of that differed.
    ///
    /// # Errors
    /// Its nodes ask for what this machine's vmm lacks.
    pub fn suit(&self, own: &Path) -> Result<(Site, Vec<&'static str>), Fault> {
        let path = self.dir.join("state/site/site.toml");
        let read = |path: &Path| fs::read_to_string(path).doing(|| format!("reading {}", path.display()));
        let (text, own) = (read(&path)?, read(&own.join("site.toml"))?);
        let (changed, kept) = keep_machine(&text, &own).map_err(Fault::of_problems)?;
        let site = Site::parse(&changed).map_err(|problems| {
            Fault::of_problems(problems)
                .help("a machine with an image for the vmm of that site takes it as it is")
        })?;
        if !kept.is_empty() {
            write_whole(&path, changed.as_bytes(), import::mode("site.toml"))?;
        }
        Ok((site, kept))
    }

    /// What has come in counts from the agent's next start on.
    ///
    /// # Errors
    /// The disk is full.
    pub fn commit(mut self) -> Result<(), Fault> {
        // git takes a directory without it for no repository, and all references may be in one file.
        let repository = self.dir.join("state/site.git");
        if repository.is_dir() {
            fs::create_dir_all(repository.join("refs/heads")).doing(|| "making refs/heads")?;
        }
        // Before its name: what is found under that is all there.
        nix::unistd::sync();
        remove(&self.to)?;
        let doing = || format!("making {}", self.to.display());
        fs::rename(&self.dir, &self.to).doing(doing)?;
        self.committed = true;
        sync(self.to.parent().unwrap_or(Path::new("/"))).doing(doing)
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if !self.committed {
            // The next one removes what stays.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

impl Take for Arrival {
    fn manifest(&mut self, manifest: &Manifest) -> Result<(), Fault> {
        match &manifest.of {
            Of::Host(_) => {
                let json = serde_json::to_vec_pretty(manifest).doing(|| "writing the manifest")?;
                write_whole(&self.dir.join(FROM), &json, 0o600)
            }
            Of::Node(node) => Err(Fault::new(format!("this is the backup of node {}", node.name))
                .help(format!("use `gatectl node restore {}` for it", node.name))
                .exit(Exit::Problem)),
        }
    }

    fn store(&mut self, name: &str) -> Result<Option<File>, Fault> {
        Err(Fault::new(format!("the store {name} has no place in the backup of a host")).exit(Exit::Mismatch))
    }

    fn file(&mut self, name: &str, mode: u32, bytes: &[u8]) -> Result<(), Fault> {
        if !has_place(name) {
            return Err(
                Fault::new(format!("{name} has no place in the backup of a host")).exit(Exit::Mismatch)
            );
        }
        let path = self.dir.join(name);
        let dir = path.parent().unwrap_or(&self.dir);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .doing(|| format!("making {}", dir.display()))?;
        write_whole(&path, bytes, mode)
    }

    fn tell(&mut self, _: u64) -> Result<(), Fault> {
        Ok(())
    }
}

/// Whether a host's backup may have a file of this name.
fn has_place(name: &str) -> bool {
    let parts: Option<Vec<&str>> = Path::new(name)
        .components()
        .map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        })
        .collect();
    match parts.as_deref() {
        Some(["state", kept, _, ..]) => KEPT.contains(kept),
        Some(["vms", node, "conf", _]) => node.parse::<NodeName>().is_ok(),
        _ => false,
    }
}

/// Puts in place what was restored, if something was; whoever calls it is the only agent. A power cut at any moment is
/// gone on from at the next call.
///
/// # Errors
/// A file cannot be moved.
pub fn take_up(paths: &Paths) -> Result<bool, Fault> {
    let from = restored(paths);
    if !from.is_dir() {
        return Ok(false);
    }
    let before = read_site(&paths.site()).ok();
    let work = || {
        let incoming = from.join("state/site");
        let site = read_site(&if incoming.is_dir() { incoming } else { paths.site() })?;
        for node in site.vms() {
            // Its disks, if it has any, are of a node that believes another authority.
            await_restore(paths, &node.name)?;
        }
        let aside = paths.state.join("replaced");
        DirBuilder::new().recursive(true).mode(0o700).create(&aside)?;
        for name in KEPT {
            put(&from.join("state").join(name), &paths.state.join(name), &aside.join(name))?;
        }
        put(&from.join(FROM), &paths.state.join(FROM), &aside.join(FROM))?;
        for node in site.machines() {
            let conf = paths.conf(&node.name);
            let arrived = conf.with_extension("restored");
            bring(&from.join("vms").join(node.name.as_str()).join("conf"), &arrived)?;
            put(&arrived, &conf, &conf.with_extension("replaced"))?;
        }
        sync(&paths.state)?;
        if let (Some(before), Some(etc)) = (&before, &paths.etc) {
            etc::renew(before, &site, etc)?;
        }
        Ok::<_, Fault>(fs::remove_dir_all(&from)?)
    };
    work().doing(|| "putting the restored host in place")?;
    Ok(true)
}

fn await_restore(paths: &Paths, node: &NodeName) -> Result<(), Fault> {
    write_whole(&awaits(paths, node), b"", 0o644)?;
    match fs::remove_file(Record::path(paths, node)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Copies a directory of files to another filesystem and removes it here: whole under its name, or not there.
fn bring(from: &Path, to: &Path) -> Result<(), Fault> {
    if !from.is_dir() {
        return Ok(());
    }
    let partial = to.with_extension("restoring");
    remove(&partial)?;
    let doing = || format!("making {}", to.display());
    fs::create_dir_all(&partial).doing(doing)?;
    for entry in fs::read_dir(from).doing(doing)? {
        let entry = entry.doing(doing)?;
        let (bytes, mode) = (fs::read(entry.path()), entry.metadata().doing(doing)?.permissions().mode());
        write_whole(&partial.join(entry.file_name()), &bytes.doing(doing)?, mode & 0o777)?;
    }
    remove(to)?;
    fs::rename(&partial, to).and_then(|()| sync(to.parent().unwrap_or(Path::new("/")))).doing(doing)?;
    remove(from)
}

/// Moves something to its place, and what is there aside; nothing where it has been moved.
fn put(from: &Path, to: &Path, aside: &Path) -> Result<(), Fault> {
    if !from.exists() {
        return Ok(());
    }
    if fs::symlink_metadata(to).is_ok() {
        // Of the restore before this one.
        remove(aside)?;
        fs::rename(to, aside).doing(|| format!("putting {} aside", to.display()))?;
    }
    fs::rename(from, to).doing(|| format!("making {}", to.display()))
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
