//! QEMU: every node a process of its own, run by KVM where that works, else emulated.
//!
//! The installer is started directly. A node's own system is started by GRUB, which QEMU takes for a kernel: it reads the
//! `grub.cfg` on the node's own disk, as PV-GRUB does under Xen, so that a node upgrades its own kernel and its disk
//! may move from one to the other.

mod arguments;
mod confined;
mod probe;
mod qmp;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gatehouse_model::site::VmmKind;
use gatehouse_model::{Doing as _, Fault, NodeName};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::confined::Confined;
use self::probe::Accelerator;
use super::process::{Processes, has_arguments, tap, wait_off};
use super::usage::Usage;
use super::{Boot, Capabilities, Launch, Power, Vm, Vmm};
use crate::paths::Paths;

/// The program.
const QEMU: &str = "qemu-system-x86_64";
/// How often a node is asked to shut down: what comes before its own system listens is lost.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// The driver.
#[derive(Debug)]
pub struct Kvm {
    paths: Paths,
    processes: Processes,
    accelerator: Accelerator,
    /// None where each node has a user of its own.
    confined: Option<Confined>,
}

impl Kvm {
    /// A driver for nodes below these paths, and what is to be said of how it runs them; `kernel` is the nodes' own.
    ///
    /// # Errors
    /// QEMU is missing; the directory for its sockets cannot be made.
    pub fn new(paths: Paths, kernel: &Path) -> Result<(Self, String), Fault> {
        let dir = dir(&paths);
        fs::create_dir_all(&dir).doing(|| format!("making {}", dir.display()))?;
        // A trial leaves the kernel of somebody's machine as it is.
        if paths.trial.is_none() {
            probe::load();
        }
        let (accelerator, why) = probe::choose(kernel, &dir)?;
        let processes = Processes::new(paths.clone());
        let confined = if processes.own_user() { None } else { Some(Confined::find(&paths)?) };
        Ok((Self { paths, processes, accelerator, confined }, why))
    }

    /// What comes before QEMU's own arguments, and its name.
    fn surroundings(&self, vm: &Vm<'_>, boot: Boot<'_>) -> (Vec<String>, &Path) {
        let Some(confined) = &self.confined else {
            return (arguments::user(self.processes.uid(vm), self.accelerator), Path::new(QEMU));
        };
        let read = match boot {
            Boot::Install { kernel, initrd } => vec![kernel, initrd],
            Boot::Disk { kernel, .. } => vec![kernel],
        };
        let dir = self.places(&vm.node.name).dir;
        let write: Vec<&Path> = [&dir].into_iter().chain(&vm.stores).map(PathBuf::as_path).collect();
        (confined.words(&read, &write, self.accelerator), &confined.program)
    }

    fn places(&self, node: &NodeName) -> Places {
        Places { dir: dir(&self.paths).join(node.as_str()) }
    }

    /// A node's process: this agent's own child, or the one whose number an earlier agent's QEMU has left.
    fn process(&self, node: &NodeName) -> Result<Option<Pid>, Fault> {
        self.processes.of_node(node, || find(&self.places(node).pid()))
    }
}

/// The process that has left its number in a file, if it is the one that was told to.
fn find(file: &Path) -> Result<Option<Pid>, Fault> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        read => read.doing(|| format!("reading {}", file.display()))?,
    };
    // QEMU makes the file a moment before it writes to it.
    let Ok(pid) = text.trim().parse() else { return Ok(None) };
    Ok(has_arguments(pid, &[file.display().to_string()])?.then(|| Pid::from_raw(pid)))
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
            max_vcpus: VmmKind::Kvm.most_vcpus(),
            memory_while_running: false,
            vcpus_while_running: false,
            disk_rate: VmmKind::Kvm.holds_disk_rates(),
            own_kernel: true,
            own_user: self.processes.own_user(),
        }
    }

    fn render(&self, vm: &Vm<'_>, boot: Boot<'_>) -> Launch {
        let mut owned = vm.stores.clone();
        if let Boot::Install { initrd, .. } = boot {
            owned.push(initrd.to_owned());
        }
        let (mut argv, program) = self.surroundings(vm, boot);
        argv.extend(arguments::machine(program, vm, self.accelerator));
        argv.extend(arguments::devices(vm, &self.places(&vm.node.name)));
        argv.extend(arguments::boot(boot));
        Launch {
            node: vm.node.name.clone(),
            install: boot.is_install(),
            argv,
            config: Some((PathBuf::from(tap(vm.index)), vm.bridge.to_owned())),
            uid: self.processes.uid(vm),
            owned,
        }
    }

    fn start(&self, launch: &Launch) -> Result<(), Fault> {
        if self.process(&launch.node)?.is_some() {
            return Ok(());
        }
        self.processes.start(launch, &self.places(&launch.node).dir, |_| ())
    }

    fn adopt(&self, node: &NodeName) -> Result<(), Fault> {
        self.processes.adopt(node)
    }

    fn power(&self, node: &NodeName) -> Result<Power, Fault> {
        Ok(if self.process(node)?.is_some() { Power::On } else { Power::Off })
    }

    fn stop(&self, node: &NodeName, grace: Duration) -> Result<(), Fault> {
        let begun = Instant::now();
        while let Some(left) = grace.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
            // The power button. A node that does not listen is ended below.
            let _ = qmp::ask(&self.places(node).monitor(), "system_powerdown");
            if wait_off(|| self.process(node), left.min(ASK_AGAIN)) {
                break;
            }
        }
        if let Some(process) = self.process(node)? {
            // It may end by itself just now.
            let _ = kill(process, Signal::SIGKILL);
        }
        self.processes.bury(node, || self.process(node))
    }

    fn limit(&self, vm: &Vm<'_>) -> Result<Vec<String>, Fault> {
        self.processes.limit(vm, self.process(&vm.node.name)?)
    }

    fn usage(&self, vm: &Vm<'_>) -> Result<Option<Usage>, Fault> {
        Ok(self.processes.usage(vm, self.process(&vm.node.name)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::process::tests::{idle, processes};
    use super::*;

    fn driver(run: &Path, accelerator: Accelerator, own_user: bool) -> Kvm {
        let paths = Paths::trial(run, run);
        let (root, system) = (paths.run.join("kvm-root"), vec!["/usr".into()]);
        let confined = (!own_user).then(|| Confined { root, program: "/usr/bin/qemu".into(), system });
        Kvm { processes: processes(paths.clone(), own_user), paths, accelerator, confined }
    }

    #[test]
    fn renders_what_will_be_started() {
        let site = include_str!("../../../../site-templates/minimal/site.toml");
        let site = gatehouse_model::Site::parse(site).expect("the template is right");
        let vm = Vm { node: &site.nodes[0], index: 2, stores: vec!["/t/a,b".into()], bridge: "gh0" };
        let mac = site.nodes[0].mac;
        let machine = |accel: &str, cpu: &str| {
            format!(
                "-name node1 -machine pc -accel {accel} -cpu {cpu} -smp 1 -m 512M \
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
        let user = "setpriv --reuid 70002 --regid 70002 --groups 70002,108 --no-new-privs --";
        let words = format!("{user} qemu-system-x86_64 {} -kernel /d/grub", machine("kvm", "host"));
        assert_eq!(launch.argv.join(" "), words);
        assert_eq!((launch.uid, launch.owned), (Some(70_002), vm.stores.clone()));

        let tcg = driver(Path::new("/t"), Accelerator::Tcg, false);
        let boot = Boot::Install { kernel: Path::new("/d/vmlinuz"), initrd: Path::new("/c/initrd") };
        let launch = tcg.render(&vm, boot);
        let machine = machine("tcg,thread=multi,tb-size=256", "qemu64,+rdrand");
        let boot = "-kernel /d/vmlinuz -initrd /c/initrd -append console=ttyS0 quiet panic=-1";
        let confined = "/proc/self/exe confine --root /t/run/kvm-root --read /usr --read /d/vmlinuz --read /c/initrd \
                        --write /t/run/kvm/node1 --write /t/a,b -- /usr/bin/qemu";
        assert_eq!(launch.argv.join(" "), format!("{confined} {machine} {boot}"));
        assert_eq!((launch.uid, launch.owned.len()), (None, 2));
        let kvm = driver(Path::new("/t"), Accelerator::Kvm { group: 108 }, false);
        let launch = kvm.render(&vm, Boot::Disk { kernel: Path::new("/d/grub"), root: "PARTUUID=1" });
        let device =
            "--read /d/grub --write /t/run/kvm/node1 --write /t/a,b --write /dev/kvm -- /usr/bin/qemu";
        assert!(launch.argv.join(" ").contains(device), "{:?}", launch.argv);
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
        // Its command line names the file as QEMU's does.
        let mut child = idle(&[&places.pid().display().to_string()]);
        fs::write(places.pid(), "").expect("written");
        assert_eq!(kvm.power(&node).expect("looked"), Power::Off);
        fs::write(places.pid(), child.id().to_string()).expect("written");
        assert_eq!(kvm.power(&node).expect("looked"), Power::On);
        let reaper = std::thread::spawn(move || child.wait());
        kvm.stop(&node, Duration::ZERO).expect("ended");
        assert!(reaper.join().expect("no panic").is_ok());
        assert_eq!(kvm.power(&node).expect("looked"), Power::Off);
        kvm.adopt(&node).expect("there is nothing to adopt");
        kvm.stop(&node, Duration::from_secs(5)).expect("it is off");
        // What cannot be looked at is not off.
        fs::remove_file(places.pid()).expect("removed");
        fs::create_dir(places.pid()).expect("made");
        kvm.power(&node).expect_err("a directory holds no number");
    }
}
