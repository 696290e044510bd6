//! Empty machines on a LAN of their own: they start from the network, are installed, and start from their disks from
//! then on, though the network stays first. `gatehouse serve` makes a host of one, a site's install server a node.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gatehouse_tests::{Try, gatehouse, has, open_to_all, run, run_gatehouse, site, try_uml};

const BOOT: Duration = Duration::from_secs(1500);
const OVMF: [&str; 2] = ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"];

/// The network namespace of a process, with a bridge that a machine can be put on.
struct Lan {
    pid: String,
    /// Whose namespace it is, if it was made for this.
    _holder: Option<Machine>,
}

impl Lan {
    /// One of its own, at whose bridge the site's gateway is expected.
    fn new() -> Self {
        let holder =
            Command::new("unshare").args(["--net", "sleep", "infinity"]).spawn().expect("unshare starts");
        let lan = Self { pid: holder.id().to_string(), _holder: Some(Machine(holder)) };
        let own = fs::read_link("/proc/self/ns/net").expect("a namespace");
        while fs::read_link(format!("/proc/{}/ns/net", lan.pid)).is_ok_and(|other| other == own) {
            std::thread::sleep(Duration::from_millis(10));
        }
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

    /// That of a trial on User Mode Linux.
    fn of_trial(dir: &Path) -> Self {
        let agent = format!("gatehouse-agent trial --dir {}", dir.display());
        let found = run(Command::new("pgrep").args(["-n", "-f", &agent]));
        Self { pid: found.stdout.trim().to_owned(), _holder: None }.with_tap()
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
    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid, "--net", program]);
        command
    }
}

/// An emulated machine, or another process that ends with this one.
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

fn have_all() -> bool {
    if !is_full() || !has(&["qemu-system-x86_64", "dnsmasq", "setpriv", "ip", "nsenter", "pgrep", "ssh"]) {
        return false;
    }
    if !is_root() {
        println!("skipped, because only root makes network namespaces with TFTP and DHCP in them");
    }
    is_root()
}

fn temp() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("gatehouse-net-").tempdir_in("/var/tmp").expect("a directory")
}

/// Until its node runs, and through one more start.
fn starts_from_the_network(uefi: bool) {
    if !have_all() {
        return;
    }
    let temp = temp();
    let (site, out) = (site("minimal", temp.path()), temp.path().join("out").display().to_string());
    let built = run_gatehouse(&["build", &site.display().to_string(), "-o", &out, "--format", "pxe"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    File::create(temp.path().join("disk.img")).and_then(|disk| disk.set_len(24 << 30)).expect("made");

    let lan = Lan::new();
    let mut serve = lan.inside(&gatehouse().display().to_string());
    serve.args(["serve", &out, "--interface", "gh0", "--range", "10.0.2.100", "10.0.2.120"]);
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

/// The machine that is node2 of a site: approved by what its console shows, installed, started from its disk; and once
/// more, after somebody has asked for that.
fn becomes_a_node(uefi: bool) {
    if !have_all() {
        return;
    }
    let temp = temp();
    open_to_all(temp.path());
    let (site, dir) = (site("minimal", temp.path()), temp.path().join("trial"));
    let path = site.join("site.toml");
    let machine =
        "[[node]]\nname = \"node2\"\naddress = \"10.0.2.22\"\nmachine = { mac = \"52:54:00:12:34:56\" }\n";
    let text = fs::read_to_string(&path).expect("read");
    fs::write(&path, text.replace("[access]", &format!("{machine}\n[access]"))).expect("written");
    fs::copy(site.join("lcfg/source/node1"), site.join("lcfg/source/node2")).expect("copied");
    File::create(temp.path().join("disk.img")).and_then(|disk| disk.set_len(8 << 30)).expect("made");

    let mut trial = try_uml(&site, &dir, &[]);
    trial.wait_for("running; log in", BOOT);
    let lan = Lan::of_trial(&dir);
    for turn in 0..2 {
        let mut machine = Machine::start(&lan, temp.path(), uefi);
        approve(&trial, &mut machine, &temp.path().join("console.log"));
        let node = wait_for_state(&trial, "running");
        assert!(node["install-seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{node}");
        machine.wait_for(&temp.path().join("console.log"), "handing over to hd");
        let seen =
            trial.ssh("node2", "hostname; uname -r; lsblk -no PARTLABEL; systemctl --failed --no-legend");
        assert!(seen.stdout.starts_with("node2\n") && !seen.stdout.contains("cloud"), "{seen:?}");
        assert!(seen.stdout.contains("gh:bios\ngh:node2\ndisk0p1\n"), "{seen:?}");
        assert!(!seen.stdout.contains(".service"), "{seen:?}");
        if turn == 0 {
            assert_eq!(trial.gatectl(&["node", "stop", "node2"]).code, 2, "it has a power button of its own");
            assert_eq!(trial.gatectl(&["node", "install", "node2"]).code, 0);
        }
    }
    outcome_of_vms(&trial.interrupt());
}

/// The outcome as it was when the trial was up: the machine had not come yet.
fn outcome_of_vms(ended: &gatehouse_tests::Ended) {
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let last: serde_json::Value =
        serde_json::from_str(ended.stdout.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&last["result"], &last["nodes"][0]["state"]), (&"ok".into(), &"running".into()), "{last}");
}

fn wait_for_state(trial: &Try, state: &str) -> serde_json::Value {
    let begun = Instant::now();
    loop {
        let status = trial.gatectl(&["status", "--json"]);
        let board: serde_json::Value = serde_json::from_str(&status.stdout).expect("JSON");
        let node = board["nodes"].as_array().and_then(|all| all.iter().find(|node| node["name"] == "node2"));
        let node = node.expect("node2").clone();
        if node["state"] == state {
            return node;
        }
        assert!(begun.elapsed() < BOOT, "node2 is not {state}: {node}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// What a person does: compares what board and console show.
fn approve(trial: &Try, machine: &mut Machine, console: &Path) {
    let node = wait_for_state(trial, "asking");
    let message = node["message"].as_str().expect("a text");
    let print = message.split(' ').next().expect("a fingerprint");
    machine.wait_for(console, &format!("gatectl node approve node2 {print}"));
    assert_eq!(trial.gatectl(&["node", "approve", "node2", "0000-none"]).code, 2);
    let approved = trial.gatectl(&["node", "approve", "node2", print]);
    assert_eq!(approved.code, 0, "{approved:?}");
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

#[test]
fn a_machine_with_a_bios_becomes_a_node() {
    becomes_a_node(false);
}

#[test]
fn a_machine_with_uefi_becomes_a_node() {
    becomes_a_node(true);
}
