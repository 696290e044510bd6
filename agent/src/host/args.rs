//! What the kernel's command line says to Gatehouse.

use gatehouse_model::Problem;
use gatehouse_model::site::InstallTo;

/// The arguments that count here; everything else on the line is the kernel's or systemd's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelArgs {
    /// PARTUUID of the host's root: from `gatehouse.boot`, else from `root=`.
    pub boot: Option<String>,
    /// `gatehouse.slot`: `a` or `b`.
    pub slot: Slot,
    /// `gatehouse.install-to`: goes before `install.to` in site.toml.
    pub install_to: Option<InstallTo>,
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
        for word in line.split_whitespace() {
            if let Some(uuid) = word.strip_prefix("root=PARTUUID=") {
                root = Some(uuid.to_ascii_lowercase());
            } else if let Some(own) = word.strip_prefix("gatehouse.")
                && let Err(what) = args.take(own)
            {
                problems.push(Problem::at("kernel command line", 0, what));
            }
        }
        args.boot = args.boot.or(root);
        if problems.is_empty() { Ok(args) } else { Err(problems) }
    }

    fn take(&mut self, own: &str) -> Result<(), String> {
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
            ("boot", _) => return Err("gatehouse.boot has no value; write the PARTUUID of the root".into()),
            ("slot", _) => return Err(format!("gatehouse.slot={value} is no slot; write a or b")),
            ("install-to", _) => {
                return Err(format!("gatehouse.install-to={value} is no place; write self or rule"));
            }
            _ => {
                return Err(format!("gatehouse.{key} is not known; write boot, slot or install-to"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_the_boot_disk_unless_another_is_named() {
        let args = KernelArgs::parse("placeholder root=PARTUUID=ABCD-1 ro gatehouse.slot=b quiet").unwrap();
        assert_eq!(args, KernelArgs { boot: Some("abcd-1".into()), slot: Slot::B, install_to: None });
        let args = KernelArgs::parse("gatehouse.boot=x root=PARTUUID=y gatehouse.install-to=self\n").unwrap();
        assert_eq!(args.boot.as_deref(), Some("x"));
        assert_eq!(args.install_to, Some(InstallTo::SelfDisk));
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
                "kernel command line: gatehouse.erase is not known; write boot, slot or install-to",
                "kernel command line: gatehouse.install-to=sda is no place; write self or rule",
            ]
        );
    }
}
