//! Stores: sparse files, one for each disk of a node.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use gatehouse_model::{Doing as _, Fault, Size};

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
    file.sync_all().doing(doing)
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
