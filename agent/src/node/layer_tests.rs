//! Packs trees with tar and zstd, puts them down again and compares.

use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use gatehouse_model::{Digest, Fault, FileRef, Layer};

use super::*;

/// Bytes in memory; every connection breaks after some of them.
struct Breaking {
    bytes: Vec<u8>,
    after: usize,
}

impl Source for Breaking {
    fn open(&self, from: u64) -> Result<Box<dyn Read + Send>, Fault> {
        let from = usize::try_from(from)?;
        let rest = self.bytes[from..].to_vec();
        let broken = rest.len() > self.after;
        let part = io::Cursor::new(rest).take(self.after as u64);
        Ok(if broken { Box::new(part.chain(Broken)) } else { Box::new(part) })
    }
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

/// A tree with everything that a Debian root has.
fn tree(root: &Path) {
    let path = |name: &str| root.join(name);
    fs::create_dir_all(path("usr/bin")).expect("directory");
    fs::create_dir_all(path("var/mail")).expect("directory");
    fs::create_dir(path("locked")).expect("directory");
    fs::write(path("usr/bin/su"), "x".repeat(700_000)).expect("file");
    fs::write(path("usr/bin/empty"), "").expect("file");
    fs::write(path("locked/in"), "inside").expect("file");
    let long = format!("usr/{}", "long-name-".repeat(20));
    fs::write(path(&long), "a name longer than a tar header holds").expect("file");
    fs::hard_link(path("usr/bin/su"), path("usr/bin/su-too")).expect("hard link");
    symlink("usr/bin", path("bin")).expect("link");
    symlink("/nowhere/at/all", path("dangling")).expect("link");
    nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRUSR).expect("fifo");
    for (name, mode) in
        [("usr/bin/su", 0o4755), ("usr/bin/empty", 0o600), ("var/mail", 0o2775), ("locked", 0o555)]
    {
        fs::set_permissions(path(name), Permissions::from_mode(mode)).expect("mode");
    }
    if nix::unistd::Uid::effective().is_root() {
        std::os::unix::fs::chown(path("var/mail"), Some(12), Some(8)).expect("owner");
        std::os::unix::fs::lchown(path("dangling"), Some(12), Some(8)).expect("owner");
        fs::set_permissions(path("var/mail"), Permissions::from_mode(0o2775)).expect("mode");
    } else {
        eprintln!("skipped, because not root: owners of unpacked files");
    }
    for name in ["usr/bin/su", "usr/bin", "locked", "."] {
        let status = Command::new("touch").args(["-d", "2020-02-02T02:02:02Z"]).arg(path(name)).status();
        assert!(status.expect("touch").success());
    }
}

/// One line for every entry: all that unpacking must keep.
fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = vec![PathBuf::from("")];
    while let Some(directory) = pending.pop() {
        let here = root.join(&directory);
        let mut names: Vec<_> =
            fs::read_dir(&here).expect("readable").map(|e| e.expect("entry").path()).collect();
        names.push(here);
        for path in names {
            let meta = fs::symlink_metadata(&path).expect("there");
            let name = path.strip_prefix(root).expect("below").to_owned();
            let what = match meta.file_type() {
                kind if kind.is_symlink() => fs::read_link(&path).expect("link").display().to_string(),
                kind if kind.is_file() => Digest::of(&fs::read(&path).expect("file")).short(),
                kind if kind.is_fifo() => "fifo".to_owned(),
                _ => "directory".to_owned(),
            };
            // The number of links of a directory depends on the file system, those of a file do not.
            let names_of_it = if meta.is_dir() { 0 } else { meta.nlink() };
            let owner = (meta.uid(), meta.gid());
            lines.push(format!("{name:?} {:o} {owner:?} {names_of_it} {} {what}", meta.mode(), meta.mtime()));
            if meta.is_dir() && name != directory {
                pending.push(name);
            }
        }
    }
    lines.sort();
    lines
}

fn pack(root: &Path) -> Vec<u8> {
    let mut tar = Command::new("tar");
    let tar =
        tar.args(["--format=pax", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-cf", "-", "-C"]);
    let out = tar.arg(root).arg(".").output().expect("tar");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    zstd::encode_all(out.stdout.as_slice(), 3).expect("packed")
}

fn layer(bytes: &[u8]) -> Layer {
    let file =
        FileRef { path: "layers/x.tar.zst".into(), size: bytes.len() as u64, sha256: Digest::of(bytes) };
    Layer { file, unpacked: 0, entries: 0 }
}

#[test]
fn a_layer_comes_out_as_it_went_in_over_a_broken_line() {
    let from = tempfile::tempdir().expect("directory");
    let to = tempfile::tempdir().expect("directory");
    tree(from.path());
    let capable =
        Command::new("setcap").arg("cap_net_raw=ep").arg(from.path().join("usr/bin/empty")).status();
    let bytes = pack(from.path());
    // Mount points are there before.
    fs::create_dir(to.path().join("var")).expect("directory");
    let layer = layer(&bytes);
    let source = Breaking { after: bytes.len() / 3 + 1, bytes };
    let done = put_down(source, &layer, to.path(), &mut |_, _| {}).expect("unpacked");
    assert_eq!(listing(to.path()), listing(from.path()));
    assert_eq!(done.entries, 14);
    let inodes =
        ["usr/bin/su", "usr/bin/su-too"].map(|name| to.path().join(name).metadata().expect("there").ino());
    assert_eq!(inodes[0], inodes[1]);
    if capable.is_ok_and(|status| status.success()) {
        let out = Command::new("getcap").arg(to.path().join("usr/bin/empty")).output().expect("getcap");
        assert!(String::from_utf8_lossy(&out.stdout).contains("cap_net_raw=ep"));
    } else {
        eprintln!("skipped, because setcap does not work here: extended attributes");
    }
}

#[test]
fn a_damaged_layer_is_a_mismatch() {
    let from = tempfile::tempdir().expect("directory");
    let to = tempfile::tempdir().expect("directory");
    fs::write(from.path().join("file"), "contents").expect("file");
    let bytes = pack(from.path());
    let mut other = layer(&bytes);
    other.file.sha256 = Digest::of(b"something else");
    let whole = bytes.len();
    let source = Breaking { bytes, after: whole };
    let fault = put_down(source, &other, to.path(), &mut |_, _| {}).expect_err("another digest");
    assert_eq!(fault.exit_status(), gatehouse_model::Exit::Mismatch);
}

#[test]
fn a_line_that_gives_nothing_is_given_up() {
    let mut layer = layer(b"four");
    layer.file.size = 100;
    let to = tempfile::tempdir().expect("directory");
    let source = Breaking { bytes: b"four".to_vec(), after: 4 };
    let fault = put_down(source, &layer, to.path(), &mut |_, _| {}).expect_err("too short");
    assert!(fault.to_string().contains("download ends after 4 of 100 bytes"), "{fault}");
}

#[test]
fn nothing_is_unpacked_outside_the_root() {
    for (name, link) in [("../out", None), ("way/out", Some("/")), ("way/out", Some(".."))] {
        let place = tempfile::tempdir().expect("directory");
        let root = place.path().join("root");
        fs::create_dir(&root).expect("directory");
        let mut tar = tar::Builder::new(Vec::new());
        if let Some(target) = link {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            tar.append_link(&mut header, "way", target).expect("packed");
        }
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(3);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, &b"bad"[..]).expect("packed");
        let bytes = tar.into_inner().expect("packed");
        assert!(unpack(bytes.as_slice(), &root).is_err(), "{name} {link:?}");
        assert!(!place.path().join("out").exists());
        assert!(!root.join("out").exists());
    }
}
