//! Packs a tree into what the image needs of it: a tar stream or a layer.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;

use gatehouse_model::{Doing as _, Fault};

use super::Spec;
use super::tree::{Entry, Kind, walk};

/// Compression of layers: above it the gain is below 2 % at twice the time.
const LAYER_LEVEL: i32 = 9;
/// Threads of the compressor: any number above 0 gives the same bytes.
const WORKERS: u32 = 2;

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
