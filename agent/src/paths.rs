//! Where the agent keeps its things; a trial puts all of them below one directory.

use std::path::{Path, PathBuf};

use gatehouse_model::NodeName;

/// The agent's directories.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Kept for ever: journal, keys made here, the site directory that counts.
    pub state: PathBuf,
    /// `<node>/{conf,fs}/`: configuration and stores.
    pub vms: PathBuf,
    /// The depot, read-only.
    pub depot: PathBuf,
    /// Gone at the next boot: sockets, consoles' pipes.
    pub run: PathBuf,
    /// Console logs.
    pub log: PathBuf,
    /// What the machine's consoles show above their prompt; none in a trial, whose terminal is somebody's.
    pub issue: Option<PathBuf>,
    /// Where the host's configuration is made from the site; none in a trial, which has no host.
    pub etc: Option<PathBuf>,
    /// The directory of a trial; none on a host.
    pub trial: Option<PathBuf>,
    /// A tree with the programs that a host has and the machine of a trial may lack.
    pub tools: Option<PathBuf>,
}

impl Paths {
    /// The places on an installed host.
    pub fn host() -> Self {
        Self {
            state: "/var/lib/gatehouse".into(),
            vms: "/srv/vms".into(),
            depot: "/depot".into(),
            run: "/run/gatehouse".into(),
            log: "/var/log/gatehouse".into(),
            issue: Some("/run/issue.d/gatehouse.issue".into()),
            etc: Some("/etc".into()),
            trial: None,
            tools: None,
        }
    }

    /// The places of a trial, all below one directory but the depot.
    pub fn trial(dir: &Path, depot: &Path) -> Self {
        Self {
            state: dir.join("state"),
            vms: dir.join("vms"),
            depot: depot.to_owned(),
            run: dir.join("run"),
            log: dir.join("log"),
            issue: None,
            etc: None,
            trial: Some(dir.to_owned()),
            tools: None,
        }
    }

    /// The site directory that counts on this machine.
    pub fn site(&self) -> PathBuf {
        self.state.join("site")
    }

    /// Its history, which people push to.
    pub fn repository(&self) -> PathBuf {
        self.state.join("site.git")
    }

    /// A directory for a site directory that is looked at, of this process's own.
    pub fn incoming(&self) -> PathBuf {
        self.run.join("incoming").join(std::process::id().to_string())
    }

    /// A node's profile, as it was published last.
    pub fn profile(&self, node: &NodeName) -> PathBuf {
        self.state.join("profiles").join(format!("{node}.xml"))
    }

    /// A node's configuration directory.
    pub fn conf(&self, node: &NodeName) -> PathBuf {
        self.vms.join(node.as_str()).join("conf")
    }

    /// A node's stores.
    pub fn stores(&self, node: &NodeName) -> PathBuf {
        self.vms.join(node.as_str()).join("fs")
    }

    /// A node's console log.
    pub fn console_log(&self, node: &NodeName) -> PathBuf {
        self.log.join(format!("console-{node}.log"))
    }

    /// What a node's last install has shown on its console. No node's name makes it another's console log.
    pub fn install_log(&self, node: &NodeName) -> PathBuf {
        self.log.join(format!("install-{node}.log"))
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }
}
