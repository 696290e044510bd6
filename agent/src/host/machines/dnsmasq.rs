//! dnsmasq for the machines of a site: addresses and loaders for their hardware addresses, and for no other.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use gatehouse_model::{Doing as _, Fault, Site, State};

use crate::control::board::Board;
use crate::host::files::write_whole;
use crate::host::lifecycle::BRIDGE;

/// The pause before it is started again when it has ended.
const PAUSE: Duration = Duration::from_secs(10);
/// How often a running one is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// dnsmasq's configuration (dnsmasq(8)). Client architectures are those of RFC 4578: 7 and 9 are UEFI of x86-64.
/// No file with the process's number is written: in a trial the usual one may be another dnsmasq's.
pub(super) fn config(site: &Site, tftp: &Path) -> String {
    let subnet = site.network.subnet;
    // TFTP at one port, so that one rule of a packet filter lets it through. The option of iPXE's says how much this
    // answer counts: beside another DHCP server it would take whichever comes first.
    let mut text = format!(
        "port=0\npid-file\nno-resolv\nno-hosts\ninterface={BRIDGE}\nexcept-interface=lo\nbind-dynamic\n\
         log-facility=-\nleasefile-ro\ndhcp-range={},static,{}\ndhcp-ignore=tag:!known\nenable-tftp\n\
         tftp-root={}\ntftp-single-port\n\
         dhcp-match=set:uefi,option:client-arch,7\ndhcp-match=set:uefi,option:client-arch,9\n\
         dhcp-boot=tag:!uefi,grub/bios.0\ndhcp-boot=tag:uefi,grub/uefi.efi\ndhcp-option=encap:175,1,1b\n",
        subnet.address,
        subnet.mask(),
        tftp.display()
    );
    if let Some(gateway) = site.network.gateway {
        let _ = writeln!(text, "dhcp-option=option:router,{gateway}");
    }
    for node in site.machines() {
        let _ = writeln!(text, "dhcp-host={},{},{}", node.mac, node.address, node.name);
    }
    text
}

/// dnsmasq, started when there is something to serve, and again whenever it ends.
#[derive(Debug)]
pub(super) struct Dnsmasq {
    shared: Arc<Shared>,
    board: Arc<Board>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Wanted {
    config: Option<String>,
    has_thread: bool,
}

impl Dnsmasq {
    /// None runs yet; its configuration goes to this path.
    pub(super) fn new(path: PathBuf, board: Arc<Board>) -> Self {
        let shared = Shared { path, wanted: Mutex::default(), changed: Condvar::new() };
        Self { shared: Arc::new(shared), board }
    }

    /// Serves by a configuration from now on, or not at all.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn serve(&self, config: Option<String>) -> Result<(), Fault> {
        let mut wanted = self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.config == config {
            return Ok(());
        }
        wanted.config = config;
        if !wanted.has_thread {
            let (shared, board) = (Arc::clone(&self.shared), Arc::clone(&self.board));
            // A thread of its own, which never ends: the process dies with the thread that has started it.
            let run = move || shared.run(&board);
            std::thread::Builder::new().name("netboot".into()).spawn(run).doing(|| "starting a thread")?;
            wanted.has_thread = true;
        }
        self.shared.changed.notify_all();
        Ok(())
    }
}

impl Shared {
    fn run(&self, board: &Board) {
        loop {
            let config = self.next();
            if let Err(fault) = self.run_with(&config) {
                let help =
                    fault.help("install dnsmasq-base; see that no other DHCP or TFTP server runs here");
                board.say("server", "serving machines of their own", State::Failed, help.render());
                let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
                drop(self.changed.wait_timeout(wanted, PAUSE).unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// What is to be served next; waits until there is something.
    fn next(&self) -> String {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(config) = &wanted.config {
                return config.clone();
            }
            wanted = self.changed.wait(wanted).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Runs it until something else is wanted.
    fn run_with(&self, config: &str) -> Result<(), Fault> {
        write_whole(&self.path, config.as_bytes(), 0o644)?;
        let file = format!("--conf-file={}", self.path.display());
        // Whoever changes his group loses the signal at its parent's death.
        let words =
            ["--pdeathsig", "KILL", "dnsmasq", "--keep-in-foreground", "--user=root", "--group=root", &file];
        let mut child = Command::new("setpriv")
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .doing(|| "starting dnsmasq")?;
        let ended = loop {
            let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            if wanted.config.as_deref() != Some(config) {
                break Ok(());
            }
            drop(self.changed.wait_timeout(wanted, LOOK).unwrap_or_else(PoisonError::into_inner));
            if let Some(status) = child.try_wait().doing(|| "waiting for dnsmasq")? {
                break Err(Fault::new(format!("dnsmasq ended with {status}")));
            }
        };
        let _ = child.kill();
        let _ = child.wait();
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::sample_site;

    #[test]
    fn only_the_machines_of_the_site_are_answered() {
        let mut site = sample_site();
        site.nodes[1].machine = Some(gatehouse_model::site::DiskRule::default());
        let text = config(&site, Path::new("/t"));
        let node = &site.nodes[1];
        let line = format!("dhcp-host={},127.0.0.22,node2", node.mac);
        for line in
            ["dhcp-range=127.0.0.0,static,255.255.255.0", "dhcp-ignore=tag:!known", "tftp-root=/t", &line]
        {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(text.contains("\ndhcp-option=encap:175,1,1b\n") && !text.contains("node1"), "{text}");
    }
}
