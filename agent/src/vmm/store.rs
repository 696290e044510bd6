//! Stores: sparse files, one for each disk of a node.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use gatehouse_model::{Doing as _, Fault, Size};
use serde::Deserialize;

use crate::node::partitions::Kind;
use crate::tool;

/// Ordinary users do not find it by its name.
const SFDISK: &str = "/usr/sbin/sfdisk";
/// What the second sector of a disk with a GPT begins with, and where it says in which sector the second table's header
/// is, the disk's last (UEFI 2.10, 5.3.2).
const SIGNATURE: &[u8] = b"EFI PART";
const BACKUP: std::ops::Range<usize> = 32..40;

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
    let mut header = [0; BACKUP.end];
    File::open(path).and_then(|file| file.read_exact_at(&mut header, 512)).doing(|| "reading its table")?;
    if !has_grown(&header, size) {
        return Ok(());
    }
    let name = path.as_os_str();
    let found = tool::run(SFDISK, &[OsStr::new("--json"), name])?;
    let found: Found = serde_json::from_str(&found).doing(|| "reading what sfdisk says of it")?;
    let Some(number) = grows(&found.partitiontable) else { return Ok(()) };
    let number = number.to_string();
    let args = ["--quiet", "--no-tell-kernel", "-N", &number].map(OsStr::new);
    tool::run_with_input(SFDISK, &[&args[..], &[name]].concat(), ", +\n").map(drop)
}

/// Whether a store is larger than its table knows; one without a table is not.
fn has_grown(header: &[u8; BACKUP.end], size: Size) -> bool {
    let last = header[BACKUP].try_into().map_or(u64::MAX, u64::from_le_bytes);
    header.starts_with(SIGNATURE) && last < (size.as_bytes() / 512).saturating_sub(1)
}

/// What `sfdisk --json` says.
#[derive(Deserialize)]
struct Found {
    partitiontable: Table,
}

#[derive(Deserialize)]
struct Table {
    #[serde(default)]
    partitions: Vec<Partition>,
}

#[derive(Deserialize)]
struct Partition {
    start: u64,
    #[serde(rename = "type")]
    kind: String,
}

/// The number of the partition that gets more room. More swap space is of no use to anybody.
fn grows(table: &Table) -> Option<usize> {
    let (index, last) = table.partitions.iter().enumerate().max_by_key(|(_, partition)| partition.start)?;
    (last.kind != Kind::Swap.guid("")).then_some(index + 1)
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

    /// What sfdisk says of a store that has this as its table.
    fn table(path: &Path, table: &str) -> Option<serde_json::Value> {
        if !Path::new(SFDISK).exists() {
            assert!(std::env::var_os("CI").is_none(), "{SFDISK} is missing; run ci/setup");
            println!("skipped, because {SFDISK} is missing");
            return None;
        }
        if !table.is_empty() {
            tool::run_with_input(SFDISK, &[OsStr::new("--quiet"), path.as_os_str()], table).expect("written");
        }
        let text = tool::run(SFDISK, &[OsStr::new("--json"), path.as_os_str()]).expect("read");
        Some(serde_json::from_str(&text).expect("sfdisk's form"))
    }

    #[test]
    fn the_last_partition_gets_the_room() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("disk0");
        let (linux, swap) = (Kind::Ext4.guid("/"), Kind::Swap.guid(""));
        for (first, last, wanted) in [(swap, linux, 125), (linux, swap, 61)] {
            let _ = fs::remove_file(&path);
            ensure(&path, Size::mib(64)).expect("made");
            let lines = format!("label: gpt\nsize=1MiB, type={first}\ntype={last}\n");
            let Some(made) = table(&path, &lines) else { return };
            ensure(&path, Size::mib(64)).expect("as it is");
            assert_eq!(table(&path, ""), Some(made));
            ensure(&path, Size::mib(128)).expect("grown");
            let found = table(&path, "").expect("there");
            let sectors = found["partitiontable"]["partitions"][1]["size"].as_u64().expect("a size");
            assert_eq!(sectors >> 11, wanted, "MiB of the last partition");
        }
    }

    #[test]
    fn only_a_table_that_ends_before_the_store_has_room() {
        let mut header = [0; BACKUP.end];
        header[BACKUP].copy_from_slice(&2047_u64.to_le_bytes());
        assert!(!has_grown(&header, Size::mib(2)), "no table");
        header[..SIGNATURE.len()].copy_from_slice(SIGNATURE);
        assert!(!has_grown(&header, Size::mib(1)));
        assert!(has_grown(&header, Size::mib(2)));
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
