//! Packages made by dpkg-deb, unpacked here and by dpkg itself: tree, lists and status must be the same.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise, helpers too")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use gatehouse_deb::{Deb, Unpacked, read_status, unpack, unpack_all, with_preinst, write};

/// A scratch folder, or the reason why this test cannot run here; in CI that is a failure.
fn scratch() -> Option<tempfile::TempDir> {
    let missing = if nix::unistd::geteuid().is_root() {
        let tool = Command::new("dpkg-deb").arg("--version").output();
        tool.is_err().then_some("there is no dpkg-deb")
    } else {
        Some("owners can only be set by root")
    };
    if let Some(why) = missing {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
        eprintln!("skipped, because {why}");
        return None;
    }
    Some(tempfile::tempdir().unwrap())
}

/// The time in archives made here.
const EPOCH: &str = "1700000000";

/// A package to be made.
struct Made {
    tree: PathBuf,
    control: String,
}

impl Made {
    fn new(scratch: &Path, name: &str, fields: &str) -> Self {
        let tree = scratch.join("trees").join(name);
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        let control = format!("Package: {name}\nVersion: 1:2.0-1\nMaintainer: A <a@example.org>\n{fields}");
        Self { tree, control }
    }

    fn file(self, path: &str, text: &str, mode: u32) -> Self {
        let path = self.tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    fn link(self, path: &str, target: &str) -> Self {
        let path = self.tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    fn hard(self, path: &str, target: &str) -> Self {
        fs::hard_link(self.tree.join(target), self.tree.join(path)).unwrap();
        self
    }

    fn build(self, compression: &str) -> PathBuf {
        fs::write(self.tree.join("DEBIAN/control"), &self.control).unwrap();
        let deb = self.tree.with_extension("deb");
        let mut command = Command::new("dpkg-deb");
        command.args(["--root-owner-group", compression, "--build"]).arg(&self.tree).arg(&deb);
        run(command.env("SOURCE_DATE_EPOCH", EPOCH));
        deb
    }
}

fn run(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

fn samples(scratch: &Path) -> Vec<PathBuf> {
    let plain = "Architecture: all\nDescription: short \n long\n .\n more\n";
    let base = Made::new(scratch, "base-files", &format!("{plain}Essential: yes\n"))
        .file("usr/bin/sh", "shell", 0o755)
        .file("usr/lib/libx", "lib", 0o644)
        .link("bin", "usr/bin")
        // Never absolute here: dpkg with --root follows such a link out of the root, onto the machine itself.
        .link("lib", "usr/lib")
        .build("-Zxz");
    let odd = "Architecture: all\nMulti-Arch: no\nEssential: no\nPriority: Optional\nX-Odd: y\n\
               Depends: foo(>=0:1.0)|bar ,\n baz, q:any (= 2)\nDescription: s\nHomepage: none\n";
    let links = Made::new(scratch, "links", odd)
        .file("bin/su", "su", 0o4755)
        .hard("bin/sudo", "bin/su")
        .link("usr/share/doc/links", "../doc")
        .file("etc/links.conf", "conf", 0o640)
        .file("etc/other.conf", "conf2", 0o600)
        .file("DEBIAN/conffiles", "/etc/links.conf\n/etc/other.conf\nremove-on-upgrade /etc/old\n", 0o644)
        .file("DEBIAN/preinst", "#!/bin/sh\n", 0o755)
        .file("DEBIAN/postinst", "#!/bin/sh\n", 0o755)
        .file("DEBIAN/triggers", "interest-noawait /usr/share/man\ninterest cache\nactivate other\n", 0o644)
        .build("-Zgzip");
    let same = "Architecture: amd64\nMulti-Arch: same\nSource: multi (1.2)\nDescription: s\n";
    let multi = Made::new(scratch, "multi", same)
        .file("lib/deep/er/libm", "m", 0o644)
        .file("DEBIAN/triggers", "interest /usr/lib\ninterest other\n", 0o644)
        .file("DEBIAN/md5sums", "6f8f57715090da2632453988d9a1501b  lib/deep/er/libm\n", 0o644)
        .build("-Zzstd");
    let none = Made::new(scratch, "none", plain).file("usr/share/none/a b", &"long".repeat(50), 0o644);
    vec![base, links, multi, none.build("-Znone")]
}

/// What a tree looks like: type, mode, owners, time, contents and hard links of each path.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if name == "var/lib/dpkg" {
                continue;
            }
            let mut line = format!("{:o} {}:{} {}", meta.mode(), meta.uid(), meta.gid(), meta.nlink());
            if meta.is_dir() {
                open.push(path);
            } else {
                let text = if meta.is_symlink() {
                    fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
                } else {
                    fs::read(&path).unwrap()
                };
                line = format!("{line} {} {}", meta.mtime(), String::from_utf8_lossy(&text));
            }
            out.insert(name, line);
        }
    }
    out
}

/// dpkg's database without what dpkg keeps only for itself, and without times.
fn database(root: &Path) -> BTreeMap<String, String> {
    let dpkgs = ["lock", "lock-frontend", "status-old", "triggers/Lock"];
    let admin = root.join("var/lib/dpkg");
    let mut out = BTreeMap::new();
    for folder in ["", "info", "triggers"] {
        for entry in fs::read_dir(admin.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&admin).unwrap().display().to_string();
            if path.is_file() && !dpkgs.contains(&name.as_str()) {
                let mode = fs::metadata(&path).unwrap().mode();
                out.insert(name, format!("{mode:o}\n{}", fs::read_to_string(&path).unwrap()));
            }
        }
    }
    out
}

/// dpkg runs `preinst` in a chroot, where these packages have no shell: a copy without the script stands in.
fn by_dpkg(scratch: &Path, debs: &[PathBuf]) -> PathBuf {
    let root = scratch.join("dpkg");
    fs::create_dir_all(root.join("var/lib/dpkg")).unwrap();
    for deb in debs {
        let tree = deb.with_extension("");
        let script = tree.join("DEBIAN/preinst");
        if script.exists() {
            fs::remove_file(&script).unwrap();
            let mut command = Command::new("dpkg-deb");
            command.args(["--root-owner-group", "-b"]).arg(&tree).arg(deb).env("SOURCE_DATE_EPOCH", EPOCH);
            run(&mut command);
        }
    }
    let mut command = Command::new("dpkg");
    command.arg("--root").arg(&root).args([
        "--log=/dev/null",
        "--force-depends",
        "--force-architecture",
        "--unpack",
    ]);
    run(command.args(debs));
    root
}

fn by_us(scratch: &Path, name: &str, debs: &[PathBuf], threads: usize) -> (PathBuf, Vec<Unpacked>) {
    let root = scratch.join(name);
    fs::create_dir(&root).unwrap();
    let all = unpack_all(debs, &root, threads, &|_, _| {}).map_err(|fault| fault.render()).unwrap();
    write(&root, &all, 1_700_000_000).map_err(|fault| fault.render()).unwrap();
    (root, all)
}

#[test]
fn the_tree_and_the_database_are_dpkgs() {
    let Some(scratch) = scratch() else { return };
    let debs = samples(scratch.path());
    let (_, with_script) = by_us(scratch.path(), "script", &debs, 1);
    let names: Vec<_> = with_preinst(&with_script).iter().map(|package| package.control.name()).collect();
    assert_eq!(names, ["links"]);
    let theirs = by_dpkg(scratch.path(), &debs);
    for threads in [1, 4] {
        let (ours, _) = by_us(scratch.path(), &format!("ours{threads}"), &debs, threads);
        // dpkg made the folders above its database itself; here they are made with it.
        assert_eq!(tree(&ours), tree(&theirs));
        assert_eq!(database(&ours), database(&theirs));
        let status = read_status(&ours).unwrap();
        let found: Vec<_> = status.iter().map(|p| (p.database_name(), p.state.as_str())).collect();
        let unpacked = |name: &str| (name.to_owned(), "unpacked");
        let wanted = ["base-files", "links", "multi:amd64", "none"].map(unpacked);
        assert_eq!(found, wanted);
    }
}

#[test]
fn the_last_package_has_a_contested_path_whatever_the_threads() {
    let Some(scratch) = scratch() else { return };
    let make = |name: &str, folder_mode: u32| {
        let made = Made::new(scratch.path(), name, "Architecture: all\nDescription: s\n").file(
            "usr/share/x",
            &name.repeat(1000),
            0o644,
        );
        let made = made.file(&format!("opt/{name}"), name, 0o644);
        fs::set_permissions(made.tree.join("opt"), fs::Permissions::from_mode(folder_mode)).unwrap();
        made.build("-Zxz")
    };
    let debs = [make("a", 0o711), make("c", 0o755), make("b", 0o750)];
    for turn in 0..8 {
        let (root, all) = by_us(scratch.path(), &format!("turn{turn}"), &debs, 3);
        assert_eq!(fs::read_to_string(root.join("usr/share/x")).unwrap(), "b".repeat(1000));
        assert_eq!(
            fs::metadata(root.join("opt")).unwrap().mode() & 0o7777,
            0o711,
            "the first keeps its looks"
        );
        let lost: Vec<_> =
            all[2].overlaps.iter().map(|o| (o.other.as_deref().unwrap(), o.undecided)).collect();
        assert_eq!(lost, [("a", false), ("c", false)]);
        let has = |package: &Unpacked| package.files.iter().any(|path| path == "/usr/share/x");
        assert_eq!(all.iter().map(has).collect::<Vec<_>>(), [false, false, true]);
    }
}

#[test]
fn a_directory_against_a_link_is_undecided() {
    let Some(scratch) = scratch() else { return };
    let make = |name: &str| Made::new(scratch.path(), name, "Architecture: all\nDescription: s\n");
    let link = make("link").link("usr/share/y", "z").file("usr/share/z/a", "a", 0o644).build("-Zxz");
    let folder = make("folder").file("usr/share/y/b", "b", 0o644).build("-Zxz");
    for (turn, debs) in [[link.clone(), folder.clone()], [folder, link]].iter().enumerate() {
        let (_, all) = by_us(scratch.path(), &format!("turn{turn}"), debs, 1);
        let undecided: Vec<_> = all.iter().flat_map(|p| &p.overlaps).filter(|o| o.undecided).collect();
        assert_eq!(undecided.len(), 1);
        assert_eq!(undecided[0].path, "/usr/share/y");
    }
}

#[test]
fn packages_on_a_configured_base_wake_its_triggers() {
    let Some(scratch) = scratch() else { return };
    let debs = samples(scratch.path());
    let (root, _) = by_us(scratch.path(), "root", &debs[..3], 2);
    let path = root.join("var/lib/dpkg/status");
    let text = fs::read_to_string(&path).unwrap().replace("ok unpacked", "ok installed");
    fs::write(&path, text).unwrap();
    let more = Made::new(scratch.path(), "more", "Architecture: all\nDescription: s\n")
        .file("usr/lib/more", "x", 0o644)
        .file("usr/bin/sh", "other", 0o755)
        .file("DEBIAN/triggers", "activate-noawait cache\nactivate nobody\n", 0o644)
        .build("-Zxz");
    let added = unpack(&more, &root).unwrap();
    assert_eq!(added.overlaps.len(), 1);
    assert_eq!((added.overlaps[0].path.as_str(), &added.overlaps[0].other), ("/usr/bin/sh", &None));
    write(&root, &[added], 0).unwrap();
    let pending = fs::read_to_string(root.join("var/lib/dpkg/triggers/Unincorp")).unwrap();
    assert_eq!(pending, "/usr/lib more\ncache -\n");
    let again = unpack(&more, &root).unwrap();
    assert!(
        write(&root, &[again], 0).unwrap_err().to_string().contains("more is unpacked on this root already")
    );
}

#[test]
fn damage_is_a_fault_and_never_a_short_tree() {
    let Some(scratch) = scratch() else { return };
    for deb in samples(scratch.path()) {
        let whole = fs::read(&deb).unwrap();
        assert!(io::copy(Deb::open(&deb).unwrap().data(), &mut io::sink()).is_ok());
        for cut in [0, 7, 70, whole.len() / 2, whole.len() - 8] {
            fs::write(&deb, &whole[..cut]).unwrap();
            let root = tempfile::tempdir().unwrap();
            assert!(unpack(&deb, root.path()).is_err(), "{} cut at {cut}", deb.display());
        }
    }
}
