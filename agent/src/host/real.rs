//! The machine itself, from its initramfs: the system's root is mounted read-only, and /dev is all there.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use gatehouse_disk::{NewPart, PartKind, Room, Synced, grown, read_table, write_table};
use gatehouse_model::{Doing as _, Fault};
use nix::mount::MsFlags;

use super::action::{Action, Wanted};
use super::facts::DiskFact;
use super::files::write_whole;
use super::import::{self, SiteFiles};
use super::mirror::{Array, finish, mdadm};
use super::run::Host;
use super::{mounts, random, signature, sys, tree};
use crate::tool;

/// Lies in the first sector of state, which ext4 leaves alone, once mkfs has come to its end. So a filesystem that
/// was finished and is damaged is told from one that was never finished.
const FINISHED: &[u8] = b"gatehouse state 1\n";
/// What is cleared at both ends of a new partition: every signature lies there.
const CLEARED: u64 = 1 << 20;
/// Kinds of ssh host keys. RSA takes a minute where there is no hardware help, and no client needs it.
const KEY_KINDS: [&str; 2] = ["ed25519", "ecdsa"];

/// The machine during first boot.
#[derive(Debug)]
pub struct RealHost {
    root: PathBuf,
    site: Option<SiteFiles>,
    sector_size: u64,
    pair: Option<String>,
}

impl RealHost {
    /// A machine whose root is mounted here, booted from a disk; the site directory is what would be imported.
    pub fn new(root: &Path, site: Option<SiteFiles>, disk: &DiskFact) -> Self {
        let pair = disk.claim.as_ref().and_then(|claim| claim.pair.clone());
        Self { root: root.to_owned(), site, sector_size: disk.sector_size, pair }
    }

    /// What the agent keeps: `/var/lib/gatehouse` of the running system.
    fn kept(&self) -> PathBuf {
        kept(&self.root)
    }

    fn run(&self, program: &str, args: &[&str]) -> Result<String, Fault> {
        in_root(&self.root, program, args)
    }

    fn has_parts(&self, disk: &str, parts: &[Wanted]) -> Result<bool, Fault> {
        let path = dev(disk);
        let mut file = File::open(&path).doing(|| format!("opening {}", path.display()))?;
        let Some(table) = read_table(&mut file, self.sector_size)? else { return Ok(false) };
        let there = |part: &Wanted| {
            table.parts.iter().any(|found| found.number == part.number && found.name == part.name)
                && known_to_kernel(disk, part.number)
        };
        Ok(parts.iter().all(there))
    }

    fn grow(&self, disk: &str, parts: &[Wanted]) -> Result<(), Fault> {
        let path = dev(disk);
        let doing = || format!("opening {}", path.display());
        let mut file = OpenOptions::new().read(true).write(true).open(&path).doing(doing)?;
        let bytes = file.seek(SeekFrom::End(0)).doing(doing)?;
        let table = read_table(&mut file, self.sector_size)?
            .ok_or_else(|| Fault::new(format!("{disk} has no partition table")))?;
        let missing: Vec<&Wanted> =
            parts.iter().filter(|part| table.parts.iter().all(|found| found.number != part.number)).collect();
        let mut wanted = Vec::new();
        for (at, part) in (1..).zip(&missing) {
            // A mirror's halves are equal, and leave something free.
            let room = if at == missing.len() && self.pair.is_none() {
                Room::Rest
            } else {
                Room::Exactly(gatehouse_model::Size::bytes(part.bytes))
            };
            let (number, name, kind) = (part.number, part.name.clone(), PartKind::LinuxData);
            wanted.push(NewPart { number, name, kind, guid: random::id()?, room });
        }
        let new = grown(&table, bytes, &wanted).map_err(|wrong| Fault::new(wrong.join("; ")))?;
        let added =
            || new.parts().iter().filter(|part| missing.iter().any(|wanted| wanted.number == part.number));
        // What an earlier install left there must not be taken for this one's; the table comes last.
        for part in added() {
            let (start, length) = (part.start(self.sector_size), part.bytes(self.sector_size));
            clear(&file, start, length).doing(|| format!("clearing {part}"))?;
        }
        file.sync_data().doing(|| format!("clearing {disk}"))?;
        write_table(&new, &mut Synced(&file))?;
        for part in new.parts().iter().filter(|part| parts.iter().any(|wanted| wanted.number == part.number))
        {
            if !known_to_kernel(disk, part.number) {
                let (start, length) = (part.start(self.sector_size), part.bytes(self.sector_size));
                sys::add_partition(file.as_fd(), part.number, start, length)
                    .doing(|| format!("telling the kernel of {part}"))?;
            }
        }
        Ok(())
    }

    fn make_state(&self, device: &str) -> Result<(), Fault> {
        let path = dev(device);
        let name = path.display().to_string();
        self.run("/usr/sbin/mkfs.ext4", &["-q", "-F", "-m", "1", "-L", "gh-state", &name])?;
        let file = OpenOptions::new().write(true).open(&path).doing(|| format!("opening {name}"))?;
        file.sync_all().doing(|| format!("writing {name}"))?;
        file.write_all_at(FINISHED, 0).and_then(|()| file.sync_all()).doing(|| format!("writing {name}"))
    }

    fn make_host_keys(&self) -> Result<(), Fault> {
        let partial = self.kept().join("host/ssh.partial");
        if partial.exists() {
            fs::remove_dir_all(&partial).doing(|| format!("removing {}", partial.display()))?;
        }
        fs::create_dir_all(&partial).doing(|| format!("making {}", partial.display()))?;
        for kind in KEY_KINDS {
            let name = format!("/state/var/lib/gatehouse/host/ssh.partial/ssh_host_{kind}_key");
            self.run("/usr/bin/ssh-keygen", &["-q", "-t", kind, "-N", "", "-C", "", "-f", &name])?;
        }
        nix::unistd::sync();
        fs::rename(&partial, self.kept().join("host/ssh")).doing(|| "putting the host keys in place")
    }
}

impl Host<Action> for RealHost {
    fn holds(&mut self, action: &Action) -> Result<bool, Fault> {
        match action {
            Action::GrowTable { disk, parts } => self.has_parts(disk, parts),
            Action::FinishDisk { disk, .. } => finish::is_done(disk, self.sector_size),
            Action::MakeMirror { array, .. } => Ok(mdadm::runs(*array)),
            Action::JoinMirror { array, part } => Ok(mdadm::has(*array, part)),
            Action::MakeState { device } => {
                let made = state_is_made(device)?;
                if made {
                    mount_state(&self.root, device)?;
                }
                Ok(made)
            }
            Action::SeedState => Ok(self.kept().is_dir()),
            Action::MakeVms { device } => holds(&dev(device), signature::XFS),
            Action::ImportSite => Ok(self.kept().join("site/site.toml").is_file()),
            Action::MakeMachineId => Ok(machine_id(&self.root).is_some()),
            Action::MakeHostKeys => Ok(self.kept().join("host/ssh").is_dir()),
        }
    }

    fn apply(&mut self, action: &Action) -> Result<(), Fault> {
        match action {
            Action::GrowTable { disk, parts } => self.grow(disk, parts),
            Action::FinishDisk { disk, from } => finish::finish(disk, from, self.sector_size),
            Action::MakeMirror { array, parts } => {
                let pair = self.pair.as_deref().ok_or_else(|| Fault::new("the disk is of no mirror"))?;
                mdadm::make(&self.root, *array, pair, parts)
            }
            Action::JoinMirror { array, part } => mdadm::join(&self.root, *array, part),
            Action::MakeState { device } => self.make_state(device),
            Action::SeedState => seed(&self.root),
            Action::MakeVms { device } => {
                let name = format!("/dev/{device}");
                self.run("/usr/sbin/mkfs.xfs", &["-q", "-f", "-m", "reflink=1", "-L", "gh-vms", &name])?;
                File::open(&name).and_then(|file| file.sync_all()).doing(|| format!("writing {name}"))
            }
            Action::ImportSite => {
                let files = self.site.as_ref().ok_or_else(|| Fault::new("there is no site partition"))?;
                import::write(files, &self.kept().join("site"))
            }
            Action::MakeMachineId => {
                let id = format!("{:032x}\n", u128::from_be_bytes(random::id()?));
                write_whole(&self.kept().join("host/machine-id"), id.as_bytes(), 0o444)
            }
            Action::MakeHostKeys => self.make_host_keys(),
        }
    }
}

/// Whether state was made, to its end.
///
/// # Errors
/// It was, and its filesystem cannot be recognised any more.
pub fn state_is_made(device: &str) -> Result<bool, Fault> {
    let path = dev(device);
    if !path.exists() {
        return Ok(false);
    }
    let doing = || format!("reading {}", path.display());
    let mut mark = vec![0; FINISHED.len()];
    File::open(&path).and_then(|mut file| file.read_exact(&mut mark)).doing(doing)?;
    if mark != FINISHED {
        return Ok(false);
    }
    if holds(&path, signature::EXT4)? {
        return Ok(true);
    }
    Err(Fault::new(format!("state on {} was made before and is damaged", path.display()))
        .help(how_to_check(device)))
}

/// What a person does about a damaged state, in the rescue shell: nothing is mounted or put together there.
fn how_to_check(device: &str) -> String {
    let together = match Array::ALL.iter().find(|array| array.device() == device) {
        Some(array) => format!(
            "mdadm --assemble --run /dev/{device} the partitions {} of both disks, then ",
            array.part()
        ),
        None => String::new(),
    };
    format!(
        "nothing was changed; take the rescue shell of the boot menu (Esc stops it) and run {together}e2fsck -f \
         /dev/{device}"
    )
}

/// Mounts state, which must have been made.
///
/// # Errors
/// The kernel's own words.
pub fn mount_state(root: &Path, device: &str) -> Result<(), Fault> {
    let source = format!("/dev/{device}");
    mounts::mount_once("ext4", &source, &root.join("state"), MsFlags::MS_NOATIME, "errors=remount-ro")
}

/// The directory that the agent keeps its things in, below a root whose state is mounted.
pub fn kept(root: &Path) -> PathBuf {
    root.join("state/var/lib/gatehouse")
}

/// The machine's id, once it is made.
pub fn machine_id(root: &Path) -> Option<String> {
    let text = fs::read_to_string(kept(root).join("host/machine-id")).ok()?;
    let id = text.trim_end();
    (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_owned())
}

/// Runs a program of the system's root, with /dev, /proc and /sys bound into it.
///
/// # Errors
/// As [`tool::run`].
pub fn in_root(root: &Path, program: &str, args: &[&str]) -> Result<String, Fault> {
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", "/usr/sbin:/usr/bin").env("LC_ALL", "C.UTF-8");
    let output = sys::enter_root(&mut command, root)
        .stdin(std::process::Stdio::null())
        .output()
        .doing(|| format!("starting {program}"))?;
    tool::finish(program, &output)
}

/// State's /var is the slot's, made beside its place and renamed.
fn seed(root: &Path) -> Result<(), Fault> {
    let (partial, to) = (root.join("state/var.partial"), root.join("state/var"));
    if partial.exists() {
        fs::remove_dir_all(&partial).doing(|| format!("removing {}", partial.display()))?;
    }
    tree::copy(&root.join("var"), &partial)?;
    fs::create_dir_all(partial.join("lib/gatehouse/host")).doing(|| "making /var/lib/gatehouse")?;
    nix::unistd::sync();
    fs::rename(&partial, &to).doing(|| format!("making {}", to.display()))?;
    File::open(root.join("state")).and_then(|dir| dir.sync_all()).doing(|| "syncing state")
}

fn dev(name: &str) -> PathBuf {
    Path::new("/dev").join(name)
}

fn known_to_kernel(disk: &str, number: u32) -> bool {
    Path::new("/sys/class/block").join(super::facts::part_device(disk, number)).exists()
}

fn holds(path: &Path, kind: &str) -> Result<bool, Fault> {
    if !path.exists() {
        return Ok(false);
    }
    let doing = || format!("reading {}", path.display());
    let mut file = File::open(path).doing(doing)?;
    let bytes = file.seek(SeekFrom::End(0)).doing(doing)?;
    Ok(signature::find(&mut file, bytes).doing(doing)?.iter().any(|found| found == kind))
}

fn clear(file: &File, start: u64, length: u64) -> std::io::Result<()> {
    let zeros = vec![0; usize::try_from(CLEARED.min(length)).unwrap_or(0)];
    file.write_all_at(&zeros, start)?;
    file.write_all_at(&zeros, start + length - zeros.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_state_is_checked_where_it_lies() {
        let check = "nothing was changed; take the rescue shell of the boot menu (Esc stops it) and run ";
        assert_eq!(how_to_check("sda8"), format!("{check}e2fsck -f /dev/sda8"));
        let halves = "mdadm --assemble --run /dev/md8 the partitions gh-state of both disks, then ";
        assert_eq!(how_to_check("md8"), format!("{check}{halves}e2fsck -f /dev/md8"));
    }
}
