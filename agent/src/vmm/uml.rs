//! User Mode Linux: a kernel as an ordinary process. Facts about its arguments and end were measured with
//! Debian 13's package (6.12); they stand at the places that rely on them.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gatehouse_model::site::VmmKind;
use gatehouse_model::{Doing as _, Fault, NodeName};
use nix::sys::personality::{self, Persona};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpgid};

use super::confine::{AGENT, ConfineOptions};
use super::process::{Processes, has_arguments, tap, wait_off};
use super::usage::Usage;
use super::{Boot, Capabilities, Launch, Power, Vm, Vmm};
use crate::paths::Paths;

/// An empty directory below `run/`, in which each node's process makes its own root.
const ROOT: &str = "uml-root";

/// The driver.
#[derive(Debug)]
pub struct Uml {
    paths: Paths,
    processes: Processes,
}

impl Uml {
    /// A driver for nodes below these paths.
    ///
    /// # Errors
    /// The process may not turn off the randomisation of addresses.
    pub fn new(paths: Paths) -> Result<Self, Fault> {
        // With it, UML takes the gap between its code and its heap for memory of the node (0.2 to 1 GiB more).
        let now = personality::get().doing(|| "asking for the personality")?;
        personality::set(now | Persona::ADDR_NO_RANDOMIZE).doing(|| "setting the personality")?;
        let root = paths.run.join(ROOT);
        fs::create_dir_all(&root).doing(|| format!("making {}", root.display()))?;
        Ok(Self { processes: Processes::new(paths.clone()), paths })
    }

    /// Where a node's process makes a directory, with its management console in it. A directory that a killed UML leaves
    /// would make the next one take a random umid.
    fn dir(&self, node: &NodeName) -> PathBuf {
        self.paths.run.join("uml").join(node.as_str())
    }

    /// The process group of a node: of this agent's own child, or of one that an earlier agent has started.
    fn group(&self, node: &NodeName) -> Result<Option<Pid>, Fault> {
        self.processes.of_node(node, || find(node, &self.dir(node)))
    }
}

/// The process of a node among all of this machine's, by its arguments: also while it has not come as far as to leave its
/// number in a file. Its helpers have the same arguments; it leads them.
fn find(node: &NodeName, dir: &Path) -> Result<Option<Pid>, Fault> {
    let marks = [format!("umid={node}"), format!("uml_dir={}/", dir.display())];
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").doing(|| "reading /proc")? {
        let name = entry.doing(|| "reading /proc")?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        if has_arguments(pid, &marks)? {
            found.push(Pid::from_raw(pid));
        }
    }
    let leads = |pid: &&Pid| getpgid(Some(**pid)).is_ok_and(|group| group == **pid);
    Ok(found.iter().find(leads).or(found.first()).copied())
}

impl Vmm for Uml {
    fn kind(&self) -> VmmKind {
        VmmKind::Uml
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            max_vcpus: VmmKind::Uml.most_vcpus(),
            memory_while_running: false,
            vcpus_while_running: false,
            disk_rate: VmmKind::Uml.holds_disk_rates(),
            own_kernel: false,
            own_user: self.processes.own_user(),
        }
    }

    fn render(&self, vm: &Vm<'_>, boot: Boot<'_>) -> Launch {
        let (kernel, mut rest) = match boot {
            Boot::Install { kernel, initrd } => (kernel, vec![format!("initrd={}", initrd.display())]),
            Boot::Disk { kernel, root } => {
                (kernel, vec![format!("root={root}"), "rw".to_owned(), "systemd.getty_auto=no".to_owned()])
            }
        };
        let dir = self.dir(&vm.node.name);
        let mut argv = vec![
            kernel.display().to_string(),
            format!("umid={}", vm.node.name),
            format!("uml_dir={}/", dir.display()),
            format!("mem={}M", vm.node.memory.as_mib()),
        ];
        for (number, store) in vm.stores.iter().enumerate() {
            argv.push(format!("ubd{number}={}", store.display()));
        }
        // Without gro=1 HTTP hangs.
        let tap = tap(vm.index);
        argv.push(format!("vec0:transport=tap,ifname={tap},mac={},gro=1", vm.node.mac));
        // A reboot would start the same arguments again in the same process; the lifecycle starts nodes.
        argv.extend(["con=null", "con0=fd:0,fd:1", "noreboot", "quiet"].map(str::to_owned));
        argv.append(&mut rest);
        let mut owned = vm.stores.clone();
        if let Boot::Install { initrd, .. } = boot {
            owned.push(initrd.to_owned());
        }
        let uid = self.processes.uid(vm);
        let home = kernel.parent().unwrap_or(Path::new("/"));
        let read: Vec<&Path> = match boot {
            Boot::Install { initrd, .. } => vec![home, initrd],
            Boot::Disk { .. } => vec![home],
        };
        let write: Vec<&Path> = [&dir].into_iter().chain(&vm.stores).map(PathBuf::as_path).collect();
        let mut confined = vec![AGENT.to_owned()];
        confined.extend(ConfineOptions::of(&self.paths.run.join(ROOT), &read, &write, uid));
        confined.append(&mut argv);
        Launch {
            node: vm.node.name.clone(),
            install: boot.is_install(),
            argv: confined,
            config: Some((PathBuf::from(tap), vm.bridge.to_owned())),
            uid,
            owned,
        }
    }

    fn start(&self, launch: &Launch) -> Result<(), Fault> {
        if self.group(&launch.node)?.is_some() {
            return Ok(());
        }
        self.processes.start(launch, &self.dir(&launch.node), |command| {
            // Of the libraries beside it; its loader is named relative to its directory, too (builder, depot.rs).
            command.env_clear().env("LD_LIBRARY_PATH", ".");
        })
    }

    fn adopt(&self, node: &NodeName) -> Result<(), Fault> {
        self.processes.adopt(node)
    }

    fn power(&self, node: &NodeName) -> Result<Power, Fault> {
        Ok(if self.group(node)?.is_some() { Power::On } else { Power::Off })
    }

    fn stop(&self, node: &NodeName, grace: Duration) -> Result<(), Fault> {
        let Some(group) = self.group(node)? else { return Ok(()) };
        // Ctrl-Alt-Del: systemd shuts down in order and "reboots", which ends the process (noreboot).
        if !grace.is_zero() && mconsole(&self.dir(node).join(node.as_str()).join("mconsole"), "cad").is_ok() {
            wait_off(|| self.group(node), grace);
        }
        // The whole group, even after a clean end: killing the first process alone leaves its helpers.
        let _ = killpg(group, Signal::SIGKILL);
        self.processes.bury(node, || self.group(node))
    }

    fn limit(&self, vm: &Vm<'_>) -> Result<Vec<String>, Fault> {
        self.processes.limit(vm, self.group(&vm.node.name)?)
    }

    fn usage(&self, vm: &Vm<'_>) -> Result<Option<Usage>, Fault> {
        Ok(self.processes.usage(vm, self.group(&vm.node.name)?))
    }
}

/// Sends one command to a UML's management console: 524 bytes, native byte order (`arch/um/drivers/mconsole.h`).
/// The answer is not waited for: what counts is whether the node ends.
fn mconsole(socket: &Path, command: &str) -> Result<(), Fault> {
    const MAGIC: u32 = 0xcafe_babe;
    let mut packet = Vec::with_capacity(524);
    let length = u32::try_from(command.len()).unwrap_or(0);
    for word in [MAGIC, 2, length] {
        packet.extend_from_slice(&word.to_ne_bytes());
    }
    packet.extend_from_slice(command.as_bytes());
    packet.resize(524, 0);
    let ours = UnixDatagram::unbound()?;
    ours.send_to(&packet, socket).doing(|| format!("writing to {}", socket.display())).map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::process::tests::{idle, processes};
    use super::*;

    #[test]
    fn a_node_of_an_earlier_agent_is_found() {
        let node: NodeName = "find-me".parse().expect("a name");
        let dir = Path::new("/t/run/uml/find-me");
        let find = |node, dir| find(node, dir).expect("looked");
        assert_eq!(find(&node, dir), None);
        let mut child = idle(&["umid=find-me", "uml_dir=/t/run/uml/find-me/"]);
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a number"));
        assert_eq!(find(&node, dir), Some(pid));
        assert_eq!(find(&node, Path::new("/another")), None);
        killpg(pid, Signal::SIGKILL).expect("ended");
        child.wait().expect("buried");
        assert_eq!(find(&node, dir), None);
    }

    #[test]
    fn renders_what_will_be_started() {
        let dir = tempfile::tempdir().expect("a directory");
        let site = include_str!("../../../site-templates/minimal/site.toml");
        let site = gatehouse_model::Site::parse(site).expect("the template is right");
        let paths = Paths::trial(Path::new("/t"), dir.path());
        let uml = Uml { processes: processes(paths.clone(), true), paths };
        let vm = Vm { node: &site.nodes[0], index: 0, stores: vec!["/t/disk0".into()], bridge: "gh0" };
        let boot = Boot::Disk { kernel: Path::new("/d/linux"), root: "PARTUUID=1-2" };
        let launch = uml.render(&vm, boot);
        let mac = site.nodes[0].mac;
        let expected = format!(
            "/proc/self/exe confine --root /t/run/uml-root --read /d --write /t/run/uml/node1 --write /t/disk0 \
             --uid 70000 -- /d/linux umid=node1 uml_dir=/t/run/uml/node1/ mem=512M ubd0=/t/disk0 \
             vec0:transport=tap,ifname=ghtap0,mac={mac},gro=1 con=null con0=fd:0,fd:1 noreboot quiet \
             root=PARTUUID=1-2 rw systemd.getty_auto=no"
        );
        assert_eq!(launch.argv.join(" "), expected);
        assert_eq!(launch.uid, Some(70_000));
    }
}
