//! A control group (cgroup v2) for each node: its share and its most of processors and disks.
//!
//! Memory is not limited here: what a vmm gives its node it takes once, and a node that is killed for a little more
//! helps nobody. The controller is on all the same: only with it does what waits in the host's cache count as the
//! node's own writing.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatehouse_model::site::Limits;
use gatehouse_model::{ByteRate, Doing as _, Fault, NodeName};

/// The controllers that are turned on where there are.
const CONTROLLERS: [&str; 3] = ["cpu", "io", "memory"];
/// The keys of `[[node]]` that the first two of them hold.
const CPU: [&str; 2] = ["weight", "cap"];
const DISK: [&str; 2] = ["disk-rate", "disk-iops"];
/// The time in which `cap` counts, in microseconds: the kernel's own choice.
const PERIOD: u32 = 100_000;
/// How often the processes of a node are looked for that start others meanwhile.
const LOOKS: u32 = 20;

/// The nodes' groups.
#[derive(Debug)]
pub(super) struct Groups {
    mount: PathBuf,
    name: String,
    /// Nobody makes a group while another one's end takes away the one above it.
    steady: Mutex<()>,
}

impl Groups {
    /// Groups below `name` in the hierarchy that is mounted there.
    pub fn new(mount: PathBuf, name: String) -> Self {
        Self { mount, name, steady: Mutex::default() }
    }

    fn top(&self) -> PathBuf {
        self.mount.join(&self.name)
    }

    fn group(&self, node: &NodeName) -> PathBuf {
        self.top().join(node.as_str())
    }

    /// Puts the processes of a node into its group, which then has its limits; answers what cannot be held, and why.
    /// `disk` is the number of the disk below its stores.
    ///
    /// # Errors
    /// The group is there and cannot be written.
    pub fn hold(
        &self,
        node: &NodeName,
        limits: &Limits,
        disk: Option<&str>,
        pids: &dyn Fn() -> Vec<u32>,
    ) -> Result<Vec<String>, Fault> {
        let has = self.controllers();
        let mut lacks = lacks(limits, &has, disk);
        if has.is_empty() {
            return Ok(lacks);
        }
        if let Err(fault) = self.make(node, &has) {
            let all = [asked(limits, "cpu"), asked(limits, "io")].concat().join(", ");
            lacks = if all.is_empty() { Vec::new() } else { vec![format!("{all} not held: {fault}")] };
            return Ok(lacks);
        }
        let group = self.group(node);
        for (file, text) in settings(limits, &has, disk) {
            let path = group.join(file);
            fs::write(&path, &text).doing(|| format!("writing {text:?} to {}", path.display()))?;
        }
        join(&group.join("cgroup.procs"), pids)?;
        Ok(lacks)
    }

    /// Processor time that a node's group has used; none where it has no group.
    pub fn seconds(&self, node: &NodeName) -> Option<f64> {
        let text = fs::read_to_string(self.group(node).join("cpu.stat")).ok()?;
        let micros = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?.parse().ok()?;
        Some(Duration::from_micros(micros).as_secs_f64())
    }

    /// Removes a group, and the one above it with the last.
    pub fn forget(&self, node: &NodeName) {
        let _steady = self.steady();
        // One that still has a process stays, and is used again.
        let _ = fs::remove_dir(self.group(node));
        let _ = fs::remove_dir(self.top());
    }

    /// Which of the controllers this machine has under cgroup v2.
    fn controllers(&self) -> Vec<&'static str> {
        let text = fs::read_to_string(self.mount.join("cgroup.controllers")).unwrap_or_default();
        let has = |name: &&str| text.split_whitespace().any(|word| word == *name);
        CONTROLLERS.into_iter().filter(has).collect()
    }

    fn steady(&self) -> MutexGuard<'_, ()> {
        self.steady.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, node: &NodeName, has: &[&str]) -> Result<(), Fault> {
        let _steady = self.steady();
        let enabled = has.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
        fs::create_dir_all(self.top()).doing(|| format!("making {}", self.top().display()))?;
        for above in [&self.mount, &self.top()] {
            let path = above.join("cgroup.subtree_control");
            fs::write(&path, &enabled).doing(|| format!("writing {enabled:?} to {}", path.display()))?;
        }
        let group = self.group(node);
        fs::create_dir_all(&group).doing(|| format!("making {}", group.display()))
    }
}

/// Moves processes into a group, and those that they start meanwhile.
fn join(procs: &Path, pids: &dyn Fn() -> Vec<u32>) -> Result<(), Fault> {
    for _ in 0..LOOKS {
        let text = fs::read_to_string(procs).unwrap_or_default();
        let inside: BTreeSet<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        let outside: Vec<u32> = pids().into_iter().filter(|pid| !inside.contains(pid)).collect();
        if outside.is_empty() {
            return Ok(());
        }
        for pid in outside {
            let file = OpenOptions::new().append(true).create(true).open(procs);
            let mut file = file.doing(|| format!("opening {}", procs.display()))?;
            // One that has ended meanwhile is no process any more.
            match file.write_all(pid.to_string().as_bytes()) {
                Err(error) if error.raw_os_error() != Some(nix::libc::ESRCH) => {
                    return Err(error).doing(|| format!("putting process {pid} into {}", procs.display()));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// What is written to which file of a group.
fn settings(limits: &Limits, has: &[&str], disk: Option<&str>) -> Vec<(&'static str, String)> {
    fn word(value: Option<u64>) -> String {
        value.map_or_else(|| "max".to_owned(), |value| value.to_string())
    }
    let mut all = Vec::new();
    if has.contains(&"cpu") {
        let cap = limits.cap.map(|cap| u64::from(cap) * u64::from(PERIOD / 100));
        all.push(("cpu.weight", limits.weight.to_string()));
        all.push(("cpu.max", format!("{} {PERIOD}", word(cap))));
    }
    if let Some(disk) = disk.filter(|_| has.contains(&"io")) {
        let rate = word(limits.disk_rate.map(ByteRate::as_bytes));
        let iops = word(limits.disk_iops.map(u64::from));
        all.push(("io.max", format!("{disk} rbps={rate} wbps={rate} riops={iops} wiops={iops}")));
    }
    all
}

/// What is asked for and cannot be held on this machine, a sentence for each controller.
fn lacks(limits: &Limits, has: &[&str], disk: Option<&str>) -> Vec<String> {
    let why = |controller: &str| {
        if !has.contains(&controller) {
            return Some(format!("this host has no cgroup v2 with the controller {controller}"));
        }
        (controller == "io" && disk.is_none()).then(|| "its stores are on no disk of their own".to_owned())
    };
    let sentence = |controller| {
        let asked = asked(limits, controller);
        let why = why(controller).filter(|_| !asked.is_empty())?;
        Some(format!("{} not held: {why}", asked.join(", ")))
    };
    ["cpu", "io"].into_iter().filter_map(sentence).collect()
}

/// What a node asks for that a controller would hold, as it stands in site.toml.
fn asked(limits: &Limits, controller: &str) -> Vec<String> {
    let of = |key: &str| if controller == "cpu" { CPU.contains(&key) } else { DISK.contains(&key) };
    let all = limits.since(&Limits::default()).into_iter();
    all.filter(|(key, ..)| of(key)).map(|(key, _, value)| format!("{key} {value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(weight: u32, cap: Option<u32>, rate: Option<&str>, iops: Option<u32>) -> Limits {
        let disk_rate = rate.map(|rate| rate.parse().expect("a rate"));
        Limits { weight, cap, disk_rate, disk_iops: iops, network_rate: None }
    }

    #[test]
    fn limits_are_files_of_a_group() {
        let all = ["cpu", "io", "memory"];
        let none = "8:0 rbps=max wbps=max riops=max wiops=max";
        for (limits, has, disk, written) in [
            (limits(256, None, None, None), &all[..], Some("8:0"), [("256", "max 100000")].as_slice()),
            (limits(64, Some(150), None, None), &all[..1], Some("8:0"), &[("64", "150000 100000")]),
            (limits(64, Some(150), None, None), &all[1..], None, &[]),
        ] {
            let cpu = written.iter().flat_map(|(weight, max)| [("cpu.weight", *weight), ("cpu.max", *max)]);
            let io = (has.contains(&"io") && disk.is_some()).then_some(("io.max", none));
            let expected: Vec<_> = cpu.chain(io).map(|(file, text)| (file, text.to_owned())).collect();
            assert_eq!(settings(&limits, has, disk), expected);
        }
        let slow = limits(256, None, Some("1MiB/s"), Some(100));
        let io = "254:0 rbps=1048576 wbps=1048576 riops=100 wiops=100".to_owned();
        assert_eq!(settings(&slow, &["io"], Some("254:0")), [("io.max", io)]);
    }

    #[test]
    fn only_what_is_asked_for_can_be_missed() {
        assert_eq!(lacks(&Limits::default(), &[], None), [""; 0]);
        let all = limits(64, Some(50), Some("1MiB/s"), None);
        let no_cpu = "weight 64, cap 50 not held: this host has no cgroup v2 with the controller cpu";
        let no_io = "disk-rate 1MiB/s not held: this host has no cgroup v2 with the controller io";
        let no_disk = "disk-rate 1MiB/s not held: its stores are on no disk of their own";
        assert_eq!(lacks(&all, &[], None), [no_cpu, no_io]);
        assert_eq!(lacks(&all, &["cpu", "io"], None), [no_disk]);
        assert_eq!(lacks(&all, &["cpu", "io"], Some("8:0")), [""; 0]);
    }

    #[test]
    fn a_node_has_a_group_with_all_its_processes() {
        let dir = tempfile::tempdir().expect("a directory");
        let groups = Groups::new(dir.path().to_owned(), "gatehouse".into());
        let node: NodeName = "ce".parse().expect("a name");
        let pids = || vec![7, 9];
        let hold = |limits: &Limits| groups.hold(&node, limits, Some("8:0"), &pids).expect("held");
        assert_eq!(hold(&limits(64, None, None, None)).len(), 1, "there are no controllers");
        fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu io pids\n").expect("written");
        assert_eq!(hold(&limits(64, None, None, None)), [""; 0]);
        let read = |name: &str| fs::read_to_string(dir.path().join("gatehouse").join(name)).expect("there");
        assert_eq!(read("cgroup.subtree_control"), "+cpu +io");
        assert_eq!((read("ce/cpu.weight").as_str(), read("ce/cpu.max").as_str()), ("64", "max 100000"));
        fs::write(dir.path().join("gatehouse/ce/cgroup.procs"), "7\n").expect("written");
        hold(&limits(64, Some(5), None, None));
        assert!(read("ce/cgroup.procs").starts_with("7\n9"), "{}", read("ce/cgroup.procs"));
        assert_eq!(read("ce/cpu.max"), "5000 100000");
        assert_eq!(groups.seconds(&node), None);
        fs::write(dir.path().join("gatehouse/ce/cpu.stat"), "nr_periods 3\nusage_usec 2500000\n")
            .expect("written");
        assert_eq!(groups.seconds(&node), Some(2.5));
    }

    #[test]
    fn a_group_is_made_while_another_ends() {
        let dir = tempfile::tempdir().expect("a directory");
        let groups = Groups::new(dir.path().to_owned(), "gatehouse".into());
        let [comes, goes]: [NodeName; 2] = ["ce", "se"].map(|name| name.parse().expect("a name"));
        std::thread::scope(|scope| {
            let forgetting = scope.spawn(|| (0..2000).for_each(|_| groups.forget(&goes)));
            while !forgetting.is_finished() {
                // The kernel's own files would not keep the directory from being removed.
                groups.make(&comes, &[]).expect("made");
                fs::remove_file(groups.top().join("cgroup.subtree_control")).expect("removed");
                fs::remove_dir(groups.group(&comes)).expect("removed");
            }
        });
    }

    /// A process that wants all of the first processor, until it is dropped.
    struct Burner(std::process::Child);

    impl Burner {
        fn start() -> Self {
            let burn = ["-c", "0", "sh", "-c", "while :; do :; done"];
            Self(std::process::Command::new("taskset").args(burn).spawn().expect("taskset starts"))
        }
    }

    impl Drop for Burner {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// For real, where this machine lets it.
    #[test]
    fn a_weight_is_a_share_and_a_cap_holds() {
        let groups = Groups::new("/sys/fs/cgroup".into(), format!("gatehouse-test-{}", std::process::id()));
        let nodes: [NodeName; 2] = ["few", "many"].map(|name| name.parse().expect("a name"));
        if !groups.controllers().contains(&"cpu") || groups.make(&nodes[0], &["cpu"]).is_err() {
            println!(
                "skipped, because this machine has no cgroup v2 with the controller cpu, or not for this user"
            );
            return;
        }
        let burners = [Burner::start(), Burner::start()];
        let hold = |which: usize, limits: &Limits| {
            let pids = || vec![burners[which].0.id()];
            assert_eq!(groups.hold(&nodes[which], limits, None, &pids).expect("held"), [""; 0]);
        };
        let during = |seconds: u64| {
            let spent = || nodes.each_ref().map(|node| groups.seconds(node).expect("counted"));
            let before = spent();
            std::thread::sleep(Duration::from_secs(seconds));
            let after = spent();
            [after[0] - before[0], after[1] - before[1]]
        };
        hold(0, &limits(64, None, None, None));
        hold(1, &limits(512, None, None, None));
        let [few, many] = during(4);
        println!("weight 64 {few:.2} s, weight 512 {many:.2} s");
        assert!(many > 4.0 * few && few > 0.0, "{few} {many}");
        hold(1, &limits(512, Some(20), None, None));
        let [_, many] = during(4);
        println!("cap 20 {many:.2} s of 4 s");
        assert!(many < 1.2, "{many}");
        drop(burners);
        for node in &nodes {
            groups.forget(node);
        }
        assert!(!groups.top().exists(), "a group is left");
    }
}
