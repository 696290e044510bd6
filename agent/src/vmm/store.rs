//! Stores: sparse files, one for each disk of a node.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use gatehouse_model::{Doing as _, Fault, Size};
use serde::Deserialize;

use crate::node::partitions::{Kind, TABLE_SECTORS};
use crate::tool;

/// What the second sector of a disk with a GPT begins with (UEFI 2.10, 5.3.2).
const SIGNATURE: &[u8] = b"EFI PART";

/// Makes a store, or makes it larger; it is never made smaller. Its blocks are allocated as they are written.
///
/// # Errors
/// The file cannot be made or is larger than asked.
pub fn ensure(path: &Path, size: Size) -> Result<(), Fault> {
    let doing = || format!("making the store {}", path.display());
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).doing(doing)?;
    }
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(path).doing(doing)?;
    let have = file.metadata().doing(doing)?.len();
    if have > size.as_bytes() {
        let text = format!("{} has {} bytes, site.toml asks for {size}", path.display(), have);
        return Err(
            Fault::new(text).help("a store is never made smaller; write the larger size into site.toml")
        );
    }
    file.set_len(size.as_bytes()).doing(doing)?;
    file.sync_all().doing(doing)?;
    if have > 0 { fill(path, size).doing(doing) } else { Ok(()) }
}

/// Gives the room of a store that has grown to its last partition, if that holds a file system, which the node itself
/// enlarges at its start. A store without a partition table is left as it is: it was never installed.
fn fill(path: &Path, size: Size) -> Result<(), Fault> {
    let mut header = [0; SIGNATURE.len()];
    File::open(path).and_then(|file| file.read_exact_at(&mut header, 512)).doing(|| "reading its table")?;
    if header != SIGNATURE {
        return Ok(());
    }
    let name = path.as_os_str();
    let found = tool::run("sfdisk", &[OsStr::new("--json"), name])?;
    let found: Found = serde_json::from_str(&found).doing(|| "reading what sfdisk says of it")?;
    let Some(number) = grows(&found.partitiontable, size) else { return Ok(()) };
    let number = number.to_string();
    let args = ["--quiet", "--no-tell-kernel", "-N", &number].map(OsStr::new);
    tool::run_with_input("sfdisk", &[&args[..], &[name]].concat(), ", +\n").map(drop)
}

/// What `sfdisk --json` says.
#[derive(Deserialize)]
struct Found {
    partitiontable: Table,
}

#[derive(Deserialize)]
struct Table {
    /// The last sector that a partition may have, which a GPT knows.
    lastlba: Option<u64>,
    #[serde(default)]
    partitions: Vec<Partition>,
}

#[derive(Deserialize)]
struct Partition {
    start: u64,
    #[serde(rename = "type")]
    kind: String,
}

/// The number of the partition that gets the room of a store that is larger than its table knows. More swap space is of
/// no use to anybody.
fn grows(table: &Table, size: Size) -> Option<usize> {
    let has_grown = table.lastlba? + 1 + TABLE_SECTORS < size.as_bytes() / 512;
    let (index, last) = table.partitions.iter().enumerate().max_by_key(|(_, partition)| partition.start)?;
    (has_grown && last.kind != Kind::Swap.guid("")).then_some(index + 1)
}

/// How many bytes of a store are allocated.
///
/// # Errors
/// There is no such file.
pub fn allocated(path: &Path) -> Result<Size, Fault> {
    let meta = fs::metadata(path).doing(|| format!("reading {}", path.display()))?;
    Ok(Size::bytes(meta.blocks() * 512))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_partition_gets_the_room() {
        let swap = Kind::Swap.guid("");
        let table = |kind: &str| {
            let text = format!(
                r#"{{"partitiontable": {{"label": "gpt", "lastlba": 204766, "partitions": [
                    {{"node": "a1", "start": 2048, "size": 2048, "type": "{swap}"}},
                    {{"node": "a2", "start": 4096, "size": 200000, "type": "{kind}"}}]}}}}"#
            );
            serde_json::from_str::<Found>(&text).expect("sfdisk's form").partitiontable
        };
        let linux = Kind::Ext4.guid("/");
        assert_eq!(grows(&table(linux), Size::mib(100)), None);
        assert_eq!(grows(&table(linux), Size::mib(101)), Some(2));
        assert_eq!(grows(&table(swap), Size::mib(101)), None);
        let none = Table { lastlba: None, partitions: Vec::new() };
        assert_eq!(grows(&none, Size::mib(101)), None);
    }

    #[test]
    fn a_store_is_sparse_grows_and_never_shrinks() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("fs/disk0");
        ensure(&path, Size::mib(64)).expect("made");
        ensure(&path, Size::mib(128)).expect("grown");
        assert_eq!(fs::metadata(&path).expect("there").len(), 128 << 20);
        assert_eq!(allocated(&path).expect("there"), Size::bytes(0));
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        let fault = ensure(&path, Size::mib(1)).expect_err("smaller");
        assert!(fault.render().contains("never made smaller"), "{}", fault.render());
    }
}
