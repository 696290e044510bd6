//! Whether KVM works here. That `/dev/kvm` is there says little: it can create machines in which no kernel lives.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gatehouse_model::{Doing as _, Fault};

use super::QEMU;
use crate::tool;

/// The device.
pub const KVM: &str = "/dev/kvm";
/// A kernel that finds no root says so within two seconds on any machine where KVM works, but for those that are emulated
/// themselves: there it may take a minute, and says something all the time.
const SILENCE: Duration = Duration::from_secs(20);
/// The sign of a kernel that came as far as it can without a root.
const ALIVE: &str = "Kernel panic - not syncing: VFS";
/// After these the machine stands still for ever.
const DEAD: [&str; 2] = ["KVM internal error", "failed to initialize kvm"];

/// How nodes are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// By the processor itself.
    Kvm {
        /// The group that may use the device.
        group: u32,
    },
    /// By QEMU's emulation.
    Tcg,
}

/// Has the kernel make the device, on a host: at its start the agent is here before udev has looked at the processor, and
/// whoever believes then that there is no KVM emulates for ever.
pub fn load() {
    if Path::new(KVM).exists() {
        return;
    }
    // That of another maker's processor does not load; where none does, `choose` says so.
    for module in ["kvm_amd", "kvm_intel"] {
        let _ = tool::run("modprobe", &["--quiet", module]);
    }
    // Its group is udev's to set.
    let _ = tool::run("udevadm", &["settle", "--timeout=10"]);
}

/// Chooses KVM if the nodes' kernel starts under it, else software emulation; the text says why. What the probe needs
/// is put into a directory of the agent's own.
///
/// # Errors
/// The directory cannot be written; QEMU cannot be started.
pub fn choose(kernel: &Path, dir: &Path) -> Result<(Accelerator, String), Fault> {
    let Ok(device) = fs::metadata(KVM) else {
        return Ok((Accelerator::Tcg, format!("QEMU emulates the nodes' processors: there is no {KVM}")));
    };
    Ok(match probe(kernel, &dir.join("probe.log"))? {
        None => (Accelerator::Kvm { group: device.gid() }, "the nodes run with KVM".to_owned()),
        Some(why) => {
            let text = format!("QEMU emulates the nodes' processors: under KVM a kernel fails: {why}");
            (Accelerator::Tcg, text)
        }
    })
}

/// Starts the kernel without a root and waits for it to say that it has none; if it does not, the answer is why.
fn probe(kernel: &Path, log: &Path) -> Result<Option<String>, Fault> {
    let said = File::create(log).doing(|| format!("making {}", log.display()))?;
    let mut child = Command::new(QEMU)
        .args(["-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults", "-no-reboot", "-display", "none"])
        .args(["-serial", "stdio", "-append", "console=ttyS0 panic=-1", "-kernel"])
        .arg(kernel)
        .stdin(Stdio::null())
        .stdout(said.try_clone().doing(|| "starting the probe")?)
        .stderr(said)
        .spawn()
        .doing(|| format!("starting {QEMU}"))
        .map_err(|fault| fault.help("install qemu-system-x86"))?;
    let verdict = listen(&mut child, log);
    // It may have ended by itself, which is as good.
    let _ = child.kill();
    let _ = child.wait();
    let _ = fs::remove_file(log);
    Ok(verdict)
}

fn listen(child: &mut Child, log: &Path) -> Option<String> {
    let (mut heard, mut when) = (0, Instant::now());
    loop {
        let ended = !matches!(child.try_wait(), Ok(None)) || when.elapsed() > SILENCE;
        let said = fs::read(log).unwrap_or_default();
        if said.len() > heard {
            (heard, when) = (said.len(), Instant::now());
        }
        match verdict(&String::from_utf8_lossy(&said), ended) {
            Verdict::Alive => return None,
            Verdict::Dead(why) => return Some(why),
            Verdict::Unknown => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Alive,
    Dead(String),
    Unknown,
}

/// What is known from what QEMU and the kernel in it have said.
fn verdict(said: &str, ended: bool) -> Verdict {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    if said.contains(ALIVE) {
        return Verdict::Alive;
    }
    if let Some(line) = lines().find(|line| DEAD.iter().any(|word| line.contains(word))) {
        return Verdict::Dead(line.to_owned());
    }
    if ended {
        return Verdict::Dead(lines().next_back().unwrap_or("it says nothing").to_owned());
    }
    Verdict::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kernel_that_lives_counts() {
        let panic = "[    0.9] Kernel panic - not syncing: VFS: Unable to mount root fs";
        let error = "KVM internal error. Suberror: 1";
        for (said, ended, is) in [
            ("", false, Verdict::Unknown),
            ("[    0.0] Linux version", false, Verdict::Unknown),
            (panic, true, Verdict::Alive),
            ("KVM internal error. Suberror: 1\nemulation failure\n", false, Verdict::Dead(error.to_owned())),
            (
                "Could not access KVM kernel module\n",
                true,
                Verdict::Dead("Could not access KVM kernel module".to_owned()),
            ),
            ("", true, Verdict::Dead("it says nothing".to_owned())),
        ] {
            assert_eq!(verdict(said, ended), is, "{said}");
        }
    }
}
