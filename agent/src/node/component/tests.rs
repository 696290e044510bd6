//! The built-in components on a root in a temporary directory: what they make, that a second time changes nothing,
//! and that what leaves a list goes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use gatehouse_lcfg::{Component, Resource};
use gatehouse_model::NodeName;
use tempfile::TempDir;

use super::*;

struct Place {
    dir: TempDir,
    home: Home,
    client: Client,
}

/// A component with its resources, a line `name value` each.
type Given<'a> = (&'a str, &'a str);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let put = |path: &str, text: &str| {
            let place = dir.path().join(path);
            fs::create_dir_all(place.parent().expect("it has one")).expect("made");
            fs::write(place, text).expect("written");
        };
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        put("etc/passwd", &format!("root:x:{uid}:{gid}:root:/root:/bin/bash\n"));
        put("etc/group", &format!("root:x:{gid}:\n"));
        put("etc/shadow", "root:*:20000:0:99999:7:::\n");
        put("etc/gshadow", "root:*::\n");
        put("etc/fstab", "UUID=u-root / ext4 errors=remount-ro 0 1\nUUID=u-swap none swap sw 0 0\n");
        put("etc/os-release", "VERSION_CODENAME=trixie\n");
        put("usr/sbin/cron", "");
        put("usr/sbin/exportfs", "");
        put("usr/sbin/chronyd", "");
        let authority = rcgen::generate_simple_self_signed(["gate".to_owned()]).expect("signed").cert.pem();
        let home = Home {
            server: [127, 0, 0, 1].into(),
            authority,
            node: "ce".parse::<NodeName>().expect("a name"),
            domain: "example.org".into(),
            mac: "02:00:00:00:00:01".parse().expect("an address"),
            address: [10, 0, 2, 21].into(),
            prefix: 24,
            machine: false,
        };
        let client = Client::new(&home, None).expect("a client");
        Self { dir, home, client }
    }

    fn target(&self) -> Target {
        Target::new(self.dir.path())
    }

    /// Configures a component; which paths below the root are new or other than before.
    fn run(&self, given: Given<'_>) -> Result<Vec<String>, Fault> {
        let (component, lines) = given;
        let before = tree(self.dir.path());
        let target = self.target();
        let profile = profile(component, lines);
        let means = Means { profile: &profile, home: &self.home, target: &target, client: &self.client };
        run(&means, &mut Journal::open(&target), component, "configure")?;
        let after = tree(self.dir.path());
        let mut other: Vec<String> = before
            .iter()
            .filter(|entry| !after.contains(entry))
            .chain(after.iter().filter(|entry| !before.contains(entry)))
            .map(|(path, _)| path.clone())
            .filter(|path| !path.starts_with("var/lib/gatehouse"))
            .collect();
        other.sort();
        other.dedup();
        Ok(other)
    }

    fn read(&self, path: &str) -> String {
        self.target().read(path)
    }
}

fn profile(component: &str, lines: &str) -> Profile {
    let resource = |line: &str| {
        let (name, value) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        (name.to_owned(), Resource { value: value.replace("\\n", "\n"), ..Resource::default() })
    };
    let resources = lines.lines().filter(|line| !line.trim().is_empty()).map(resource).collect();
    let all = vec![(component.to_owned(), Component { resources, ..Component::default() })];
    Profile { components: all, ..Profile::default() }
}

/// Every file and link with what it holds and its inode, so that one written anew shows.
fn tree(dir: &Path) -> Vec<(String, String)> {
    fn below(top: &Path, dir: &Path, found: &mut Vec<(String, String)>) {
        use std::os::unix::fs::MetadataExt as _;
        for entry in fs::read_dir(dir).expect("there").flatten() {
            let about = fs::symlink_metadata(entry.path()).expect("there");
            let name = entry.path().strip_prefix(top).expect("below").display().to_string();
            let holds = fs::read_link(entry.path()).map(|to| to.display().to_string());
            let holds = holds.or_else(|_| fs::read_to_string(entry.path())).unwrap_or_default();
            if about.is_dir() {
                below(top, &entry.path(), found);
            } else {
                found.push((name, format!("{} {:o} {holds}", about.ino(), about.permissions().mode())));
            }
        }
    }
    let mut found = Vec::new();
    below(dir, dir, &mut found);
    found
}

/// What each component makes of its first resources, and of its next ones.
const CHANGES: [(Given<'static>, &[&str], &str, &[&str]); 10] = [
    (
        (
            "network",
            "interfaces eth0\nipaddr_eth0 10.0.2.21\nnetmask_eth0 24\nonboot_eth0 yes\nresolvers 10.0.2.3",
        ),
        &[
            "etc/hostname",
            "etc/resolv.conf",
            "etc/systemd/network/10-gatehouse-eth0.network",
            "etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
            "etc/systemd/system/sockets.target.wants/systemd-networkd.socket",
        ],
        "interfaces eth1\nipaddr_eth1 10.0.2.21\nresolvers 10.0.2.3",
        &["etc/systemd/network/10-gatehouse-eth0.network", "etc/systemd/network/10-gatehouse-eth1.network"],
    ),
    (
        ("hosts", "entries a\naddress_a 10.0.2.20\nnames_a gate"),
        &["etc/hosts"],
        "entries a\naddress_a 10.0.2.20\nnames_a other",
        &["etc/hosts"],
    ),
    (
        ("auth", "rootpwd x\nextrapasswd grid\npw_uid_grid 995\nrootkeys k\nrootkey_k ssh-ed25519 A"),
        &["etc/group", "etc/gshadow", "etc/passwd", "etc/shadow", "root/.ssh/authorized_keys"],
        "rootpwd y\nrootkeys k\nrootkey_k ssh-ed25519 A",
        &["etc/shadow"],
    ),
    (
        ("kernel", "sysctls a\nsysctl_a net.ipv4.ip_forward\nvalue_a 1\nmodules nfs loop"),
        &["etc/modules-load.d/gatehouse.conf", "etc/sysctl.d/90-gatehouse.conf"],
        "modules nfs loop",
        &["etc/sysctl.d/90-gatehouse.conf"],
    ),
    (
        ("ntp", "servers 10.0.2.20"),
        &["etc/chrony/sources.d/gatehouse.sources"],
        "",
        &["etc/chrony/sources.d/gatehouse.sources"],
    ),
    (
        ("cron", "entries a\nschedule_a @daily\ncommand_a true"),
        &["etc/cron.d/gatehouse"],
        "entries",
        &["etc/cron.d/gatehouse"],
    ),
    (
        (
            "nfs",
            "exports a\nexport_a /srv\nclients_a *(ro)\nmounts b\ndevice_b se:/srv\npoint_b /mnt/grid-data",
        ),
        &[
            "etc/exports.d/gatehouse.exports",
            "etc/systemd/system/mnt-grid\\x2ddata.mount",
            "etc/systemd/system/remote-fs.target.wants/mnt-grid\\x2ddata.mount",
        ],
        "exports a\nexport_a /srv\nclients_a *(ro)",
        &[
            "etc/systemd/system/mnt-grid\\x2ddata.mount",
            "etc/systemd/system/remote-fs.target.wants/mnt-grid\\x2ddata.mount",
        ],
    ),
    (
        ("nfs", "mounts b\ndevice_b ce:/home\npoint_b /home\nautomount_b yes"),
        &[
            "etc/systemd/system/home.automount",
            "etc/systemd/system/home.mount",
            "etc/systemd/system/remote-fs.target.wants/home.automount",
        ],
        "mounts b\ndevice_b ce:/home\npoint_b /home",
        &[
            "etc/systemd/system/home.automount",
            "etc/systemd/system/remote-fs.target.wants/home.automount",
            "etc/systemd/system/remote-fs.target.wants/home.mount",
        ],
    ),
    (
        (
            "file",
            "files a l\nfile_a /etc/motd\ntmpl_a hello\nmode_a 0600\nfile_l /etc/link\ntype_l link\ntmpl_l motd",
        ),
        &["etc/link", "etc/motd"],
        "files a\nfile_a /etc/motd\ntmpl_a hello\nmode_a 0644",
        &["etc/link", "etc/motd"],
    ),
    (
        ("apt", "mirror http://deb.example.org/debian"),
        &["etc/apt/sources.list.d/gatehouse-mirror.sources"],
        "",
        &["etc/apt/sources.list.d/gatehouse-mirror.sources"],
    ),
];

#[test]
fn each_makes_what_it_is_told_once_and_removes_what_is_no_longer_wanted() {
    for ((component, first), made, then, changed) in CHANGES {
        let place = Place::new();
        let run = |lines: &str| {
            place.run((component, lines)).unwrap_or_else(|fault| panic!("{component}: {fault}"))
        };
        assert_eq!(run(first), made, "{component}");
        assert_eq!(run(first), Vec::<String>::new(), "{component} a second time");
        assert_eq!(run(then), changed, "{component} changed");
        assert_eq!(run(then), Vec::<String>::new(), "{component} changed, a second time");
    }
}

#[test]
fn what_was_there_before_is_changed_and_never_removed() {
    let place = Place::new();
    fs::write(place.dir.path().join("etc/issue"), "Debian\n").expect("written");
    let with = "files a\nfile_a /etc/issue\ntmpl_a Gatehouse";
    assert_eq!(place.run(("file", with)).expect("configured"), ["etc/issue"]);
    assert_eq!(place.read("/etc/issue"), "Gatehouse\n");
    assert_eq!(place.run(("file", "files")).expect("configured"), Vec::<String>::new());
    assert_eq!(place.read("/etc/issue"), "Gatehouse\n");
}

#[test]
fn a_directory_goes_when_nothing_of_others_is_in_it() {
    let place = Place::new();
    let both = "files d f\nfile_d /srv/own\ntype_d dir\nmode_d 0750\nfile_f /srv/own/f\ntmpl_f x";
    assert_eq!(place.run(("file", both)).expect("configured"), ["srv/own/f"]);
    fs::write(place.dir.path().join("srv/own/other"), "").expect("written");
    place.run(("file", "files")).expect("configured");
    assert!(place.target().has("/srv/own/other"), "somebody else's file stays");
    assert!(!place.target().has("/srv/own/f"));
    fs::remove_file(place.dir.path().join("srv/own/other")).expect("removed");
    place.run(("file", both)).expect("configured");
}

#[test]
fn the_table_of_mounts_keeps_the_file_systems_that_were_made() {
    let place = Place::new();
    let disk = "disks disk0\ndopartition_disk0 yes\nlabel_disk0 gpt\npartitions_disk0 p1 p2\nsize_p1 free\n\
        type_p1 ext4\nmpt_p1 /\nmntopts_p1 noatime\nsize_p2 64\ntype_p2 swap\n";
    place.run(("fstab", disk)).expect("configured");
    let table = place.read("/etc/fstab");
    assert!(
        table.ends_with("\nUUID=u-swap none swap sw 0 0\nUUID=u-root / ext4 noatime,x-systemd.growfs 0 1\n"),
        "{table}"
    );
    let more = format!("{disk}entries t\nentry_t tmpfs /scratch tmpfs size=1g\n");
    place.run(("fstab", &more)).expect("configured");
    assert!(place.read("/etc/fstab").ends_with("tmpfs /scratch tmpfs size=1g 0 0\n"));
    let new = disk.replace("p1 p2", "p1 p2 p3") + "size_p3 64\ntype_p3 ext4\nmpt_p3 /data\n";
    let fault = place.run(("fstab", &new)).expect_err("nobody partitions a running node");
    assert!(fault.to_string().contains("has p3, for which this node has no file system"), "{fault}");
}

#[test]
fn users_keep_their_numbers_and_dates() {
    let place = Place::new();
    let user = "rootpwd *\nextrapasswd grid\npw_dir_grid /var/empty\n";
    fs::create_dir_all(place.dir.path().join("var/empty")).expect("made");
    place.run(("auth", user)).expect("configured");
    assert!(place.read("/etc/passwd").contains("grid:x:1000:1000::/var/empty:/bin/bash\n"));
    let dated = place.read("/etc/shadow").replace("grid:*::", "grid:*:20400:");
    fs::write(place.dir.path().join("etc/shadow"), &dated).expect("written");
    let changed = place.run(("auth", &format!("{user}pw_gecos_grid Grid\n"))).expect("configured");
    assert_eq!(changed, ["etc/passwd"]);
    assert!(place.read("/etc/passwd").contains("grid:x:1000:1000:Grid:"));
}

#[test]
fn what_makes_no_sense_is_told_by_name() {
    for (component, lines, said) in [
        ("network", "interfaces e\nipaddr_e ten", "network.ipaddr_e is \"ten\""),
        ("kernel", "sysctls a\nsysctl_a x", "kernel.sysctl_a is \"x\""),
        ("file", "files a\nfile_a ../x", "file.file_a is \"../x\""),
        ("file", "files a\nfile_a /x\nmode_a 9", "file.mode_a is \"9\""),
        ("file", "files a\nfile_a /x\nowner_a nobody", "file.owner_a is \"nobody\""),
        ("cron", "entries a\nschedule_a often\ncommand_a true", "cron.schedule_a is \"often\""),
        ("nfs", "mounts a\ndevice_a x\npoint_a /x", "nfs.device_a is \"x\""),
        ("fstab", "entries a\nentry_a x", "fstab.entry_a is \"x\""),
    ] {
        let place = Place::new();
        let before = tree(place.dir.path());
        let fault = place.run((component, lines)).expect_err(component).render();
        assert!(fault.contains(said) && fault.contains("help: "), "{fault}");
        let after = tree(place.dir.path());
        let new: Vec<_> = after.iter().filter(|entry| !before.contains(entry)).collect();
        assert!(new.iter().all(|(path, _)| path.starts_with("var/lib/gatehouse")), "{component}: {new:?}");
    }
}
