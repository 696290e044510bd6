//! The components' part of an install: each turns its resources into files of the new root.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use gatehouse_lcfg::Profile;
use gatehouse_model::{Doing as _, Fault, Mac};

use crate::node::client::{Credentials, Home};
use crate::node::disks::{self, Made};
use crate::node::overlay;
use crate::node::render::{self, Addressing, BootEntry, Interface, User};
use crate::node::target::Target;
use crate::wire::Passport;

/// The installed node's agent.
pub const AGENT: &str = "/usr/lib/gatehouse/gatehouse-agent";
/// Which server the installed node listens to.
pub const HOME: &str = "/etc/gatehouse/node.json";
/// The installed node's certificate.
pub const CERTIFICATE: &str = "/var/lib/gatehouse/client/certificate.pem";
/// Its key.
pub const KEY: &str = "/var/lib/gatehouse/client/key.pem";
/// ETag of the profile that was applied last.
pub const APPLIED: &str = "/var/lib/gatehouse/client/applied-profile";

/// A profile being applied to a new root.
#[derive(Debug)]
pub struct Configuration<'a> {
    /// What to apply.
    pub profile: &'a Profile,
    /// Where.
    pub target: &'a Target,
    /// What the node knew at its start.
    pub passport: &'a Passport,
}

impl Configuration<'_> {
    fn get(&self, component: &str, resource: &str) -> &str {
        self.profile.get(component, resource).unwrap_or_default()
    }

    fn words(&self, component: &str, resource: &str) -> Vec<String> {
        self.get(component, resource).split_whitespace().map(str::to_owned).collect()
    }

    /// `/etc/fstab`, and what each installed disk has of its own.
    ///
    /// # Errors
    /// What the file system says.
    pub fn identity(&self, made: &[Made]) -> Result<(), Fault> {
        self.target.write("/etc/fstab", 0o644, render::fstab(&disks::mounts(made)).as_bytes())?;
        // Written here and not left to the first boot: at a power cut before that is committed to the disk the
        // node would come up as another one.
        let id = disks::random_uuid()?.replace('-', "");
        self.target.write("/etc/machine-id", 0o444, format!("{id}\n").as_bytes())
    }

    /// `network install`.
    ///
    /// # Errors
    /// An interface's resources cannot be understood, or what the file system says.
    pub fn network(&self) -> Result<(), Fault> {
        let resolvers = self.words("network", "resolvers");
        let search = self.words("network", "search");
        let mut hostname = self.passport.node.to_string();
        for (index, tag) in self.profile.tags("network", "interfaces").into_iter().enumerate() {
            let first = index == 0;
            let own_name = self.get("network", &format!("hostname_{tag}"));
            if first && !own_name.is_empty() {
                own_name.clone_into(&mut hostname);
            }
            if matches!(self.profile.get("network", &format!("onboot_{tag}")), Some("no" | "")) {
                continue;
            }
            let mut interface = self.interface(tag, first)?;
            if first {
                interface.resolvers.clone_from(&resolvers);
                interface.search.clone_from(&search);
            }
            let path = format!("/etc/systemd/network/10-gatehouse-{tag}.network");
            self.target.write(&path, 0o644, render::network(&interface).as_bytes())?;
        }
        self.target.write("/etc/hostname", 0o644, format!("{hostname}\n").as_bytes())?;
        let resolv = render::resolv_conf(&resolvers, &search);
        self.target.write("/etc/resolv.conf", 0o644, resolv.as_bytes())?;
        self.target.enable("systemd-networkd.service", "multi-user.target")?;
        self.target.enable("systemd-networkd.socket", "sockets.target")
    }

    fn interface(&self, tag: &str, first: bool) -> Result<Interface, Fault> {
        let get = |name: &str| self.get("network", &format!("{name}_{tag}"));
        let wrong = |name: &str, help: &str| {
            Fault::new(format!("network.{name}_{tag} is {:?}", get(name))).help(help.to_owned())
        };
        // Device names differ between hypervisors: the hardware address counts, and the first interface's is
        // the one that this install goes through.
        let matching = match (get("mac"), get("device")) {
            ("", _) if first => format!("MACAddress={}", self.passport.mac),
            ("", "" | "auto") => format!("Name={tag}"),
            ("", device) => format!("Name={device}"),
            (mac, _) => {
                let mac: Mac =
                    mac.parse().map_err(|_| wrong("mac", "write for example 02:00:5e:00:00:01"))?;
                format!("MACAddress={mac}")
            }
        };
        let addressing = match get("ipaddr") {
            "" | "auto" if first => Addressing::Static(self.passport.address, self.passport.prefix),
            dhcp if dhcp.eq_ignore_ascii_case("dhcp") => Addressing::Dhcp,
            address => {
                let address =
                    address.parse().map_err(|_| wrong("ipaddr", "write an IPv4 address or DHCP"))?;
                let prefix = match get("netmask") {
                    "" if first => self.passport.prefix,
                    mask => render::prefix(mask)
                        .ok_or_else(|| wrong("netmask", "write for example 24 or 255.255.255.0"))?,
                };
                Addressing::Static(address, prefix)
            }
        };
        let gateway = self.get("network", "gateway");
        let gateway = (first && !gateway.is_empty()).then(|| gateway.to_owned());
        Ok(Interface { matching, addressing, gateway, resolvers: Vec::new(), search: Vec::new() })
    }

    /// `hosts install`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn hosts(&self) -> Result<(), Fault> {
        let entry = |tag: &str| {
            let get = |name: &str| self.get("hosts", &format!("{name}_{tag}")).to_owned();
            (get("address"), get("names"))
        };
        let mut entries: Vec<_> = ["entries", "nodes"]
            .into_iter()
            .flat_map(|list| self.profile.tags("hosts", list))
            .map(entry)
            .filter(|(address, _)| address.parse::<IpAddr>().is_ok())
            .collect();
        let Passport { node, domain, address, .. } = self.passport;
        let own = address.to_string();
        if entries.iter().all(|(address, _)| *address != own) {
            entries.insert(0, (own, format!("{node}.{domain} {node}")));
        }
        self.target.write("/etc/hosts", 0o644, render::hosts(&entries).as_bytes())
    }

    /// `auth install`.
    ///
    /// # Errors
    /// A user without a number, or what the file system says.
    pub fn auth(&self) -> Result<(), Fault> {
        let hash = Some(self.get("auth", "rootpwd")).filter(|hash| !hash.is_empty()).unwrap_or("*");
        self.target.edit("/etc/shadow", |shadow| render::with_password(shadow, "root", hash))?;
        for tag in self.profile.tags("auth", "extrapasswd") {
            self.user(tag).doing(|| format!("making the user {tag}"))?;
        }
        let key = |tag: &str| self.get("auth", &format!("rootkey_{tag}")).to_owned();
        let keys: Vec<String> = self.profile.tags("auth", "rootkeys").into_iter().map(key).collect();
        self.target.directory("/root/.ssh", 0o700)?;
        self.target.write("/root/.ssh/authorized_keys", 0o600, render::authorized_keys(&keys).as_bytes())
    }

    fn user(&self, tag: &str) -> Result<(), Fault> {
        let get = |name: &str| self.get("auth", &format!("pw_{name}_{tag}"));
        let or = |name: &str, otherwise: &str| match get(name) {
            "" => otherwise.to_owned(),
            given => given.to_owned(),
        };
        let number = |name: &str, text: &str| {
            text.parse::<u32>()
                .map_err(|_| Fault::new(format!("auth.pw_{name}_{tag} is {text:?}, not a number")))
        };
        let name = or("name", tag);
        let uid = match get("uid") {
            "" => render::free_uid(&self.target.read("/etc/passwd")),
            given => number("uid", given)?,
        };
        let gid = number("gid", &or("gid", &uid.to_string()))?;
        let user = User {
            password: or("passwd", "*"),
            uid,
            gid,
            comment: get("gecos").to_owned(),
            home: or("dir", &format!("/home/{name}")),
            shell: or("shell", "/bin/bash"),
            name,
        };
        self.target.edit("/etc/passwd", |file| render::with_entry(file, &user.passwd()))?;
        self.target.edit("/etc/shadow", |file| render::with_entry(file, &user.shadow()))?;
        let groups = self.target.read("/etc/group");
        if !groups.lines().any(|line| line.split(':').nth(2) == Some(gid.to_string().as_str())) {
            let group = format!("{}:x:{gid}:", user.name);
            self.target.edit("/etc/group", |file| render::with_entry(file, &group))?;
            let shadow = format!("{}:!::", user.name);
            self.target.edit("/etc/gshadow", |file| render::with_entry(file, &shadow))?;
        }
        if self.target.at(&user.home).exists() {
            return Ok(());
        }
        self.target.directory(&user.home, 0o700)?;
        self.target.owner(&user.home, uid, gid)
    }

    /// `openssh install`.
    ///
    /// # Errors
    /// ssh-keygen fails, or what the file system says.
    pub fn openssh(&self) -> Result<(), Fault> {
        let permit = Some(self.get("openssh", "permitroot")).filter(|word| !word.is_empty());
        let settings = render::sshd(permit.unwrap_or("prohibit-password"));
        self.target.write("/etc/ssh/sshd_config.d/gatehouse.conf", 0o644, settings.as_bytes())?;
        // A key that came with the packages would be the same on every node.
        for entry in fs::read_dir(self.target.at("/etc/ssh")).doing(|| "reading /etc/ssh")?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("ssh_host_") {
                fs::remove_file(entry.path()).doing(|| "removing old host keys")?;
            }
        }
        self.target.run("/usr/bin/ssh-keygen", &["-A"])?;
        Ok(())
    }

    /// `grub install`: what PV-GRUB reads from the node's own disk.
    ///
    /// # Errors
    /// There is no kernel, or what the file system says.
    pub fn grub(&self, made: &[Made]) -> Result<(), Fault> {
        let root = made.iter().find(|part| part.wanted.point == "/");
        let root =
            root.ok_or_else(|| Fault::new("there is no root file system; run fstab preparedisks before"))?;
        let own_boot = made.iter().any(|part| part.wanted.point == "/boot");
        let (kernel, initrd) = self.kernel(own_boot)?;
        let timeout = self.get("grub", "timeout");
        let entry = BootEntry {
            kernel,
            initrd,
            root: root.fs_uuid.clone(),
            cmdline: self.get("grub", "cmdline").to_owned(),
            timeout: timeout.parse().unwrap_or(0),
        };
        self.target.write("/boot/grub/grub.cfg", 0o644, render::grub_cfg(&entry).as_bytes())
    }

    /// The kernel and initramfs as the boot loader names them. The links follow a kernel upgrade; they are of no
    /// use where `/boot` is a file system of its own, on which they do not lie.
    fn kernel(&self, own_boot: bool) -> Result<(String, Option<String>), Fault> {
        gatehouse_deb::kernel::sync(&self.target.at("/"))?;
        let there = |path: &str| fs::metadata(self.target.at(path)).is_ok();
        let link = format!("/{}", gatehouse_deb::kernel::LINK);
        if !own_boot && there(&link) {
            return Ok((link, there("/initrd.img").then(|| "/initrd.img".into())));
        }
        let mut versions = Vec::new();
        for entry in fs::read_dir(self.target.at("/boot")).doing(|| "reading /boot")?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            versions.extend(name.strip_prefix("vmlinuz-").map(str::to_owned));
        }
        versions.sort_by_cached_key(|version| version_key(version));
        let newest = versions.pop().ok_or_else(|| {
            Fault::new("the new root has no kernel in /boot")
                .help("add a linux-image package to the node's list, or leave grub out of its install")
        })?;
        let above = if own_boot { "" } else { "/boot" };
        let initrd = there(&format!("/boot/initrd.img-{newest}"));
        Ok((format!("{above}/vmlinux-{newest}.gz"), initrd.then(|| format!("{above}/initrd.img-{newest}"))))
    }

    /// `client install`: the agent, its credentials, and the files that every node has.
    ///
    /// # Errors
    /// What the file system says.
    pub fn client(&self, own: &Credentials, agent: &Path, etag: &str) -> Result<(), Fault> {
        let target = self.target;
        let home = Home {
            server: self.passport.server,
            authority: self.passport.authority.clone(),
            node: self.passport.node.clone(),
            domain: self.passport.domain.clone(),
        };
        target.directory("/var/lib/gatehouse/client", 0o700)?;
        target.write(CERTIFICATE, 0o600, own.certificate.as_bytes())?;
        target.write(KEY, 0o600, own.key.as_bytes())?;
        target.write(APPLIED, 0o600, etag.as_bytes())?;
        target.write(HOME, 0o644, serde_json::to_string_pretty(&home)?.as_bytes())?;
        let program = fs::read(agent).doing(|| format!("reading {}", agent.display()))?;
        target.write(AGENT, 0o755, &program)?;
        overlay::lay_over(target)?;
        target.link(
            "/etc/systemd/system/getty.target.wants/getty@tty0.service",
            "/usr/lib/systemd/system/getty@.service",
        )?;
        target.enable("gatehouse-client.service", "multi-user.target")
    }

    /// `%settz%`.
    ///
    /// # Errors
    /// The zone is not known to the new root.
    pub fn timezone(&self) -> Result<(), Fault> {
        let zone = Some(self.get("install", "timezone")).filter(|zone| !zone.is_empty()).unwrap_or("Etc/UTC");
        let file = format!("/usr/share/zoneinfo/{zone}");
        if zone.split('/').any(|part| part == "..") || !self.target.at(&file).exists() {
            return Err(Fault::new(format!("install.timezone is {zone:?}, and {file} does not exist"))
                .help("write a name such as Europe/Dublin, and have tzdata in the node's packages"));
        }
        self.target.link("/etc/localtime", &file)?;
        self.target.write("/etc/timezone", 0o644, format!("{zone}\n").as_bytes())
    }
}

/// Orders kernel releases by their numbers: 6.12.100 is newer than 6.12.48.
fn version_key(version: &str) -> Vec<(u64, String)> {
    let mut key = Vec::new();
    let mut rest = version;
    while !rest.is_empty() {
        let word = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, behind) = rest.split_at(word);
        let digits = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
        let (number, behind) = behind.split_at(digits);
        key.push((number.parse().unwrap_or(0), text.to_owned()));
        rest = behind;
    }
    key
}
