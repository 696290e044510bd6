//! QEMU: every node a process of its own, run by KVM where that works, else emulated.
//!
//! The installer is started directly. A node's own system is started by GRUB, which QEMU takes for a kernel: it reads the
//! `grub.cfg` on the node's own disk, as PV-GRUB does under Xen, so that a node upgrades its own kernel and its disk
//! may move from one to the other.

mod arguments;
mod probe;
mod qmp;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gatehouse_model::site::VmmKind;
use gatehouse_model::{Doing as _, Fault, NodeName};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::probe::Accelerator;
use super::console::Consoles;
use super::process::{FIRST_UID, Processes, Running, make_tap, may_change_user, tap};
use super::usage::Usage;
use super::{Boot, Capabilities, Launch, Power, Vm, Vmm, pipes};
use crate::paths::Paths;

/// The program.
const QEMU: &str = "qemu-system-x86_64";
/// How often a node is asked to shut down: what comes before its own system listens is lost.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// The driver.
#[derive(Debug)]
pub struct Kvm {
    paths: Paths,
    consoles: Consoles,
    children: Mutex<BTreeMap<NodeName, Child>>,
    processes: Processes,
    accelerator: Accelerator,
    own_user: bool,
}

impl Kvm {
    /// A driver for nodes below these paths, and what is to be said of how it runs them; `kernel` is the nodes' own.
    ///
    /// # Errors
    /// QEMU is missing; the directory for its sockets cannot be made.
    pub fn new(paths: Paths, kernel: &Path) -> Result<(Self, String), Fault> {
        let dir = dir(&paths);
        fs::create_dir_all(&dir).doing(|| format!("making {}", dir.display()))?;
        let (accelerator, why) = probe::choose(kernel, &dir)?;
        let (consoles, processes) = (Consoles::new(paths.clone()), Processes::new(&paths));
        let (children, own_user) = (Mutex::default(), may_change_user());
        Ok((Self { paths, consoles, children, processes, accelerator, own_user }, why))
    }

    fn children(&self) -> MutexGuard<'_, BTreeMap<NodeName, Child>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn places(&self, node: &NodeName) -> Places {
        Places { dir: dir(&self.paths).join(node.as_str()) }
    }

    /// A node's process: this agent's own child, or the one whose number an earlier agent's QEMU has left.
    fn process(&self, node: &NodeName) -> Option<Pid> {
        if let Some(child) = self.children().get_mut(node) {
            let alive = matches!(child.try_wait(), Ok(None));
            return alive.then(|| i32::try_from(child.id()).ok().map(Pid::from_raw)).flatten();
        }
        let file = self.places(node).pid();
        let pid: i32 = fs::read_to_string(&file).ok()?.trim().parse().ok()?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mark = file.display().to_string();
        line.split(|byte| *byte == 0).any(|arg| arg == mark.as_bytes()).then(|| Pid::from_raw(pid))
    }

    fn running(&self, vm: &Vm<'_>) -> Option<u32> {
        u32::try_from(self.process(&vm.node.name)?.as_raw()).ok()
    }

    fn wait_off(&self, node: &NodeName, at_most: Duration) -> bool {
        let begun = Instant::now();
        while self.process(node).is_some() {
            if begun.elapsed() >= at_most {
                return false;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        true
    }

    /// Makes what a node's QEMU needs besides its program, and gives it what it must own.
    fn prepare(&self, launch: &Launch) -> Result<(), Fault> {
        self.processes.forget(&launch.node);
        if let Some((tap, bridge)) = &launch.config {
            make_tap(&tap.display().to_string(), bridge, launch.uid)?;
        }
        let Places { dir } = self.places(&launch.node);
        if dir.exists() {
            fs::remove_dir_all(&dir).doing(|| format!("removing {}", dir.display()))?;
        }
        fs::DirBuilder::new().mode(0o700).create(&dir).doing(|| format!("making {}", dir.display()))?;
        for path in launch.owned.iter().chain([&dir]).filter(|_| launch.uid.is_some()) {
            chown(path, launch.uid, launch.uid).doing(|| format!("giving {} to its node", path.display()))?;
        }
        Ok(())
    }
}

/// Where all nodes' processes have their directories.
fn dir(paths: &Paths) -> PathBuf {
    paths.run.join("kvm")
}

/// The files of one node's process.
#[derive(Clone, Debug)]
struct Places {
    dir: PathBuf,
}

impl Places {
    fn pid(&self) -> PathBuf {
        self.dir.join("pid")
    }

    fn monitor(&self) -> PathBuf {
        self.dir.join("qmp.sock")
    }
}

impl Vmm for Kvm {
    fn kind(&self) -> VmmKind {
        VmmKind::Kvm
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            max_vcpus: None,
            memory_while_running: false,
            vcpus_while_running: false,
            disk_rate: VmmKind::Kvm.holds_disk_rates(),
            own_kernel: true,
            own_user: self.own_user,
        }
    }

    fn render(&self, vm: &Vm<'_>, boot: Boot<'_>) -> Launch {
        let uid = self.own_user.then_some(FIRST_UID + vm.index);
        let mut owned = vm.stores.clone();
        if let Boot::Install { initrd, .. } = boot {
            owned.push(initrd.to_owned());
        }
        let mut argv = arguments::user(uid, self.accelerator);
        argv.extend(arguments::machine(vm, self.accelerator));
        argv.extend(arguments::devices(vm, &self.places(&vm.node.name)));
        argv.extend(arguments::boot(boot));
        Launch {
            node: vm.node.name.clone(),
            install: boot.is_install(),
            argv,
            config: Some((PathBuf::from(tap(vm.index)), vm.bridge.to_owned())),
            uid,
            owned,
        }
    }

    fn start(&self, launch: &Launch) -> Result<(), Fault> {
        if self.process(&launch.node).is_some() {
            return Ok(());
        }
        self.prepare(launch)?;
        let (program, args) =
            launch.argv.split_first().ok_or_else(|| Fault::new("there is nothing to start"))?;
        let (theirs, ours) = pipes::make(&self.paths, &launch.node)?;
        let mut command = Command::new(program);
        // What QEMU itself has to say is seen on the console as well.
        let said = theirs.1.try_clone().doing(|| "sharing the console")?;
        command.args(args).stdin(theirs.0).stdout(theirs.1).stderr(said);
        let child = command.spawn().doing(|| format!("starting {program}"))?;
        // Its ends of the pipes are closed here, so that they end with it.
        drop(command);
        self.children().insert(launch.node.clone(), child);
        self.consoles.keep(&launch.node, launch.install, ours.output, ours.input)
    }

    fn adopt(&self, node: &NodeName) -> Result<(), Fault> {
        if self.consoles.has(node) {
            return Ok(());
        }
        let Some(ours) = pipes::reopen(&self.paths, node)? else { return Ok(()) };
        self.consoles.keep(node, false, ours.output, ours.input)
    }

    fn power(&self, node: &NodeName) -> Result<Power, Fault> {
        Ok(if self.process(node).is_some() { Power::On } else { Power::Off })
    }

    fn stop(&self, node: &NodeName, grace: Duration) -> Result<(), Fault> {
        let begun = Instant::now();
        while let Some(left) = grace.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
            // The power button. A node that does not listen is ended below.
            let _ = qmp::ask(&self.places(node).monitor(), "system_powerdown");
            if self.wait_off(node, left.min(ASK_AGAIN)) {
                self.processes.forget(node);
                return Ok(());
            }
        }
        let Some(process) = self.process(node) else { return Ok(()) };
        // It may end by itself just now.
        let _ = kill(process, Signal::SIGKILL);
        if self.wait_off(node, Duration::from_secs(10)) {
            self.processes.forget(node);
            return Ok(());
        }
        Err(Fault::new(format!("node {node} runs on as process {process} after SIGKILL")))
    }

    fn limit(&self, vm: &Vm<'_>) -> Result<Vec<String>, Fault> {
        self.running(vm).map_or(Ok(Vec::new()), |pid| {
            self.processes.limit(Running { vm, pid, interface: &tap(vm.index) })
        })
    }

    fn usage(&self, vm: &Vm<'_>) -> Result<Option<Usage>, Fault> {
        let running = self.running(vm);
        Ok(running.map(|pid| self.processes.usage(Running { vm, pid, interface: &tap(vm.index) })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(run: &Path, accelerator: Accelerator, own_user: bool) -> Kvm {
        let paths = Paths::trial(run, run);
        Kvm {
            consoles: Consoles::new(paths.clone()),
            paths,
            children: Mutex::default(),
            processes: Processes::new(&Paths::host()),
            accelerator,
            own_user,
        }
    }

    #[test]
    fn renders_what_will_be_started() {
        let site = include_str!("../../../../site-templates/minimal/site.toml");
        let site = gatehouse_model::Site::parse(site).expect("the template is right");
        let vm = Vm { node: &site.nodes[0], index: 2, stores: vec!["/t/a,b".into()], bridge: "gh0" };
        let mac = site.nodes[0].mac;
        let machine = |accel: &str, cpu: &str| {
            format!(
                "qemu-system-x86_64 -name node1 -machine pc -accel {accel} -cpu {cpu} -smp 1 -m 512M \
                 -nodefaults -no-user-config -display none -no-reboot \
                 -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
                 -pidfile /t/run/kvm/node1/pid -qmp unix:/t/run/kvm/node1/qmp.sock,server=on,wait=off \
                 -chardev stdio,id=console,signal=off -serial chardev:console \
                 -drive file=/t/a,,b,format=raw,if=none,id=disk0,cache=writeback,discard=unmap \
                 -device virtio-blk-pci,drive=disk0,serial=disk0 \
                 -netdev tap,id=net0,ifname=ghtap2,script=no,downscript=no \
                 -device virtio-net-pci,netdev=net0,mac={mac},romfile= \
                 -object rng-builtin,id=rng0 -device virtio-rng-pci,rng=rng0"
            )
        };
        let kvm = driver(Path::new("/t"), Accelerator::Kvm { group: 108 }, true);
        let launch = kvm.render(&vm, Boot::Disk { kernel: Path::new("/d/grub"), root: "PARTUUID=1" });
        let user = "setpriv --reuid 61302 --regid 61302 --groups 61302,108 --no-new-privs --";
        assert_eq!(launch.argv.join(" "), format!("{user} {} -kernel /d/grub", machine("kvm", "host")));
        assert_eq!((launch.uid, launch.owned), (Some(61_302), vm.stores.clone()));

        let tcg = driver(Path::new("/t"), Accelerator::Tcg, false);
        let boot = Boot::Install { kernel: Path::new("/d/vmlinuz"), initrd: Path::new("/c/initrd") };
        let launch = tcg.render(&vm, boot);
        let machine = machine("tcg,thread=multi,tb-size=256", "qemu64,+rdrand");
        let boot = "-kernel /d/vmlinuz -initrd /c/initrd -append console=ttyS0 quiet panic=-1";
        assert_eq!(launch.argv.join(" "), format!("{machine} {boot}"));
        assert_eq!((launch.uid, launch.owned.len()), (None, 2));
    }

    #[test]
    fn a_process_is_a_nodes_by_its_command_line_and_not_by_its_number() {
        let dir = tempfile::tempdir().expect("a directory");
        let kvm = driver(dir.path(), Accelerator::Tcg, false);
        let node: NodeName = "ce".parse().expect("a name");
        let places = kvm.places(&node);
        fs::create_dir_all(&places.dir).expect("made");
        fs::write(places.pid(), format!("{}\n", std::process::id())).expect("written");
        assert_eq!(kvm.power(&node).expect("looked"), Power::Off);
        let mut sleep = Command::new("sh");
        // Its command line names the file as QEMU's does.
        sleep.args(["-c", "read -r line", "sh"]).arg(places.pid()).stdin(std::process::Stdio::piped());
        let mut child = sleep.spawn().expect("started");
        fs::write(places.pid(), child.id().to_string()).expect("written");
        assert_eq!(kvm.power(&node).expect("looked"), Power::On);
        let reaper = std::thread::spawn(move || child.wait());
        kvm.stop(&node, Duration::ZERO).expect("ended");
        assert!(reaper.join().expect("no panic").is_ok());
        assert_eq!(kvm.power(&node).expect("looked"), Power::Off);
        kvm.adopt(&node).expect("there is nothing to adopt");
        kvm.stop(&node, Duration::from_secs(5)).expect("it is off");
    }
}
