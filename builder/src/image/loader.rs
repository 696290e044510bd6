//! GRUB in the form of a kernel: what QEMU is given to start the system on a node's own disk, whose menu it reads.
//! A disk or a floppy with GRUB on it would be one more device of every node.

use std::fs;
use std::path::PathBuf;

use gatehouse_model::{Digest, Doing as _, Fault};

use super::RECIPE;
use crate::cache::{Cache, settle};
use crate::interrupt::Fleeting;
use crate::tools::Tools;

/// What it does.
const SCRIPT: &str = include_str!("loader.cfg");
/// What it does first, in the small language that GRUB knows before `normal`.
const FIRST: &str = "serial --unit=0 --speed=115200\nterminal_input serial\nterminal_output serial\nnormal (memdisk)/grub.cfg\n";
/// What it needs for the script, and to read a menu and all that it names.
const MODULES: [&str; 17] = [
    "biosdisk",
    "configfile",
    "echo",
    "ext2",
    "fat",
    "linux",
    "memdisk",
    "normal",
    "part_gpt",
    "reboot",
    "regexp",
    "serial",
    "sleep",
    "tar",
    "test",
    "true",
    "xfs",
];

/// Makes it, or takes it from the cache; `packages` names the exact tools.
///
/// # Errors
/// grub-mkimage fails.
pub fn make(tools: &Tools, packages: &Digest, cache: &Cache) -> Result<PathBuf, Fault> {
    let key = format!("loader {RECIPE} {packages} {MODULES:?} {FIRST:?} {SCRIPT:?}");
    let done = cache.file(&Digest::of(key.as_bytes()));
    if done.exists() {
        return Ok(done);
    }
    let scratch = Fleeting::new(cache.scratch("loader")?);
    let at = |name: &str| scratch.path().join(name);
    let put = |name: &str, bytes: &[u8]| fs::write(at(name), bytes).doing(|| format!("writing {name}"));
    put("first.cfg", FIRST.as_bytes())?;
    put("memdisk.tar", &memdisk().doing(|| "packing the loader's script")?)?;
    let modules = tools.path("usr/lib/grub/i386-pc");
    let text = |path: PathBuf| path.display().to_string();
    let (from, first, script, core) =
        (text(modules.clone()), text(at("first.cfg")), text(at("memdisk.tar")), text(at("core.img")));
    let mut args =
        vec!["-O", "i386-pc", "-d", &from, "-p", "(memdisk)", "-c", &first, "-m", &script, "-o", &core];
    args.extend(MODULES);
    tools.run("usr/bin/grub-mkimage", &args).doing(|| "making GRUB's image for nodes")?;
    // GRUB's own head for loaders that know Linux only.
    let head = modules.join("lnxboot.img");
    let mut image = fs::read(&head).doing(|| format!("reading {}", head.display()))?;
    image.extend(fs::read(at("core.img")).doing(|| "reading core.img")?);
    put("loader", &image)?;
    settle(&at("loader"), &done)?;
    Ok(done)
}

/// The script as GRUB reads it from memory: an archive that is the same everywhere.
fn memdisk() -> std::io::Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(SCRIPT.len() as u64);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, "grub.cfg", SCRIPT.as_bytes())?;
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_lies_where_the_first_line_looks_for_it() {
        let bytes = memdisk().expect("packed");
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names: Vec<_> = archive
            .entries()
            .expect("an archive")
            .map(|entry| entry.expect("an entry").path().expect("a path").display().to_string())
            .collect();
        assert_eq!(names, ["grub.cfg"]);
        assert!(FIRST.ends_with("normal (memdisk)/grub.cfg\n"));
        assert_eq!(memdisk().expect("packed"), bytes);
    }
}
