//! QEMU's arguments for a node.

use std::path::Path;

use super::Places;
use super::probe::Accelerator;
use crate::vmm::process::tap;
use crate::vmm::{Boot, Vm};

/// The processor that is emulated: a plain one, with `rdrand`, without which the first random number takes minutes.
const TCG_CPU: &str = "qemu64,+rdrand";
/// Memory for translated code of one node, in MiB: QEMU's own default of 1024 is more than most nodes have.
const TCG_CODE: u32 = 256;
/// What a node's process never does, and so may not do.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// What makes the process one of the node's own user. Its groups are its own, and the one that may use KVM.
pub(super) fn user(uid: Option<u32>, accelerator: Accelerator) -> Vec<String> {
    let Some(uid) = uid.map(|uid| uid.to_string()) else { return Vec::new() };
    let groups = match accelerator {
        Accelerator::Kvm { group } => format!("{uid},{group}"),
        Accelerator::Tcg => uid.clone(),
    };
    let words = ["setpriv", "--reuid", &uid, "--regid", &uid, "--groups", &groups, "--no-new-privs", "--"];
    words.map(str::to_owned).to_vec()
}

/// The program, and a machine without any device.
pub(super) fn machine(program: &Path, vm: &Vm<'_>, accelerator: Accelerator) -> Vec<String> {
    let (accel, cpu) = match accelerator {
        Accelerator::Kvm { .. } => ("kvm".to_owned(), "host"),
        // A kernel changes its own code, and of several emulated processors one may go on with what another has
        // changed (`Oops: int3`, QEMU 7.2), but not if they take turns.
        Accelerator::Tcg => {
            let thread = if vm.node.vcpus > 1 { "single" } else { "multi" };
            (format!("tcg,thread={thread},tb-size={TCG_CODE}"), TCG_CPU)
        }
    };
    let words = [
        ("-name", vm.node.name.to_string()),
        ("-machine", "pc".to_owned()),
        ("-accel", accel),
        ("-cpu", cpu.to_owned()),
        ("-smp", vm.node.vcpus.to_string()),
        ("-m", format!("{}M", vm.node.memory.as_mib())),
    ];
    let mut argv = vec![program.display().to_string()];
    argv.extend(words.into_iter().flat_map(pair));
    // A reboot would start the same arguments again in the same process; the lifecycle starts nodes.
    argv.extend(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"].map(str::to_owned));
    argv.extend(pair(("-sandbox", SANDBOX.to_owned())));
    argv
}

/// Its console and monitor, its disks and its NIC, and a source of random numbers.
pub(super) fn devices(vm: &Vm<'_>, places: &Places) -> Vec<String> {
    let mut words = vec![
        ("-pidfile", places.pid().display().to_string()),
        ("-qmp", format!("unix:{},server=on,wait=off", quoted(&places.monitor()))),
        // The console's pipes (`vmm/pipes.rs`).
        ("-chardev", "stdio,id=console,signal=off".to_owned()),
        ("-serial", "chardev:console".to_owned()),
    ];
    for (number, store) in vm.stores.iter().enumerate() {
        let (file, id) = (quoted(store), format!("disk{number}"));
        words.extend([
            ("-drive", format!("file={file},format=raw,if=none,id={id},cache=writeback,discard=unmap")),
            ("-device", format!("virtio-blk-pci,drive={id},serial={id}")),
        ]);
    }
    words.extend([
        ("-netdev", format!("tap,id=net0,ifname={},script=no,downscript=no", tap(vm.index))),
        // Without a file it has no ROM to start from the network with.
        ("-device", format!("virtio-net-pci,netdev=net0,mac={},romfile=", vm.node.mac)),
        ("-object", "rng-builtin,id=rng0".to_owned()),
        ("-device", "virtio-rng-pci,rng=rng0".to_owned()),
    ]);
    words.into_iter().flat_map(pair).collect()
}

/// What it starts. A kernel that panics starts the machine anew, which ends the process.
pub(super) fn boot(boot: Boot<'_>) -> Vec<String> {
    let words = match boot {
        Boot::Install { kernel, initrd } => vec![
            ("-kernel", kernel.display().to_string()),
            ("-initrd", initrd.display().to_string()),
            ("-append", "console=ttyS0 quiet panic=-1".to_owned()),
        ],
        Boot::Disk { kernel, .. } => vec![("-kernel", kernel.display().to_string())],
    };
    words.into_iter().flat_map(pair).collect()
}

fn pair((option, value): (&str, String)) -> [String; 2] {
    [option.to_owned(), value]
}

/// A path as QEMU reads it within an option.
fn quoted(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
