//! The host of a trial, which the agent and the nodes' VMs are on: this machine itself, or one in an emulator that is
//! reached by ssh.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::console::Console;
use crate::process::{of_agent, of_node};
use crate::{Ended, Try, gatehouse, run};

/// A trial with its host.
#[derive(Debug)]
pub struct Host {
    /// The trial.
    pub trial: Try,
    /// The name of a host in an emulator.
    name: Option<&'static str>,
}

impl Host {
    /// A trial that runs natively.
    pub fn here(trial: Try) -> Self {
        Self { trial, name: None }
    }

    /// A trial with an emulated machine, which has this name.
    pub fn emulated(trial: Try, name: &'static str) -> Self {
        Self { trial, name: Some(name) }
    }

    /// Whether it is in an emulator.
    pub fn is_emulated(&self) -> bool {
        self.name.is_some()
    }

    /// As long as something takes natively, or as long as it may take here.
    pub fn patience(&self, natively: Duration) -> Duration {
        natively * if self.is_emulated() { 8 } else { 1 }
    }

    /// `gatectl`.
    pub fn gatectl(&self, args: &[&str]) -> Ended {
        match self.name {
            Some(name) => self.trial.ssh(name, &format!("gatectl {}", args.join(" "))),
            None => self.trial.gatectl(args),
        }
    }

    /// `gatectl node console`.
    pub fn console(&self, node: &str, more: &[&str]) -> Console {
        let words = [&["node", "console", node], more].concat();
        if let Some(name) = self.name {
            return Console::start(&mut self.ssh(name, &format!("gatectl {}", words.join(" "))));
        }
        let mut command = Command::new(gatehouse().with_file_name("gatehouse-agent"));
        Console::start(command.args(["ctl", "--trial"]).arg(self.trial.dir()).args(words))
    }

    /// A directory as the host knows it; one in an emulator gets a copy.
    ///
    /// # Panics
    /// It cannot be copied.
    pub fn directory(&self, dir: &Path) -> String {
        let Some(host) = self.name else { return dir.display().to_string() };
        let name = dir.file_name().expect("it has a name").display().to_string();
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(dir.parent().expect("it is below another")).args(["-cf", "-", &name]);
        let mut tar = tar.stdout(Stdio::piped()).spawn().expect("tar starts");
        let mut ssh = self.ssh(host, "tar -C /run -xf -");
        let unpacked = ssh.stdin(tar.stdout.take().expect("piped")).status().expect("ssh starts");
        assert!(tar.wait().expect("tar ends").success() && unpacked.success());
        format!("/run/{name}")
    }

    /// What tells a node's VM from those before and after it, if there is one.
    pub fn vm(&self, node: &str) -> Option<String> {
        match self.name {
            Some(name) => {
                let found = self.trial.ssh(name, &format!("xl domid {node}"));
                assert_ne!(found.code, 255, "{found:?}");
                (found.code == 0).then_some(found.stdout)
            }
            None => of_node(self.trial.dir(), node).map(|process| process.pid.to_string()),
        }
    }

    /// Ends a node's VM at once, by a hand that is not the agent's.
    ///
    /// # Panics
    /// There is none.
    pub fn kill_vm(&self, node: &str) {
        self.to_vm(node, "destroy", "KILL");
    }

    /// Has a node's VM stand still.
    ///
    /// # Panics
    /// There is none.
    pub fn freeze_vm(&self, node: &str) {
        self.to_vm(node, "pause", "STOP");
    }

    fn to_vm(&self, node: &str, command: &str, signal: &str) {
        match self.name {
            Some(name) => {
                let done = self.trial.ssh(name, &format!("xl {command} {node}"));
                assert_eq!(done.code, 0, "{done:?}");
            }
            None => of_node(self.trial.dir(), node).expect("runs").signal(signal),
        }
    }

    /// What tells the agent from those before and after it, if there is one.
    pub fn agent(&self) -> Option<String> {
        match self.name {
            Some(name) => {
                let found = self.trial.ssh(name, "systemctl show --property MainPID --value gatehouse");
                Some(found.stdout).filter(|pid| !["", "0\n"].contains(&&**pid))
            }
            None => of_agent(self.trial.dir()).map(|process| process.pid.to_string()),
        }
    }

    /// Ends the agent at once.
    ///
    /// # Panics
    /// There is none.
    pub fn kill_agent(&self) {
        let pid = self.agent().expect("runs");
        let kill = format!("kill -KILL {}", pid.trim());
        let done = match self.name {
            Some(name) => self.trial.ssh(name, &kill),
            None => run(Command::new("sh").args(["-c", &kill])),
        };
        assert_eq!(done.code, 0, "{done:?}");
    }

    fn ssh(&self, host: &str, command: &str) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(self.trial.dir().join("ssh/config")).args(["-o", "BatchMode=yes", host, command]);
        ssh
    }
}
