//! What the kernel's command line says to Gatehouse.

use gatehouse_model::site::InstallTo;
use gatehouse_model::{Digest, Problem};

/// The arguments that count here; everything else on the line is the kernel's or systemd's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelArgs {
    /// PARTUUID of the host's root: from `gatehouse.boot`, else from `root=`.
    pub boot: Option<String>,
    /// `gatehouse.slot`: `a` or `b`.
    pub slot: Slot,
    /// `gatehouse.install-to`: goes before `install.to` in site.toml.
    pub install_to: Option<InstallTo>,
    /// `gatehouse.site`: which of several sites on a medium; goes before what their `[match]` says.
    pub site: Option<String>,
    /// `gatehouse.reinstall`: the id (GUID) of the installed disk that is to be installed anew.
    pub reinstall: Option<String>,
    /// `gatehouse.lose=all`: a reinstall loses state and the nodes' disks too.
    pub lose_all: bool,
    /// `gatehouse.from`, `gatehouse.contents` and `gatehouse.sites`: a machine that was started from the network.
    pub from: Option<Origin>,
}

/// Where a machine that was started from the network finds what it installs, and what that must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `http://ADDRESS:PORT/PATH`, without a slash at its end.
    pub url: String,
    /// Digest of `contents.json` there.
    pub contents: Digest,
    /// Digest of `sites.tar` there.
    pub sites: Digest,
}

/// The three arguments that are one.
#[derive(Debug, Default)]
struct Network {
    url: Option<String>,
    contents: Option<Digest>,
    sites: Option<Digest>,
}

impl Network {
    fn finish(self) -> Result<Option<Origin>, String> {
        match (self.url, self.contents, self.sites) {
            (None, None, None) => Ok(None),
            (Some(url), Some(contents), Some(sites)) => Ok(Some(Origin { url, contents, sites })),
            _ => Err("gatehouse.from, gatehouse.contents and gatehouse.sites belong together; write all three or none"
                .into()),
        }
    }
}

/// One of the two bootable versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slot {
    /// The one in the image.
    #[default]
    A,
    /// The one made on the machine.
    B,
}

impl Slot {
    /// The letter in partitions' names.
    pub fn letter(self) -> char {
        match self {
            Self::A => 'a',
            Self::B => 'b',
        }
    }
}

impl KernelArgs {
    /// Reads a command line, `/proc/cmdline`.
    ///
    /// # Errors
    /// Every argument of Gatehouse's own that is not known or has a wrong value.
    pub fn parse(line: &str) -> Result<Self, Vec<Problem>> {
        let mut args = Self::default();
        let mut root = None;
        let mut problems = Vec::new();
        let mut network = Network::default();
        for word in line.split_whitespace() {
            if let Some(uuid) = word.strip_prefix("root=PARTUUID=") {
                root = Some(uuid.to_ascii_lowercase());
            } else if let Some(own) = word.strip_prefix("gatehouse.")
                && let Err(what) = args.take(own, &mut network)
            {
                problems.push(Problem::at("kernel command line", 0, what));
            }
        }
        args.boot = args.boot.or(root);
        match network.finish() {
            Ok(from) => args.from = from,
            Err(what) => problems.push(Problem::at("kernel command line", 0, what)),
        }
        if problems.is_empty() { Ok(args) } else { Err(problems) }
    }

    fn take(&mut self, own: &str, network: &mut Network) -> Result<(), String> {
        let (key, value) = own.split_once('=').unwrap_or((own, ""));
        match (key, value) {
            ("boot", uuid) if !uuid.is_empty() => {
                let uuid = uuid.strip_prefix("PARTUUID=").unwrap_or(uuid);
                self.boot = Some(uuid.to_ascii_lowercase());
            }
            ("slot", "a") => self.slot = Slot::A,
            ("slot", "b") => self.slot = Slot::B,
            ("install-to", "self") => self.install_to = Some(InstallTo::SelfDisk),
            ("install-to", "rule") => self.install_to = Some(InstallTo::Rule),
            ("site", name) if !name.is_empty() => self.site = Some(name.to_owned()),
            ("reinstall", id) if !id.is_empty() => self.reinstall = Some(id.to_ascii_lowercase()),
            ("lose", "all") => self.lose_all = true,
            ("from", url) if url.starts_with("http://") => {
                network.url = Some(url.trim_end_matches('/').to_owned());
            }
            ("contents", digest) => network.contents = Some(sha256(key, digest)?),
            ("sites", digest) => network.sites = Some(sha256(key, digest)?),
            ("site", _) => return Err("gatehouse.site has no value; write the name of a site".into()),
            ("reinstall", _) => return Err("gatehouse.reinstall has no value; write the id of a disk".into()),
            ("lose", _) => return Err(format!("gatehouse.lose={value} is nothing to lose; write all")),
            ("from", _) => {
                return Err(format!("gatehouse.from={value} is no address; write http://ADDRESS:PORT"));
            }
            ("boot", _) => return Err("gatehouse.boot has no value; write the PARTUUID of the root".into()),
            ("slot", _) => return Err(format!("gatehouse.slot={value} is no slot; write a or b")),
            ("install-to", _) => {
                return Err(format!("gatehouse.install-to={value} is no place; write self or rule"));
            }
            _ => {
                return Err(format!(
                    "gatehouse.{key} is not known; write boot, slot, install-to, site, reinstall, lose, from, contents \
                     or sites"
                ));
            }
        }
        Ok(())
    }
}

fn sha256(key: &str, text: &str) -> Result<Digest, String> {
    text.parse().map_err(|_| format!("gatehouse.{key}={text} is no digest; write 64 hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_the_boot_disk_unless_another_is_named() {
        let args = KernelArgs::parse("placeholder root=PARTUUID=ABCD-1 ro gatehouse.slot=b quiet").unwrap();
        assert_eq!(args, KernelArgs { boot: Some("abcd-1".into()), slot: Slot::B, ..KernelArgs::default() });
        let args = KernelArgs::parse("gatehouse.boot=x root=PARTUUID=y gatehouse.install-to=self\n").unwrap();
        assert_eq!(args.boot.as_deref(), Some("x"));
        assert_eq!(args.install_to, Some(InstallTo::SelfDisk));
    }

    #[test]
    fn a_start_from_the_network_names_what_must_come() {
        let digest = Digest::of(b"");
        let line = format!(
            "gatehouse.from=http://10.0.2.1:8000/ gatehouse.contents={digest} gatehouse.sites={digest}"
        );
        let args = KernelArgs::parse(&line).unwrap();
        let from = Origin { url: "http://10.0.2.1:8000".into(), contents: digest, sites: digest };
        assert_eq!(args.from, Some(from));
        let problems = KernelArgs::parse("gatehouse.from=http://x gatehouse.contents=1").unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:?}");
    }

    #[test]
    fn every_mistake_is_named() {
        let problems =
            KernelArgs::parse("gatehouse.slot=c gatehouse.erase gatehouse.install-to=sda").unwrap_err();
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "kernel command line: gatehouse.slot=c is no slot; write a or b",
                "kernel command line: gatehouse.erase is not known; write boot, slot, install-to, site, reinstall, lose, \
                 from, contents or sites",
                "kernel command line: gatehouse.install-to=sda is no place; write self or rule",
            ]
        );
    }
}
