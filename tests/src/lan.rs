//! Emulated machines on a LAN of their own, or on the segment of a trial under User Mode Linux.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Try, has, run};

/// How long an emulated machine may take for anything.
pub const BOOT: Duration = Duration::from_secs(1500);
/// The hardware address of the machine.
pub const MAC: &str = "52:54:00:12:34:56";
const OVMF: [&str; 2] = ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"];

/// The network namespace of a process, with a bridge that a machine can be put on.
#[derive(Debug)]
pub struct Lan {
    pid: String,
    /// Whose namespace it is, if it was made for this, and who else is on the LAN.
    others: Vec<Machine>,
}

impl Lan {
    /// One of its own, at whose bridge the site's gateway is expected.
    ///
    /// # Panics
    /// It cannot be made, as by an ordinary user.
    #[allow(clippy::new_without_default, reason = "it makes a namespace")]
    pub fn new() -> Self {
        let lan = Self::empty();
        for line in [
            "link set lo up",
            "link add gh0 type bridge",
            "address add 10.0.2.2/24 dev gh0",
            "link set gh0 up",
        ] {
            lan.ip(line);
        }
        lan.with_tap()
    }

    /// A namespace with nothing in it.
    fn empty() -> Self {
        let holder =
            Command::new("unshare").args(["--net", "sleep", "infinity"]).spawn().expect("unshare starts");
        let lan = Self { pid: holder.id().to_string(), others: vec![Machine(holder)] };
        let own = fs::read_link("/proc/self/ns/net").expect("a namespace");
        while fs::read_link(format!("/proc/{}/ns/net", lan.pid)).is_ok_and(|other| other == own) {
            std::thread::sleep(Duration::from_millis(10));
        }
        lan
    }

    /// With a DHCP server as routers have it: it gives addresses, and says nothing of what to start.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn with_router(mut self) -> Self {
        let router = Self::empty();
        self.ip(&format!("link add router type veth peer name eth0 netns {}", router.pid));
        self.ip("link set router master gh0 up");
        router.ip("address add 10.0.2.1/24 dev eth0");
        router.ip("link set eth0 up");
        let mut dhcp = router.inside("setpriv");
        dhcp.args(["--pdeathsig", "KILL", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null"]);
        dhcp.args(["--user=root", "--group=root", "--port=0", "--leasefile-ro", "--pid-file"]);
        dhcp.args(["--interface=eth0", "--bind-dynamic", "--dhcp-range=10.0.2.100,10.0.2.120,1h"]);
        self.others.push(Machine(dhcp.spawn().expect("dnsmasq starts")));
        self.others.extend(router.others);
        self
    }

    /// That of a trial on User Mode Linux.
    pub fn of_trial(dir: &Path) -> Self {
        let agent = format!("gatehouse-agent trial --dir {}", dir.display());
        let found = run(Command::new("pgrep").args(["-n", "-f", &agent]));
        Self { pid: found.stdout.trim().to_owned(), others: Vec::new() }.with_tap()
    }

    fn with_tap(self) -> Self {
        self.ip("tuntap add tap0 mode tap");
        self.ip("link set tap0 master gh0 up");
        self
    }

    fn ip(&self, line: &str) {
        let ended = run(self.inside("ip").args(line.split(' ')));
        assert_eq!(ended.code, 0, "{line}: {}", ended.stderr);
    }

    /// A command in it.
    pub fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid, "--net", program]);
        command
    }
}

/// An emulated machine, or another process that ends with this one.
#[derive(Debug)]
pub struct Machine(Child);

impl Machine {
    /// Starts an empty machine, or one with what its disk holds: `disk.img` in a directory, where it also leaves its
    /// `console.log` and, once it is a host, its `events.jsonl`. Of several emulated processors only one may belong to
    /// the same kernel: `Oops: int3`, see `gatehouse try`.
    ///
    /// # Panics
    /// QEMU does not start.
    pub fn start(lan: &Lan, dir: &Path, processors: u8, uefi: bool) -> Self {
        let file = |name: &str| dir.join(name).display().to_string();
        let mut command = lan.inside("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults", "-machine", "pc"]);
        command.args(["-accel", "tcg,thread=multi", "-cpu", "qemu64,+rdrand", "-m", "2304M"]);
        command.args(["-smp", &processors.to_string()]);
        command.args([
            "-display",
            "none",
            "-vga",
            "none",
            "-serial",
            &format!("file:{}", file("console.log")),
        ]);
        command.args(["-netdev", "tap,id=net,ifname=tap0,script=no,downscript=no"]);
        command.args(["-device", &format!("virtio-net-pci,netdev=net,mac={MAC},bootindex=1")]);
        command
            .args(["-drive", &format!("if=none,id=disk,format=raw,discard=unmap,file={}", file("disk.img"))]);
        // Disks of 4096 bytes a sector are for UEFI only.
        let sector = if uefi { 4096 } else { 512 };
        let sectors = format!("logical_block_size={sector},physical_block_size={sector}");
        command.args(["-device", &format!("virtio-blk-pci,drive=disk,serial=TRIAL,bootindex=2,{sectors}")]);
        command.args(["-device", "virtio-serial-pci"]);
        command.args(["-chardev", &format!("file,id=events,append=on,path={}", file("events.jsonl"))]);
        command.args(["-device", "virtserialport,chardev=events,name=gatehouse.events"]);
        if uefi {
            fs::copy(OVMF[1], dir.join("variables.fd")).expect("copied");
            let drive = |text: String| ["-drive".to_owned(), format!("if=pflash,format=raw,{text}")];
            command.args(drive(format!("unit=0,readonly=on,file={}", OVMF[0])));
            command.args(drive(format!("unit=1,file={}", file("variables.fd"))));
        }
        Self(command.stdin(Stdio::null()).spawn().expect("QEMU starts"))
    }

    /// Waits for a text in one of its files.
    ///
    /// # Panics
    /// It does not come in time, or the machine ends.
    pub fn wait_for(&mut self, path: &Path, text: &str) {
        let begun = Instant::now();
        while begun.elapsed() < BOOT {
            let seen = fs::read(path).unwrap_or_default();
            if String::from_utf8_lossy(&seen).contains(text) {
                return;
            }
            assert!(self.0.try_wait().expect("asked").is_none(), "the machine ended");
            std::thread::sleep(Duration::from_secs(1));
        }
        panic!("{text:?} did not come: {}", String::from_utf8_lossy(&fs::read(path).unwrap_or_default()));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether this process may do all of it: it is the long run, and root has everything that is needed.
pub fn is_possible() -> bool {
    let full = std::env::var_os("GATEHOUSE_FULL").is_some();
    if !full || !has(&["qemu-system-x86_64", "dnsmasq", "setpriv", "ip", "nsenter", "pgrep", "ssh"]) {
        return false;
    }
    let root = run(Command::new("id").arg("-u")).stdout.trim() == "0";
    if !root {
        println!("skipped, because only root makes network namespaces with TFTP and DHCP in them");
    }
    root
}

/// Waits until a node on a machine of its own is in a state, and returns its line of the board.
///
/// # Panics
/// That does not come in time.
pub fn wait_for_state(trial: &Try, name: &str, state: &str) -> serde_json::Value {
    let begun = Instant::now();
    loop {
        let status = trial.gatectl(&["status", "--json"]);
        let board: serde_json::Value = serde_json::from_str(&status.stdout).expect("JSON");
        let node = board["nodes"].as_array().and_then(|all| all.iter().find(|node| node["name"] == name));
        let node = node.expect("it is on the board").clone();
        if node["state"] == state {
            return node;
        }
        assert!(begun.elapsed() < BOOT, "{name} is not {state}: {node}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// What a person does: compares what board and console show.
///
/// # Panics
/// They do not show the same.
pub fn approve(trial: &Try, name: &str, machine: &mut Machine, console: &Path) {
    let node = wait_for_state(trial, name, "asking");
    let message = node["message"].as_str().expect("a text");
    let print = message.split(' ').next().expect("a fingerprint");
    machine.wait_for(console, &format!("gatectl node approve {name} {print}"));
    assert_eq!(trial.gatectl(&["node", "approve", name, "0000-none"]).code, 2);
    let approved = trial.gatectl(&["node", "approve", name, print]);
    assert_eq!(approved.code, 0, "{approved:?}");
}
