//! Domains as `xl list` and the kernel show them, and what of a running one is changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use gatehouse_model::site::{Node, WEIGHT};

use crate::vmm::usage::{self, Usage};
use crate::vmm::{Power, Vm};

/// Where the back ends of nodes' disks count what passes them.
pub(super) const BACK_ENDS: &str = "/sys/bus/xen-backend/devices";

/// A domain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Domain {
    pub power: Power,
    pub paused: bool,
    pub id: u32,
    /// In MiB.
    pub memory: u64,
    pub vcpus: u32,
    pub cpu_seconds: f64,
}

impl Domain {
    /// Whether it was made and never let run, because whoever made it was cut off: one that a person has paused has used
    /// a processor before.
    pub fn awaits_its_start(self) -> bool {
        self.power == Power::On && self.paused && self.cpu_seconds <= 0.0
    }
}

/// The domains that Xen knows, by name.
pub(super) type Domains = BTreeMap<String, Domain>;

/// What of a node is as it was started, or as it was changed since.
pub(super) type Applied = (u32, Option<u32>);

/// The host's end of a node's NIC.
pub(super) fn vif(id: u32) -> String {
    format!("vif{id}.0")
}

/// A number that the configuration file of a start says.
fn number(config: &str, key: &str) -> Option<u32> {
    let mut lines = config.lines().filter_map(|line| line.split_once(" = "));
    lines.find(|(name, _)| *name == key)?.1.parse().ok()
}

/// The weight and the cap that a domain was started with.
pub(super) fn scheduled(config: &str) -> Applied {
    (number(config, "cpu_weight").unwrap_or(WEIGHT), number(config, "cap"))
}

pub(super) fn wanted(vm: &Vm<'_>) -> Applied {
    (vm.node.limits.weight, vm.node.limits.cap)
}

/// The calls of `xl` after which a running domain has what its node says. Memory and processors can only be taken, and
/// given back, of what it was started with.
pub(super) fn changes(vm: &Vm<'_>, now: Domain, started: &str, applied: Applied) -> Vec<Vec<String>> {
    let Node { name, memory, vcpus, .. } = vm.node;
    let within = |key, wanted: u64| number(started, key).is_some_and(|most| wanted <= u64::from(most));
    let mut all = Vec::new();
    if applied != wanted(vm) {
        let (weight, cap) = wanted(vm);
        all.push(format!("sched-credit2 -d {name} -w {weight} -c {}", cap.unwrap_or(0)));
    }
    if now.memory != memory.as_mib() && within("memory", memory.as_mib()) {
        all.push(format!("mem-set {name} {}m", memory.as_mib()));
    }
    if now.vcpus != *vcpus && within("vcpus", u64::from(*vcpus)) {
        // Of a start Xen takes any number; of a change only with -i more than the machine has.
        all.push(format!("vcpu-set -i {name} {vcpus}"));
    }
    all.into_iter().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

/// What a domain has used. Back ends are named `vbd-DOMAIN-DEVICE`, and count sectors of 512 bytes.
pub(super) fn used(domain: Domain, net: &Path, back_ends: &Path) -> Usage {
    let (received, sent) = usage::traffic(net, &vif(domain.id));
    let mark = format!("vbd-{}-", domain.id);
    let disks: Vec<PathBuf> = fs::read_dir(back_ends)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&mark))
        .map(|entry| entry.path().join("statistics"))
        .collect();
    let sectors = |name: &str| {
        let counts: Vec<u64> = disks.iter().filter_map(|disk| usage::number(&disk.join(name))).collect();
        (!counts.is_empty()).then(|| counts.iter().sum::<u64>() * 512)
    };
    Usage {
        cpu_seconds: domain.cpu_seconds,
        memory: domain.memory << 20,
        received,
        sent,
        read: sectors("rd_sect"),
        written: sectors("wr_sect"),
    }
}

/// Reads `xl list`: a heading, then `name id memory vcpus state time` for each domain. One that has ended but is
/// not yet gone (`--ps--`) is off: it never runs again.
pub(super) fn read_list(text: &str) -> Domains {
    let domain = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, id, memory, vcpus, state, time] = words[..] else { return None };
        let power = if state.contains('s') || state.contains('d') { Power::Off } else { Power::On };
        let domain = Domain {
            power,
            paused: state.contains('p'),
            id: id.parse().ok()?,
            memory: memory.parse().ok()?,
            vcpus: vcpus.parse().ok()?,
            cpu_seconds: time.parse().ok()?,
        };
        Some((name.to_owned(), domain))
    };
    text.lines().skip(1).filter_map(domain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CE: Domain =
        Domain { power: Power::On, paused: false, id: 3, memory: 512, vcpus: 1, cpu_seconds: 0.0 };

    #[test]
    fn a_domain_that_has_ended_is_off() {
        let list = "Name        ID   Mem VCPUs\tState\tTime(s)\n\
                    Domain-0     0  1024     2     r-----     100.0\n\
                    ce           3   512     1     -b----      12.3\n\
                    se           4     0     1     --ps--      12.3\n\
                    ui           5   512     1     --p---       0.0\n\
                    wn           6   512     1     --p---       7.1\n";
        let found = read_list(list);
        let off = |name: &&str| found[*name].power == Power::Off;
        let names = ["Domain-0", "ce", "se", "ui", "wn"];
        assert_eq!(names.iter().filter(|name| off(name)).collect::<Vec<_>>(), [&"se"]);
        let awaits = names.iter().filter(|name| found[**name].awaits_its_start());
        assert_eq!(awaits.collect::<Vec<_>>(), [&"ui"], "a person has paused wn");
        assert_eq!(found["ce"], Domain { cpu_seconds: 12.3, ..CE });
    }

    #[test]
    fn only_what_differs_is_changed() {
        let site = include_str!("../../../../site-templates/minimal/site.toml");
        let mut site = gatehouse_model::Site::parse(site).expect("the template is right");
        let node = &mut site.nodes[0];
        let started = "memory = 512\nvcpus = 2\ncpu_weight = 64\n";
        assert_eq!((scheduled(started), scheduled("cap = 50\n")), ((64, None), (256, Some(50))));
        (node.limits.weight, node.limits.cap) = (64, Some(150));
        for (memory, vcpus, applied, expected) in [
            (512, 1, (64, Some(150)), &[][..]),
            (512, 2, (64, None), &["sched-credit2 -d node1 -w 64 -c 150", "vcpu-set -i node1 2"]),
            (256, 3, (64, Some(150)), &["mem-set node1 256m"]),
            (1024, 1, (64, Some(150)), &[]),
        ] {
            (node.memory, node.vcpus) = (gatehouse_model::Size::mib(memory), vcpus);
            let vm = Vm { node, index: 0, stores: vec![], bridge: "gh0" };
            let lines: Vec<String> =
                changes(&vm, CE, started, applied).iter().map(|args| args.join(" ")).collect();
            assert_eq!(lines, expected, "{memory} {vcpus}");
        }
    }

    #[test]
    fn usage_is_what_the_back_ends_count() {
        let dir = tempfile::tempdir().expect("a directory");
        let count = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs::write(path, text).expect("written");
        };
        for (device, sectors) in [("vbd-3-51712", "4\n"), ("vbd-3-51728", "2\n"), ("vbd-31-51712", "9\n")] {
            count(&format!("back/{device}/statistics/rd_sect"), sectors);
        }
        count("net/vif3.0/statistics/rx_bytes", "100\n");
        let domain = Domain { cpu_seconds: 12.3, ..CE };
        let used = used(domain, &dir.path().join("net"), &dir.path().join("back"));
        let expected = Usage {
            cpu_seconds: 12.3,
            memory: 512 << 20,
            received: None,
            sent: Some(100),
            read: Some(6 * 512),
            written: None,
        };
        assert_eq!(used, expected);
    }
}
