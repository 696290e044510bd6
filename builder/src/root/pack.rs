//! Packs a tree into what the image needs of it: a tar stream, a layer, or the installer's cpio archives.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::Command;

use gatehouse_model::{Doing as _, Fault};

use super::Spec;
use super::cpio;
use super::tree::{Entry, Kind, walk};

/// Compression of layers: above it the gain is below 2 % at twice the time.
const LAYER_LEVEL: i32 = 9;
/// Threads of the compressor: any number above 0 gives the same bytes.
const WORKERS: u32 = 2;

/// Modules that the installer may need under any vmm, with what they depend on.
const MODULES: [&str; 14] = [
    "xen-blkfront",
    "xen-netfront",
    "virtio_blk",
    "virtio_net",
    "virtio_pci",
    "virtio_scsi",
    "sd_mod",
    "ext4",
    "xfs",
    "vfat",
    "nls_ascii",
    "nls_cp437",
    "nls_iso8859-1",
    "erofs",
];

/// Directories of a package that a program in the installer never opens.
const UNNEEDED: [&str; 9] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/bash-completion",
    "usr/share/zsh",
    "usr/share/gdb",
    "boot",
];

/// The host: `root.tar`, and the boot files beside it.
pub fn host(root: &Path, spec: &Spec) -> Result<(), Fault> {
    for entry in walk(&root.join("boot"), spec.epoch)?.iter().filter(|entry| entry.kind == Kind::File) {
        let to = spec.out.join("boot").join(entry.name.replace('/', "_"));
        fs::create_dir_all(spec.out.join("boot")).doing(|| "making boot/")?;
        fs::copy(root.join("boot").join(&entry.name), &to).doing(|| format!("copying {}", entry.name))?;
    }
    // What is mounted over it on the machine must be a directory in the tree.
    for dir in ["depot", "srv/vms", "state"] {
        fs::create_dir_all(root.join(dir)).doing(|| format!("making /{dir}"))?;
    }
    // /var is the machine's own; dpkg's database describes the slot and stays with it.
    let sysimage = root.join("usr/lib/sysimage");
    fs::create_dir_all(&sysimage).doing(|| "making /usr/lib/sysimage")?;
    fs::rename(root.join("var/lib/dpkg"), sysimage.join("dpkg")).doing(|| "moving dpkg's database")?;
    std::os::unix::fs::symlink("../../usr/lib/sysimage/dpkg", root.join("var/lib/dpkg"))
        .doing(|| "linking dpkg's database")?;
    let path = spec.out.join("root.tar");
    let file = File::create(&path).doing(|| format!("making {}", path.display()))?;
    tar(root, spec.epoch, BufWriter::with_capacity(1 << 20, file)).map(drop)
}

/// A node: `layer.tar.zst`, and its figures in `layer.json`.
pub fn layer(root: &Path, spec: &Spec) -> Result<(), Fault> {
    let path = spec.out.join("layer.tar.zst");
    let file = File::create(&path).doing(|| format!("making {}", path.display()))?;
    let mut encoder = zstd::Encoder::new(file, LAYER_LEVEL).doing(|| "starting zstd")?;
    encoder.multithread(WORKERS).doing(|| "starting zstd")?;
    encoder.include_checksum(true).doing(|| "starting zstd")?;
    let (encoder, entries, unpacked) = tar(root, spec.epoch, encoder)?;
    encoder.finish().doing(|| format!("writing {}", path.display()))?;
    let json = serde_json::json!({ "entries": entries, "unpacked": unpacked });
    fs::write(spec.out.join("layer.json"), json.to_string()).doing(|| "writing layer.json")
}

struct Counted<W>(W, u64);

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.0.write(bytes)?;
        self.1 += u64::try_from(count).unwrap_or(0);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Writes a tree as a tar stream; returns the writer, the number of entries and of bytes.
fn tar<W: Write>(root: &Path, epoch: u64, to: W) -> Result<(W, usize, u64), Fault> {
    let mut builder = tar::Builder::new(Counted(to, 0));
    let entries = walk(root, epoch)?;
    // Without it the root directory would get whatever mode the reader thinks of.
    let mut top = tar::Header::new_gnu();
    top.set_entry_type(tar::EntryType::Directory);
    top.set_mode(0o755);
    top.set_mtime(epoch);
    top.set_uid(0);
    top.set_gid(0);
    top.set_size(0);
    builder.append_data(&mut top, "./", io::empty()).doing(|| "packing the root directory")?;
    for entry in &entries {
        append(&mut builder, root, entry).doing(|| format!("packing {}", entry.name))?;
    }
    let mut counted = builder.into_inner().doing(|| "ending the tar stream")?;
    counted.flush().doing(|| "writing the tar stream")?;
    Ok((counted.0, entries.len() + 1, counted.1))
}

fn append<W: Write>(builder: &mut tar::Builder<W>, root: &Path, entry: &Entry) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_uid(entry.uid.into());
    header.set_gid(entry.gid.into());
    header.set_mtime(entry.mtime);
    header.set_size(entry.size);
    match &entry.kind {
        Kind::Dir => {
            header.set_entry_type(tar::EntryType::Directory);
            builder.append_data(&mut header, format!("{}/", entry.name), io::empty())
        }
        Kind::File => {
            header.set_entry_type(tar::EntryType::Regular);
            let file = BufReader::with_capacity(256 << 10, File::open(root.join(&entry.name))?);
            builder.append_data(&mut header, &entry.name, file)
        }
        Kind::Link(to) => {
            header.set_entry_type(tar::EntryType::Link);
            builder.append_link(&mut header, &entry.name, to)
        }
        Kind::Symlink(to) => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            builder.append_link(&mut header, &entry.name, to)
        }
        Kind::Other => Ok(()),
    }
}

/// The installer: `base.cpio.zst`, `modules.cpio.zst` and `vmlinuz`.
pub fn installer(root: &Path, spec: &Spec) -> Result<(), Fault> {
    for dir in ["proc", "sys", "dev", "run", "tmp", "target", "gatehouse"] {
        fs::create_dir_all(root.join(dir)).doing(|| format!("making /{dir}"))?;
    }
    let kernel = kernel_release(root)?;
    let image = root.join("boot").join(format!("vmlinuz-{kernel}"));
    fs::copy(&image, spec.out.join("vmlinuz")).doing(|| format!("copying {}", image.display()))?;
    println!("choosing modules");
    let kept = choose_modules(root, &kernel)?;
    println!("packing");
    let modules = format!("usr/lib/modules/{kernel}");
    let entries = walk(root, spec.epoch)?;
    let of_modules = |entry: &&Entry| {
        entry.name == "usr" || entry.name == "usr/lib" || entry.name.starts_with("usr/lib/modules")
    };
    let wanted = |entry: &&Entry| match entry.name.strip_prefix(&format!("{modules}/")) {
        Some(_) if entry.kind == Kind::Dir => kept.iter().any(|path| path.starts_with(&entry.name)),
        Some(rest) => {
            kept.contains(&entry.name)
                || matches!(rest, "modules.order" | "modules.builtin" | "modules.builtin.modinfo")
        }
        None => true,
    };
    let (of, rest): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(of_modules);
    cpio::write(root, of.into_iter().filter(wanted), spec.epoch, &spec.out.join("modules.cpio.zst"))?;
    let needed = rest.into_iter().chain(entries.iter().filter(|e| e.name == "usr" || e.name == "usr/lib"));
    let needed: Vec<&Entry> = needed.filter(|e| !UNNEEDED.iter().any(|dir| below(&e.name, dir))).collect();
    let mut needed = needed;
    needed.sort_by(|a, b| a.name.cmp(&b.name));
    cpio::write(root, needed.into_iter(), spec.epoch, &spec.out.join("base.cpio.zst"))
}

fn below(name: &str, dir: &str) -> bool {
    name.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn kernel_release(root: &Path) -> Result<String, Fault> {
    let dir = root.join("usr/lib/modules");
    let entries = fs::read_dir(&dir).doing(|| format!("reading {}", dir.display()))?;
    let mut names: Vec<_> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names.pop().ok_or_else(|| Fault::new("the installer's packages hold no kernel"))
}

/// The paths of the wanted modules and of those they depend on; the rest is removed, so that depmod's
/// tables name only what is there.
fn choose_modules(root: &Path, kernel: &str) -> Result<BTreeSet<String>, Fault> {
    depmod(root, kernel)?;
    let dir = root.join("usr/lib/modules").join(kernel);
    let text = fs::read_to_string(dir.join("modules.dep")).doing(|| "reading modules.dep")?;
    let kept = closure(&text, &MODULES);
    let prefix = format!("usr/lib/modules/{kernel}/");
    for entry in walk(&dir, u64::MAX)? {
        if entry.kind == Kind::File && entry.name.contains(".ko") && !kept.contains(&entry.name) {
            fs::remove_file(dir.join(&entry.name)).doing(|| format!("removing {}", entry.name))?;
        }
    }
    depmod(root, kernel)?;
    let tables = [
        "dep",
        "dep.bin",
        "alias",
        "alias.bin",
        "symbols.bin",
        "softdep",
        "builtin.bin",
        "builtin.alias.bin",
        "devname",
    ];
    let tables = tables.iter().map(|name| format!("{prefix}modules.{name}"));
    Ok(kept.iter().map(|name| format!("{prefix}{name}")).chain(tables).collect())
}

fn depmod(root: &Path, kernel: &str) -> Result<(), Fault> {
    let output = Command::new("chroot")
        .arg(root)
        .args(["depmod", kernel])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin")
        .output()
        .doing(|| "starting depmod")?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(Fault::new(format!("depmod: {}", words.trim()))) }
}

/// The lines of `modules.dep` for some modules: their own paths and those they need.
fn closure(dep: &str, wanted: &[&str]) -> BTreeSet<String> {
    let module = |path: &str| {
        let file = path.rsplit('/').next().unwrap_or_default();
        file.split(".ko").next().unwrap_or_default().replace('-', "_")
    };
    let wanted: BTreeSet<String> = wanted.iter().map(|name| name.replace('-', "_")).collect();
    let lines = dep.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter(|(path, _)| wanted.contains(&module(path)))
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
        let kept: Vec<_> = closure(dep, &["x_y"]).into_iter().collect();
        assert_eq!(kept, ["kernel/a/x-y.ko.xz", "kernel/b/z.ko.xz"]);
        assert!(below("usr/share/doc/x", "usr/share/doc") && !below("usr/share/docs", "usr/share/doc"));
    }
}
