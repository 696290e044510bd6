//! Where packages come from: `packages.mirror`, or the Debian entries of the machine's own apt sources.

use std::fs;
use std::path::Path;

use gatehouse_model::{Digest, Doing as _, Fault, Site};

/// Addresses of the two archives, without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archives {
    /// The archive with the suite and its updates.
    pub main: String,
    /// The archive with the security updates; none where the mirror has no such sibling.
    pub security: Option<String>,
}

impl Archives {
    /// The archives of a site on this machine.
    ///
    /// # Errors
    /// The site names no mirror and the machine's apt sources have no Debian entry.
    pub fn of(site: &Site) -> Result<Self, Fault> {
        if let Some(mirror) = &site.packages.mirror {
            let main = mirror.trim_end_matches('/').to_owned();
            return Ok(Self { security: Some(format!("{main}-security")), main });
        }
        let uris = machine_uris(Path::new("/etc/apt"))?;
        Self::among(&uris).ok_or_else(|| {
            Fault::new("this machine's apt sources have no Debian archive")
                .help("write mirror = \"…\" under [packages] in site.toml")
        })
    }

    fn among(uris: &[String]) -> Option<Self> {
        let ending = |name: &str| uris.iter().find(|uri| uri.rsplit('/').next() == Some(name)).cloned();
        Some(Self { main: ending("debian")?, security: ending("debian-security") })
    }

    /// The address of an archive by the name that a lock gives it.
    pub fn uri(&self, archive: &str) -> Option<&str> {
        match archive {
            "main" => Some(&self.main),
            "security" => self.security.as_deref(),
            _ => None,
        }
    }

    /// A digest that names the solver's directories.
    pub fn digest(&self) -> Digest {
        Digest::of(format!("{self:?}").as_bytes())
    }
}

/// Every archive address in apt's sources, in file name order, without a slash at the end.
fn machine_uris(etc_apt: &Path) -> Result<Vec<String>, Fault> {
    let parts = etc_apt.join("sources.list.d");
    let mut files: Vec<_> = fs::read_dir(&parts).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.sort();
    files.insert(0, etc_apt.join("sources.list"));
    let mut uris = Vec::new();
    for path in files.iter().filter(|path| path.is_file()) {
        let text = fs::read_to_string(path).doing(|| format!("reading {}", path.display()))?;
        match path.extension().and_then(|e| e.to_str()) {
            Some("sources") => uris.extend(uris_of_sources(&text)),
            _ => uris.extend(uris_of_list(&text)),
        }
    }
    Ok(uris)
}

fn uris_of_sources(text: &str) -> Vec<String> {
    let clean: String =
        text.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
    let enabled = gatehouse_deb::paragraphs(&clean).filter(|p| p.get("Enabled").is_none_or(|v| v != "no"));
    let uris: Vec<String> = enabled.filter_map(|p| p.get("URIs").map(str::to_owned)).collect();
    uris.iter()
        .flat_map(|uris| uris.split_whitespace())
        .map(|uri| uri.trim_end_matches('/').to_owned())
        .collect()
}

fn uris_of_list(text: &str) -> Vec<String> {
    let entry = |line: &str| {
        let rest = line.trim().strip_prefix("deb ")?.trim();
        let rest = if rest.starts_with('[') { rest.split_once(']')?.1.trim() } else { rest };
        Some(rest.split_whitespace().next()?.trim_end_matches('/').to_owned())
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms_of_sources() {
        let sources = "Types: deb\n# old: http://x/debian\nURIs: http://m.example/debian/\nSuites: a b\n\n\
                       Types: deb\nEnabled: no\nURIs: http://off.example/debian\n\n\
                       URIs: http://m.example/debian-security\n";
        let uris = uris_of_sources(sources);
        assert_eq!(uris, ["http://m.example/debian", "http://m.example/debian-security"]);
        let list = "# deb http://a/debian x main\ndeb [arch=amd64 signed-by=/k] http://b/debian/ x main\n";
        assert_eq!(uris_of_list(list), ["http://b/debian"]);
        let archives = Archives::among(&uris).expect("both are there");
        assert_eq!(archives.uri("security"), Some("http://m.example/debian-security"));
    }
}
