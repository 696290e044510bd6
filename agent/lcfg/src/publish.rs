//! From a site directory's sources to its nodes' profiles: what the install server and the builder share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use gatehouse_model::site::{Header, Site};
use gatehouse_model::{Digest, Lock, PackageId, Problem};

use crate::packages::compare_versions;
use crate::profile::listed;
use crate::{Compiled, Fleet, PackageSpec, Profile, Published, Sources, Step, xml};

/// The directories below `lcfg/` that hold sources; whatever else lies there is not ours to read.
pub const SOURCE_DIRECTORIES: [&str; 4] = ["source", "include", "packages", "defaults"];

impl Sources {
    /// The sources among some files, by path below `lcfg/`. The site partition is edited on any computer: byte order
    /// marks and carriage returns go, and the stray files that editors and systems leave are passed over.
    pub fn from_files<P: AsRef<str>, T: AsRef<str>>(files: impl IntoIterator<Item = (P, T)>) -> Self {
        let mut sources = Self::new();
        for (path, text) in files {
            if is_source(path.as_ref()) {
                sources.insert(path.as_ref(), plain(text.as_ref()));
            }
        }
        sources
    }
}

/// A text without the byte order mark and the carriage returns of editors on other systems.
pub fn plain(text: &str) -> String {
    text.trim_start_matches('\u{feff}').replace("\r\n", "\n")
}

/// How the section of the components begins.
pub const COMPONENTS: &str = "  <components>\n";

/// Whether a path below `lcfg/` (with forward slashes) is one of a source, and not of a stray file.
pub fn is_source(path: &str) -> bool {
    let stray = |name: &str| name.is_empty() || name.starts_with('.') || name.ends_with('~');
    let inside = path.split_once('/').is_some_and(|(top, _)| SOURCE_DIRECTORIES.contains(&top));
    inside && !path.split('/').any(stray)
}

/// All nodes of a site with their sources, ready to be compiled.
pub fn fleet(site: &Site, sources: Sources) -> Fleet {
    let mut fleet = Fleet::new();
    fleet.set_sources(sources);
    fleet.set_nodes(members(site));
    fleet
}

/// The nodes of a site, each with what `#include <gatehouse/site.h>` brings it.
pub fn members(site: &Site) -> impl Iterator<Item = (String, String)> {
    let header = Header::of(site);
    site.nodes.iter().map(move |node| (node.name.to_string(), header.for_node(node)))
}

/// Compiles the sources of one node of a site, and says which lines made a resource's value if one is named.
///
/// # Errors
/// Every problem of the sources, or that the site has no such node.
pub fn compile_node(
    site: &Site,
    fleet: &mut Fleet,
    node: &str,
    watched: Option<(&str, &str)>,
) -> Result<(Compiled, Vec<Step>), Vec<Problem>> {
    if site.node(node).is_none() {
        let names: Vec<&str> = site.nodes.iter().map(|node| node.name.as_str()).collect();
        let what = format!("no node is named {node:?}; the site has {}", names.join(", "));
        return Err(vec![Problem::at("site.toml", 0, what)]);
    }
    fleet.compile_one(node, watched)
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

/// A wish with the greatest of some versions that fits it (`foo=1.*` becomes `foo=1.10-2`), for a solver that knows
/// exact versions only; the wish itself if it asks for none, and none if no version fits.
pub fn exact_wish<'a>(wish: &str, versions: impl Iterator<Item = &'a str>) -> Option<String> {
    let Some((name, version)) = wish.split_once('=') else { return Some(wish.to_owned()) };
    let asked = PackageSpec { version: Some(version.to_owned()), ..PackageSpec::default() };
    let greatest = versions.filter(|version| asked.fits(version)).max_by(|a, b| compare_versions(a, b))?;
    Some(format!("{name}={greatest}"))
}

fn given(part: Option<&str>) -> Option<&str> {
    part.filter(|text| !text.is_empty() && *text != "*")
}

/// Finds the exact packages for some wishes.
pub type Solve<'a> = dyn Fn(&[String]) -> Result<Vec<PackageId>, Vec<Problem>> + Sync + 'a;

/// The exact packages that site.lock has for some wishes.
///
/// # Errors
/// It has no package set for just these wishes.
pub fn locked(lock: &Lock, wishes: &[String]) -> Result<Vec<PackageId>, Vec<Problem>> {
    lock.set_for_wishes(wishes).map(|set| set.packages.clone()).ok_or_else(|| {
        let what = "no package set fits what the node asks for; run `gatehouse lock`";
        vec![Problem::at("site.lock", 0, what)]
    })
}

/// The packages of a node's profile: the exact ones for its wishes. A package that was wished for keeps its flags and
/// its context and says where the wish stands.
///
/// # Errors
/// There are none for these wishes, or one is not in a version that was wished for.
pub fn closed_packages(compiled: &Compiled, solve: &Solve) -> Result<Vec<PackageSpec>, Vec<Problem>> {
    let closure = solve(&wishes(compiled))?;
    let mut wished: BTreeMap<&str, &PackageSpec> = BTreeMap::new();
    for spec in compiled.wishes.iter() {
        wished.entry(&spec.name).or_insert(spec);
    }
    let mut problems = Vec::new();
    let mut packages = Vec::with_capacity(closure.len());
    for id in closure {
        let wish = wished.get(id.name.as_str()).copied();
        if let Some(wish) = wish.filter(|wish| !wish.fits(&id.version)) {
            let (file, lines) = wish.derivation.first().cloned().unwrap_or_default();
            let line = lines.first().map_or(0, |line| *line as usize);
            let what = format!(
                "{} is locked in version {}, which is not {wish}; run `gatehouse lock`",
                id.name, id.version
            );
            problems.push(Problem::at(file, line, what));
        }
        packages.push(PackageSpec {
            version: Some(id.version),
            arch: Some(id.architecture),
            flags: wish.and_then(|wish| wish.flags.clone()),
            context: wish.and_then(|wish| wish.context.clone()),
            derivation: wish.map(|wish| wish.derivation.clone()).unwrap_or_default(),
            name: id.name,
            ..PackageSpec::default()
        });
    }
    if problems.is_empty() { Ok(packages) } else { Err(problems) }
}

/// The section of a profile that says which packages a node has; nodes that want the same share it.
#[derive(Debug, PartialEq, Eq)]
pub struct PackageSection {
    /// The XML.
    pub xml: String,
    /// Its digest.
    pub digest: Digest,
}

/// The package sections made so far.
#[derive(Debug, Default)]
pub struct Closures {
    /// By the address of the wishes, which are kept so that no others get the same.
    known: Mutex<BTreeMap<usize, Known>>,
}

/// Some wishes and what came of them, filled by the first thread that needs it.
type Known = (Arc<Vec<PackageSpec>>, Arc<OnceLock<Section>>);
type Section = Result<Arc<PackageSection>, Vec<Problem>>;

impl Closures {
    /// The packages of a node, solved and written once for all that share its wishes.
    ///
    /// # Errors
    /// As [`closed_packages`].
    pub fn section(&self, compiled: &Compiled, solve: &Solve) -> Section {
        let cell = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = || (Arc::clone(&compiled.wishes), Arc::default());
            Arc::clone(&known.entry(Arc::as_ptr(&compiled.wishes) as usize).or_insert_with(fresh).1)
        };
        let make = || {
            let mut packages = closed_packages(compiled, solve)?;
            packages.sort_by(PackageSpec::by_key);
            let xml = xml::packages(&packages);
            let digest = Digest::of(xml.as_bytes());
            Ok(Arc::new(PackageSection { xml, digest }))
        };
        cell.get_or_init(make).clone()
    }

    /// Forgets what no node's wishes lead to any more, and what could not be solved.
    pub fn tidy(&mut self) {
        let known = self.known.get_mut().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (wishes, cell)| {
            Arc::strong_count(wishes) > 1 && cell.get().is_some_and(Result::is_ok)
        });
    }
}

/// A profile but for its stamp, in pieces that share memory where they can.
#[derive(Clone, Debug)]
pub struct Made {
    /// The section of the components.
    pub components: Arc<str>,
    /// The section of the packages.
    pub packages: Arc<PackageSection>,
    /// The source files that were read.
    pub reads: BTreeSet<String>,
    /// The digests of the site's own components that are in it.
    pub programs: BTreeSet<Digest>,
}

/// Makes the sections of a node's profile.
///
/// # Errors
/// As [`closed_packages`].
pub fn make(compiled: &Compiled, closures: &Closures, solve: &Solve) -> Result<Made, Vec<Problem>> {
    let packages = closures.section(compiled, solve)?;
    let components = xml::components(listed(compiled)).into();
    Ok(Made { components, packages, reads: compiled.reads.clone(), programs: programs(compiled) })
}

/// The digests of the site's own components in a profile.
fn programs(compiled: &Compiled) -> BTreeSet<Digest> {
    let own = compiled.components.get(crate::compile::PROFILE);
    let all = own.into_iter().flat_map(|own| &own.resources);
    let programs = all.filter(|(name, _)| name.starts_with("program_"));
    programs.filter_map(|(_, resource)| resource.value.parse().ok()).collect()
}

/// What stands in a profile before the components and after the packages.
pub fn envelope(published: &Published) -> (String, String) {
    (xml::head(published), xml::tail(published))
}

/// The profile of one node, dated at the site's epoch: what the builder shows and bakes.
///
/// # Errors
/// As [`closed_packages`].
pub fn profile_of(
    site: &Site,
    solve: &Solve,
    compiled: &Compiled,
    node: &str,
) -> Result<Profile, Vec<Problem>> {
    let packages = closed_packages(compiled, solve)?;
    let stamp = stamp(site, site.epoch, format!("lcfg/source/{node}"));
    Ok(Profile::new(compiled, packages, stamp))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_takes_the_greatest_version_that_fits() {
        let versions = ["1.9-1", "1.10-2", "1:0.1-1", "2.0-1"];
        for (wish, exact) in [
            ("foo", Some("foo")),
            ("foo=1.*", Some("foo=1.10-2")),
            ("foo:i386=1.9", Some("foo:i386=1.9-1")),
            ("foo=1.9-1", Some("foo=1.9-1")),
            ("foo=*-1", Some("foo=1:0.1-1")),
            ("foo=3.*", None),
        ] {
            assert_eq!(exact_wish(wish, versions.into_iter()).as_deref(), exact, "{wish}");
        }
    }
}
