//! Empty machines on a LAN of their own, which `gatehouse serve` serves: they start from the network, are installed,
//! and start from their disks from then on, though the network stays first.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gatehouse_tests::{Try, gatehouse, has, run, run_gatehouse, site};

const BOOT: Duration = Duration::from_secs(1500);
const OVMF: [&str; 2] = ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"];

/// A network namespace with a bridge, at which the site's gateway is expected.
struct Lan {
    name: String,
}

impl Lan {
    fn new() -> Self {
        let lan = Self { name: format!("gatehouse-{}", std::process::id()) };
        assert_eq!(run(Command::new("ip").args(["netns", "add", &lan.name])).code, 0);
        for line in [
            "link set lo up",
            "link add br0 type bridge",
            "address add 10.0.2.2/24 dev br0",
            "link set br0 up",
            "tuntap add tap0 mode tap",
            "link set tap0 master br0 up",
        ] {
            let ended = run(lan.inside("ip").args(line.split(' ')));
            assert_eq!(ended.code, 0, "{line}: {}", ended.stderr);
        }
        lan
    }

    /// A command in it.
    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        run(Command::new("ip").args(["netns", "delete", &self.name]));
    }
}

/// An emulated machine, which ends with this process.
struct Machine(Child);

impl Machine {
    fn start(lan: &Lan, dir: &Path, uefi: bool) -> Self {
        let file = |name: &str| dir.join(name).display().to_string();
        let mut command = lan.inside("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults", "-machine", "pc"]);
        command.args(["-accel", "tcg,thread=multi", "-cpu", "qemu64,+rdrand", "-smp", "2", "-m", "2304M"]);
        command.args([
            "-display",
            "none",
            "-vga",
            "none",
            "-serial",
            &format!("file:{}", file("console.log")),
        ]);
        command.args(["-netdev", "tap,id=net,ifname=tap0,script=no,downscript=no"]);
        command.args(["-device", "virtio-net-pci,netdev=net,mac=52:54:00:12:34:56,bootindex=1"]);
        command
            .args(["-drive", &format!("if=none,id=disk,format=raw,discard=unmap,file={}", file("disk.img"))]);
        command.args(["-device", "virtio-blk-pci,drive=disk,serial=TRIAL,bootindex=2"]);
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
    fn wait_for(&mut self, path: &Path, text: &str) {
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

fn is_root() -> bool {
    run(Command::new("id").arg("-u")).stdout.trim() == "0"
}

/// Until its node runs, and through one more start.
fn starts_from_the_network(uefi: bool) {
    if !is_full() || !has(&["qemu-system-x86_64", "dnsmasq", "setpriv", "ip"]) {
        return;
    }
    if !is_root() {
        println!("skipped, because only root makes network namespaces with TFTP and DHCP in them");
        return;
    }
    let temp = tempfile::Builder::new().prefix("gatehouse-net-").tempdir_in("/var/tmp").expect("a directory");
    let (site, out) = (site("minimal", temp.path()), temp.path().join("out").display().to_string());
    let built = run_gatehouse(&["build", &site.display().to_string(), "-o", &out, "--format", "pxe"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    File::create(temp.path().join("disk.img")).and_then(|disk| disk.set_len(24 << 30)).expect("made");

    let lan = Lan::new();
    let mut serve = lan.inside(&gatehouse().display().to_string());
    serve.args(["serve", &out, "--interface", "br0", "--range", "10.0.2.100", "10.0.2.120"]);
    let mut server = Try::start(&mut serve, temp.path());
    server.wait_for("Ctrl-C ends it", Duration::from_secs(30));
    let mut machine = Machine::start(&lan, temp.path(), uefi);
    server.wait_for("52:54:00:12:34:56: asks", BOOT);
    server.wait_for("esp/slot-a/initrd.img", BOOT);
    server.wait_for("52:54:00:12:34:56 (minimal): claiming and clearing vda", BOOT);
    server.wait_for("restarting: done", BOOT);
    let events = temp.path().join("events.jsonl");
    machine.wait_for(&events, "\"phase\":\"node/node1\",\"action\":\"starting\",\"state\":\"succeeded\"");
    let console = fs::read(temp.path().join("console.log")).expect("read");
    assert!(String::from_utf8_lossy(&console).contains("handing over to"), "the network did not hand over");
    drop(machine);

    fs::write(&events, "").expect("written");
    let mut again = Machine::start(&lan, temp.path(), uefi);
    again.wait_for(&events, "\"phase\":\"server\",\"action\":\"server\",\"state\":\"succeeded\"");
    let told = fs::read_to_string(&events).expect("read");
    assert!(!told.contains("self-install") && !told.contains("making ext4"), "{told}");
}

fn is_full() -> bool {
    std::env::var_os("GATEHOUSE_FULL").is_some()
}

#[test]
fn a_bios_starts_from_the_network() {
    starts_from_the_network(false);
}

#[test]
fn uefi_starts_from_the_network() {
    starts_from_the_network(true);
}
