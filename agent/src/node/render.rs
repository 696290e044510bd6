//! The files of an installed node as text, from values: nothing here touches a disk.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// One line of `/etc/fstab`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `UUID=…`.
    pub device: String,
    /// Mount point; `none` for swap.
    pub point: String,
    /// Type of the file system.
    pub kind: String,
    /// Mount options; empty means `defaults`.
    pub options: String,
    /// Whether systemd enlarges the file system to the size of its partition at every start.
    pub grows: bool,
}

/// `/etc/fstab`.
pub fn fstab(mounts: &[Mount]) -> String {
    let mut out = String::from("# Written by Gatehouse from the node's profile.\n");
    for mount in mounts {
        let pass = match (mount.kind.as_str(), mount.point.as_str()) {
            ("ext4" | "vfat", "/") => 1,
            ("ext4" | "vfat", _) => 2,
            _ => 0,
        };
        let options = options(mount);
        put(&mut out, format_args!("{} {} {} {options} 0 {pass}", mount.device, mount.point, mount.kind));
    }
    out
}

/// The options of a mount as they stand in the table.
pub fn options(mount: &Mount) -> String {
    let given = match (mount.options.as_str(), mount.kind.as_str()) {
        ("" | "defaults", "ext4") if mount.point == "/" => "errors=remount-ro",
        ("" | "defaults", "swap") => "sw",
        ("", _) => "defaults",
        (given, _) => given,
    };
    if mount.grows { format!("{given},x-systemd.growfs") } else { given.to_owned() }
}

/// The lines of a table of mounts; what is not one is passed over.
pub fn read_fstab(text: &str) -> Vec<Mount> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [device, point, kind, rest @ ..] = &words[..] else { return None };
        let options = rest.first().copied().unwrap_or_default().to_owned();
        let comment = device.starts_with('#');
        (!comment).then(|| Mount {
            device: (*device).into(),
            point: (*point).into(),
            kind: (*kind).into(),
            options,
            // What was written for that stands among the options.
            grows: false,
        })
    };
    text.lines().filter_map(line).collect()
}

/// How an interface gets its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// A fixed address and the network's prefix length.
    Static(Ipv4Addr, u8),
    /// By DHCP.
    Dhcp,
}

/// One interface of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// A line of networkd's `[Match]`: `MACAddress=…` or `Name=…`.
    pub matching: String,
    /// How it gets its address.
    pub addressing: Addressing,
    /// The default gateway, if it is reached through this interface.
    pub gateway: Option<String>,
    /// Name servers.
    pub resolvers: Vec<String>,
    /// Search domains.
    pub search: Vec<String>,
}

/// A `.network` file of systemd-networkd.
pub fn network(interface: &Interface) -> String {
    let mut out = format!("[Match]\n{}\n\n[Network]\n", interface.matching);
    match interface.addressing {
        Addressing::Static(address, prefix) => put(&mut out, format_args!("Address={address}/{prefix}")),
        Addressing::Dhcp => out.push_str("DHCP=ipv4\n"),
    }
    if let Some(gateway) = &interface.gateway {
        put(&mut out, format_args!("Gateway={gateway}"));
    }
    for resolver in &interface.resolvers {
        put(&mut out, format_args!("DNS={resolver}"));
    }
    if !interface.search.is_empty() {
        put(&mut out, format_args!("Domains={}", interface.search.join(" ")));
    }
    // The address may be used at once: nobody else has it, and services bind to it at boot.
    out.push_str("LinkLocalAddressing=no\nIPv6AcceptRA=no\nConfigureWithoutCarrier=yes\n");
    out
}

/// `/etc/resolv.conf`.
pub fn resolv_conf(resolvers: &[String], search: &[String]) -> String {
    let mut out = String::from("# Written by Gatehouse from the node's profile.\n");
    if !search.is_empty() {
        put(&mut out, format_args!("search {}", search.join(" ")));
    }
    for resolver in resolvers {
        put(&mut out, format_args!("nameserver {resolver}"));
    }
    out
}

/// `/etc/hosts`: the loopback names and (address, names) pairs.
pub fn hosts(entries: &[(String, String)]) -> String {
    let mut out = String::from("# Written by Gatehouse from the node's profile.\n127.0.0.1 localhost\n");
    out.push_str("::1 localhost ip6-localhost ip6-loopback\n");
    for (address, names) in entries {
        put(&mut out, format_args!("{address} {names}"));
    }
    out
}

/// A user of `auth.extrapasswd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Hash of the password, or `*`.
    pub password: String,
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
    /// Full name.
    pub comment: String,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

impl User {
    /// Its line of `/etc/passwd`.
    pub fn passwd(&self) -> String {
        let Self { name, uid, gid, comment, home, shell, .. } = self;
        format!("{name}:x:{uid}:{gid}:{comment}:{home}:{shell}")
    }
}

/// Puts a line into a file of colon-separated lines, in place of the one with the same name.
pub fn with_entry(file: &str, line: &str) -> String {
    let name = line.split(':').next().unwrap_or_default();
    let mut found = false;
    let mut out = String::new();
    for old in file.lines() {
        let same = old.split(':').next() == Some(name);
        if !same {
            put(&mut out, format_args!("{old}"));
        } else if !found {
            put(&mut out, format_args!("{line}"));
            found = true;
        }
    }
    if !found {
        put(&mut out, format_args!("{line}"));
    }
    out
}

/// The first number from 1000 on that no line of `/etc/passwd` has.
pub fn free_uid(passwd: &str) -> u32 {
    let taken: Vec<u32> = passwd.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok()).collect();
    (1000..u32::MAX).find(|uid| !taken.contains(uid)).unwrap_or(u32::MAX)
}

/// The number of a user by name in the text of `/etc/passwd`, or of a group in that of `/etc/group`.
pub fn uid_of(file: &str, name: &str) -> Option<u32> {
    let line = file.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

/// Sets one user's password in `/etc/shadow`, keeping the other fields; the date of the last change of a new one is
/// left empty, so that none is forced.
pub fn with_password(shadow: &str, user: &str, hash: &str) -> String {
    let old = shadow.lines().find(|line| line.split(':').next() == Some(user));
    let rest = old.and_then(|line| line.splitn(3, ':').nth(2)).unwrap_or(":0:99999:7:::");
    with_entry(shadow, &format!("{user}:{hash}:{rest}"))
}

/// `authorized_keys`.
pub fn authorized_keys(keys: &[String]) -> String {
    let mut out = String::new();
    for key in keys {
        put(&mut out, format_args!("{}", key.trim()));
    }
    out
}

/// The SSH server's settings.
pub fn sshd(permit_root: &str) -> String {
    format!(
        "# Written by Gatehouse from the node's profile.\nPermitRootLogin {permit_root}\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\nUseDNS no\n"
    )
}

/// What the boot loader starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootEntry {
    /// The kernel's path on the file system that holds `grub.cfg`.
    pub kernel: String,
    /// The initramfs beside it.
    pub initrd: Option<String>,
    /// UUID of the root file system.
    pub root: String,
    /// The consoles, and whatever else a machine asks of the kernel, as its arguments.
    pub consoles: &'static str,
    /// The kernel and its arguments under Xen, where the node's disk may be started there.
    pub xen: Option<(String, &'static str)>,
    /// More kernel arguments.
    pub cmdline: String,
    /// Seconds to wait for somebody at the console.
    pub timeout: u32,
}

/// `grub.cfg`. Every GRUB finds this file itself, and `$root` is then the file system it lies on. PV-GRUB shows no progress:
/// each change of that would go through hypervisor and host, for seconds where those are emulated.
pub fn grub_cfg(entry: &BootEntry) -> String {
    let BootEntry { kernel, initrd, root, consoles, xen, cmdline, timeout } = entry;
    let mut out = format!(
        "# Written by Gatehouse from the node's profile.\nset default=0\nset timeout={timeout}\n\
         set enable_progress_indicator=0\n\nmenuentry 'Debian' {{\n"
    );
    let linux = |kernel: &str, more: &str| {
        let words = format!("linux {kernel} root=UUID={root} ro {more} {}", cmdline.trim());
        words.trim_end().to_owned()
    };
    let plain = linux(kernel, consoles);
    match xen {
        // Under PVH GRUB starts a kernel as on any PC, and its console is Xen's.
        Some((unpacked, consoles)) => put(
            &mut out,
            format_args!(
                "    if [ \"$grub_platform\" = xen ]; then\n        {}\n    \
                 elif [ \"$grub_platform\" = xen_pvh ]; then\n        {}\n    else\n        {plain}\n    fi",
                linux(unpacked, consoles),
                linux(kernel, consoles)
            ),
        ),
        None => put(&mut out, format_args!("    {plain}")),
    }
    if let Some(initrd) = initrd {
        put(&mut out, format_args!("    initrd {initrd}"));
    }
    out.push_str("}\n");
    out
}

/// Prefix length of a netmask written as `24`, `/24` or `255.255.255.0`.
pub fn prefix(netmask: &str) -> Option<u8> {
    let text = netmask.trim().trim_start_matches('/');
    if let Ok(mask) = text.parse::<Ipv4Addr>() {
        let bits = u32::from(mask);
        let ones = bits.leading_ones();
        return (bits.count_ones() == ones).then(|| u8::try_from(ones).ok()).flatten();
    }
    text.parse().ok().filter(|prefix| *prefix <= 32)
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn fstab_lines() {
        let mount = |device: &str, point: &str, kind: &str, options: &str| Mount {
            device: device.into(),
            point: point.into(),
            kind: kind.into(),
            options: options.into(),
            grows: point == "/",
        };
        let all = [
            mount("UUID=a", "/", "ext4", "defaults"),
            mount("UUID=b", "/data", "xfs", "noatime"),
            mount("UUID=c", "none", "swap", ""),
            mount("UUID=1234-ABCD", "/boot/efi", "vfat", ""),
        ];
        assert_eq!(
            fstab(&all),
            "# Written by Gatehouse from the node's profile.\nUUID=a / ext4 errors=remount-ro,x-systemd.growfs 0 1\n\
             UUID=b /data xfs noatime 0 0\nUUID=c none swap sw 0 0\nUUID=1234-ABCD /boot/efi vfat defaults 0 2\n"
        );
        let read = read_fstab(&fstab(&all));
        assert_eq!(fstab(&read), fstab(&all), "what is written reads back");
        assert_eq!(options(&read[0]), "errors=remount-ro,x-systemd.growfs");
    }

    #[test]
    fn network_files() {
        let interface = Interface {
            matching: "MACAddress=02:00:00:00:00:01".into(),
            addressing: Addressing::Static(Ipv4Addr::new(10, 0, 2, 21), 24),
            gateway: Some("10.0.2.2".into()),
            resolvers: strings(&["10.0.2.3"]),
            search: strings(&["example.org", "example.net"]),
        };
        assert_eq!(
            network(&interface),
            "[Match]\nMACAddress=02:00:00:00:00:01\n\n[Network]\nAddress=10.0.2.21/24\nGateway=10.0.2.2\n\
             DNS=10.0.2.3\nDomains=example.org example.net\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n\
             ConfigureWithoutCarrier=yes\n"
        );
        let dhcp = Interface { addressing: Addressing::Dhcp, gateway: None, ..interface };
        assert!(network(&dhcp).contains("\nDHCP=ipv4\n"));
        assert_eq!(
            resolv_conf(&strings(&["10.0.2.3"]), &strings(&["example.org"])),
            "# Written by Gatehouse from the node's profile.\nsearch example.org\nnameserver 10.0.2.3\n"
        );
        assert!(
            hosts(&[("10.0.2.20".into(), "host.example.org host".into())])
                .ends_with("\n10.0.2.20 host.example.org host\n")
        );
    }

    #[test]
    fn netmasks() {
        for (text, bits) in [("24", 24), ("/16", 16), ("255.255.255.0", 24), ("255.255.254.0", 23), ("0", 0)]
        {
            assert_eq!(prefix(text), Some(bits), "{text}");
        }
        for text in ["", "33", "255.0.255.0", "x", "255.255.255"] {
            assert_eq!(prefix(text), None, "{text}");
        }
    }

    #[test]
    fn accounts() {
        let shadow = "root:*:20000:0:99999:7:::\ndaemon:*:20000:0:99999:7:::\n";
        assert_eq!(
            with_password(shadow, "root", "$6$x$y"),
            "root:$6$x$y:20000:0:99999:7:::\ndaemon:*:20000:0:99999:7:::\n"
        );
        assert_eq!(with_password("", "root", "!"), "root:!::0:99999:7:::\n");
        let user = User {
            name: "edguser".into(),
            password: "*".into(),
            uid: 995,
            gid: 995,
            comment: String::new(),
            home: "/home/edguser".into(),
            shell: "/bin/bash".into(),
        };
        assert_eq!(free_uid("root:x:0:0:::\na:x:1000:1000:::\nnobody:x:65534:65534:::\n"), 1001);
        assert_eq!(user.passwd(), "edguser:x:995:995::/home/edguser:/bin/bash");
        assert_eq!(with_entry("a:1\nedguser:old\n", "edguser:new"), "a:1\nedguser:new\n");
        assert_eq!(uid_of("root:x:0:0:::\nedguser:x:995:996:::\n", "edguser"), Some(995));
        assert_eq!(uid_of("edguser2:x:995:\n", "edguser"), None);
        assert_eq!(
            authorized_keys(&strings(&["ssh-ed25519 A a ", "ssh-rsa B"])),
            "ssh-ed25519 A a\nssh-rsa B\n"
        );
    }

    #[test]
    fn boot_loader() {
        let mut entry = BootEntry {
            kernel: "/vmlinuz".into(),
            initrd: Some("/initrd.img".into()),
            root: "u-u".into(),
            consoles: "console=ttyS0",
            xen: Some(("/vmlinux.gz".into(), "console=hvc0")),
            cmdline: String::new(),
            timeout: 0,
        };
        assert_eq!(
            grub_cfg(&entry),
            "# Written by Gatehouse from the node's profile.\nset default=0\nset timeout=0\n\
             set enable_progress_indicator=0\n\nmenuentry 'Debian' {\n    \
             if [ \"$grub_platform\" = xen ]; then\n        linux /vmlinux.gz root=UUID=u-u ro console=hvc0\n    \
             elif [ \"$grub_platform\" = xen_pvh ]; then\n        \
             linux /vmlinuz root=UUID=u-u ro console=hvc0\n    else\n        linux /vmlinuz root=UUID=u-u ro console=ttyS0\n    fi\n    initrd /initrd.img\n}\n"
        );
        (entry.xen, entry.initrd, entry.cmdline) = (None, None, " quiet ".into());
        assert!(
            grub_cfg(&entry).ends_with("{\n    linux /vmlinuz root=UUID=u-u ro console=ttyS0 quiet\n}\n")
        );
        assert!(sshd("no").contains("PermitRootLogin no\n"));
    }
}
