//! What an image is made of, each from the cache if it is there.

use std::path::Path;

use gatehouse_model::site::VmmKind;
use gatehouse_model::{Depot, Digest, Doing as _, Fault, Refusal, SET_HOST, SET_TOOLS};

use super::boot::BootFiles;
use super::erofs::{self, Erofs, Maker};
use super::grub::{Grub, MENU};
use super::layout::{DEPOT, Ids, ROOT};
use super::{RECIPE, VERSION};
use crate::commands::Prepared;
use crate::depot;
use crate::interrupt::Fleeting;
use crate::parallel;
use crate::root::{Finish, Wanted, ensure, ensure_all};
use crate::tools::Tools;

/// Where the agent lies on a host.
const AGENT: &str = "usr/lib/gatehouse/gatehouse-agent";

/// The parts of one image.
#[derive(Debug)]
pub struct Parts {
    /// Digest of the lock's text.
    pub lock: Digest,
    /// Digest of all that is here: the image but for the site partition.
    pub inputs: Digest,
    /// Seconds since 1970.
    pub epoch: u64,
    /// Where ids come from.
    pub ids: Ids,
    /// Xen, kernel and initramfs.
    pub boot: BootFiles,
    /// The boot loader.
    pub grub: Grub,
    /// The host's root.
    pub root: Erofs,
    /// The depot's filesystem.
    pub depot_fs: Erofs,
    /// What is in it.
    pub depot: Depot,
}

impl Parts {
    /// About how many bytes of an image are not holes.
    pub fn bytes_to_write(&self) -> u64 {
        self.root.size + self.depot_fs.size + self.boot.bytes() + (16 << 20)
    }
}

/// Makes every part that is not in the cache.
///
/// # Errors
/// The site's vmm has no image; a root or filesystem cannot be made.
pub fn make(prepared: &Prepared) -> Result<Parts, Fault> {
    let Prepared { site, lock, cache, share, .. } = prepared;
    if site.host.vmm == VmmKind::Uml {
        let what = "an image for vmm uml is not there yet";
        return Err(Refusal::new(what, "write vmm = \"xen\" or \"kvm\" under [host] in site.toml").into());
    }
    let lock_digest = Digest::of(lock.to_text().as_bytes());
    let ids = Ids::of(&lock_digest);
    let (agent, overlays) = (share.agent()?, share.overlays());
    let host = Wanted {
        finish: Finish::Host,
        set: depot::set(lock, SET_HOST)?,
        overlays: vec![overlays.join("host")],
        files: vec![(agent.to_owned(), AGENT.to_owned(), 0o755)],
        epoch: site.epoch,
    };
    let tools_set = depot::set(lock, SET_TOOLS)?;
    let contents = depot::Contents {
        lock,
        agent,
        overlays: &overlays,
        epoch: site.epoch,
        vmm: site.host.vmm,
        packages: &site.packages,
    };
    let mut roots = depot::wanted(&contents)?;
    roots.extend([host.clone(), Tools::wanted(tools_set)]);
    ensure_all(&roots, lock, cache)?;
    let host = ensure(&host, lock, cache)?;
    let boot = BootFiles::find(&host.join("boot"), site.host.vmm)?;
    let tools = Tools::open(tools_set, lock, cache)?;
    let maker = Maker { tools: &tools, packages: tools_set.closure(), cache, epoch: site.epoch };
    let (root, (depot, depot_fs)) =
        parallel::both(|| make_root(&host, &maker, &ids), || make_depot(&contents, &maker, &ids))?;
    let grub = Grub::make(&tools, &maker.packages, cache)?;
    let text = format!(
        "{RECIPE} {VERSION} {lock_digest} {} {} {} {} {}",
        site.epoch,
        root.key,
        depot_fs.key,
        grub.digest(),
        Digest::of(MENU.as_bytes())
    );
    let inputs = Digest::of(text.as_bytes());
    Ok(Parts { lock: lock_digest, inputs, epoch: site.epoch, ids, boot, grub, root, depot_fs, depot })
}

fn make_root(host: &Path, maker: &Maker<'_>, ids: &Ids) -> Result<Erofs, Fault> {
    // The directory's name is the digest of all that the root was made from.
    let contents = host.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let wanted = erofs::Wanted { name: "root", contents, uuid: ids.uuid(ROOT), compressed: true };
    maker.make(&wanted, |_| Ok(host.join("root.tar")))
}

fn make_depot(contents: &depot::Contents<'_>, maker: &Maker<'_>, ids: &Ids) -> Result<(Depot, Erofs), Fault> {
    let dir = Fleeting::new(maker.cache.scratch("depot")?);
    let depot = depot::make(contents, maker.cache, dir.path())?;
    let json = serde_json::to_string(&depot).doing(|| "writing depot.json")?;
    // Already compressed, all of it.
    let wanted = erofs::Wanted {
        name: "depot",
        contents: Digest::of(json.as_bytes()).to_string(),
        uuid: ids.uuid(DEPOT),
        compressed: false,
    };
    let filesystem = maker.make(&wanted, |scratch| {
        let tar = scratch.join("depot.tar");
        erofs::depot_tar(dir.path(), contents.epoch, &tar)?;
        Ok(tar)
    })?;
    Ok((depot, filesystem))
}
