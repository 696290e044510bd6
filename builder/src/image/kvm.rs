//! Whether KVM works here. That `/dev/kvm` is there says little: it can create machines in which no kernel lives.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gatehouse_disk::{FatLimits, read_fat};
use gatehouse_model::{Doing as _, Fault};

use super::{layout, machine::QEMU, window};

/// A kernel that finds no root says so within two seconds on any machine where KVM works.
const AT_MOST: Duration = Duration::from_secs(20);
/// The sign of a kernel that came as far as it can without a root.
const ALIVE: &str = "Kernel panic - not syncing: VFS";
/// Where the image's kernel is in its boot partition.
const KERNEL: &str = "slot-a/vmlinuz";
/// A boot partition holds Xen, a kernel and an initramfs with firmware.
const LIMITS: FatLimits = FatLimits { entries: 1000, file_bytes: 512 << 20, total_bytes: 1 << 30, depth: 8 };

/// How the machine is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// By the processor itself.
    Kvm,
    /// By QEMU's emulation.
    Tcg,
}

/// Chooses KVM if the image's own kernel starts under it, else software emulation; the text says why.
///
/// # Errors
/// The kernel cannot be read out of the disk's boot partition.
pub fn choose(disk: &Path, dir: &Path) -> Result<(Accelerator, String), Fault> {
    if !Path::new("/dev/kvm").exists() {
        return Ok((Accelerator::Tcg, "emulating the processor: there is no /dev/kvm".to_owned()));
    }
    let kernel = dir.join("probe.vmlinuz");
    fs::write(&kernel, kernel_of(disk)?).doing(|| format!("writing {}", kernel.display()))?;
    let answer = probe(&kernel);
    fs::remove_file(&kernel).doing(|| format!("removing {}", kernel.display()))?;
    Ok(match answer {
        Ok(()) => (Accelerator::Kvm, "running the machine with KVM".to_owned()),
        Err(why) => {
            (Accelerator::Tcg, format!("emulating the processor: under KVM the image's kernel fails: {why}"))
        }
    })
}

fn kernel_of(disk: &Path) -> Result<Vec<u8>, Fault> {
    let mut file = File::open(disk).doing(|| format!("opening {}", disk.display()))?;
    let files = read_fat(window(&mut file, layout::ESP)?, LIMITS)
        .doing(|| format!("reading {} of {}", layout::ESP, disk.display()))?;
    let kernel = files.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(KERNEL));
    kernel.map(|(_, bytes)| bytes).ok_or_else(|| Fault::new(format!("{} has no {KERNEL}", layout::ESP)))
}

/// Starts the kernel without a root and waits for it to say that it has none.
fn probe(kernel: &Path) -> Result<(), String> {
    let mut child = Command::new(QEMU)
        .args(["-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults", "-no-reboot", "-display", "none"])
        .args(["-serial", "stdio", "-append", "console=ttyS0 panic=-1", "-kernel"])
        .arg(kernel)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("starting {QEMU}: {error}"))?;
    let answer = listen(&mut child);
    // It may have ended by itself, which is as good.
    let _ = child.kill();
    let _ = child.wait();
    answer
}

fn listen(child: &mut Child) -> Result<(), String> {
    let (sender, lines) = mpsc::channel();
    let streams: [Option<Box<dyn std::io::Read + Send>>; 2] = [
        child.stdout.take().map(|pipe| Box::new(pipe) as _),
        child.stderr.take().map(|pipe| Box::new(pipe.take(1 << 16)) as _),
    ];
    for stream in streams.into_iter().flatten() {
        let sender = sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).trim().to_owned()).is_err() {
                    break;
                }
            }
        });
    }
    drop(sender);
    let begun = Instant::now();
    let mut last = String::new();
    while let Ok(line) = lines.recv_timeout(AT_MOST.saturating_sub(begun.elapsed())) {
        if line.contains(ALIVE) {
            return Ok(());
        }
        // After this the machine stands still for ever.
        if line.contains("KVM internal error") || line.contains("failed to initialize kvm") {
            return Err(line);
        }
        if !line.is_empty() {
            last = line;
        }
    }
    Err(if last.is_empty() { format!("it says nothing within {} s", AT_MOST.as_secs()) } else { last })
}
