//! Xen through `xl`: paravirtual nodes, started by PV-GRUB from their own disks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gatehouse_model::site::VmmKind;
use gatehouse_model::{Doing as _, Fault, NodeName};

use super::{Boot, Capabilities, Launch, Power, Vm, Vmm, console};
use crate::paths::Paths;
use crate::tool;

/// GRUB as a paravirtual kernel (package grub-xen-host): reads /boot/grub/grub.cfg on the node's own disk,
/// so a node upgrades its own kernel.
const PV_GRUB: &str = "/usr/lib/grub-xen/grub-x86_64-xen.bin";

/// libxl's scripts give a device 40 s to go away; after that nothing more is to be hoped for.
const LONGEST_CLEARING: Duration = Duration::from_secs(60);

/// The driver.
#[derive(Debug)]
pub struct Xen {
    paths: Paths,
}

impl Xen {
    /// A driver for nodes below these paths.
    pub fn new(paths: Paths) -> Self {
        Self { paths }
    }

    /// Reads a node's console in a process of its own, which ends with the node.
    fn keep_console(&self, node: &NodeName) -> Result<(), Fault> {
        let mut child = Command::new("xl")
            .args(["console", node.as_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .doing(|| "starting xl console")?;
        if let (Some(output), Some(input)) = (child.stdout.take(), child.stdin.take()) {
            console::keep(&self.paths, node, output, input)?;
        }
        std::thread::spawn(move || child.wait());
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
            argv,
            config: Some((file, config(vm, boot))),
            uid: None,
            owned: Vec::new(),
        }
    }

    fn start(&self, launch: &Launch) -> Result<(), Fault> {
        if self.power(&launch.node)? == Power::On {
            return Ok(());
        }
        clear(&launch.node)?;
        if let Some((path, text)) = &launch.config {
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).doing(|| "making conf/")?;
            fs::write(path, text).doing(|| format!("writing {}", path.display()))?;
        }
        let (program, args) =
            launch.argv.split_first().ok_or_else(|| Fault::new("there is nothing to start"))?;
        tool::run(program, args)?;
        self.keep_console(&launch.node)?;
        // Time for the console's reader to be there.
        std::thread::sleep(Duration::from_millis(500));
        tool::run("xl", &["unpause", launch.node.as_str()]).map(drop)
    }

    fn power(&self, node: &NodeName) -> Result<Power, Fault> {
        // A domain that has ended but is not yet gone ("--ps--") is off: it never runs again.
        Ok(listed(node)?.map_or(Power::Off, |text| power_of(&text)))
    }

    fn stop(&self, node: &NodeName, grace: Duration) -> Result<(), Fault> {
        if !grace.is_zero() && self.power(node)? == Power::On {
            // A node that does not listen is ended below.
            let _ = tool::run("xl", &["shutdown", node.as_str()]);
            let begun = Instant::now();
            while begun.elapsed() < grace && self.power(node)? == Power::On {
                std::thread::sleep(Duration::from_millis(500));
            }
        }
        // Also removes what is left of a domain that ended by itself.
        let destroyed = tool::run("xl", &["destroy", node.as_str()]);
        if self.power(node)? == Power::On { destroyed.map(drop) } else { Ok(()) }
    }
}

/// What `xl list` says of a node; none if Xen does not know it.
fn listed(node: &NodeName) -> Result<Option<String>, Fault> {
    let mut command = Command::new("xl");
    let output =
        command.args(["list", node.as_str()]).stdin(Stdio::null()).output().doing(|| "starting xl")?;
    Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Removes what is left of a domain that has ended: its name cannot be used again before. xl's own monitor
/// does the same, so either may come first.
fn clear(node: &NodeName) -> Result<(), Fault> {
    let begun = Instant::now();
    while listed(node)?.is_some() {
        if begun.elapsed() > LONGEST_CLEARING {
            return Err(Fault::new(format!("what is left of the domain {node} does not go away")));
        }
        // Fails where the monitor was faster.
        let _ = tool::run("xl", &["destroy", node.as_str()]);
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}

/// The state in the last line of `xl list NODE`: `name id memory vcpus state time`.
fn power_of(text: &str) -> Power {
    let state = text.lines().last().and_then(|line| line.split_whitespace().nth(4)).unwrap_or_default();
    if state.contains('s') || state.contains('d') { Power::Off } else { Power::On }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_that_has_ended_is_off() {
        let head = "Name        ID   Mem VCPUs\tState\tTime(s)\n";
        assert_eq!(power_of(&format!("{head}node1   3   512     1     -b----      12.3\n")), Power::On);
        assert_eq!(power_of(&format!("{head}node1   3   512     1     r-----      12.3\n")), Power::On);
        assert_eq!(power_of(&format!("{head}node1   3     0     1     --ps--      12.3\n")), Power::Off);
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
