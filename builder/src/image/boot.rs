//! The boot side of an image: kernel and initramfs of slot A, and Xen where it runs the nodes.

use std::fs;
use std::path::{Path, PathBuf};

use gatehouse_model::site::VmmKind;
use gatehouse_model::{Doing as _, Fault};

use super::contents::{BootFile, From};
use super::grub::{Grub, MENU};

/// The kernel's files of one slot.
#[derive(Clone, Debug)]
pub struct BootFiles {
    xen: Option<PathBuf>,
    kernel: PathBuf,
    initrd: PathBuf,
    /// The kernel's release.
    pub release: String,
}

impl BootFiles {
    /// Finds them in what building the host's root gave.
    ///
    /// # Errors
    /// There is not just one kernel, or no Xen for a host that is to run on it.
    pub fn find(dir: &Path, vmm: VmmKind) -> Result<Self, Fault> {
        let entries = fs::read_dir(dir).doing(|| format!("reading {}", dir.display()))?.flatten();
        let mut names: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        let only = |what: &str, start: &str, end: &str| {
            let found: Vec<_> = names.iter().filter(|n| n.starts_with(start) && n.ends_with(end)).collect();
            match found.as_slice() {
                [one] => Ok((*one).clone()),
                _ => Err(Fault::new(format!("the host's packages hold {} {what}, not one", found.len()))),
            }
        };
        let kernel = only("kernels", "vmlinuz-", "")?;
        let release = kernel.trim_start_matches("vmlinuz-").to_owned();
        let xen = (vmm == VmmKind::Xen).then(|| only("Xen hypervisors", "xen-", ".gz")).transpose()?;
        let initrd = only("initramfs", &format!("initrd.img-{release}"), "")?;
        Ok(Self {
            xen: xen.map(|xen| dir.join(xen)),
            kernel: dir.join(kernel),
            initrd: dir.join(initrd),
            release,
        })
    }

    /// What starts slot A: under Xen if the menu finds that. GRUB loads Xen as it is; unpacked here, it need not do so
    /// at each boot.
    pub fn files(&self, grub: &Grub) -> Vec<BootFile> {
        let mut files = vec![
            BootFile { path: "EFI/BOOT/BOOTX64.EFI", from: From::Bytes(grub.efi.clone()) },
            BootFile { path: "grub/grub.cfg", from: From::Bytes(MENU.into()) },
            BootFile { path: "slot-a/vmlinuz", from: From::Plain(self.kernel.clone()) },
            BootFile { path: "slot-a/initrd.img", from: From::Plain(self.initrd.clone()) },
        ];
        files.extend(self.xen.clone().map(|xen| BootFile { path: "slot-a/xen", from: From::Gzip(xen) }));
        files
    }

    /// About how many bytes they take.
    pub fn bytes(&self) -> u64 {
        let all = [&self.kernel, &self.initrd].into_iter().chain(&self.xen);
        all.map(|path| fs::metadata(path).map_or(0, |m| m.len())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kernel_and_one_xen_are_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let put = |name: &str| fs::write(dir.path().join(name), "").expect("written");
        for name in [
            "vmlinuz-6.12.1-amd64",
            "initrd.img-6.12.1-amd64",
            "config-6.12.1-amd64",
            "xen-4.20-amd64.config",
        ] {
            put(name);
        }
        BootFiles::find(dir.path(), VmmKind::Kvm).expect("QEMU needs no Xen");
        let fault = BootFiles::find(dir.path(), VmmKind::Xen).expect_err("no Xen");
        assert_eq!(fault.to_string(), "the host's packages hold 0 Xen hypervisors, not one");
        put("xen-4.20-amd64.gz");
        assert_eq!(BootFiles::find(dir.path(), VmmKind::Xen).expect("all there").release, "6.12.1-amd64");
        put("vmlinuz-6.12.2-amd64");
        BootFiles::find(dir.path(), VmmKind::Xen).expect_err("two kernels");
    }
}
