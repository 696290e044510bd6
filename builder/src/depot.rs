//! The depot: layers, pool, installer and node kernels in one directory, with `depot.json` at its top.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use gatehouse_model::site::{Packages, VmmKind};
use gatehouse_model::{
    Depot, Digest, Doing as _, Fault, FileRef, Layer, Lock, MachineBoot, NodeKernel, PackageSet,
    SET_INSTALLER, SET_MACHINE, SET_TOOLS,
};
use serde::Deserialize;

use crate::cache::{Cache, digest_file, settle};
use crate::image::grub::Grub;
use crate::image::loader;
use crate::pool;
use crate::root::{Finish, Wanted, ensure, ensure_all};
use crate::tools::Tools;

/// What goes into a depot.
#[derive(Debug)]
pub struct Contents<'a> {
    /// The site's lock.
    pub lock: &'a Lock,
    /// The agent binary.
    pub agent: &'a Path,
    /// The project's `overlays/`.
    pub overlays: &'a Path,
    /// Seconds since 1970.
    pub epoch: u64,
    /// For which vmm the kernel and installer are made.
    pub vmm: VmmKind,
    /// The site's `[packages]`.
    pub packages: &'a Packages,
}

#[derive(Deserialize)]
struct Figures {
    entries: u64,
    unpacked: u64,
}

/// Makes the parts that are not in the cache, and the depot's directory of hard links to them.
///
/// # Errors
/// As [`ensure`]; the directory cannot be written.
pub fn make(contents: &Contents<'_>, cache: &Cache, to: &Path) -> Result<Depot, Fault> {
    ensure_all(&wanted(contents)?, contents.lock, cache)?;
    let mut depot = Depot {
        schema: 1,
        agent: add(to, contents.agent, "agent")?,
        kernels: BTreeMap::new(),
        machine: machine(contents, cache, to)?,
        layers: BTreeMap::new(),
        pool: pool::make(contents, cache, to)?,
    };
    let kernel = kernel(contents, cache, to)?;
    depot.kernels.insert(contents.vmm.to_string(), kernel);
    for set in layered(contents) {
        depot.layers.insert(set.closure(), layer(set, contents, cache, to)?);
    }
    let json = serde_json::to_string_pretty(&depot).doing(|| "writing depot.json")?;
    fs::write(to.join("depot.json"), json).doing(|| "writing depot.json")?;
    Ok(depot)
}

/// The package set of a name.
///
/// # Errors
/// The lock has none.
pub fn set<'a>(lock: &'a Lock, name: &str) -> Result<&'a PackageSet, Fault> {
    lock.set(name).ok_or_else(|| {
        Fault::new(format!("site.lock has no set {name}")).help("run `gatehouse lock` to write it anew")
    })
}

/// The roots that a depot is made from.
///
/// # Errors
/// The lock lacks a set.
pub fn wanted<'a>(contents: &Contents<'a>) -> Result<Vec<Wanted<'a>>, Fault> {
    let mut all = vec![installer(SET_INSTALLER, contents)?];
    if contents.lock.set(SET_MACHINE).is_some() {
        all.push(installer(SET_MACHINE, contents)?);
    }
    if contents.vmm != VmmKind::Xen {
        all.push(Tools::wanted(set(contents.lock, SET_TOOLS)?));
    }
    if contents.vmm == VmmKind::Uml {
        all.push(uml_modules(contents)?);
    }
    all.extend(layered(contents).map(|set| node(set, contents)));
    Ok(all)
}

/// The package sets that get a layer.
fn layered<'a>(contents: &Contents<'a>) -> impl Iterator<Item = &'a PackageSet> {
    let layers = contents.packages.layers;
    contents.lock.node_sets().filter(move |_| layers)
}

fn installer<'a>(name: &str, contents: &Contents<'a>) -> Result<Wanted<'a>, Fault> {
    Ok(Wanted {
        finish: Finish::Installer,
        set: set(contents.lock, name)?,
        overlays: vec![contents.overlays.join("installer")],
        files: vec![(contents.agent.to_owned(), "init".to_owned(), 0o755)],
        epoch: contents.epoch,
    })
}

fn node<'a>(set: &'a PackageSet, contents: &Contents<'_>) -> Wanted<'a> {
    // Its initramfs is made by what the overlay says of it.
    let overlays = vec![contents.overlays.join("node")];
    Wanted { finish: Finish::Layer, set, overlays, files: Vec::new(), epoch: contents.epoch }
}

fn uml_modules<'a>(contents: &Contents<'a>) -> Result<Wanted<'a>, Fault> {
    let set = set(contents.lock, SET_TOOLS)?;
    Ok(Wanted {
        finish: Finish::Modules,
        set,
        overlays: Vec::new(),
        files: Vec::new(),
        epoch: contents.epoch,
    })
}

fn kernel(contents: &Contents<'_>, cache: &Cache, to: &Path) -> Result<NodeKernel, Fault> {
    let installer = ensure(&installer(SET_INSTALLER, contents)?, contents.lock, cache)?;
    let base = add(to, &installer.join("base.cpio.zst"), "installer/base.cpio.zst")?;
    if contents.vmm == VmmKind::Uml {
        let tools = Tools::open(set(contents.lock, SET_TOOLS)?, contents.lock, cache)?;
        let kernel = uml_kernel(&tools, cache, to)?;
        let modules =
            add_layer(&ensure(&uml_modules(contents)?, contents.lock, cache)?, to, "kernels/uml/modules")?;
        return Ok(NodeKernel { kernel, initrd: vec![base], loader: None, modules: Some(modules) });
    }
    let modules = add(to, &installer.join("modules.cpio.zst"), "installer/modules.cpio.zst")?;
    let kernel = add(to, &installer.join("vmlinuz"), "kernels/linux/vmlinuz")?;
    // Xen has PV-GRUB.
    let loader = (contents.vmm == VmmKind::Kvm).then(|| node_loader(contents, cache, to)).transpose()?;
    Ok(NodeKernel { kernel, initrd: vec![base, modules], loader, modules: None })
}

/// What starts a node from its own disk under QEMU.
fn node_loader(contents: &Contents<'_>, cache: &Cache, to: &Path) -> Result<FileRef, Fault> {
    let packages = set(contents.lock, SET_TOOLS)?;
    let tools = Tools::open(packages, contents.lock, cache)?;
    add(to, &loader::make(&tools, &packages.closure(), cache)?, "kernels/kvm/loader")
}

/// What machines of their own start, where the site has any.
fn machine(contents: &Contents<'_>, cache: &Cache, to: &Path) -> Result<Option<MachineBoot>, Fault> {
    if contents.lock.set(SET_MACHINE).is_none() {
        return Ok(None);
    }
    let installer = ensure(&installer(SET_MACHINE, contents)?, contents.lock, cache)?;
    let installer = |name: &str| add(to, &installer.join(name), &format!("machine/{name}"));
    let initrd = vec![installer("base.cpio.zst")?, installer("modules.cpio.zst")?];
    let kernel = NodeKernel { kernel: installer("vmlinuz")?, initrd, loader: None, modules: None };
    let tools_set = set(contents.lock, SET_TOOLS)?;
    let tools = Tools::open(tools_set, contents.lock, cache)?;
    let grub = Grub::make(&tools, &tools_set.closure(), cache)?;
    let loader = |name: &str, bytes: &[u8]| {
        let path = format!("machine/{name}");
        fs::write(to.join(&path), bytes).doing(|| format!("putting {path} into the depot"))?;
        Ok::<_, Fault>(FileRef { path, size: bytes.len() as u64, sha256: Digest::of(bytes) })
    };
    Ok(Some(MachineBoot {
        kernel,
        net_bios: loader("bios.0", &grub.net_bios)?,
        net_efi: loader("uefi.efi", &grub.net_efi)?,
        boot: loader("boot.img", &grub.boot)?,
        core: loader("core.img", &grub.core)?,
        efi: loader("BOOTX64.EFI", &grub.efi)?,
    }))
}

/// The loader that the kernel of User Mode Linux names in its ELF header, and the room that the name has.
const LOADER: &[u8] = b"/lib64/ld-linux-x86-64.so.2\0";

/// UML with the libc of its own release beside it, so that it runs on any machine: its loader is named
/// relative to the directory it is started in. Running it through the loader instead does not work (it
/// takes the loader's heap for the end of memory), and a chroot would need its disks bound into it.
fn uml_kernel(tools: &Tools, cache: &Cache, to: &Path) -> Result<FileRef, Fault> {
    let from = tools.path("usr/bin/linux.uml");
    let mut bytes = fs::read(&from).doing(|| format!("reading {}", from.display()))?;
    let at = bytes.windows(LOADER.len()).position(|window| window == LOADER);
    let at = at.ok_or_else(|| Fault::new(format!("{} names another loader", from.display())))?;
    let mut name = b"./ld.so".to_vec();
    name.resize(LOADER.len(), 0);
    bytes[at..at + LOADER.len()].copy_from_slice(&name);
    let patched = cache.file(&Digest::of(&bytes));
    if !patched.exists() {
        let partial = cache.scratch("uml")?.join("linux");
        fs::write(&partial, &bytes).doing(|| format!("writing {}", partial.display()))?;
        fs::set_permissions(&partial, fs::Permissions::from_mode(0o755))
            .doing(|| "making linux executable")?;
        settle(&partial, &patched)?;
    }
    add(to, &tools.path("usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"), "kernels/uml/ld.so")?;
    add(to, &tools.path("usr/lib/x86_64-linux-gnu/libc.so.6"), "kernels/uml/libc.so.6")?;
    add(to, &patched, "kernels/uml/linux")
}

fn layer(set: &PackageSet, contents: &Contents<'_>, cache: &Cache, to: &Path) -> Result<Layer, Fault> {
    let root = ensure(&node(set, contents), contents.lock, cache)?;
    add_layer(&root, to, &format!("layers/{}", set.closure()))
}

fn add_layer(root: &Path, to: &Path, name: &str) -> Result<Layer, Fault> {
    let json = fs::read(root.join("layer.json")).doing(|| "reading layer.json")?;
    let figures: Figures = serde_json::from_slice(&json).doing(|| "reading layer.json")?;
    let file = add(to, &root.join("layer.tar.zst"), &format!("{name}.tar.zst"))?;
    Ok(Layer { file, unpacked: figures.unpacked, entries: figures.entries })
}

/// Puts a file of the cache into the depot: a link where the filesystem allows it, else a copy.
///
/// # Errors
/// It cannot be linked, copied or read.
pub fn add(depot: &Path, from: &Path, name: &str) -> Result<FileRef, Fault> {
    let to: PathBuf = depot.join(name);
    let doing = || format!("putting {name} into the depot");
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).doing(doing)?;
    }
    if to.exists() {
        fs::remove_file(&to).doing(doing)?;
    }
    if fs::hard_link(from, &to).is_err() {
        fs::copy(from, &to).doing(doing)?;
    }
    let (sha256, size): (Digest, u64) = digest_file(&to).doing(doing)?;
    Ok(FileRef { path: name.to_owned(), size, sha256 })
}
