//! Roots against the tools that everyone trusts to make them: the same packages through mmdebstrap and dpkg give the
//! same files, but for what `roots.exclusions` names.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use gatehouse_model::{Digest, ImageManifest, Lock};
use gatehouse_tests::roots::{Exclusions, Tree};
use gatehouse_tests::{cache, gatehouse, has, run, run_gatehouse, site, top};

/// 2026-01-01, as in the template; what depends on it is not compared.
const EPOCH: u64 = 1_767_225_600;

/// Directories that other users may look into: mmdebstrap and apt become others.
fn temp() -> tempfile::TempDir {
    let temp =
        tempfile::Builder::new().prefix("gatehouse-roots-").tempdir_in("/var/tmp").expect("a directory");
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).expect("set");
    temp
}

/// A site that was locked and built, and an archive with nothing but its packages.
struct Built {
    lock: Lock,
    layer: PathBuf,
    archive: PathBuf,
}

fn build(temp: &Path) -> Built {
    let (site, out) = (site("minimal", temp), temp.join("out"));
    let ended = run_gatehouse(&["build", &site.display().to_string(), "-o", &out.display().to_string()]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let manifest: ImageManifest =
        serde_json::from_slice(&fs::read(out.join("manifest.json")).expect("there")).expect("a manifest");
    let lock = fs::read_to_string(site.join("site.lock")).expect("locked");
    let lock = Lock::parse(&lock).expect("a lock");
    let wanted = &manifest.depot.layers.values().next().expect("a layer").file;
    let roots = fs::read_dir(cache().join("root")).expect("roots").flatten();
    let layers = roots.map(|root| root.path().join("layer.tar.zst")).filter(|path| {
        fs::metadata(path).is_ok_and(|meta| meta.len() == wanted.size)
            && Digest::of(&fs::read(path).expect("it can be read")) == wanted.sha256
    });
    let layer = layers.last().expect("the layer is in the cache");
    let archive = temp.join("archive");
    fs::create_dir(&archive).expect("made");
    for package in &lock.packages {
        let to = archive.join(file_name(&package.name, &package.architecture));
        let from = cache().join("deb").join(package.sha256.to_string());
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).expect("copied");
        }
    }
    index(&archive);
    Built { lock, layer, archive }
}

fn file_name(package: &str, architecture: &str) -> String {
    format!("{package}_{architecture}.deb")
}

/// Writes the index of an archive.
fn index(archive: &Path) {
    let script = "cd \"$0\" && dpkg-scanpackages --multiversion . >Packages";
    let listed = run(Command::new("sh").args(["-c", script]).arg(archive));
    assert_eq!(listed.code, 0, "{}", listed.stderr);
}

/// Has mmdebstrap make a root of packages from some archives.
fn mmdebstrap(archives: &[&Path], include: &[String], hooks: &[String], to: &Path) -> Tree {
    let begun = Instant::now();
    let source = |archive: &&Path| format!("deb [trusted=yes] copy://{} ./", archive.display());
    let made = run(Command::new("mmdebstrap")
        // Only makes it faster: there is no tree to save from a power cut.
        .args(["--variant=apt", "--format=tar", "--dpkgopt=force-unsafe-io"])
        .args(hooks.iter().map(|hook| format!("--customize-hook={hook}")))
        .args([&format!("--include={}", include.join(",")), "stable"])
        .arg(to)
        .args(archives.iter().map(source))
        .env("SOURCE_DATE_EPOCH", EPOCH.to_string()));
    assert_eq!(made.code, 0, "{}", made.stderr);
    println!("mmdebstrap: {:.1} s", begun.elapsed().as_secs_f64());
    Tree::read(to)
}

fn compare(ours: &Tree, theirs: &Tree, sections: &[&str]) {
    let exclusions = Exclusions::parse(include_str!("roots.exclusions"), sections);
    let left = exclusions.apply(&ours.differences(theirs));
    assert!(left.is_empty(), "{} differences from mmdebstrap's tree:\n{}", left.len(), left.join("\n"));
}

/// One build serves all: a node's root, and small ones that only dpkg can unpack.
#[test]
fn a_root_is_what_mmdebstrap_makes_of_the_same_packages() {
    if !has(&["mmdebstrap", "dpkg-scanpackages", "dpkg-deb", "unshare"]) {
        return;
    }
    let temp = temp();
    let built = build(temp.path());
    nodes_root(&built, temp.path());
    for (packages, why) in [(DIVERTING, DIVERTED), (CLASHING, CLASH)] {
        by_dpkg(&built, &packages, why, &temp.path().join(packages[0].name));
    }
}

fn nodes_root(built: &Built, temp: &Path) {
    let set = built.lock.sets.iter().find(|set| set.name.starts_with("node-")).expect("a node");
    let include: Vec<String> =
        set.packages.iter().map(|package| format!("{}={}", package.name, package.version)).collect();
    // What is laid over our tree is laid over theirs, with an initramfs made after it, so that those are compared too.
    let lay = format!(
        "tar -C '{}' --owner=0 --group=0 --mode=u=rwX,go=rX --exclude='.git*' -cf - . | tar -C \"$1\" --no-overwrite-dir -xf -",
        top().join("overlays/node").display()
    );
    let hooks = [lay, "chroot \"$1\" update-initramfs -u -k all".to_owned()];
    let theirs = mmdebstrap(&[&built.archive], &include, &hooks, &temp.join("theirs.tar"));
    compare(&Tree::read(&built.layer), &theirs, &["every root", "node"]);
}

/// A package made here: its fields, its `preinst`, and what it holds (a path with `-> ` is a link).
struct Made {
    name: &'static str,
    fields: &'static str,
    preinst: &'static str,
    files: &'static [&'static str],
}

/// One takes another's file away with a diversion before it is unpacked.
const DIVERTING: [Made; 2] = [
    Made {
        name: "gh-diverting",
        fields: "",
        preinst: "dpkg-divert --package gh-diverting --add --rename --divert /usr/share/gh/both.plain /usr/share/gh/both",
        files: &["usr/share/gh/both", "usr/share/gh/mine"],
    },
    Made { name: "gh-plain", fields: "", preinst: "", files: &["usr/share/gh/both", "usr/share/gh/kept"] },
];

/// A directory for one is a link for the other, so it matters who comes first; the names are in the wrong order.
const CLASHING: [Made; 2] = [
    Made {
        name: "gh-afterwards",
        fields: "Pre-Depends: gh-before\n",
        preinst: "",
        files: &["usr/share/gh-real/a", "usr/share/gh -> gh-real"],
    },
    Made { name: "gh-before", fields: "", preinst: "", files: &["usr/share/gh/b"] },
];

fn make(package: &Made, scratch: &Path, archive: &Path) {
    let tree = scratch.join(package.name);
    fs::create_dir_all(tree.join("DEBIAN")).expect("made");
    let Made { name, fields, preinst, files } = package;
    let control = format!(
        "Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: A <a@example.org>\n{fields}Description: made\n"
    );
    fs::write(tree.join("DEBIAN/control"), control).expect("written");
    if !preinst.is_empty() {
        let path = tree.join("DEBIAN/preinst");
        fs::write(&path, format!("#!/bin/sh\nset -e\n{preinst}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
    }
    for file in *files {
        let (path, target) = file.split_once(" -> ").unwrap_or((file, ""));
        let path = tree.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        if target.is_empty() {
            fs::write(&path, format!("{file} of {name}\n")).expect("written");
        } else {
            std::os::unix::fs::symlink(target, &path).expect("linked");
        }
    }
    let deb = archive.join(file_name(name, "all"));
    let mut command = Command::new("dpkg-deb");
    command.args(["--root-owner-group", "--build"]).arg(&tree).arg(&deb);
    let made = run(command.env("SOURCE_DATE_EPOCH", EPOCH.to_string()));
    assert_eq!(made.code, 0, "{}", made.stderr);
}

/// Makes the root of the packages that another tree's status names; answers the tree and what was said.
fn root_like(theirs: &Tree, archives: &[&Path], scratch: &Path) -> (Tree, String) {
    let begun = Instant::now();
    let mut debs = Vec::new();
    for stanza in theirs.text("var/lib/dpkg/status").split("\n\n").filter(|stanza| !stanza.trim().is_empty())
    {
        let field = |name: &str| {
            let found = stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            found.unwrap_or_else(|| panic!("no {name} in {stanza}"))
        };
        let name = file_name(field("Package"), field("Architecture"));
        let deb = archives.iter().map(|archive| archive.join(&name)).find(|path| path.is_file());
        debs.push(deb.unwrap_or_else(|| panic!("{name} is in no archive")));
    }
    debs.sort_by_key(|path| path.file_name().map(std::ffi::OsStr::to_owned));
    let out = scratch.join("root");
    fs::create_dir_all(&out).expect("made");
    let spec = serde_json::json!({
        "finish": "Layer", "debs": debs, "overlays": [], "files": [], "epoch": EPOCH,
        "scratch": scratch.join("work"), "stale": [], "out": out,
    });
    let at = scratch.join("spec.json");
    fs::write(&at, spec.to_string()).expect("written");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--net", "--fork", "--kill-child=SIGKILL", "--propagation=private"]);
    let id = run(Command::new("id").arg("-u"));
    if id.stdout.trim() != "0" {
        command.args(["--user", "--map-auto", "--map-root-user", "--setuid=0", "--setgid=0"]);
    }
    let ended = run(command.arg("--").arg(gatehouse()).args(["internal", "root"]).arg(at));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    println!("root: {:.1} s", begun.elapsed().as_secs_f64());
    (Tree::read(&out.join("layer.tar.zst")), ended.stdout)
}

/// What is said of the two pairs.
const DIVERTED: &str = "/usr/share/gh/both of gh-plain is redirected by a preinst: dpkg unpacks this root";
const CLASH: &str =
    "/usr/share/gh is another thing in gh-before than in gh-afterwards: dpkg unpacks this root";

fn by_dpkg(built: &Built, packages: &[Made], why: &str, scratch: &Path) {
    let archive = scratch.join("archive");
    fs::create_dir_all(&archive).expect("made");
    for package in packages {
        make(package, scratch, &archive);
    }
    index(&archive);
    let archives = [built.archive.as_path(), &archive];
    let include = packages.iter().map(|package| package.name.to_owned()).collect::<Vec<_>>();
    let theirs = mmdebstrap(&archives, &include, &[], &scratch.join("theirs.tar"));
    let (ours, said) = root_like(&theirs, &archives, scratch);
    let notes: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("note: ")).collect();
    assert_eq!(notes, [why]);
    compare(&ours, &theirs, &["every root", "small"]);
}
