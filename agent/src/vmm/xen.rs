//! Xen through `xl`: paravirtual nodes, started by PV-GRUB from their own disks.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gatehouse_model::site::VmmKind;
use gatehouse_model::{Doing as _, Fault, NodeName};

use super::console::Consoles;
use super::{Boot, Capabilities, Launch, Power, Vm, Vmm};
use crate::paths::Paths;
use crate::tool;

/// GRUB as a paravirtual kernel (package grub-xen-host): reads /boot/grub/grub.cfg on the node's own disk,
/// so a node upgrades its own kernel.
const PV_GRUB: &str = "/usr/lib/grub-xen/grub-x86_64-xen.bin";

/// libxl's scripts give a device 40 s to go away; after that nothing more is to be hoped for.
const LONGEST_CLEARING: Duration = Duration::from_secs(60);

/// How old an answer of `xl list` may be for those who only watch: that a domain has ended is known at once by the
/// end of its console. Every node's thread asks each second, and `xl list` takes an emulated machine a whole one.
const STALE: Duration = Duration::from_secs(30);

/// The domains that Xen knows, by name.
type Domains = BTreeMap<String, Power>;

/// The driver.
#[derive(Debug)]
pub struct Xen {
    paths: Paths,
    consoles: Consoles,
    seen: Arc<Mutex<Option<(Instant, Domains)>>>,
}

impl Xen {
    /// A driver for nodes below these paths.
    pub fn new(paths: Paths) -> Self {
        Self { consoles: Consoles::new(paths.clone()), paths, seen: Arc::default() }
    }

    /// The domains as they were at most so long ago.
    fn domains(&self, stale: Duration) -> Result<Domains, Fault> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, domains)) = seen.as_ref()
            && when.elapsed() < stale
        {
            return Ok(domains.clone());
        }
        let domains = read_list(&tool::run("xl", &["list"])?);
        *seen = Some((Instant::now(), domains.clone()));
        Ok(domains)
    }

    fn power_now(&self, node: &NodeName) -> Result<Power, Fault> {
        Ok(self.domains(Duration::ZERO)?.get(node.as_str()).copied().unwrap_or(Power::Off))
    }

    /// Whoever watches must not be told what was before a start.
    fn note_on(&self, node: &NodeName) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, domains)) = seen.as_mut() {
            domains.insert(node.to_string(), Power::On);
        }
    }

    /// Removes what is left of a domain that has ended: its name cannot be used again before. xl's own monitor
    /// does the same, so either may come first.
    fn clear(&self, node: &NodeName) -> Result<(), Fault> {
        let begun = Instant::now();
        loop {
            // Fails where the monitor was faster.
            let _ = tool::run("xl", &["destroy", node.as_str()]);
            if !self.domains(Duration::ZERO)?.contains_key(node.as_str()) {
                return Ok(());
            }
            if begun.elapsed() > LONGEST_CLEARING {
                return Err(Fault::new(format!("what is left of the domain {node} does not go away")));
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Reads a node's console in a process of its own, which ends with the domain.
    fn keep_console(&self, node: &NodeName, install: bool) -> Result<(), Fault> {
        let mut child = Command::new("xl")
            .args(["console", node.as_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .doing(|| "starting xl console")?;
        if let (Some(output), Some(input)) = (child.stdout.take(), child.stdin.take()) {
            self.consoles.keep(node, install, output, input)?;
        }
        let seen = Arc::clone(&self.seen);
        std::thread::spawn(move || {
            // However it ended: what is known of the domains is no longer sure.
            let _ = child.wait();
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
        });
        Ok(())
    }
}

fn config(vm: &Vm<'_>, boot: Boot<'_>) -> String {
    let (kernel, ramdisk, extra) = match boot {
        Boot::Install { kernel, initrd } => (
            kernel.display().to_string(),
            format!("ramdisk = \"{}\"\n", initrd.display()),
            "extra = \"console=hvc0 quiet\"\n",
        ),
        Boot::Disk { .. } => (PV_GRUB.to_owned(), String::new(), ""),
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
    format!(
        "name = \"{}\"\ntype = \"pv\"\nkernel = \"{kernel}\"\n{ramdisk}{extra}memory = {}\nvcpus = {}\n\
         vif = [ \"mac={},bridge={},script=gatehouse-vif\" ]\ndisk = [ {} ]\n\
         on_poweroff = \"destroy\"\non_reboot = \"destroy\"\non_crash = \"destroy\"\n",
        vm.node.name,
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
        Capabilities { max_vcpus: None, memory_while_running: true, own_kernel: true, own_user: false }
    }

    fn render(&self, vm: &Vm<'_>, boot: Boot<'_>) -> Launch {
        let file: PathBuf = self.paths.conf(&vm.node.name).join("xl.cfg");
        // Paused: nothing of the console is lost before somebody reads it.
        let argv = ["xl", "create", "-p", &file.display().to_string()].map(str::to_owned).to_vec();
        Launch {
            node: vm.node.name.clone(),
            install: boot.is_install(),
            argv,
            config: Some((file, config(vm, boot))),
            uid: None,
            owned: Vec::new(),
        }
    }

    fn start(&self, launch: &Launch) -> Result<(), Fault> {
        match self.domains(Duration::ZERO)?.get(launch.node.as_str()) {
            Some(Power::On) => return Ok(()),
            Some(Power::Off) => self.clear(&launch.node)?,
            None => {}
        }
        if let Some((path, text)) = &launch.config {
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).doing(|| "making conf/")?;
            fs::write(path, text).doing(|| format!("writing {}", path.display()))?;
        }
        let (program, args) =
            launch.argv.split_first().ok_or_else(|| Fault::new("there is nothing to start"))?;
        tool::run(program, args)?;
        self.keep_console(&launch.node, launch.install)?;
        // Time for the console's reader to be there.
        std::thread::sleep(Duration::from_millis(500));
        tool::run("xl", &["unpause", launch.node.as_str()])?;
        self.note_on(&launch.node);
        Ok(())
    }

    /// Its console waits in xenconsoled's pseudo terminal, which two readers would share out.
    fn adopt(&self, node: &NodeName) -> Result<(), Fault> {
        if self.consoles.has(node) { Ok(()) } else { self.keep_console(node, false) }
    }

    fn power(&self, node: &NodeName) -> Result<Power, Fault> {
        Ok(self.domains(STALE)?.get(node.as_str()).copied().unwrap_or(Power::Off))
    }

    fn stop(&self, node: &NodeName, grace: Duration) -> Result<(), Fault> {
        if !grace.is_zero() && self.power_now(node)? == Power::On {
            // A node that does not listen is ended below.
            let _ = tool::run("xl", &["shutdown", node.as_str()]);
            let begun = Instant::now();
            while begun.elapsed() < grace && self.power_now(node)? == Power::On {
                std::thread::sleep(Duration::from_millis(500));
            }
        }
        // Also removes what is left of a domain that ended by itself.
        let destroyed = tool::run("xl", &["destroy", node.as_str()]);
        if self.power_now(node)? == Power::On { destroyed.map(drop) } else { Ok(()) }
    }
}

/// Reads `xl list`: a heading, then `name id memory vcpus state time` for each domain. One that has ended but is
/// not yet gone (`--ps--`) is off: it never runs again.
fn read_list(text: &str) -> Domains {
    let domain = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, state) = (words.next()?, words.nth(3)?);
        let power = if state.contains('s') || state.contains('d') { Power::Off } else { Power::On };
        Some((name.to_owned(), power))
    };
    text.lines().skip(1).filter_map(domain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_that_has_ended_is_off() {
        let list = "Name        ID   Mem VCPUs\tState\tTime(s)\n\
                    Domain-0     0  1024     2     r-----     100.0\n\
                    ce           3   512     1     -b----      12.3\n\
                    se           4     0     1     --ps--      12.3\n";
        let found: Vec<_> = read_list(list).into_iter().collect();
        let named = |name: &str, power| (name.to_owned(), power);
        assert_eq!(found, [named("Domain-0", Power::On), named("ce", Power::On), named("se", Power::Off)]);
    }

    #[test]
    fn renders_the_configuration() {
        let site = include_str!("../../../site-templates/minimal/site.toml");
        let site = gatehouse_model::Site::parse(site).expect("the template is right");
        let vm = Vm { node: &site.nodes[0], index: 0, stores: vec!["/srv/d".into()], bridge: "gh0" };
        let text = config(&vm, Boot::Install { kernel: Path::new("/k"), initrd: Path::new("/i") });
        let mac = site.nodes[0].mac;
        let expected = format!(
            "name = \"node1\"\ntype = \"pv\"\nkernel = \"/k\"\nramdisk = \"/i\"\nextra = \"console=hvc0 quiet\"\n\
             memory = 512\nvcpus = 1\nvif = [ \"mac={mac},bridge=gh0,script=gatehouse-vif\" ]\n\
             disk = [ \"format=raw,vdev=xvda,access=rw,script=gatehouse-block,target=/srv/d\" ]\n\
             on_poweroff = \"destroy\"\non_reboot = \"destroy\"\non_crash = \"destroy\"\n"
        );
        assert_eq!(text, expected);
    }
}
