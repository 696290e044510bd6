//! The modules of User Mode Linux that nodes need. Its kernel is no package of theirs, so they come as a layer of their
//! own, which is laid over a node's packages.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use gatehouse_model::{Doing as _, Fault};

use super::{Spec, pack};

/// Where the package has its modules, by release.
const HERE: &str = "usr/lib/uml/modules";
/// Where a node looks for them.
const THERE: &str = "usr/lib/modules";
/// Modules that nodes may need, with what they depend on. All of them would be 160 MB on every node, since Debian does
/// not strip them.
const MODULES: [&str; 9] =
    ["autofs4", "binfmt_misc", "fuse", "loop", "nfsd", "nfsv3", "nfsv4", "overlay", "xfs"];
/// What modprobe reads.
const TABLES: &str = "modules.";

/// The modules: `layer.tar.zst`, and its figures in `layer.json`.
pub fn pack(root: &Path, spec: &Spec) -> Result<(), Fault> {
    println!("choosing modules");
    let all = root.join(HERE);
    let release = release(&all)?;
    let (from, tree) = (all.join(&release), spec.scratch.join("modules"));
    let to = tree.join(THERE).join(&release);
    let dep = fs::read_to_string(from.join("modules.dep")).doing(|| "reading modules.dep")?;
    for name in closure(&dep, &MODULES, &[]).into_iter().chain(tables(&from)?) {
        let place = to.join(&name);
        fs::create_dir_all(place.parent().unwrap_or(&to)).doing(|| format!("making the place of {name}"))?;
        fs::rename(from.join(&name), place).doing(|| format!("moving {name}"))?;
    }
    println!("packing");
    pack::layer(&tree, spec)
}

fn release(modules: &Path) -> Result<String, Fault> {
    let entries = fs::read_dir(modules).doing(|| format!("reading {}", modules.display()))?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.max().ok_or_else(|| Fault::new("User Mode Linux has no modules"))
}

fn tables(from: &Path) -> Result<Vec<String>, Fault> {
    let entries = fs::read_dir(from).doing(|| format!("reading {}", from.display()))?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| name.starts_with(TABLES)).collect())
}

/// The lines of `modules.dep` for some modules and for whole directories: their own paths and those they need.
pub(super) fn closure(dep: &str, wanted: &[&str], everywhere: &[&str]) -> BTreeSet<String> {
    let module = |path: &str| {
        let file = path.rsplit('/').next().unwrap_or_default();
        file.split(".ko").next().unwrap_or_default().replace('-', "_")
    };
    let wanted: BTreeSet<String> = wanted.iter().map(|name| name.replace('-', "_")).collect();
    let lines = dep.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter(|(path, _)| {
            wanted.contains(&module(path)) || everywhere.iter().any(|dir| path.starts_with(dir))
        })
        .flat_map(|(path, needs)| std::iter::once(path).chain(needs.split_whitespace()))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_bring_what_they_need() {
        let dep = "kernel/a/x-y.ko.xz: kernel/b/z.ko.xz\nkernel/b/z.ko.xz:\nkernel/c/w.ko.xz:\n";
        let kept: Vec<_> = closure(dep, &["x_y"], &[]).into_iter().collect();
        assert_eq!(kept, ["kernel/a/x-y.ko.xz", "kernel/b/z.ko.xz"]);
        let kept: Vec<_> = closure(dep, &["x_y"], &["kernel/c/"]).into_iter().collect();
        assert_eq!(kept.last().map(String::as_str), Some("kernel/c/w.ko.xz"));
    }
}
