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

#[test]
fn a_node_whose_address_changes_is_heard_from_both() {
    let text = fs::read_to_string(cases()[0].join("site.toml")).unwrap();
    let old = Site::parse(&text).unwrap();
    let mut new = old.clone();
    let (mac, was) = (old.nodes[0].mac, old.nodes[0].address);
    new.nodes[0].address = "10.0.2.77".parse().unwrap();
    let filter = packets::nftables_conf(&new, Some(&old));
    assert!(filter.contains(&format!("{mac} . 10.0.2.77")) && filter.contains(&format!("{mac} . {was}")));
    // Not if another one has that address now.
    new.nodes.push(gatehouse_model::site::Node { name: "other".parse().unwrap(), ..old.nodes[0].clone() });
    let filter = packets::nftables_conf(&new, Some(&old));
    assert_eq!(filter.matches(&was.to_string()).count(), 1, "{filter}");
    assert_eq!(packets::nftables_conf(&new, None), packets::nftables_conf(&new, Some(&new)));
}

#[test]
fn only_a_host_with_machines_answers_those_that_start_from_the_network() {
    let text = fs::read_to_string(cases()[0].join("site.toml")).unwrap();
    let mut site = Site::parse(&text).unwrap();
    let filter = packets::nftables_conf(&site, None);
    assert!(!filter.contains("dport 67") && !filter.contains("dport 69"), "{filter}");
    let pair = format!("{} . {}", site.nodes[0].mac, site.nodes[0].address);
    assert!(filter.contains(&pair));
    site.nodes[0].machine = Some(gatehouse_model::site::DiskRule::default());
    let filter = packets::nftables_conf(&site, None);
    assert!(filter.contains("udp dport 67 accept") && filter.contains("udp dport 69 accept"), "{filter}");
    assert!(!filter.contains(&pair), "a VM could speak for the machine");
}

#[test]
fn a_running_hosts_files_are_renewed_where_they_differ() {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(cases()[0].join("site.toml")).unwrap();
    let old = Site::parse(&text).unwrap();
    for file in live(&old, None) {
        write_whole(&dir.path().join(file.path), file.text.as_bytes(), file.mode).unwrap();
    }
    let time = |name: &str| fs::metadata(dir.path().join(name)).unwrap().modified().unwrap();
    let before = time("resolv.conf");
    let mut new = old.clone();
    new.access.keys = vec!["ssh-ed25519 AAAA new".to_owned()];
    renew(&old, &new, dir.path()).unwrap();
    let keys = fs::read_to_string(dir.path().join("ssh/authorized_keys/root")).unwrap();
    assert_eq!(keys, "ssh-ed25519 AAAA new\n");
    assert_eq!(time("resolv.conf"), before);
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
