//! Golden files: `golden/NAME/site.toml` and what it makes below `golden/NAME/etc/`. `BLESS=1` rewrites.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

fn cases() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/host/etc/golden");
    let mut cases: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

fn rendered(case: &Path) -> Vec<EtcFile> {
    let site = Site::parse(&fs::read_to_string(case.join("site.toml")).unwrap()).unwrap();
    render(&site, "52:54:00:12:34:56".parse().unwrap(), "0123456789abcdef0123456789abcdef")
}

fn files_below(dir: &Path) -> usize {
    let count = |path: PathBuf| if path.is_dir() { files_below(&path) } else { 1 };
    fs::read_dir(dir).map_or(0, |entries| entries.map(|entry| count(entry.unwrap().path())).sum())
}

#[test]
fn every_file_is_as_it_was() {
    for case in cases() {
        let files = rendered(&case);
        for file in &files {
            let path = case.join("etc").join(file.path);
            if std::env::var_os("BLESS").is_some() {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, &file.text).unwrap();
            }
            let golden = fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(file.text, golden, "{}; if meant, BLESS=1", path.display());
        }
        assert_eq!(files_below(&case.join("etc")), files.len(), "{} holds more than is made", case.display());
    }
}

/// nft itself reads the packet filter; it needs a network of its own to look at.
#[test]
fn the_packet_filter_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    for case in cases() {
        let path = dir.path().join("nftables.conf");
        let files = rendered(&case);
        fs::write(&path, &files.iter().find(|file| file.path == "nftables.conf").unwrap().text).unwrap();
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "/usr/sbin/nft", "-c", "-f"])
            .arg(&path)
            .output();
        let output = match output {
            Ok(output) => output,
            Err(error) => return skip(&error.to_string()),
        };
        let words = String::from_utf8_lossy(&output.stderr);
        if words.contains("failed to execute") || words.contains("Operation not permitted") {
            return skip(&words);
        }
        assert!(output.status.success(), "{}: {words}", case.display());
    }
}

fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    println!("skipped, because {why}");
}
