//! What a changed site would do to a running machine: a pure comparison, shown before anything is done and carried
//! out afterwards.

use std::collections::BTreeMap;
use std::fmt;

use gatehouse_lcfg::{Difference, Profile};
use gatehouse_model::site::Node;
use gatehouse_model::{NodeName, Problem, Site};
use serde::{Deserialize, Serialize};

use crate::host::lifecycle::started::Started;
use crate::vmm::Capabilities;

/// The nodes' profiles by name.
pub type ProfilesOf = BTreeMap<NodeName, Profile>;

/// What happens to one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Fate {
    /// It is new.
    Added {
        /// What becomes of it.
        then: String,
    },
    /// Its VM is stopped; its disks stay.
    Removed,
    /// Its VM or its profile changes.
    Changed {
        /// Why its VM starts again, each with the old and the new value.
        restarts: Vec<String>,
        /// What of its VM changes while it runs.
        at_once: Vec<String>,
        /// What holds from its next start on, whenever that is.
        later: Vec<String>,
        /// What its client will change.
        profile: Difference,
    },
}

/// All that a change does, by node in the new site's order, and what it means for the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The nodes that it concerns; removed ones come last.
    pub nodes: Vec<(NodeName, Fate)>,
    /// What becomes true only when the host starts again.
    pub host: Vec<String>,
}

impl Change {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.host.is_empty()
    }

    /// Adds what a node is started again for beside what changes.
    pub fn restart_too(&mut self, node: &NodeName, why: Vec<String>) {
        let fate = self.nodes.iter_mut().find(|(name, _)| name == node).map(|(_, fate)| fate);
        if let Some(Fate::Changed { restarts, .. }) = fate {
            restarts.extend(why);
            return;
        }
        let (at_once, later, profile) = Default::default();
        self.nodes.push((node.clone(), Fate::Changed { restarts: why, at_once, later, profile }));
    }

    /// Leaves all that needs another start for whenever a node is started next.
    pub fn postpone(&mut self) {
        for (_, fate) in &mut self.nodes {
            if let Fate::Changed { restarts, later, .. } = fate {
                later.append(restarts);
            }
        }
    }
}

/// Compares two sites with their profiles. `can` is what the driver of the nodes can; `kept` says which nodes have been
/// here before, and have their disks still; `started`, what those that run were started with.
///
/// # Errors
/// What cannot change on a machine that is installed; each with what to write.
pub fn compare(
    (old, old_profiles): (&Site, &ProfilesOf),
    (new, new_profiles): (&Site, &ProfilesOf),
    can: Capabilities,
    kept: impl Fn(&NodeName) -> bool,
    started: impl Fn(&NodeName) -> Option<Started>,
) -> Result<Change, Vec<Problem>> {
    let mut problems = fixed(old, new);
    let mut nodes = Vec::new();
    for node in &new.nodes {
        let Some(before) = old.node(node.name.as_str()) else {
            nodes.push((node.name.clone(), Fate::Added { then: begins(node, kept(&node.name)) }));
            continue;
        };
        problems.extend(bound(before, node));
        let none = Profile::default();
        let profile = |of: &ProfilesOf| of.get(&node.name).cloned();
        let profile = Difference::between(
            &profile(old_profiles).unwrap_or(none.clone()),
            &profile(new_profiles).unwrap_or(none),
        );
        let (restarts, at_once) = resized(before, node, started(&node.name), can);
        if !restarts.is_empty() || !at_once.is_empty() || !profile.is_empty() {
            let fate = Fate::Changed { restarts, at_once, later: Vec::new(), profile };
            nodes.push((node.name.clone(), fate));
        }
    }
    let gone = old.nodes.iter().filter(|node| new.node(node.name.as_str()).is_none());
    nodes.extend(gone.map(|node| (node.name.clone(), Fate::Removed)));
    if problems.is_empty() { Ok(Change { nodes, host: host(old, new) }) } else { Err(problems) }
}

/// Certificates, partitions and drivers were made for these; another value is another machine.
fn fixed(old: &Site, new: &Site) -> Vec<Problem> {
    // A site may become a Grid site and cease to be one, but its authority certifies below one subject only.
    let base = |site: &Site| site.grid.as_ref().map(|grid| grid.base.to_string());
    let (old_base, new_base) = (base(old), base(new));
    [
        ("site.name", old.name.to_string(), new.name.to_string()),
        ("site.domain", old.domain.clone(), new.domain.clone()),
        ("host.vmm", old.host.vmm.to_string(), new.host.vmm.to_string()),
        ("network.subnet", old.network.subnet.to_string(), new.network.subnet.to_string()),
        ("network.host", old.network.host.to_string(), new.network.host.to_string()),
    ]
    .into_iter()
    .chain(old_base.zip(new_base).map(|(old, new)| ("grid.base", old, new)))
    .filter(|(_, old, new)| old != new)
    .map(|(key, old, new)| {
        let what = format!(
            "{key} cannot become {new:?} on a machine that is installed as {old:?}; write {old:?}, or install the machine anew"
        );
        Problem::at("site.toml", 0, what)
    })
    .collect()
}

/// A node that comes back goes on with what is on its disks: only people throw disks away.
fn begins(node: &Node, kept: bool) -> String {
    if node.machine.is_some() {
        return format!(
            "it is installed when the machine {} starts from the network and is approved",
            node.mac
        );
    }
    let how = match (kept, node.autostart) {
        (false, true) => "it will be installed",
        (false, false) => "it will be installed when somebody starts it",
        (true, true) => "its disks are still here, and it will be started from them",
        (true, false) => "its disks are still here, and it stays stopped",
    };
    how.to_owned()
}

/// What is bound to a node's disk for as long as it is installed.
fn bound(old: &Node, new: &Node) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem = |what| problems.push(Problem::at("site.toml", 0, what));
    if new.machine.is_none() && new.disk < old.disk {
        problem(format!(
            "{}: the disk has {}, and a store is never made smaller; write disk = \"{}\" or more",
            old.name, old.disk, old.disk
        ));
    }
    if new.machine.is_some() != old.machine.is_some() {
        let (is, write) =
            if old.machine.is_some() { ("a machine of its own", "keep") } else { ("a VM", "remove") };
        problem(format!(
            "{}: it is {is}; {write} machine, or give the node another name, which is another node",
            old.name
        ));
    }
    // The network's configuration on its disk names it: with another one the node would never be heard of again.
    if new.mac != old.mac {
        problem(format!(
            "{}: the installed node knows its network by the mac {}; write mac = \"{}\", or give the node another \
             name, which is another node",
            old.name, old.mac, old.mac
        ));
    }
    problems
}

/// What differs of a node's VM: why it must be started again, and what changes while it runs. A vmm that can change
/// memory or processors of a running VM can do so up to what that was started with, which may be another than what the
/// old site says: that can wait for a start. Its address its client changes.
pub fn resized(
    old: &Node,
    new: &Node,
    started: Option<Started>,
    can: Capabilities,
) -> (Vec<String>, Vec<String>) {
    if new.machine.is_some() {
        return (Vec::new(), Vec::new());
    }
    let most = started.unwrap_or(Started::of(old));
    let memory = can.memory_while_running && new.memory <= most.memory;
    let vcpus = can.vcpus_while_running && new.vcpus <= most.vcpus;
    let sizes = [
        (memory, ("memory", old.memory.to_string(), new.memory.to_string())),
        (vcpus, ("vcpus", old.vcpus.to_string(), new.vcpus.to_string())),
        (false, ("disk", old.disk.to_string(), new.disk.to_string())),
    ];
    let limits = new.limits.since(&old.limits).into_iter().map(|row| (true, row));
    let (mut restarts, mut at_once) = (Vec::new(), Vec::new());
    for (running, (key, old, new)) in sizes.into_iter().chain(limits).filter(|(_, (_, old, new))| old != new)
    {
        let of = if running { &mut at_once } else { &mut restarts };
        of.push(format!("{key} {old} becomes {new}"));
    }
    (restarts, at_once)
}

fn host(old: &Site, new: &Site) -> Vec<String> {
    let mut told = Vec::new();
    if old.access != new.access {
        told.push("[access] holds at once".to_owned());
    }
    let mut tell = |differs: bool, what: &str| {
        if differs {
            told.push(format!("{what} is taken up when the host starts again"));
        }
    };
    tell(old.disk != new.disk, "[[disk]]");
    tell(old.network != new.network, "[network]");
    tell(old.host != new.host, "[host]");
    tell(old.epoch != new.epoch, "site.epoch");
    told
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (node, fate) in &self.nodes {
            match fate {
                Fate::Added { then } => writeln!(f, "{node}: added; {then}")?,
                Fate::Removed => writeln!(f, "{node}: removed; its vm is stopped, its disks stay")?,
                Fate::Changed { restarts, at_once, later, profile } => {
                    let rows = [("restarts", restarts), ("at once", at_once), ("at its next start", later)];
                    for (when, what) in rows.iter().flat_map(|(when, all)| all.iter().map(move |w| (when, w)))
                    {
                        writeln!(f, "{node}: {when}, {what}")?;
                    }
                    for line in profile.to_string().lines() {
                        writeln!(f, "{node}: {line}")?;
                    }
                }
            }
        }
        for what in &self.host {
            writeln!(f, "host: {what}")?;
        }
        if self.is_empty() {
            writeln!(f, "nothing changes on any node")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::sample_site;

    const CAN: Capabilities = Capabilities {
        max_vcpus: None,
        memory_while_running: true,
        vcpus_while_running: false,
        disk_rate: true,
        own_kernel: true,
        own_user: false,
    };

    #[test]
    fn nodes_come_go_and_change() {
        let old = sample_site();
        let mut new = old.clone();
        let mut third = new.nodes[0].clone();
        third.name = "node3".parse().expect("a name");
        new.nodes.remove(0);
        new.nodes[0].vcpus = 4;
        new.nodes[0].limits.weight = 64;
        new.nodes.push(third);
        new.access.keys.push("ssh-ed25519 A".to_owned());
        let none = ProfilesOf::new();
        let mut change = compare((&old, &none), (&new, &none), CAN, |_| false, |_| None).expect("possible");
        assert_eq!(
            change.to_string(),
            "node2: restarts, vcpus 1 becomes 4\nnode2: at once, weight 256 becomes 64\nnode3: added; it will be installed\n\
             node1: removed; its vm is stopped, its disks stay\n\
             host: [access] holds at once\n"
        );
        let json = serde_json::to_string(&change).expect("written");
        assert_eq!(serde_json::from_str::<Change>(&json).expect("read"), change);
        change.postpone();
        assert!(change.to_string().contains("node2: at its next start, vcpus 1 becomes 4\n"), "{change}");
        let same = compare((&old, &none), (&old, &none), CAN, |_| true, |_| None).expect("possible");
        assert_eq!(same.to_string(), "nothing changes on any node\n");
    }

    #[test]
    fn what_becomes_of_a_new_node_hangs_on_its_disks() {
        let mut node = sample_site().nodes[0].clone();
        for (kept, autostart, says) in [
            (false, true, "it will be installed"),
            (false, false, "when somebody starts it"),
            (true, true, "will be started from them"),
            (true, false, "stays stopped"),
        ] {
            node.autostart = autostart;
            let said = begins(&node, kept);
            assert!(said.ends_with(says), "{said}");
        }
    }

    #[test]
    fn only_what_the_vm_is_made_of_needs_another_start() {
        let old = sample_site().nodes[0].clone();
        let mut new = old.clone();
        new.address = "127.0.0.99".parse().expect("an address");
        new.role = "ce".to_owned();
        assert_eq!(resized(&old, &new, None, CAN), (vec![], vec![]));
        new.memory = gatehouse_model::Size::gib(1);
        new.disk = gatehouse_model::Size::gib(8);
        let all = ["memory 512MiB becomes 1GiB", "disk 4GiB becomes 8GiB"].map(str::to_owned).to_vec();
        assert_eq!(resized(&old, &new, None, CAN), (all, vec![]));
        let less = vec!["memory 1GiB becomes 512MiB".to_owned()];
        assert_eq!(resized(&Node { disk: old.disk, ..new.clone() }, &old, None, CAN), (vec![], less.clone()));
        // What it was started with counts, both ways.
        let started = |memory| Some(Started { memory, ..Started::of(&old) });
        let (mib384, mib768) = (gatehouse_model::Size::mib(384), gatehouse_model::Size::mib(768));
        let lent = Node { memory: mib384, ..old.clone() };
        let back = vec!["memory 384MiB becomes 512MiB".to_owned()];
        assert_eq!(resized(&lent, &old, started(old.memory), CAN), (vec![], back.clone()));
        assert_eq!(resized(&lent, &old, started(mib384), CAN), (back, vec![]));
        let waits = Node { memory: mib768, ..old.clone() };
        let more = vec!["memory 1GiB becomes 768MiB".to_owned()];
        let bigger = Node { disk: old.disk, ..new.clone() };
        assert_eq!(resized(&bigger, &waits, started(old.memory), CAN), (more, vec![]));
        let still = Capabilities { memory_while_running: false, ..CAN };
        assert_eq!(resized(&Node { disk: old.disk, ..new }, &old, None, still), (less, vec![]));
    }

    #[test]
    fn a_vm_does_not_become_a_machine() {
        let old = sample_site();
        let mut new = old.clone();
        let rule = gatehouse_model::site::DiskRule::default();
        new.nodes[1].machine = Some(rule.clone());
        let none = ProfilesOf::new();
        let to = compare((&old, &none), (&new, &none), CAN, |_| false, |_| None).expect_err("impossible");
        assert_eq!(
            to[0].to_string(),
            "site.toml: node2: it is a VM; remove machine, or give the node another name, which is another node"
        );
        assert!(compare((&new, &none), (&old, &none), CAN, |_| false, |_| None).is_err());
        let mut changed = new.clone();
        (changed.nodes[1].vcpus, changed.nodes[1].machine) = (8, Some(rule));
        let same = compare((&new, &none), (&changed, &none), CAN, |_| false, |_| None).expect("possible");
        assert!(same.nodes.is_empty(), "there is no VM to start again: {same}");
    }

    #[test]
    fn users_of_the_grid_come_and_go_below_one_subject() {
        let none = ProfilesOf::new();
        let site = |text: &str| {
            let base = include_str!("../../../site-templates/minimal/site.toml");
            Site::parse(&format!("{base}\n{text}")).expect("a site")
        };
        let plain = site("");
        let old = site("[[grid-user]]\nname = \"alice\"\nuid = 20001\n");
        let more = site("[[grid-user]]\nname = \"bob\"\nuid = 20002\n");
        for (from, to) in [(&plain, &old), (&old, &more), (&more, &plain)] {
            assert!(compare((from, &none), (to, &none), CAN, |_| true, |_| None).is_ok());
        }
        let moved = site("[grid]\nbase = \"/O=Other\"\n");
        let problems =
            compare((&old, &none), (&moved, &none), CAN, |_| true, |_| None).expect_err("impossible");
        assert_eq!(
            problems[0].to_string(),
            "site.toml: grid.base cannot become \"/O=Other\" on a machine that is installed as \"/O=Grid/OU=minimal\"; \
             write \"/O=Grid/OU=minimal\", or install the machine anew"
        );
    }

    #[test]
    fn what_is_built_in_cannot_change() {
        let old = sample_site();
        let mut new = old.clone();
        new.domain = "other.org".to_owned();
        new.nodes[1].disk = gatehouse_model::Size::gib(1);
        new.nodes[0].mac = "02:00:5e:00:00:01".parse().expect("a mac");
        let none = ProfilesOf::new();
        let problems =
            compare((&old, &none), (&new, &none), CAN, |_| false, |_| None).expect_err("impossible");
        let mac = old.nodes[0].mac;
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            all,
            [
                "site.toml: site.domain cannot become \"other.org\" on a machine that is installed as \"example.org\"; \
                 write \"example.org\", or install the machine anew",
                &format!(
                    "site.toml: node1: the installed node knows its network by the mac {mac}; write mac = \"{mac}\", \
                     or give the node another name, which is another node"
                ),
                "site.toml: node2: the disk has 4GiB, and a store is never made smaller; write disk = \"4GiB\" or more",
            ]
        );
    }
}
