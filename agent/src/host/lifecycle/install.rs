//! A node's install: the installer in its VM, until it has acknowledged and is off.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gatehouse_model::site::Node;
use gatehouse_model::{Doing as _, Fault, State};

use super::record::Record;
use super::{Lifecycle, VACATED, Wanted, phase, room};
use crate::control::board::{NodeState, now_millis};
use crate::vmm::{Boot, Power, Vm, initrd};
use crate::wire::{Ack, Milestone, Passport};

/// An installer that has not ended by then never will: emulated machines need a tenth of it.
const INSTALL_LIMIT: Duration = Duration::from_secs(3600);
/// How often an installer is run whose VM ends under it.
const MOST_TRIES: u32 = 3;

impl Lifecycle {
    /// Installs a node from the beginning: whatever an earlier try left on its disk is overwritten.
    pub(super) fn install(&self, node: &Node) -> Result<(), Fault> {
        self.installs.wait(&node.name);
        let _turn = self.turns.to_install();
        self.installs.leave(&node.name);
        self.vacating.wait(VACATED);
        if self.wanted(&node.name) != Wanted::Running {
            return Ok(());
        }
        self.stop_awaiting(&node.name)?;
        room::check(&self.means.paths.vms).doing(|| format!("installing node {}", node.name))?;
        let board = &self.means.board;
        board.update(&node.name, |status| status.state = NodeState::Installing);
        board.say(&phase(&node.name), "installing", State::Started, "");
        let (ack, begun) = self.run_to_end(node).doing(|| format!("installing node {}", node.name))?;
        let seconds = begun.elapsed().as_secs_f64();
        let root = ack.root.ok_or_else(|| Fault::new(format!("node {} did not name its root", node.name)))?;
        let record = Record { profile: ack.profile, root, seconds, phases: ack.phases, restored: None };
        record.save(&self.means.paths, &node.name)?;
        board.update(&node.name, |status| {
            status.state = NodeState::Stopped;
            status.install_seconds = Some(seconds);
            status.phases = record.phases;
        });
        board.say(&phase(&node.name), "installing", State::Succeeded, format!("{seconds:.1} s"));
        Ok(())
    }

    /// Runs the installer until it has acknowledged. One whose VM was ended under it is run again, from the beginning; one
    /// that has said why it failed would say so again.
    fn run_to_end(&self, node: &Node) -> Result<(Ack, Instant), Fault> {
        let board = &self.means.board;
        for tries in 1.. {
            drop(board.take_acks(&node.name));
            let (begun, since) = (Instant::now(), now_millis());
            let result = self.run_installer(node);
            self.means.tokens.revoke(&node.name);
            if let Some(ack) = result? {
                return Ok((ack, begun));
            }
            if tries == MOST_TRIES || board.has_failed(&phase(&node.name), since) {
                break;
            }
            board.say(&phase(&node.name), "installing again", State::Started, "its vm ended early");
        }
        Err(Fault::new(format!("the installer ended early; {}", self.last_words(node, true))))
    }

    /// Runs the installer once; no acknowledgement where its VM ended without one.
    fn run_installer(&self, node: &Node) -> Result<Option<Ack>, Fault> {
        let stores = self.stores(node)?;
        let kernel = self.means.depot.kernel(self.means.driver.kind())?;
        let conf = self.means.paths.conf(&node.name);
        fs::create_dir_all(&conf).doing(|| format!("making {}", conf.display()))?;
        let at = conf.join("install-initrd");
        let archives: Vec<PathBuf> =
            kernel.initrd.iter().map(|f| self.means.paths.depot.join(&f.path)).collect();
        let archives: Vec<_> = archives.iter().map(PathBuf::as_path).collect();
        let token = self.means.tokens.issue(&node.name);
        initrd::write(&archives, &self.passport(node, Some(token)), &at)?;
        let path = self.means.paths.depot.join(&kernel.kernel.path);
        let vm = Vm { stores, ..self.vm(node)? };
        let launch = self.means.driver.render(&vm, Boot::Install { kernel: &path, initrd: &at });
        let started = self.means.driver.start(&launch);
        self.hold(node);
        let result = started.and_then(|()| self.follow_installer(node));
        // It holds the token; that it can no longer be used is no reason to keep it.
        let _ = fs::remove_file(&at);
        result
    }

    /// What a node is told of itself and of the server; without a token it must be approved.
    pub(super) fn passport(&self, node: &Node, token: Option<String>) -> Passport {
        let site = &self.means.current.get().site;
        let network = &site.network;
        Passport {
            node: node.name.clone(),
            domain: site.domain.clone(),
            mac: node.mac,
            address: node.address,
            prefix: network.subnet.prefix,
            gateway: network.gateway,
            server: network.host,
            authority: self.means.authority.clone(),
            token,
            time: (now_millis() / 1000).max(site.epoch),
        }
    }

    /// Waits until the installer's VM is off; returns what it has acknowledged.
    fn follow_installer(&self, node: &Node) -> Result<Option<Ack>, Fault> {
        let begun = Instant::now();
        let mut installed = None;
        let last = |acks: Vec<Ack>| acks.into_iter().rfind(|ack| ack.milestone == Milestone::Installed);
        loop {
            installed = last(self.means.board.take_acks(&node.name)).or(installed);
            if self.power(&node.name) == Some(Power::Off) {
                // The acknowledgement may have come between the two looks.
                return Ok(last(self.means.board.take_acks(&node.name)).or(installed));
            }
            if begun.elapsed() > INSTALL_LIMIT || self.wanted(&node.name) == Wanted::Stopped {
                self.means.driver.stop(&node.name, Duration::ZERO)?;
                let text = format!("the installer was ended; {}", self.last_words(node, true));
                return Err(Fault::new(text));
            }
            self.means.board.wait(Duration::from_secs(1));
        }
    }
}
