//! What belongs to the builder but is not in its binary: the agent, `overlays/` and `site-templates/`.

use std::path::{Path, PathBuf};

use gatehouse_model::Fault;

/// Where the builder's files are.
#[derive(Clone, Debug)]
pub struct Share {
    top: PathBuf,
    agent: PathBuf,
}

impl Share {
    /// Finds them: above the program in a source tree, or in `../share/gatehouse` where it is installed.
    ///
    /// # Errors
    /// They are not there.
    pub fn find(agent: Option<&Path>) -> Result<Self, Fault> {
        let exe = std::env::current_exe()?;
        let bin = exe.parent().unwrap_or(Path::new("/"));
        let installed = bin.join("../share/gatehouse");
        let candidates = std::iter::once(installed.as_path()).chain(bin.ancestors());
        let top = candidates
            .filter(|dir| dir.join("overlays/host").is_dir() && dir.join("site-templates").is_dir())
            .map(Path::to_owned)
            .next()
            .ok_or_else(|| {
                Fault::new("overlays/ and site-templates/ are neither beside nor above this program").help(
                    "run gatehouse from its source tree, or install it with its share/gatehouse directory",
                )
            })?;
        let agent = agent.map_or_else(|| bin.join("gatehouse-agent"), Path::to_owned);
        Ok(Self { top, agent })
    }

    /// The agent binary.
    ///
    /// # Errors
    /// It is not there.
    pub fn agent(&self) -> Result<&Path, Fault> {
        if self.agent.is_file() {
            return Ok(&self.agent);
        }
        Err(Fault::new(format!("there is no agent at {}", self.agent.display()))
            .help("build it with `cargo build --release`, or name it with --agent FILE"))
    }

    /// `overlays/`.
    pub fn overlays(&self) -> PathBuf {
        self.top.join("overlays")
    }

    /// `site-templates/`.
    pub fn templates(&self) -> PathBuf {
        self.top.join("site-templates")
    }
}
