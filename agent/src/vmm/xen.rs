//! Xen through `xl`: nodes under PV or PVH, started by GRUB from their own disks.

mod domain;
mod guest;
mod making;
mod seen;
mod terminal;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gatehouse_model::site::{VmmKind, WEIGHT};
use gatehouse_model::{Doing as _, Fault, NodeName};

use self::domain::{Applied, BACK_ENDS, Domain, Domains, changes, read_list, scheduled, used, vif, wanted};
use self::guest::Guest;
use self::seen::Seen;
use super::console::Consoles;
use super::usage::Usage;
use super::{Boot, Capabilities, Launch, Power, Vm, Vmm, traffic};
use crate::paths::Paths;
use crate::tool;

/// How long an `xl` may take: `xl shutdown` waits a minute for a node that does not listen, on a machine that may be
/// emulated and busy.
const LIMIT: Duration = Duration::from_secs(180);

/// libxl's scripts give a device 40 s to go away; after that nothing more is to be hoped for.
const LONGEST_CLEARING: Duration = Duration::from_secs(60);

/// How old an answer of `xl list` may be for those who only watch: that a domain has ended is known at once by the
/// end of its console. Every node's thread asks each second, and `xl list` takes an emulated machine a whole one.
const STALE: Duration = Duration::from_secs(30);

/// How old it may be where somebody looks at how much nodes use.
const LOOK: Duration = Duration::from_millis(900);

/// The driver.
#[derive(Debug)]
pub struct Xen {
    paths: Paths,
    guest: Guest,
    consoles: Consoles,
    seen: Arc<Seen>,
    /// Weight and cap, as they were set last. Asking Xen for them takes as long as setting them.
    applied: Mutex<BTreeMap<NodeName, Applied>>,
}

impl Xen {
    /// A driver for nodes below these paths, and what is to be said of how it runs them.
    ///
    /// # Errors
    /// This is no host of Xen's.
    pub fn new(paths: Paths) -> Result<(Self, &'static str), Fault> {
        let (guest, why) = Guest::choose(&xl(&["info"])?);
        let consoles = Consoles::new(paths.clone());
        Ok((Self { consoles, paths, guest, seen: Arc::default(), applied: Mutex::default() }, why))
    }

    /// The domains as they were at most so long ago.
    fn domains(&self, stale: Duration) -> Result<Domains, Fault> {
        self.seen.domains(stale, || Ok(read_list(&xl(&["list"])?)))
    }

    fn power_now(&self, node: &NodeName) -> Result<Power, Fault> {
        Ok(self.domains(Duration::ZERO)?.get(node.as_str()).map_or(Power::Off, |domain| domain.power))
    }

    /// A domain that runs, as it was at most so long ago.
    fn running(&self, node: &NodeName, stale: Duration) -> Result<Option<Domain>, Fault> {
        Ok(self.domains(stale)?.get(node.as_str()).copied().filter(|domain| domain.power == Power::On))
    }

    fn applied(&self) -> MutexGuard<'_, BTreeMap<NodeName, Applied>> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what is left of a domain that has ended: its name cannot be used again before. xl's own monitor
    /// does the same, so either may come first.
    fn clear(&self, node: &NodeName) -> Result<(), Fault> {
        let begun = Instant::now();
        loop {
            // Fails where the monitor was faster.
            let _ = xl(&["destroy", node.as_str()]);
            if !self.domains(Duration::ZERO)?.contains_key(node.as_str()) {
                return Ok(());
            }
            if begun.elapsed() > LONGEST_CLEARING {
                return Err(Fault::new(format!("what is left of the domain {node} does not go away")));
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Has a node's console in a process of its own, which ends with the domain. With pipes it would show what comes,
    /// and take no key.
    fn keep_console(&self, node: &NodeName, install: bool) -> Result<(), Fault> {
        let (ours, theirs) = terminal::make()?;
        let input = ours.try_clone().doing(|| "sharing a terminal")?;
        let mut child = Command::new("xl")
            .args(["console", node.as_str()])
            .stdin(theirs.try_clone().doing(|| "sharing a terminal")?)
            .stdout(theirs)
            .stderr(Stdio::null())
            .spawn()
            .doing(|| "starting xl console")?;
        self.consoles.keep(node, install, ours, input)?;
        let seen = Arc::clone(&self.seen);
        std::thread::spawn(move || {
            // However it ended: what is known of the domains is no longer sure.
            let _ = child.wait();
            seen.doubt();
        });
        Ok(())
    }

    /// Has a paused domain run, whose console is kept.
    fn let_run(&self, node: &NodeName) -> Result<(), Fault> {
        // Time for the console's reader to be there.
        std::thread::sleep(Duration::from_millis(500));
        xl(&["unpause", node.as_str()])?;
        // Whoever watches must not be told what was before.
        self.seen.doubt();
        Ok(())
    }

    /// The file whose lock is held by whoever makes a domain.
    fn making(&self, node: &NodeName) -> PathBuf {
        self.paths.run.join(format!("making-{node}"))
    }

    /// Keeps the console of a domain that is there, and has it run where whoever made it was cut off before that.
    fn take_over(&self, node: &NodeName, install: bool) -> Result<(), Fault> {
        if !self.consoles.has(node) {
            self.keep_console(node, install)?;
        }
        let waits = self.running(node, STALE)?.is_some_and(Domain::awaits_its_start);
        if waits { self.let_run(node) } else { Ok(()) }
    }
}

/// Runs `xl`, which must not hang for ever.
fn xl(args: &[impl AsRef<OsStr>]) -> Result<String, Fault> {
    tool::run_within(LIMIT, "xl", args, Stdio::null())
}

fn config(guest: Guest, vm: &Vm<'_>, boot: Boot<'_>) -> String {
    let (kernel, ramdisk, extra) = match boot {
        Boot::Install { kernel, initrd } => (
            kernel.display().to_string(),
            format!("ramdisk = \"{}\"\n", initrd.display()),
            "extra = \"console=hvc0 quiet\"\n",
        ),
        Boot::Disk { .. } => (guest.grub().display().to_string(), String::new(), ""),
    };
    let disks: Vec<String> = vm
        .stores
        .iter()
        .zip('a'..='z')
        .map(|(store, letter)| {
            format!(
                "\"format=raw,vdev=xvd{letter},access=rw,script=gatehouse-block,target={}\"",
                store.display()
            )
        })
        .collect();
    let limits = vm.node.limits;
    let weight = Some(limits.weight).filter(|weight| *weight != WEIGHT);
    let weight = weight.map(|weight| format!("cpu_weight = {weight}\n")).unwrap_or_default();
    let cap = limits.cap.map(|cap| format!("cap = {cap}\n")).unwrap_or_default();
    format!(
        "name = \"{}\"\ntype = \"{}\"\nkernel = \"{kernel}\"\n{ramdisk}{extra}memory = {}\nvcpus = {}\n{weight}{cap}\
         vif = [ \"mac={},bridge={},script=gatehouse-vif\" ]\ndisk = [ {} ]\n\
         on_poweroff = \"destroy\"\non_reboot = \"destroy\"\non_crash = \"destroy\"\n",
        vm.node.name,
        guest.name(),
        vm.node.memory.as_mib(),
        vm.node.vcpus,
        vm.node.mac,
        vm.bridge,
        disks.join(", ")
    )
}

impl Vmm for Xen {
    fn kind(&self) -> VmmKind {
        VmmKind::Xen
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            max_vcpus: VmmKind::Xen.most_vcpus(),
            memory_while_running: true,
            vcpus_while_running: true,
            disk_rate: VmmKind::Xen.holds_disk_rates(),
            own_kernel: true,
            own_user: false,
        }
    }

    fn render(&self, vm: &Vm<'_>, boot: Boot<'_>) -> Launch {
        let file: PathBuf = self.paths.conf(&vm.node.name).join("xl.cfg");
        // Paused: nothing of the console is lost before somebody reads it.
        let argv = ["xl", "create", "-p", &file.display().to_string()].map(str::to_owned).to_vec();
        Launch {
            node: vm.node.name.clone(),
            install: boot.is_install(),
            argv,
            config: Some((file, config(self.guest, vm, boot))),
            uid: None,
            owned: Vec::new(),
        }
    }

    fn start(&self, launch: &Launch) -> Result<(), Fault> {
        let making = making::lock(&self.making(&launch.node), LIMIT)?;
        match self.domains(Duration::ZERO)?.get(launch.node.as_str()).map(|domain| domain.power) {
            Some(Power::On) => return self.take_over(&launch.node, launch.install),
            Some(Power::Off) => self.clear(&launch.node)?,
            None => {}
        }
        self.applied().remove(&launch.node);
        if let Some((path, text)) = &launch.config {
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).doing(|| "making conf/")?;
            fs::write(path, text).doing(|| format!("writing {}", path.display()))?;
        }
        let (program, args) =
            launch.argv.split_first().ok_or_else(|| Fault::new("there is nothing to start"))?;
        let input = making.try_clone().doing(|| "sharing a lock")?;
        if let Err(fault) = tool::run_within(LIMIT, program, args, input.into()) {
            // One that was ended has left half a domain, which must never run.
            let _ = xl(&["destroy", launch.node.as_str()]);
            return Err(fault);
        }
        self.keep_console(&launch.node, launch.install)?;
        self.let_run(&launch.node)
    }

    /// Its console waits in xenconsoled's pseudo terminal, which two readers would share out.
    fn adopt(&self, node: &NodeName) -> Result<(), Fault> {
        let _made = making::lock(&self.making(node), LIMIT)?;
        self.take_over(node, false)
    }

    fn power(&self, node: &NodeName) -> Result<Power, Fault> {
        Ok(self.domains(STALE)?.get(node.as_str()).map_or(Power::Off, |domain| domain.power))
    }

    fn stop(&self, node: &NodeName, grace: Duration) -> Result<(), Fault> {
        if !grace.is_zero() && self.power_now(node)? == Power::On {
            let begun = Instant::now();
            // A node that does not listen is ended below; xl itself waits a minute for it to answer (libxl's pvcontrol).
            let _ = xl(&["shutdown", node.as_str()]);
            while begun.elapsed() < grace && self.power_now(node)? == Power::On {
                std::thread::sleep(Duration::from_millis(500));
            }
        }
        // Also removes what is left of a domain that ended by itself.
        let destroyed = xl(&["destroy", node.as_str()]);
        if self.power_now(node)? == Power::On { destroyed.map(drop) } else { Ok(()) }
    }

    fn limit(&self, vm: &Vm<'_>) -> Result<Vec<String>, Fault> {
        let name = &vm.node.name;
        let Some(domain) = self.running(name, Duration::ZERO)? else { return Ok(Vec::new()) };
        let started = fs::read_to_string(self.paths.conf(name).join("xl.cfg")).unwrap_or_default();
        let applied = self.applied().get(name).copied().unwrap_or_else(|| scheduled(&started));
        let change = |args: Vec<String>| Some(format!("{} not done: {}", args.join(" "), xl(&args).err()?));
        let mut lacks: Vec<String> =
            changes(vm, domain, &started, applied).into_iter().filter_map(change).collect();
        if lacks.is_empty() {
            self.applied().insert(name.clone(), wanted(vm));
        }
        lacks.extend(traffic::hold(&vif(domain.id), vm.index, vm.node.limits.network_rate));
        Ok(lacks)
    }

    fn usage(&self, vm: &Vm<'_>) -> Result<Option<Usage>, Fault> {
        let domain = self.running(&vm.node.name, LOOK)?;
        Ok(domain.map(|domain| used(domain, Path::new("/sys/class/net"), Path::new(BACK_ENDS))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_the_configuration() {
        let site = include_str!("../../../site-templates/minimal/site.toml");
        let site = gatehouse_model::Site::parse(site).expect("the template is right");
        let vm = Vm { node: &site.nodes[0], index: 0, stores: vec!["/srv/d".into()], bridge: "gh0" };
        let mac = site.nodes[0].mac;
        let expected = |guest: &str, kernel: &str| {
            format!(
                "name = \"node1\"\ntype = \"{guest}\"\n{kernel}\
                 memory = 512\nvcpus = 1\nvif = [ \"mac={mac},bridge=gh0,script=gatehouse-vif\" ]\n\
                 disk = [ \"format=raw,vdev=xvda,access=rw,script=gatehouse-block,target=/srv/d\" ]\n\
                 on_poweroff = \"destroy\"\non_reboot = \"destroy\"\non_crash = \"destroy\"\n"
            )
        };
        let install = Boot::Install { kernel: Path::new("/k"), initrd: Path::new("/i") };
        let kernel = "kernel = \"/k\"\nramdisk = \"/i\"\nextra = \"console=hvc0 quiet\"\n";
        assert_eq!(config(Guest::Pv, &vm, install), expected("pv", kernel));
        let disk = Boot::Disk { kernel: Path::new("/k"), root: "PARTUUID=1" };
        let kernel = "kernel = \"/usr/lib/grub-xen/grub-i386-xen_pvh.bin\"\n";
        assert_eq!(config(Guest::Pvh, &vm, disk), expected("pvh", kernel));
    }
}
