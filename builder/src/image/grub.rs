//! GRUB for BIOS and UEFI machines, made without grub-install, and its menu.

mod early;

use std::fs;
use std::path::{Path, PathBuf};

use gatehouse_model::{Digest, Doing as _, Fault};

use super::RECIPE;
use crate::cache::{Cache, settle};
use crate::interrupt::Fleeting;
use crate::tools::Tools;

pub use early::{told_bios, told_uefi};

/// The menu. One serves both: Xen is a multiboot2 kernel under UEFI as well, and asks GRUB to leave the firmware's
/// services on. Chainloading `xen.efi` would need a configuration file of its own beside it.
pub const MENU: &str = include_str!("grub.cfg");

/// What GRUB needs on any machine to read the menu and all that it names; it has no directory of modules.
const MODULES: [&str; 19] = [
    "part_gpt",
    "fat",
    // A node on a machine of its own starts the kernel on its root.
    "ext2",
    "xfs",
    "normal",
    "configfile",
    "echo",
    "test",
    "true",
    "probe",
    "regexp",
    "linux",
    "multiboot2",
    "serial",
    "loadenv",
    "sleep",
    "reboot",
    "halt",
    "ls",
];
/// What it needs besides to be started from the network and to fetch things there.
const NETWORK: [&str; 3] = ["http", "net", "tftp"];
/// The second partition of the disk that GRUB was started from, whatever the firmware calls it.
const PREFIX: &str = "(,gpt2)/grub";

/// A kind of machine that GRUB is made for.
struct Platform {
    name: &'static str,
    /// What it needs there beside [`MODULES`].
    more: &'static [&'static str],
    prefix: &'static str,
    /// What it does before it reads the menu.
    early: &'static str,
}

const BIOS: Platform = Platform { name: "i386-pc", more: &["biosdisk"], prefix: PREFIX, early: "" };
/// The firmware starts it from the menu's own partition, so the prefix names none. The video modules are what lets
/// Xen have the firmware's screen.
const UEFI: Platform =
    Platform { name: "x86_64-efi", more: &["all_video", "efi_gop"], prefix: "/grub", early: "" };
/// The same from the network: the menu lies on the server that they came from.
const NET_BIOS: Platform = Platform {
    name: "i386-pc-pxe",
    more: &["biosdisk", "pxe", "memrw"],
    prefix: "/grub",
    early: early::BIOS,
};
const NET_UEFI: Platform = Platform {
    name: "x86_64-efi",
    more: &["all_video", "efi_gop", "efinet"],
    prefix: "/grub",
    early: early::UEFI,
};

/// GRUB's images.
#[derive(Debug)]
pub struct Grub {
    /// BIOS: the first sector.
    pub boot: Vec<u8>,
    /// BIOS: the rest, for the BIOS boot partition.
    pub core: Vec<u8>,
    /// UEFI: the program `EFI/BOOT/BOOTX64.EFI`.
    pub efi: Vec<u8>,
    /// BIOS: what PXE loads.
    pub net_bios: Vec<u8>,
    /// UEFI: the program that is loaded from the network.
    pub net_efi: Vec<u8>,
}

impl Grub {
    /// Makes the images, or takes them from the cache; `packages` names the exact tools.
    ///
    /// # Errors
    /// grub-mkimage fails.
    pub fn make(tools: &Tools, packages: &Digest, cache: &Cache) -> Result<Self, Fault> {
        let read = |path: &Path| fs::read(path).doing(|| format!("reading {}", path.display()));
        Ok(Self {
            boot: read(&BIOS.directory(tools).join("boot.img"))?,
            core: read(&BIOS.image(tools, packages, cache, &[])?)?,
            efi: read(&UEFI.image(tools, packages, cache, &[])?)?,
            net_bios: read(&NET_BIOS.image(tools, packages, cache, &NETWORK)?)?,
            net_efi: read(&NET_UEFI.image(tools, packages, cache, &NETWORK)?)?,
        })
    }

    /// Digest of all that depends on the tools' packages.
    pub fn digest(&self) -> Digest {
        let parts = [&self.boot, &self.core, &self.efi, &self.net_bios, &self.net_efi]
            .map(|bytes| Digest::of(bytes).to_string());
        Digest::of(parts.join(" ").as_bytes())
    }
}

impl Platform {
    fn directory(&self, tools: &Tools) -> PathBuf {
        tools.path("usr/lib/grub").join(self.modules())
    }

    /// Where its modules are: the format for PXE has those of its kind of machine.
    fn modules(&self) -> &'static str {
        self.name.strip_suffix("-pxe").unwrap_or(self.name)
    }

    fn image(
        &self,
        tools: &Tools,
        packages: &Digest,
        cache: &Cache,
        also: &[&str],
    ) -> Result<PathBuf, Fault> {
        let Self { name, more, prefix, early } = self;
        let key = format!("grub {RECIPE} {packages} {name} {prefix} {MODULES:?} {more:?} {also:?} {early}");
        let done = cache.file(&Digest::of(key.as_bytes()));
        if !done.exists() {
            let scratch = Fleeting::new(cache.scratch("grub")?);
            let made = scratch.path().join("image");
            let (dir, to) = (self.directory(tools).display().to_string(), made.display().to_string());
            let mut args = vec!["-O", name, "-d", &dir, "-p", prefix, "-o", &to];
            let config = scratch.path().join("early.cfg").display().to_string();
            if !early.is_empty() {
                fs::write(&config, early).doing(|| format!("writing {config}"))?;
                args.extend(["-c", &config]);
            }
            args.extend(MODULES);
            args.extend(*more);
            args.extend(also);
            tools.run("usr/bin/grub-mkimage", &args).doing(|| format!("making GRUB's image for {name}"))?;
            settle(&made, &done)?;
        }
        Ok(done)
    }
}
