//! What machines of their own are given when they start from the network: an address and a loader by dnsmasq, a menu by
//! their hardware address, kernel and installer from the depot. Nobody else on the segment is answered.
//!
//! ```text
//! run/netboot/dnsmasq.conf
//! run/netboot/tftp/grub/{bios.0,uefi.efi,grub.cfg,<mac>.cfg}   the loaders and their menus
//! run/netboot/tftp/machine/                                    links into the depot, and <node>.cpio
//! ```

mod dnsmasq;
pub mod menu;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use gatehouse_model::site::Node;
use gatehouse_model::{Doing as _, Fault, FileRef, Mac, MachineBoot, Site};

use crate::control::board::Board;
use crate::host::files::write_whole;
use crate::paths::Paths;
use crate::vmm::initrd;
use crate::wire::Passport;
use dnsmasq::Dnsmasq;

/// The network side of machines of their own.
#[derive(Debug)]
pub struct Netboot {
    dir: PathBuf,
    depot: PathBuf,
    boot: Option<MachineBoot>,
    dnsmasq: Dnsmasq,
    /// What each machine is offered: its passport, of no particular time; none is its own disk.
    offered: Mutex<BTreeMap<Mac, Option<Passport>>>,
}

impl Netboot {
    /// Nothing is offered yet; `boot` is what the depot has for machines.
    pub fn new(paths: &Paths, boot: Option<MachineBoot>, board: Arc<Board>) -> Self {
        let dir = paths.run.join("netboot");
        let dnsmasq = Dnsmasq::new(dir.join("dnsmasq.conf"), board);
        Self { dir, depot: paths.depot.clone(), boot, dnsmasq, offered: Mutex::default() }
    }

    /// Whether the image was built for a site with machines.
    pub fn is_possible(&self) -> bool {
        self.boot.is_some()
    }

    /// Answers the machines of a site, and no longer those that are not in it.
    ///
    /// # Errors
    /// The image has nothing for machines; the files cannot be written.
    pub fn take_up(&self, site: &Site) -> Result<(), Fault> {
        if site.machines().next().is_none() {
            return self.dnsmasq.serve(None);
        }
        let boot = self.boot.as_ref().ok_or_else(|| {
            Fault::new("this machine's image has nothing for nodes on machines of their own")
                .help("build the image from the site as it is now, and install from that")
        })?;
        self.link(boot)?;
        write_whole(&self.tftp("grub/grub.cfg"), menu::first(site.name.as_str()).as_bytes(), 0o644)?;
        self.dnsmasq.serve(Some(dnsmasq::config(site, &self.dir.join("tftp"))))
    }

    /// Offers a machine its installer, or else its own disk.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn offer(&self, node: &Node, passport: Option<&Passport>) -> Result<(), Fault> {
        let Some(boot) = &self.boot else { return Ok(()) };
        let wanted = passport.map(|passport| Passport { time: 0, ..passport.clone() });
        let mut offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner);
        if offered.get(&node.mac) == Some(&wanted) {
            return Ok(());
        }
        let text = match passport {
            Some(passport) => {
                let file = self.tftp(&menu::passport_path(&node.name));
                write_whole(&file, &initrd::of_passport(passport)?, 0o644)?;
                menu::install(&node.name, &boot.kernel)
            }
            None => menu::own_disk(&node.name),
        };
        write_whole(&self.tftp(&format!("grub/{}.cfg", node.mac)), text.as_bytes(), 0o644)?;
        offered.insert(node.mac, wanted);
        Ok(())
    }

    fn tftp(&self, path: &str) -> PathBuf {
        self.dir.join("tftp").join(path)
    }

    fn link(&self, boot: &MachineBoot) -> Result<(), Fault> {
        let link = |file: &FileRef, to: &str| {
            let (from, to) = (self.depot.join(&file.path), self.tftp(to));
            let made = to.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| symlink(&from, &to));
            match made {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    Err(error).doing(|| format!("making {}", to.display()))
                }
                _ => Ok(()),
            }
        };
        link(&boot.net_bios, "grub/bios.0")?;
        link(&boot.net_efi, "grub/uefi.efi")?;
        std::iter::once(&boot.kernel.kernel)
            .chain(&boot.kernel.initrd)
            .try_for_each(|file| link(file, &file.path))
    }
}
