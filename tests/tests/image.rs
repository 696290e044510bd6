//! The image without a machine: the same bytes twice, what the field's own checkers say of it, and faults.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gatehouse_tests::{Try, cache, gatehouse, has, run, run_gatehouse, site};
use serde_json::Value;

fn temp() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("gatehouse-image-").tempdir_in("/var/tmp").expect("a directory")
}

fn manifest(out: &Path) -> Value {
    serde_json::from_slice(&fs::read(out.join("manifest.json")).expect("there is a manifest")).expect("JSON")
}

fn build(site: &Path, out: &Path, cache: &Path) {
    let (site, out, cache) =
        (site.display().to_string(), out.display().to_string(), cache.display().to_string());
    let ended = run_gatehouse(&["build", &site, "-o", &out, "--cache", &cache]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

/// Copies one partition out of an image.
fn partition(image: &Path, manifest: &Value, name: &str, to: &Path) {
    let parts = manifest["partitions"].as_array().expect("partitions");
    let part = parts.iter().find(|part| part["name"] == name).expect("it is there");
    let skip = format!("skip={}", part["offset"]);
    let count = format!("count={}", part["length"]);
    let (input, output) = (format!("if={}", image.display()), format!("of={}", to.display()));
    let flags = ["bs=1M", "iflag=skip_bytes,count_bytes", "conv=sparse", "status=none"];
    let ended = run(Command::new("dd").args([input, output, skip, count]).args(flags));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

/// One image serves all checks: a second build of it from other surroundings, the oracles, what must not be in it.
#[test]
fn an_image_is_the_same_twice_and_right_in_every_part() {
    if !has(&["sgdisk", "fsck.vfat", "fsck.erofs", "taskset", "tar", "zstd", "bmaptool"]) {
        return;
    }
    let temp = temp();
    let first = site("minimal", temp.path());
    let out = temp.path().join("out");
    build(&first, &out, &cache());
    let made = manifest(&out);
    let image = out.join("gatehouse.img");

    rebuilt_elsewhere(temp.path(), &first, &made);
    let before = fs::metadata(&image).expect("there").modified().expect("a time");
    build(&first, &out, &cache());
    assert_eq!(fs::metadata(&image).expect("there").modified().expect("a time"), before, "written again");

    is_right_in_every_part(&image, &made, temp.path());
    what_was_delivered_can_be_looked_at_and_checked(&first, &out);
    assert_eq!(fs::metadata(&image).expect("there").modified().expect("a time"), before, "written again");
    it_goes_onto_sticks_that_held_something(&out, temp.path());
    it_takes_other_sites(&first, &out, temp.path());
    // Its cache holds this build and nothing else.
    no_secret_in(&temp.path().join(ELSEWHERE).join("cache"));
}

/// What the field's own checkers say of the table and of every file system.
fn is_right_in_every_part(image: &Path, made: &Value, temp: &Path) {
    let table = run(Command::new("sgdisk").arg("-v").arg(image));
    assert!(table.stdout.contains("No problems found"), "{}", table.stdout);
    for (name, checker) in [
        ("gh-esp", "fsck.vfat"),
        ("gh-site", "fsck.vfat"),
        ("gh-root-a", "fsck.erofs"),
        ("gh-depot-a", "fsck.erofs"),
    ] {
        let part = temp.join(name);
        partition(image, made, name, &part);
        let mut command = Command::new(checker);
        if checker == "fsck.vfat" {
            command.arg("-n");
        }
        let ended = run(command.arg(&part));
        assert_eq!(ended.code, 0, "{checker} of {name}: {} {}", ended.stdout, ended.stderr);
    }
}

/// A file that stands for a stick, full of something else.
fn old_stick(path: &Path, bytes: u64) {
    let file = fs::File::create(path).expect("made");
    let old = vec![0xa5; 1 << 20];
    for at in (0..bytes).step_by(1 << 20) {
        file.write_all_at(&old, at).expect("written");
    }
}

/// `gatehouse write` and bmaptool give the same, whatever was there before.
fn it_goes_onto_sticks_that_held_something(out: &Path, temp: &Path) {
    let (made, image) = (manifest(out), out.join("gatehouse.img"));
    let size = made["image"]["size"].as_u64().expect("a size");
    let stick = temp.join("stick");
    old_stick(&stick, size + (64 << 20));
    let (out_text, stick_text) = (out.display().to_string(), stick.display().to_string());
    let ended = run_gatehouse(&["write", &out_text, &stick_text]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    is_right_in_every_part(&stick, &made, temp);
    let said = run_gatehouse(&["inspect", &stick_text, "--json"]);
    let seen: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(seen["sites"][0]["name"], "minimal");
    assert!(boot_cfg(&stick, &made, temp).contains("set to=rule\n"));
    assert!(boot_cfg(&image, &made, temp).contains("set to=\n"));

    old_stick(&stick, size);
    let copied = run(Command::new("bmaptool").arg("copy").arg(&image).arg(&stick));
    assert_eq!(copied.code, 0, "{copied:?}");
    is_right_in_every_part(&stick, &made, temp);

    fs::OpenOptions::new().write(true).open(&stick).and_then(|file| file.set_len(size - 4096)).expect("cut");
    let refused = run_gatehouse(&["write", &stick_text, &temp.join("other").display().to_string()]);
    assert!(refused.code == 3 && refused.stderr.contains("is not whole"), "{refused:?}");
    assert!(!temp.join("other").exists(), "half an image was written");

    fs::write(&stick, "too small").expect("written");
    let itself = image.display().to_string();
    for (device, why) in [
        (stick_text.as_str(), "takes"),
        ("/dev/null", "neither a disk nor a file"),
        (itself.as_str(), "itself"),
    ] {
        let refused = run_gatehouse(&["write", &out_text, device]);
        assert!(refused.code == 3 && refused.stderr.contains(why), "{refused:?}");
    }
    assert_eq!(fs::read(&stick).expect("read"), b"too small");
    fs::remove_file(&stick).expect("removed");
}

fn boot_cfg(image: &Path, made: &Value, temp: &Path) -> String {
    let part = temp.join("gh-site");
    partition(image, made, "gh-site", &part);
    let limits = gatehouse_disk::FatLimits::default();
    let files = gatehouse_disk::read_fat(fs::File::open(part).expect("opened"), limits).expect("a FAT");
    let (_, bytes) = files.into_iter().find(|(path, _)| path == "boot.cfg").expect("it is there");
    String::from_utf8(bytes).expect("text")
}

/// `gatehouse customize`: one site, two, and none that the image was not built for.
fn it_takes_other_sites(first: &Path, out: &Path, temp: &Path) {
    let (made, image) = (manifest(out), out.join("gatehouse.img"));
    let named = |name: &str, more: &str| {
        let dir = temp.join(name);
        assert_eq!(run(Command::new("cp").arg("-r").arg(first).arg(&dir)).code, 0);
        let text = fs::read_to_string(first.join("site.toml")).expect("read");
        let text = text.replace("name = \"minimal\"", &format!("name = \"{name}\"")) + more;
        fs::write(dir.join("site.toml"), text).expect("written");
        dir.display().to_string()
    };
    let (north, south) = (named("north", "[match]\nserial = [\"N*\"]\n"), named("south", ""));
    let out_text = out.display().to_string();
    let sites = || -> Vec<String> {
        let seen = run_gatehouse(&["inspect", &out_text, "--json"]);
        let seen: Value = serde_json::from_str(&seen.stdout).expect("JSON");
        let sites = seen["sites"].as_array().expect("sites").iter();
        sites.map(|site| format!("{}:{}", site["directory"].as_str().unwrap_or("?"), site["name"])).collect()
    };
    let ended = run_gatehouse(&["customize", &out_text, &north]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(sites(), [":\"north\""]);
    let ended = run_gatehouse(&["customize", &out_text, &north, &south]);
    assert!(ended.code == 0 && ended.stderr.contains("gatehouse.site=south"), "{}", ended.stderr);
    assert_eq!(sites(), ["sites/north:\"north\"", "sites/south:\"south\""]);
    is_right_in_every_part(&image, &made, temp);
    it_is_whole_and_mended_after_a_cut(out, &[&north, &south], temp);
    let after = manifest(out);
    assert_eq!(after["partitions"], made["partitions"]);
    let (mapped, stick) = (out.join("gatehouse.img.bmap"), temp.join("stick"));
    old_stick(&stick, made["image"]["size"].as_u64().expect("a size"));
    let copied = run(Command::new("bmaptool").args(["copy", "--bmap"]).arg(mapped).arg(&image).arg(&stick));
    assert_eq!(copied.code, 0, "{copied:?}");

    let other = temp.join("south/lcfg/packages/minimal.pkgs");
    fs::write(&other, fs::read_to_string(&other).expect("read") + "hello=*\n").expect("written");
    let before = fs::read(&image).expect("read");
    let refused = run_gatehouse(&["customize", &out_text, &north, &south, &north]);
    assert_eq!(refused.code, 2, "{refused:?}");
    for said in ["south/lcfg/source/node1: wants packages", "north/site.toml: another site"] {
        assert!(refused.stderr.contains(said), "{refused:?}");
    }
    assert!(fs::read(&image).expect("read") == before, "a refusal changed the image");

    // Machines would be given the sites from before.
    build(first, out, &cache());
    assert!(!out.join("pxe").exists(), "pxe/ has other sites than the image");
}

/// What was customized: all of it has the same sites, one changed byte is found, and what a cut leaves is used by nobody
/// until the same command has mended it.
fn it_is_whole_and_mended_after_a_cut(out: &Path, sites: &[&str], temp: &Path) {
    let (made, image, out) = (manifest(out), out.join("gatehouse.img"), out.display().to_string());
    let verify = || run_gatehouse(&["verify", &out]);
    let whole = || {
        let verified = verify();
        assert_eq!(verified.code, 0, "{verified:?}");
    };
    whole();
    // Between the table and the first partition.
    flip(&image, 900_000);
    let bad = verify();
    assert!(bad.code == 5 && bad.stderr.contains("gatehouse.img.bmap is not the map"), "{bad:?}");
    flip(&image, 900_000);

    let site = &made["partitions"][2];
    partition(&image, &made, "gh-site", &image.with_extension("img.gh-site"));
    let file = fs::OpenOptions::new().write(true).open(&image).expect("opened");
    file.write_all_at(&vec![0xa5; 3 << 19], site["offset"].as_u64().expect("a number")).expect("written");
    let other = temp.join("other").display().to_string();
    for (args, code) in [(&["inspect", &out][..], 3), (&["verify", &out], 5), (&["write", &out, &other], 3)] {
        let refused = run_gatehouse(args);
        assert!(refused.code == code && refused.stderr.contains("was cut short"), "{args:?}: {refused:?}");
    }
    let mended = run_gatehouse(&[&["customize", &out][..], sites].concat());
    assert_eq!(mended.code, 0, "{mended:?}");
    whole();
}

const ELSEWHERE: &str = "elsewhere/with a space";

/// `--format`, `plan`, `inspect` and `verify`, which finds one changed byte.
fn what_was_delivered_can_be_looked_at_and_checked(site: &Path, out: &Path) {
    let (site, dir) = (site.display().to_string(), out.display().to_string());
    let succeeds = |args: &[&str]| {
        let ended = run_gatehouse(args);
        assert_eq!(ended.code, 0, "{args:?}: {}", ended.stderr);
        ended
    };
    let json = |args: &[&str]| -> Value { serde_json::from_str(&succeeds(args).stdout).expect("JSON") };
    succeeds(&["build", &site, "-o", &dir, "--format", "img,zst,pxe"]);
    let plan = json(&["plan", &site, "--json"]);
    let seen = json(&["inspect", &dir, "--json"]);
    let names = |parts: &Value| -> Vec<String> {
        let parts = parts.as_array().expect("partitions");
        parts.iter().map(|part| part["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(&plan["image"]["partitions"]), names(&seen["partitions"]));
    assert_eq!(seen["sites"][0]["nodes"][0]["name"], "node1");
    assert_eq!(seen["layers"][0]["nodes"][0], "node1");

    let good = succeeds(&["verify", &dir]);
    assert!(good.stdout.ends_with("every digest matches\n"), "{good:?}");
    let image = out.join("gatehouse.img");
    let root = seen["partitions"][3]["offset"].as_u64().expect("a number");
    let time = fs::metadata(&image).expect("there").modified().expect("a time");
    flip(&image, root + 5000);
    let bad = run_gatehouse(&["verify", &dir]);
    assert_eq!(bad.code, 5, "{bad:?}");
    assert!(bad.stderr.contains("partition gh-root-a has the digest"), "{bad:?}");
    assert!(!bad.stderr.contains("in pxe"), "{bad:?}");
    flip(&image, root + 5000);
    // Those who have a server of their own check it with what they have.
    let pxe = out.join("pxe");
    let checked = run(Command::new("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]).current_dir(&pxe));
    assert_eq!(checked.code, 0, "{checked:?}");
    flip(&pxe.join("grub/uefi.efi"), 5000);
    let bad = run_gatehouse(&["verify", &dir]);
    assert!(bad.code == 5 && bad.stderr.contains("in pxe: grub/uefi.efi has the digest"), "{bad:?}");
    flip(&pxe.join("grub/uefi.efi"), 5000);
    // A list that names nothing is none, and the manifest knows the image's digest.
    let (sums, map) = (out.join("SHA256SUMS"), out.join("gatehouse.img.bmap"));
    let [sums_text, map_text] = [&sums, &map].map(|path| fs::read_to_string(path).expect("read"));
    fs::write(&sums, "").expect("written");
    let bad = run_gatehouse(&["verify", &dir]);
    assert!(bad.code == 5 && bad.stderr.contains("SHA256SUMS does not name gatehouse.img\n"), "{bad:?}");
    fs::write(&sums, &sums_text).expect("written");
    fs::write(&map, map_text.clone() + "junk").expect("written");
    flip(&image, 900_000);
    let bad = run_gatehouse(&["verify", &dir]);
    for name in ["gatehouse.img", "gatehouse.img.bmap"] {
        assert!(bad.code == 5 && bad.stderr.contains(&format!("  {name} has the digest")), "{bad:?}");
    }
    flip(&image, 900_000);
    fs::write(&map, map_text).expect("written");
    fs::File::open(&image).and_then(|file| file.set_modified(time)).expect("as it was");
}

/// Turns all bits of one byte round.
fn flip(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[!byte[0]], at).expect("written");
}

/// The same site and lock built from nothing, with other paths, umask, time zone, locale and one processor, and
/// interrupted on the way: what was finished is not done again.
fn rebuilt_elsewhere(temp: &Path, first: &Path, made: &Value) {
    let other = temp.join(ELSEWHERE);
    fs::create_dir_all(other.join("cache")).expect("made");
    let copied = |from: &Path, to: &Path| {
        assert_eq!(run(Command::new("cp").arg("-r").arg(from).arg(to)).code, 0, "copying {}", from.display());
    };
    copied(first, &other.join("site"));
    copied(&cache().join("deb"), &other.join("cache/deb"));
    let mut cut = Try::start(&mut elsewhere(&other), &other);
    // With one processor the host comes first.
    cut.wait_for("building root node-", Duration::from_secs(600));
    let cut = cut.interrupt();
    assert_eq!(cut.code, 130, "{}", cut.stderr);
    assert!(cut.stderr.contains("run the same command again to go on"), "{}", cut.stderr);
    let ended = run(&mut elsewhere(&other));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(!ended.stderr.contains("building root host"), "{}", ended.stderr);
    assert_eq!(
        fs::read_dir(other.join("cache/tmp")).expect("there").count(),
        0,
        "something half made is left"
    );
    let again = manifest(&other.join("out"));
    assert_eq!(again["partitions"], made["partitions"], "a partition differs");
    assert_eq!(again["image"]["sha256"], made["image"]["sha256"]);
}

fn elsewhere(dir: &Path) -> Command {
    let script = "umask 077; exec taskset -c 0 \"$0\" build site -o out --cache cache";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(gatehouse()).current_dir(dir);
    command.env("TZ", "Pacific/Auckland").env("LC_ALL", "C").env("SOURCE_DATE_EPOCH", "1");
    command
}

/// No key, token, identity or password hash in any root that went into an image.
fn no_secret_in(cache: &Path) {
    let mut looked = 0;
    for entry in fs::read_dir(cache.join("root")).expect("there are roots").flatten() {
        for (name, option) in [("root.tar", ""), ("layer.tar.zst", "--zstd")] {
            let path = entry.path().join(name);
            if !path.exists() {
                continue;
            }
            let tar = |what: &str, member: &str| {
                let mut command = Command::new("tar");
                command.args([what, "--file"]).arg(&path).args(option.split_whitespace());
                run(command.args(member.split_whitespace()))
            };
            let names = tar("--list", "").stdout;
            assert!(names.contains("etc/ssh/"), "{} has no sshd", path.display());
            for bad in ["ssh_host_", "lib/systemd/random-seed", "passport.json", "/authority/"] {
                assert!(!names.lines().any(|line| line.contains(bad)), "{bad} in {}", path.display());
            }
            assert_eq!(tar("--extract", "--to-stdout etc/machine-id").stdout, "", "a machine id");
            let shadow = tar("--extract", "--to-stdout etc/shadow").stdout;
            assert!(shadow.lines().any(|line| line.starts_with("root:*:")), "{shadow}");
            assert!(!shadow.contains('$'), "a password hash in {}", path.display());
            looked += 1;
        }
    }
    assert!(looked >= 2, "host and node were not looked at");
}

#[test]
fn faults_say_what_to_do_and_leave_nothing_half_written() {
    let temp = temp();
    let site = site("minimal", temp.path());
    let toml = site.join("site.toml");
    let right = fs::read_to_string(&toml).expect("there");
    let name = site.display().to_string();

    fs::write(&toml, right.replace("10.0.2.21", "10.9.9.9")).expect("written");
    let wrong = run_gatehouse(&["check", &name]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.stderr.contains("site.toml:") && wrong.stderr.contains("10.9.9.9"), "{}", wrong.stderr);

    let dead = "[packages]\nmirror = \"http://127.0.0.1:9/debian\"\n";
    fs::write(&toml, right.replace("[packages]\n", dead)).expect("written");
    let away = run_gatehouse(&["lock", &name, "--cache", &temp.path().join("cache").display().to_string()]);
    assert_eq!(away.code, 1);
    assert!(away.stderr.contains("help: check that the mirror can be reached"), "{}", away.stderr);
    assert!(!site.join("site.lock").exists(), "half a lock was written");
    fs::write(&toml, right).expect("written");

    let used = temp.path().join("used");
    fs::create_dir(&used).expect("made");
    fs::write(used.join("letter"), "keep me").expect("written");
    let refused = run_gatehouse(&["try", &name, "--vmm", "uml", "--dir", &used.display().to_string()]);
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert_eq!(fs::read_to_string(used.join("letter")).expect("still there"), "keep me");
}

#[test]
fn a_damaged_package_is_fetched_again_and_a_full_disk_leaves_no_image() {
    if !has(&["unshare", "mount"]) {
        return;
    }
    let temp = temp();
    let site = site("minimal", temp.path());
    build(&site, &temp.path().join("out"), &cache());

    let mut debs: Vec<_> =
        fs::read_dir(cache().join("deb")).expect("there").flatten().map(|e| e.path()).collect();
    debs.sort();
    let lock = fs::read_to_string(site.join("site.lock")).expect("locked");
    let of_site = |path: &&PathBuf| lock.contains(path.file_name().and_then(|n| n.to_str()).unwrap_or("-"));
    let victim = debs.iter().find(of_site).expect("one of them is the site's");
    let whole = fs::read(victim).expect("there");
    let mut bytes = whole.clone();
    bytes[whole.len() / 2] ^= 1;
    fs::write(victim, &bytes).expect("damaged");
    let name = site.display().to_string();
    let mended = run_gatehouse(&["build", &name, "-o", &temp.path().join("out").display().to_string()]);
    assert_eq!(mended.code, 0, "{}", mended.stderr);
    assert!(mended.stderr.contains("is damaged; fetching it again"), "{}", mended.stderr);
    assert!(fs::read(victim).expect("there") == whole, "the cache holds other bytes");

    let small = temp.path().join("small");
    fs::create_dir(&small).expect("made");
    fs::set_permissions(&small, fs::Permissions::from_mode(0o777)).expect("set");
    let script = "mount -t tmpfs -o size=64m none \"$2\" && \"$0\" build \"$1\" -o \"$2/out\"; code=$?; \
                  ls \"$2/out\"; exit $code";
    let full = run(Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--keep-caps", "sh", "-c", script])
        .arg(gatehouse())
        .arg(&site)
        .arg(&small));
    assert_eq!(full.code, 1, "{}", full.stderr);
    assert!(full.stderr.contains("No space left on device"), "{}", full.stderr);
    assert!(full.stderr.contains("help: the image takes"), "{}", full.stderr);
    assert_eq!(full.stdout, "", "something half-written was left");
}
