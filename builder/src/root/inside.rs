//! Makes one root; runs as root of its namespaces, alone with a tree and no network.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

use gatehouse_deb::root::{self, Recipe, Told};
use gatehouse_model::{Doing as _, Fault};

use super::{ASIDE, Finish, Spec, installer, modules, overlay_files, pack};

/// Makes the root that a specification file describes; prints a line as each part is done.
///
/// # Errors
/// A package cannot be unpacked or configured; the message quotes the script's output.
pub fn make(spec: &Path) -> Result<(), Fault> {
    let text = fs::read_to_string(spec).doing(|| format!("reading {}", spec.display()))?;
    let spec: Spec = serde_json::from_str(&text).doing(|| format!("reading {}", spec.display()))?;
    // The umask would otherwise show in every directory that is made here.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    for dir in &spec.stale {
        // Left by a build that died; if it cannot go now, the next build tries again.
        let _ = fs::remove_dir_all(dir);
    }
    let root = spec.scratch.join("root");
    fs::create_dir_all(&root).doing(|| format!("making {}", root.display()))?;
    let result = fill(&spec, &root);
    fs::remove_dir_all(&spec.scratch).doing(|| format!("removing {}", spec.scratch.display()))?;
    result
}

fn fill(spec: &Spec, root: &Path) -> Result<(), Fault> {
    let recipe = Recipe {
        debs: &spec.debs,
        base: spec.base.as_deref(),
        epoch: spec.epoch,
        pv_grub: spec.finish == Finish::Layer,
        lay_over: &|| lay_over(spec, root),
        told: &tell,
    };
    match spec.finish {
        Finish::Tools => {
            root::plain(root, &recipe)?;
            fs::rename(root, spec.out.join("tree")).doing(|| "moving the tools")
        }
        Finish::Modules => {
            root::plain(root, &recipe)?;
            modules::pack(root, spec)
        }
        Finish::Base => match root::base(root, &recipe)? {
            None => fs::rename(root, spec.out.join("tree")).doing(|| "moving the base"),
            Some(_) => Ok(()),
        },
        Finish::Installer => {
            settle_conffiles(root, &root::plain(root, &recipe)?)?;
            lay_over(spec, root)?;
            installer::pack(root, spec)
        }
        Finish::Host | Finish::Layer => {
            root::make(root, &recipe)?;
            println!("packing");
            if spec.finish == Finish::Host { pack::host(root, spec) } else { pack::layer(root, spec) }
        }
    }
}

/// One line for each thing that is done.
fn tell(told: Told<'_>) {
    match told {
        Told::Unpacked(name) => println!("unpacking {name}"),
        Told::Configured(name) => println!("configuring {name}"),
        Told::Configuring(_) => {}
        Told::Initramfs => println!("making the initramfs"),
        Told::Aside(text) => println!("{ASIDE}{text}"),
    }
}

/// Puts configuration files where `dpkg --configure` would, for a tree that is not configured.
fn settle_conffiles(root: &Path, unpacked: &[gatehouse_deb::Unpacked]) -> Result<(), Fault> {
    for conffile in unpacked.iter().flat_map(|package| package.control.conffiles()) {
        let to = root.join(conffile.path.trim_start_matches('/'));
        let waiting = root.join(format!("{}.dpkg-new", conffile.path.trim_start_matches('/')));
        if waiting.exists() {
            fs::rename(&waiting, &to).doing(|| format!("putting {} in place", conffile.path))?;
        }
    }
    Ok(())
}

fn lay_over(spec: &Spec, root: &Path) -> Result<(), Fault> {
    for dir in &spec.overlays {
        for (name, from, mode) in overlay_files(dir)? {
            put(&from, &root.join(name.trim_start_matches('/')), mode)?;
        }
    }
    for (from, name, mode) in &spec.files {
        put(from, &root.join(name.trim_start_matches('/')), *mode)?;
    }
    Ok(())
}

fn put(from: &Path, to: &Path, mode: u32) -> Result<(), Fault> {
    let doing = || format!("laying {} over the tree", to.display());
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).doing(doing)?;
    }
    if fs::symlink_metadata(to).is_ok() {
        fs::remove_file(to).doing(doing)?;
    }
    if fs::symlink_metadata(from).doing(doing)?.is_symlink() {
        return symlink(fs::read_link(from).doing(doing)?, to).doing(doing);
    }
    fs::copy(from, to).doing(doing)?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).doing(doing)?;
    chown(to, Some(0), Some(0)).doing(doing)
}
