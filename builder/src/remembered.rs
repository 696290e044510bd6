//! What the nodes of a site offered each other when one of them was last compiled, kept in the cache: to show one node's
//! profile, the sources of all others need not be read again.

use std::fs;
use std::path::PathBuf;

use gatehouse_lcfg::{Fleet, Memory};
use gatehouse_model::{Digest, Fault};

use crate::cache::Cache;
use crate::cli;
use crate::site_dir::SiteDir;

/// The file of one site, and what it says.
#[derive(Debug)]
pub struct Remembered {
    path: PathBuf,
    memory: Option<Memory>,
}

impl Remembered {
    /// Reads it. A file that is missing or of another form is as good as an empty one.
    ///
    /// # Errors
    /// There is no cache.
    pub fn read(global: &cli::Global, dir: &SiteDir) -> Result<Self, Fault> {
        let site = Digest::of(dir.absolute()?.as_os_str().as_encoded_bytes());
        let path = Cache::open(global.cache.as_deref())?.remembered(&site);
        let memory = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Ok(Self { path, memory })
    }

    /// Tells the nodes what is still true.
    pub fn recall(&mut self, fleet: &mut Fleet) {
        if let Some(memory) = self.memory.take() {
            fleet.recall(memory);
        }
    }

    /// Keeps what had to be read anew. That it cannot be kept only costs time.
    pub fn keep(&self, fleet: &Fleet) {
        if !fleet.has_asked() {
            return;
        }
        let partial = self.path.with_extension(format!("{}.partial", std::process::id()));
        let text = serde_json::to_vec(&fleet.memory()).unwrap_or_default();
        if fs::write(&partial, text).and_then(|()| fs::rename(&partial, &self.path)).is_err() {
            let _ = fs::remove_file(&partial);
        }
    }
}
