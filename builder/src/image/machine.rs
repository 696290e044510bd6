//! A trial of the real image: a machine in QEMU with a disk of its own, started from that disk.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::BufReader;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use gatehouse_model::site::VmmKind;
use gatehouse_model::{Doing as _, Fault, Refusal, Site};

use super::drives::Drives;
use super::kvm::{self, Accelerator};
use super::{Format, IMAGE, build, console, site_part};
use crate::cli::{Firmware, Processor, Try};
use crate::site_dir::SiteDir;
use crate::term;
use crate::tool;
use crate::trial::source::{Given, Source};
use crate::trial::ssh::Ways;
use crate::trial::{Machine, Stop};

/// The program.
pub const QEMU: &str = "qemu-system-x86_64";
/// The least that a trial's disk has; it is sparse.
const DISK: u64 = 24 << 30;
/// What Xen, slot B and state take of it, beside the image and the nodes' disks.
const DISK_EXTRA: u64 = 8 << 30;
/// What Xen takes of the memory, beside host and nodes.
const MEMORY_EXTRA: u64 = 512 << 20;
/// The processor that is emulated: see [`arguments`].
const TCG_CPU: &str = "qemu64,+rdrand";
/// OVMF as Debian's package `ovmf` has it: its code, and the variables that a machine starts with.
const OVMF: [&str; 2] = ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"];
/// The machine's hardware address where the site does not say one.
const MAC: &str = "52:54:00:12:34:56";

/// What is emulated for a site.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// The disk's size in bytes.
    pub disk: u64,
    /// Memory in bytes.
    pub memory: u64,
    /// Processors.
    pub processors: u32,
    /// The network interface's hardware address.
    pub mac: String,
}

impl Hardware {
    /// What is enough for a site whose image has so many bytes.
    pub fn of(site: &Site, image: u64) -> Self {
        let disks: u64 = site.nodes.iter().map(|node| node.disk.as_bytes()).sum();
        let memories: u64 = site.vms().map(|node| node.memory.as_bytes()).sum();
        let disk = image * 2 + disks + disks / 10 + DISK_EXTRA;
        Self {
            disk: DISK.max(disk).next_multiple_of(1 << 30),
            memory: site.host.memory.as_bytes() + memories + MEMORY_EXTRA,
            processors: 2,
            mac: site.network.nic.mac.as_ref().map_or_else(|| MAC.to_owned(), ToString::to_string),
        }
    }
}

/// Builds the image if need be, gives it a disk, and starts it.
///
/// # Errors
/// Whatever building ends with; QEMU is missing or does not start.
pub fn try_image(
    source: &Source,
    args: &Try,
    dir: &Path,
    site: &Path,
    ways: &Ways,
) -> Result<Machine, Fault> {
    tool::run(QEMU, &["--version"]).map_err(|fault| fault.help("install qemu-system-x86"))?;
    let mut more = firmware_drives(args.firmware, dir)?;
    if let Some(clock) = &args.clock {
        more.extend(["-rtc".to_owned(), format!("base={}", clock.replace(',', ",,"))]);
    }
    let tried = SiteDir::open(site)?;
    let described = tried.site()?;
    let drives = Drives::of(dir, args, &described);
    if !drives.image.exists() {
        let out = match &source.given {
            Given::Directory(prepared) => {
                let out = dir.join("out");
                build(prepared, &out, &[Format::Img])?;
                out
            }
            Given::Image(out) => out.clone(),
        };
        let files = site_part::files(&tried, &described, &source.lock)?;
        drives.make(&out.join(IMAGE), &described, files)?;
    }
    start(&described, dir, (&drives, args.processor), more, ways)
}

/// QEMU's arguments for the firmware; its variables are the trial's own, kept from one start to the next.
fn firmware_drives(firmware: Firmware, dir: &Path) -> Result<Vec<String>, Fault> {
    if firmware == Firmware::Bios {
        return Ok(Vec::new());
    }
    let variables = dir.join("ovmf-variables.fd");
    if !variables.exists() {
        fs::copy(OVMF[1], &variables)
            .doing(|| format!("copying {}", OVMF[1]))
            .map_err(|fault| fault.help("install ovmf"))?;
    }
    let drive = |text: String| ["-drive".to_owned(), format!("if=pflash,format=raw,{text}")];
    let code = drive(format!("unit=0,readonly=on,file={}", OVMF[0]));
    Ok(code.into_iter().chain(drive(format!("unit=1,file={}", quoted(&variables)))).collect())
}

fn start(
    site: &Site,
    dir: &Path,
    (drives, processor): (&Drives, Processor),
    more: Vec<String>,
    ways: &Ways,
) -> Result<Machine, Fault> {
    let (accelerator, why) = kvm::choose(&drives.image, dir)?;
    term::say(&why);
    let log = dir.join("console.log");
    File::create(&log).doing(|| format!("making {}", log.display()))?;
    let said = dir.join("qemu.log");
    let said = File::create(&said).doing(|| format!("making {}", said.display()))?;
    let mut command = Command::new("setpriv");
    // The emulator ends with this process however that ends, and hears of Ctrl-C from it alone. Its standard
    // input stays open: at its end the guest would be told that nobody reads its events.
    command
        .args(["--pdeathsig", "KILL", QEMU])
        .args(arguments(site, dir, drives, ways, (accelerator, processor))?)
        .args(more)
        .process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(said);
    let mut child = command.spawn().doing(|| format!("starting {QEMU}"))?;
    let stdout = child.stdout.take().ok_or_else(|| Fault::new("the emulator has no standard output"))?;
    let events = console::follow(site.name.as_str(), stdout, &log, &dir.join("events.jsonl"))?;
    let ssh = |words: &[&str]| {
        let config = ways.config.display().to_string();
        let own = ["ssh", "-F", &config, "-o", "BatchMode=yes", site.name.as_str()];
        own.iter().chain(words).map(ToString::to_string).collect::<Vec<_>>()
    };
    let control = ssh(&["gatectl"]);
    let stop = Stop::Command(ssh(&["systemctl", "poweroff"]));
    Ok(Machine::new(child, Box::new(BufReader::new(events)), control, stop))
}

/// QEMU's arguments. Emulated, the processor is the plain `qemu64` (Xen's first guest dies at once under `max`), with
/// `rdrand`: without it the first random number took two minutes to come.
fn arguments(
    site: &Site,
    dir: &Path,
    drives: &Drives,
    ways: &Ways,
    (accelerator, processor): (Accelerator, Processor),
) -> Result<Vec<String>, Fault> {
    let Hardware { memory, processors, mac, .. } = Hardware::of(site, 0);
    let file = |name: &str| quoted(&dir.join(name));
    // What befalls a kernel that has several emulated processors (see `trial_site`) befalls that of a host without Xen,
    // which has one here, and that of nodes, unless theirs take turns.
    let emulated = match processor {
        Processor::Plain => TCG_CPU.to_owned(),
        Processor::NestedPaging => TCG_CPU.to_owned() + ",+npt",
    };
    let (accel, cpu, processors) = match accelerator {
        Accelerator::Kvm => ("kvm", "host".to_owned(), processors),
        Accelerator::Tcg if site.host.vmm == VmmKind::Kvm => ("tcg,thread=single", emulated, 1),
        Accelerator::Tcg if site.vms().any(|node| node.vcpus > 1) => {
            ("tcg,thread=single", emulated, processors)
        }
        Accelerator::Tcg => ("tcg,thread=multi", emulated, processors),
    };
    let words = [
        ("-name", format!("gatehouse-try-{}", site.name)),
        ("-accel", accel.to_owned()),
        ("-machine", "pc".to_owned()),
        ("-cpu", cpu),
        ("-smp", processors.to_string()),
        ("-m", format!("{}M", memory >> 20)),
        ("-display", "none".to_owned()),
        ("-vga", "none".to_owned()),
        ("-monitor", "none".to_owned()),
        ("-netdev", user_network(site, ways)?),
        ("-device", format!("virtio-net-pci,netdev=net,mac={mac}")),
        ("-serial", format!("file:{}", dir.join("console.log").display())),
        ("-chardev", "stdio,id=events,signal=off".to_owned()),
        ("-device", "virtio-serial-pci".to_owned()),
        ("-device", "virtserialport,chardev=events,name=gatehouse.events".to_owned()),
        ("-qmp", format!("unix:{},server=on,wait=off", file("qmp.sock"))),
    ];
    let words = words.into_iter().flat_map(|(option, value)| [option.to_owned(), value]);
    Ok(["-nodefaults".to_owned()].into_iter().chain(drives.arguments()).chain(words).collect())
}

/// A path as QEMU reads it within an option.
pub fn quoted(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// QEMU's own network with the site's addresses: the gateway and the first resolver are QEMU's.
fn user_network(site: &Site, ways: &Ways) -> Result<String, Fault> {
    let network = &site.network;
    let mut taken: BTreeSet<Ipv4Addr> = site.nodes.iter().map(|node| node.address).collect();
    taken.insert(network.host);
    taken.extend(network.gateway);
    let resolver = network.resolvers.iter().find_map(|address| match address {
        IpAddr::V4(address) if network.subnet.contains(*address) && !taken.contains(address) => {
            Some(*address)
        }
        _ => None,
    });
    taken.extend(resolver);
    let (first, last) = (network.subnet.address.to_bits(), network.subnet.broadcast().to_bits());
    let mut free =
        (first + 1..last).rev().map(Ipv4Addr::from_bits).filter(|address| !taken.contains(address));
    let mut one = |given: Option<Ipv4Addr>| {
        given.or_else(|| free.next()).ok_or_else(|| {
            let what =
                format!("{} has no address left for the emulated network's own machines", network.subnet);
            Fault::from(Refusal::new(what, "give the site a larger subnet"))
        })
    };
    let (gateway, resolver, lease) = (one(network.gateway)?, one(resolver)?, one(None)?);
    let mut text = format!(
        "user,id=net,ipv6=off,net={},host={gateway},dns={resolver},dhcpstart={lease}",
        network.subnet
    );
    for way in &ways.all {
        let _ = write!(text, ",hostfwd=tcp:127.0.0.1:{}-{}:22", way.port, way.address);
    }
    Ok(text)
}
