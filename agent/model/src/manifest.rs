//! What is in an image and in its depot, with digests: `manifest.json` and `depot.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::site::VmmKind;
use crate::{Digest, Fault, PackageId, lock::Closure};

/// One file by path (relative to the depot or output directory), size in bytes and digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// Path with forward slashes, relative.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Digest of the contents.
    pub sha256: Digest,
}

/// A layer: the configured file tree of one package closure, as a `.tar.zst`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The compressed tar file.
    pub file: FileRef,
    /// Size of the uncompressed tar stream in bytes.
    pub unpacked: u64,
    /// How many entries it has.
    pub entries: u64,
}

/// What a hypervisor starts to install or run a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeKernel {
    /// The kernel; for UML the executable.
    pub kernel: FileRef,
    /// The installer's initramfs for this kernel: compressed cpio archives, concatenated in this order.
    pub initrd: Vec<FileRef>,
    /// What is started instead of a kernel to run the system on a node's own disk, for a vmm that has no such program
    /// of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loader: Option<FileRef>,
    /// The modules of a kernel that no node's packages bring: laid over every node's packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<Layer>,
}

/// What a machine starts to become and to be a node: from the network its loader, a kernel and the installer, and then a
/// loader on its own disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineBoot {
    /// The kernel, and the installer's initramfs for it.
    #[serde(flatten)]
    pub kernel: NodeKernel,
    /// What a BIOS loads from the network.
    pub net_bios: FileRef,
    /// What UEFI loads from the network.
    pub net_efi: FileRef,
    /// GRUB's first sector, for a BIOS.
    pub boot: FileRef,
    /// GRUB's rest, for the BIOS boot partition.
    pub core: FileRef,
    /// GRUB for UEFI, `EFI/BOOT/BOOTX64.EFI`.
    pub efi: FileRef,
}

/// The package pool: every package of every node, and those of `packages.extra`. It is laid out as an apt repository
/// whose `Release` is made and signed on the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The suite that it is served as.
    pub suite: String,
    /// Seconds since 1970: the time by which what is installed from it goes, as the layers were made by it.
    pub epoch: u64,
    /// `Packages`, plain and compressed.
    pub index: Vec<FileRef>,
    /// The packages' files.
    pub packages: BTreeMap<PackageId, FileRef>,
}

/// The read-only part of the image that the install server serves; `depot.json` at its top.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Depot {
    /// Version of this format: 1.
    pub schema: u32,
    /// The agent as it is put onto nodes.
    pub agent: FileRef,
    /// Kernel and installer by vmm: `xen`, `uml`, `kvm`.
    pub kernels: BTreeMap<String, NodeKernel>,
    /// What machines of their own start; none where the site has no such node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineBoot>,
    /// Layers by the closure they hold.
    pub layers: BTreeMap<Closure, Layer>,
    /// The packages, one by one: for nodes whose closure has no layer, and for later changes.
    pub pool: Pool,
}

impl Depot {
    /// What a vmm starts.
    ///
    /// # Errors
    /// The depot was made for others.
    pub fn kernel(&self, kind: VmmKind) -> Result<&NodeKernel, Fault> {
        self.kernels.get(&kind.to_string()).ok_or_else(|| {
            Fault::new(format!("the depot has no kernel for {kind}")).help("build the image for this vmm")
        })
    }
}

/// One partition of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImagePart {
    /// Number in the partition table, from 1.
    pub number: u32,
    /// GPT name.
    pub name: String,
    /// Offset in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// Digest of the contents; none for the site partition, which may be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

/// The image file. Other sites may be put into it later, which ends its digest: those of its partitions last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    /// Its name, beside the manifest.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Digest of the contents, as long as they are what was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

/// `manifest.json`: what an image holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImageManifest {
    /// Version of this format: 1.
    pub schema: u32,
    /// Version of the builder that made it.
    pub builder: String,
    /// Digest of site.lock's text.
    pub lock: Digest,
    /// Digest of everything that the build takes in but the site directory.
    pub inputs: Digest,
    /// Seconds since 1970 that every file in the image is dated.
    pub epoch: u64,
    /// The image file.
    pub image: ImageFile,
    /// The same, compressed, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compressed: Option<FileRef>,
    /// Its partitions, in order.
    pub partitions: Vec<ImagePart>,
    /// Kernel release of the host.
    pub kernel: String,
    /// The depot's contents.
    pub depot: Depot,
}
