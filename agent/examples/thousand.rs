//! A site of a thousand nodes, for `ci/bench lcfg`: made on disk, compiled and published, and changed.
//!
//! `thousand make DIR` writes the site: 1,000 nodes, 200 headers, 20 package lists of 2,000 packages each and their lock.
//! `thousand run DIR STATE` publishes it from nothing, then changes a header that ten nodes read, and prints
//! `name value` lines.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use gatehouse_agent::paths::Paths;
use gatehouse_agent::server::profiles::Profiles;
use gatehouse_agent::server::watch::Watch;
use gatehouse_model::{Digest, Doing as _, Fault, Lock, LockedPackage, PackageSet, Site};

const NODES: usize = 1000;
const RACKS: usize = 100;
const LISTS: usize = 20;
const OPTIONS: usize = 77;
const PACKAGES: usize = 2000;
/// Packages that there are to choose from.
const ARCHIVE: usize = 6000;
/// How often the header is changed.
const EDITS: usize = 9;

fn main() -> Result<(), Fault> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", dir] => make(Path::new(dir)),
        ["run", dir, state] => run(Path::new(dir), Path::new(state)),
        _ => Err(Fault::new("write: thousand make DIR, or thousand run DIR STATE")),
    }
}

fn make(dir: &Path) -> Result<(), Fault> {
    for below in ["lcfg/source", "lcfg/include/site", "lcfg/packages"] {
        fs::create_dir_all(dir.join(below))?;
    }
    fs::write(dir.join("site.toml"), site_toml())?;
    let include = dir.join("lcfg/include/site");
    fs::write(include.join("base.h"), BASE)?;
    fs::write(include.join("disk.h"), DISK)?;
    fs::write(include.join("network.h"), NETWORK)?;
    for rack in 0..RACKS {
        fs::write(include.join(format!("rack{rack}.h")), rack_header(rack, 0))?;
    }
    for option in 0..OPTIONS {
        fs::write(include.join(format!("option{option}.h")), option_header(option))?;
    }
    for class in 0..LISTS {
        fs::write(include.join(format!("class{class}.h")), class_header(class))?;
        fs::write(dir.join(format!("lcfg/packages/class{class}.pkgs")), list(class))?;
    }
    for node in 0..NODES {
        let text = format!(
            "/* Node {node}. */\n#include <gatehouse/site.h>\n#include <site/base.h>\n#include <site/disk.h>\n\
             #include <site/network.h>\n#include <site/class{}.h>\n#include <site/rack{}.h>\n\
             profile.comment  node number {node}\n!grub.cmdline    mCONCATQ(\" serial={node}\")\n",
            node % LISTS,
            node / (NODES / RACKS),
        );
        fs::write(dir.join(format!("lcfg/source/n{node}")), text)?;
    }
    fs::write(dir.join("site.lock"), lock().to_text())?;
    Ok(())
}

const BASE: &str = "#ifndef SITE_BASE_H\n#define SITE_BASE_H\n\
    #define SYSCTL(tag, name, value) !kernel.sysctls mADD(tag)\n\
    profile.domain      SITE_DOMAIN\nclient.url          SITE_SERVER_URL\n\
    openssh.permitroot  prohibit-password\ngrub.cmdline        quiet\ngrub.timeout        0\n\
    install.installmethods  disks packages network hosts auth openssh grub client umount\n\
    install.imethod_disks     fstab preparedisks\ninstall.imethod_packages  packages install\n\
    install.imethod_network   network install\ninstall.imethod_hosts     hosts install\n\
    install.imethod_auth      auth install\ninstall.imethod_openssh   openssh install\n\
    install.imethod_grub      grub install\ninstall.imethod_client    client install\n\
    install.imethod_umount    %umount%\n#endif\n";
const DISK: &str = "fstab.disks             SITE_DISK0\nfstab.dopartition_disk0 yes\nfstab.partitions_disk0  root swap data\n\
    fstab.size_root         8192\nfstab.mpt_root          /\nfstab.size_swap         1024\nfstab.type_swap         swap\n\
    fstab.size_data         free\nfstab.mpt_data          /srv\n";
const NETWORK: &str = "network.interfaces     eth0\nnetwork.device_eth0    auto\nnetwork.hostname_eth0  NODE_NAME\n\
    network.mac_eth0       NODE_MAC\nnetwork.ipaddr_eth0    NODE_ADDRESS\nnetwork.netmask_eth0   SITE_PREFIX\n\
    network.resolvers      SITE_RESOLVERS\nnetwork.search         SITE_DOMAIN\n";

fn rack_header(rack: usize, edit: usize) -> String {
    format!(
        "hosts.map           hosts/rack{rack}\nntp.servers         ntp{rack}.example.org\n\
         !boot.services      mADD(rack{rack}.service)\nlocal.rack          {rack}\nlocal.edit          {edit}\n"
    )
}

fn option_header(option: usize) -> String {
    let mut text = format!("#ifndef OPTION{option}\n#define OPTION{option}\n");
    for line in 0..3 {
        let tag = format!("o{option}_{line}");
        let _ = writeln!(
            text,
            "!file.files        mADD({tag})\nfile.file_{tag}     /etc/option{option}/{line}.conf"
        );
        let _ = writeln!(text, "file.tmpl_{tag}     for <%profile.node%> in <%profile.domain%>, line {line}");
        let _ = writeln!(text, "SYSCTL({tag}, x, {line})\nkernel.sysctl_{tag} net.option{option}.line{line}");
        let _ = writeln!(text, "kernel.value_{tag}  {line}");
    }
    text + "#endif\n"
}

fn class_header(class: usize) -> String {
    let mut text = String::new();
    for option in 0..8 {
        let _ = writeln!(text, "#include <site/option{}.h>", (class * 7 + option * 5) % OPTIONS);
    }
    text + &format!("profile.packages    @class{class}.pkgs\n!profile.components mADD(local)\n")
}

/// The numbers of a list's packages: most are in all lists.
fn chosen(class: usize) -> impl Iterator<Item = usize> {
    (0..PACKAGES).map(move |number| if number % 4 == 0 { PACKAGES + number + class } else { number })
}

fn list(class: usize) -> String {
    let mut text = format!("/* Packages of class {class}. */\n");
    for number in chosen(class) {
        let _ = writeln!(text, "package-number-{number}=*");
    }
    text
}

fn lock() -> Lock {
    let package = |number: usize| LockedPackage {
        name: format!("package-number-{number}"),
        version: format!("1.{number}-1+deb13u1"),
        architecture: "amd64".to_owned(),
        size: 100_000,
        sha256: Digest::of(number.to_string().as_bytes()),
        archive: "main".to_owned(),
        path: format!("pool/main/p/package/package-number-{number}_1.{number}-1+deb13u1_amd64.deb"),
        source: format!("package-{number}"),
        source_version: format!("1.{number}-1+deb13u1"),
    };
    let mut packages: Vec<LockedPackage> = (0..ARCHIVE).map(package).collect();
    packages.sort();
    let set = |class: usize| {
        let mut names: Vec<usize> = chosen(class).collect();
        names.sort_by_key(|number| format!("package-number-{number}"));
        let wishes: Vec<String> = names.iter().map(|number| format!("package-number-{number}")).collect();
        PackageSet {
            name: PackageSet::name_for(&wishes),
            wishes,
            packages: names.iter().map(|number| package(*number).id()).collect(),
        }
    };
    let none = Digest::of(b"");
    Lock { schema: 1, agent: none, request: none, sets: (0..LISTS).map(set).collect(), packages }
}

fn site_toml() -> String {
    let mut text = String::from(
        "schema = 1\n[site]\nname = \"thousand\"\ndomain = \"thousand.example.org\"\n\
         epoch = \"2026-01-01T00:00:00Z\"\n[[disk]]\nmin-size = \"8TiB\"\n[network]\nsubnet = \"10.8.0.0/16\"\n\
         host = \"10.8.0.2\"\ngateway = \"10.8.0.1\"\nresolvers = [\"10.8.0.3\"]\n[host]\nvmm = \"xen\"\n\
         memory = \"1GiB\"\nvcpus = 2\n[access]\nkeys = []\nfrom = []\n\
         [packages]\nsuite = \"trixie\"\ncomponents = [\"main\"]\nfirmware = []\n",
    );
    for node in 0..NODES {
        let (high, low) = (1 + node / 200, 1 + node % 200);
        let _ = write!(
            text,
            "[[node]]\nname = \"n{node}\"\naddress = \"10.8.{high}.{low}\"\nmemory = \"512MiB\"\ndisk = \"4GiB\"\nvcpus = 1\n"
        );
    }
    text
}

fn run(dir: &Path, state: &Path) -> Result<(), Fault> {
    fs::create_dir_all(state)?;
    if !state.join("site").exists() {
        std::os::unix::fs::symlink(fs::canonicalize(dir)?, state.join("site"))?;
    }
    let begun = Instant::now();
    let site = Site::parse(&fs::read_to_string(dir.join("site.toml"))?).map_err(Fault::of_problems)?;
    let lock = Lock::parse(&fs::read_to_string(dir.join("site.lock"))?).map_err(Fault::of_problems)?;
    println!("read {}", begun.elapsed().as_secs_f64());
    let mut paths = Paths::host();
    state.clone_into(&mut paths.state);
    let begun = Instant::now();
    let profiles = Arc::new(Profiles::open(&site, &lock, &paths)?);
    let done = profiles.refresh()?.ok_or_else(|| Fault::new("nothing to publish"))?;
    println!("cold {}", begun.elapsed().as_secs_f64());
    if !done.problems.is_empty() {
        return Err(Fault::of_problems(done.told()));
    }
    let pages = site.nodes.iter().filter_map(|node| profiles.page(&node.name));
    let served: usize = pages.map(|page| page.xml().len()).sum();
    println!("published {}\nbytes {}\nserved {served}", done.changed.len(), done.written);
    edit(dir, &paths, &profiles)
}

/// Changes a header that ten nodes read, as an editor does; the time goes from the write to the news of it.
fn edit(dir: &Path, paths: &Paths, profiles: &Arc<Profiles>) -> Result<(), Fault> {
    let mut watch = Watch::new(&fs::canonicalize(paths.site())?)?;
    let mut news = profiles.subscribe();
    let following = Arc::clone(profiles);
    thread::spawn(move || {
        while let Ok(touched) = watch.wait(Duration::from_secs(60)) {
            let _ = following.refresh_touched(&touched.unwrap_or_else(BTreeSet::new));
        }
    });
    let header = dir.join("lcfg/include/site/rack7.h");
    for number in 1..=EDITS {
        let partial = header.with_extension("partial");
        fs::write(&partial, rack_header(7, number))?;
        let begun = Instant::now();
        fs::rename(&partial, &header)?;
        let changed = news.blocking_recv().doing(|| "waiting for the news")?;
        println!("edit {}", begun.elapsed().as_secs_f64());
        if changed.len() != NODES / RACKS {
            return Err(Fault::new(format!("the edit reached {} nodes", changed.len())));
        }
    }
    fs::write(&header, rack_header(7, 0))?;
    Ok(())
}
