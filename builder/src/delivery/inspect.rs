//! `gatehouse inspect`: what is in an image.

use std::fmt::Write as _;

use gatehouse_lcfg::{Sources, publish};
use gatehouse_model::{
    Digest, Doing as _, Fault, FileRef, ImageFile, ImageManifest, ImagePart, Lock, PackageSet, SET_HOST, Site,
};
use serde::Serialize;

use super::Delivery;
use crate::cli;
use crate::image::{Content, LOCK, MANIFEST, SECTOR, site_of, site_part};

/// Everything that an image says of itself.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Inspection {
    image: String,
    bytes: u64,
    /// None where no manifest lies beside the image.
    #[serde(flatten)]
    made: Option<Made>,
    /// The hypervisor of the host, by the lock.
    xen: Option<String>,
    partitions: Vec<ImagePart>,
    layers: Vec<LayerLine>,
    sites: Vec<SiteLine>,
}

/// What only the manifest knows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Made {
    builder: String,
    epoch: u64,
    lock: Digest,
    kernel: String,
    pool: PoolLine,
    deliverables: Vec<ImageFile>,
}

/// One exact package list of nodes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct LayerLine {
    closure: Digest,
    nodes: Vec<String>,
    packages: usize,
    /// Compressed, in bytes; none: the nodes are installed package by package, or no manifest says.
    bytes: Option<u64>,
    unpacked: Option<u64>,
}

#[derive(Debug, Serialize)]
struct PoolLine {
    packages: usize,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct SiteLine {
    /// Its directory in the site partition; empty for the only one.
    directory: String,
    name: String,
    host: String,
    nodes: Vec<NodeLine>,
}

#[derive(Debug, Serialize)]
struct NodeLine {
    name: String,
    address: String,
}

/// `gatehouse inspect`.
///
/// # Errors
/// There is no image, or it has no partition table or site partition.
pub fn run(args: &cli::Inspect) -> Result<(), Fault> {
    let delivery = Delivery::open(&args.out)?;
    let inspection = inspect(&delivery)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&inspection).doing(|| "printing what was found")?);
    } else {
        print!("{}", text(&inspection));
    }
    Ok(())
}

fn inspect(delivery: &Delivery) -> Result<Inspection, Fault> {
    let table = delivery.table()?;
    let manifest = delivery.manifest.as_ref();
    let partitions = table.parts.iter().map(|part| ImagePart {
        number: part.number,
        name: part.name.clone(),
        offset: part.start(SECTOR),
        length: part.bytes(SECTOR),
        sha256: manifest.and_then(|m| m.partitions.iter().find(|p| p.name == part.name)?.sha256),
    });
    let files = site_of(&delivery.image)?;
    let lock = text_of(&files, LOCK).and_then(|text| Lock::parse(&text).ok());
    let sites: Vec<(String, Site)> = sites(&files)?;
    let host = lock.as_ref().and_then(|lock| lock.set(SET_HOST));
    Ok(Inspection {
        image: delivery.image.display().to_string(),
        bytes: table.disk_bytes,
        made: manifest.map(made),
        xen: host.and_then(xen),
        partitions: partitions.collect(),
        layers: lock.map(|lock| layers(&lock, manifest, &sites, &files)).unwrap_or_default(),
        sites: sites.iter().map(|(directory, site)| site_line(directory, site)).collect(),
    })
}

fn text_of(files: &[Content], name: &str) -> Option<String> {
    let (_, bytes) = files.iter().find(|(path, _)| path == name)?;
    Some(String::from_utf8_lossy(bytes).into_owned())
}

/// The sites in the partition: one at its top, or several in directories.
fn sites(files: &[Content]) -> Result<Vec<(String, Site)>, Fault> {
    let dirs = files.iter().filter_map(|(path, _)| path.strip_suffix("site.toml"));
    let one =
        |dir: &str| dir.strip_prefix(site_part::SITES).is_some_and(|rest| rest.matches('/').count() == 1);
    dirs.filter(|dir| dir.is_empty() || one(dir))
        .map(|dir| {
            let text = text_of(files, &format!("{dir}site.toml")).unwrap_or_default();
            let site = Site::parse(&text).map_err(Fault::of_problems);
            Ok((dir.trim_end_matches('/').to_owned(), site.doing(|| "reading the site partition")?))
        })
        .collect()
}

fn site_line(directory: &str, site: &Site) -> SiteLine {
    let nodes = site.nodes.iter();
    let node = |node: &gatehouse_model::site::Node| NodeLine {
        name: node.name.to_string(),
        address: node.address.to_string(),
    };
    SiteLine {
        directory: directory.to_owned(),
        name: site.name.to_string(),
        host: site.network.host.to_string(),
        nodes: nodes.map(node).collect(),
    }
}

fn xen(host: &PackageSet) -> Option<String> {
    let package = host.packages.iter().find(|id| id.name.starts_with("xen-hypervisor-"))?;
    Some(package.version.clone())
}

fn made(manifest: &ImageManifest) -> Made {
    let pool = &manifest.depot.pool.packages;
    let file =
        |file: &FileRef| ImageFile { path: file.path.clone(), size: file.size, sha256: Some(file.sha256) };
    let compressed = manifest.compressed.as_ref().map(file);
    Made {
        builder: manifest.builder.clone(),
        epoch: manifest.epoch,
        lock: manifest.lock,
        kernel: manifest.kernel.clone(),
        pool: PoolLine { packages: pool.len(), bytes: pool.values().map(|file| file.size).sum() },
        deliverables: std::iter::once(manifest.image.clone()).chain(compressed).collect(),
    }
}

/// A line for each exact package list, with the nodes of all sites that have it.
fn layers(
    lock: &Lock,
    manifest: Option<&ImageManifest>,
    sites: &[(String, Site)],
    files: &[Content],
) -> Vec<LayerLine> {
    let line = |set: &PackageSet| {
        let closure = set.closure();
        let layer = manifest.and_then(|manifest| manifest.depot.layers.get(&closure));
        LayerLine {
            closure,
            nodes: sites.iter().flat_map(|(dir, site)| nodes_of(set, dir, site, files)).collect(),
            packages: set.packages.len(),
            bytes: layer.map(|layer| layer.file.size),
            unpacked: layer.map(|layer| layer.unpacked),
        }
    };
    lock.node_sets().map(line).collect()
}

/// The nodes of a site that wish for just what a set was made for.
fn nodes_of(set: &PackageSet, dir: &str, site: &Site, files: &[Content]) -> Vec<String> {
    let top = if dir.is_empty() { "lcfg/".to_owned() } else { format!("{dir}/lcfg/") };
    let mut sources = Sources::new();
    for (path, bytes) in files {
        if let Some(name) = path.strip_prefix(&top) {
            sources.insert(name, String::from_utf8_lossy(bytes).into_owned());
        }
    }
    let round = publish::fleet(site, sources).compile(|_, compiled| Ok(publish::wishes(compiled)));
    let wishes_it = |wishes: Result<Vec<String>, _>| wishes.is_ok_and(|wishes| wishes == set.wishes);
    round.into_iter().filter_map(|(name, wishes)| wishes_it(wishes).then_some(name)).collect()
}

fn mb(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

/// The same for people. Writing into a text cannot fail.
fn text(seen: &Inspection) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{}, {}", seen.image, mb(seen.bytes));
    if let Some(made) = &seen.made {
        let _ = writeln!(out, "made by gatehouse {} from the lock {}", made.builder, made.lock);
        let _ = writeln!(out, "dated {} (seconds since 1970)", made.epoch);
        let _ = writeln!(out, "host kernel {}", made.kernel);
    } else {
        let _ = writeln!(out, "there is no {MANIFEST} for it: what only that says is left out");
    }
    if let Some(xen) = &seen.xen {
        let _ = writeln!(out, "host hypervisor Xen {xen}");
    }
    let _ = writeln!(out, "\npartitions");
    for part in &seen.partitions {
        let _ =
            writeln!(out, "  {:2} {:12} {:>12} at {}", part.number, part.name, mb(part.length), part.offset);
    }
    let _ = writeln!(out, "\npackage lists of nodes");
    for layer in &seen.layers {
        let size = match (layer.bytes, layer.unpacked) {
            (Some(bytes), Some(unpacked)) => format!("layer of {} ({} unpacked)", mb(bytes), mb(unpacked)),
            _ => "no layer".to_owned(),
        };
        let nodes = layer.nodes.join(", ");
        let _ = writeln!(out, "  {} {:4} packages, {size}: {nodes}", layer.closure.short(), layer.packages);
    }
    if let Some(made) = &seen.made {
        let _ = writeln!(out, "  pool of {} packages, {}", made.pool.packages, mb(made.pool.bytes));
    }
    for site in &seen.sites {
        let dir = if site.directory.is_empty() { String::new() } else { format!(" in {}/", site.directory) };
        let _ = writeln!(out, "\nsite {}{dir}, host at {}", site.name, site.host);
        for node in &site.nodes {
            let _ = writeln!(out, "  {:16} {}", node.name, node.address);
        }
    }
    if let Some(made) = &seen.made {
        let _ = writeln!(out, "\ndelivered");
        for file in &made.deliverables {
            let digest = file.sha256.map_or("its sites were changed".to_owned(), |digest| digest.to_string());
            let _ = writeln!(out, "  {:18} {:>12}  {digest}", file.path, mb(file.size));
        }
    }
    out
}
