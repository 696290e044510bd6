//! From a site directory's sources to one node's profile: what the install server and the builder share.

use std::collections::BTreeSet;

use gatehouse_model::site::{Node, Site, node_header};
use gatehouse_model::{Lock, Problem};

use crate::{Compiled, PackageSpec, Profile, Published, Sources, compile};

/// The directories below `lcfg/` that hold sources; whatever else lies there is not ours to read.
pub const SOURCE_DIRECTORIES: [&str; 4] = ["source", "include", "packages", "defaults"];

impl Sources {
    /// The sources among some files, by path below `lcfg/`. The site partition is edited on any computer: byte order
    /// marks and carriage returns go, and the stray files that editors and systems leave are passed over.
    pub fn from_files<P: AsRef<str>, T: AsRef<str>>(files: impl IntoIterator<Item = (P, T)>) -> Self {
        let mut sources = Self::new();
        for (path, text) in files {
            if is_source(path.as_ref()) {
                let text = text.as_ref().trim_start_matches('\u{feff}').replace("\r\n", "\n");
                sources.insert(path.as_ref(), text);
            }
        }
        sources
    }
}

/// Whether a path below `lcfg/` (with forward slashes) is one of a source, and not of a stray file.
pub fn is_source(path: &str) -> bool {
    let stray = |name: &str| name.is_empty() || name.starts_with('.') || name.ends_with('~');
    let inside = path.split_once('/').is_some_and(|(top, _)| SOURCE_DIRECTORIES.contains(&top));
    inside && !path.split('/').any(stray)
}

/// Compiles the sources of one node of a site.
///
/// # Errors
/// Every problem of the sources, or that the site has no such node.
pub fn compile_node(site: &Site, sources: &Sources, node: &str) -> Result<Compiled, Vec<Problem>> {
    let known: &Node = site.node(node).ok_or_else(|| {
        let names: Vec<&str> = site.nodes.iter().map(|node| node.name.as_str()).collect();
        let what = format!("no node is named {node:?}; the site has {}", names.join(", "));
        vec![Problem::at("site.toml", 0, what)]
    })?;
    compile(sources, node, &node_header(site, known))
}

/// What a node asks of the package solver: sorted names, with `=version` where one is asked for and `:architecture`
/// where it is a foreign one; the `wishes` of a package set in site.lock.
pub fn wishes(compiled: &Compiled) -> Vec<String> {
    let all: BTreeSet<String> = compiled.wishes.iter().map(wish).collect();
    all.into_iter().collect()
}

fn wish(spec: &PackageSpec) -> String {
    let mut text = spec.name.clone();
    if let Some(arch) = given(spec.arch.as_deref()).filter(|arch| !["amd64", "all"].contains(arch)) {
        text.push(':');
        text.push_str(arch);
    }
    if let Some(version) = given(spec.version.as_deref()) {
        text.push('=');
        text.push_str(version);
        if let Some(release) = given(spec.release.as_deref()) {
            text.push('-');
            text.push_str(release);
        }
    }
    text
}

fn given(part: Option<&str>) -> Option<&str> {
    part.filter(|text| !text.is_empty() && *text != "*")
}

/// The packages of a node's profile: the closure that site.lock has for its wishes, with the lock's versions. A
/// package that was wished for keeps its flags and says where the wish stands.
///
/// # Errors
/// The lock has no package set for these wishes.
pub fn locked_packages(
    compiled: &Compiled,
    lock: &Lock,
    node: &str,
) -> Result<Vec<PackageSpec>, Vec<Problem>> {
    let Some(set) = lock.set_for_wishes(&wishes(compiled)) else {
        let what = format!("no package set fits what {node} asks for; run `gatehouse lock`");
        return Err(vec![Problem::at("site.lock", 0, what)]);
    };
    let wished = |name: &str| compiled.wishes.iter().find(|spec| spec.name == name);
    let locked = set.packages.iter().map(|id| PackageSpec {
        prefix: None,
        name: id.name.clone(),
        version: Some(id.version.clone()),
        release: None,
        arch: Some(id.architecture.clone()),
        flags: wished(&id.name).and_then(|spec| spec.flags.clone()),
        context: None,
        derivation: wished(&id.name).map(|spec| spec.derivation.clone()).unwrap_or_default(),
    });
    Ok(locked.collect())
}

/// The profile of one node, dated at the site's epoch: what the builder shows and bakes.
///
/// # Errors
/// Every problem of the sources, or that the lock does not fit them.
pub fn profile_for(site: &Site, lock: &Lock, sources: &Sources, node: &str) -> Result<Profile, Vec<Problem>> {
    let compiled = compile_node(site, sources, node)?;
    let packages = locked_packages(&compiled, lock, node)?;
    let stamp = stamp(site, site.epoch, format!("lcfg/source/{node}"));
    Ok(Profile::new(&compiled, packages, stamp))
}

/// What a profile says of its making: the site's host, this version, and the newest source with its time. A profile
/// is published when its newest source was written, so that the same sources give the same bytes.
pub fn stamp(site: &Site, newest: u64, newest_file: String) -> Published {
    let at = newest.max(site.epoch);
    Published {
        by: format!("{}.{}", site.name, site.domain),
        at,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        last_modified: at,
        last_modified_file: newest_file,
    }
}
