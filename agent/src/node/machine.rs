//! What the first process of an initramfs does to the machine: file systems, modules, clock, network, power.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gatehouse_model::{Doing as _, Fault, Mac};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

use crate::tool;
use crate::wire::Passport;

/// How long the network interface may take to appear.
const INTERFACE_WAIT: Duration = Duration::from_secs(15);
/// How long its link may take; without one the install goes on, since asking the server decides.
const LINK_WAIT: Duration = Duration::from_secs(3);
/// A bus's modules make further devices: so often at most are modules looked for.
const MODULE_ROUNDS: u32 = 4;

/// Mounts what every program expects.
///
/// # Errors
/// The kernel lacks one of these file systems.
pub fn mount_basics() -> Result<(), Fault> {
    let all: [(&str, &str, Option<&str>); 6] = [
        ("proc", "/proc", None),
        ("sysfs", "/sys", None),
        ("devtmpfs", "/dev", Some("mode=0755")),
        ("devpts", "/dev/pts", Some("mode=0620,gid=5")),
        ("tmpfs", "/run", Some("mode=0755")),
        ("tmpfs", "/tmp", Some("mode=1777")),
    ];
    for (kind, point, options) in all {
        fs::create_dir_all(point).doing(|| format!("making {point}"))?;
        let mounted = mount(Some(kind), point, Some(kind), MsFlags::MS_NOSUID, options);
        // The kernel may have mounted /dev itself.
        if mounted != Err(nix::Error::EBUSY) {
            mounted.doing(|| format!("mounting {point}"))?;
        }
    }
    for (target, link) in [("/proc/self/fd", "/dev/fd"), ("/proc/self/fd/0", "/dev/stdin")] {
        if !Path::new(link).exists() {
            symlink(target, link).doing(|| format!("making {link}"))?;
        }
    }
    Ok(())
}

/// Makes the console this process's input and output, in case the kernel had none to open.
///
/// # Errors
/// There is no console.
pub fn open_console() -> Result<(), Fault> {
    let console = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/console")
        .doing(|| "opening /dev/console")?;
    nix::unistd::dup2_stdin(&console)?;
    nix::unistd::dup2_stdout(&console)?;
    nix::unistd::dup2_stderr(&console)?;
    Ok(())
}

/// Whether there are modules here of the kernel that runs.
pub fn has_modules() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Path::new("/lib/modules").join(release.trim()).join("modules.dep").exists()
}

/// Loads the modules of every device there is, and those that no device names. A kernel without modules has
/// everything built in.
pub fn load_modules() {
    if !has_modules() {
        return;
    }
    let mut wanted: BTreeSet<String> = ["ext4"].map(String::from).into();
    if fs::read_to_string("/sys/hypervisor/type").is_ok_and(|kind| kind.trim() == "xen") {
        wanted.extend(["xen-blkfront", "xen-netfront"].map(String::from));
    }
    let mut loaded = BTreeSet::new();
    for _ in 0..MODULE_ROUNDS {
        modaliases(Path::new("/sys/devices"), &mut wanted);
        let new: Vec<String> = wanted.difference(&loaded).cloned().collect();
        if new.is_empty() {
            return;
        }
        // Most aliases have no module, which modprobe calls a failure; what is missing shows by itself.
        let _ = tool::run("modprobe", &[&["-a", "-b", "-q", "--"].map(String::from)[..], &new].concat());
        loaded.extend(new);
    }
}

fn modaliases(directory: &Path, found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            modaliases(&entry.path(), found);
        } else if entry.file_name() == "modalias" {
            let alias = fs::read_to_string(entry.path()).unwrap_or_default();
            if !alias.trim().is_empty() {
                found.insert(alias.trim().to_owned());
            }
        }
    }
}

/// Sets the clock forward to the host's; never back.
///
/// # Errors
/// The kernel refuses.
pub fn set_clock(to: u64) -> Result<(), Fault> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if now >= to {
        return Ok(());
    }
    let seconds = i64::try_from(to).doing(|| "setting the clock")?;
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(seconds, 0)).doing(|| "setting the clock")
}

/// Finds the interface by its hardware address and gives it the passport's addresses.
///
/// # Errors
/// There is no such interface, or ip fails.
pub fn network_up(passport: &Passport) -> Result<(), Fault> {
    let name = interface(passport.mac)?;
    let Passport { address, prefix, .. } = passport;
    let mut batch =
        format!("link set lo up\nlink set {name} up\naddr replace {address}/{prefix} dev {name}\n");
    if let Some(gateway) = passport.gateway {
        batch = format!("{batch}route replace default via {gateway}\n");
    }
    tool::run_with_input("ip", &["-batch", "-"], &batch).doing(|| format!("configuring {name}"))?;
    let carrier = PathBuf::from(format!("/sys/class/net/{name}/carrier"));
    let begun = Instant::now();
    while fs::read_to_string(&carrier).map_or(true, |state| state.trim() != "1")
        && begun.elapsed() < LINK_WAIT
    {
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn interface(mac: Mac) -> Result<String, Fault> {
    let begun = Instant::now();
    loop {
        let mut seen = Vec::new();
        for entry in fs::read_dir("/sys/class/net").doing(|| "reading /sys/class/net")?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
            if address.trim().parse() == Ok(mac) {
                return Ok(name);
            }
            seen.push(format!("{name} {}", address.trim()));
        }
        if begun.elapsed() > INTERFACE_WAIT {
            seen.sort();
            return Err(Fault::new(format!(
                "no interface has the address {mac}; there are: {}",
                seen.join(", ")
            )));
        }
        sleep(Duration::from_millis(50));
    }
}

/// Seconds since the kernel started.
pub fn uptime() -> f64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

/// Switches the VM off, whose host then starts it from its disk; or starts the machine anew, whose firmware does.
pub fn leave(is_machine: bool) -> ! {
    nix::unistd::sync();
    // It comes back only when it fails.
    let Err(error) = reboot(if is_machine { RebootMode::RB_AUTOBOOT } else { RebootMode::RB_POWER_OFF });
    eprintln!("ending: {error}");
    // As the first process this one may not end; whoever watches the machine has a time limit.
    loop {
        sleep(Duration::from_secs(3600));
    }
}
