//! apt as the solver: lists, cache and status of its own; the machine's apt state is neither read nor changed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use gatehouse_lcfg::publish;
use gatehouse_model::{Doing as _, Fault, LockedPackage, Site};

use super::Archives;
use nix::fcntl::{Flock, FlockArg};

use crate::cache::Cache;
use crate::tool;

/// Debian's own keys; apt checks the archive's signature with them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What apt takes over from the machine's configuration: how an archive is reached, and whether its dates count.
const MACHINE: [&str; 4] =
    ["Acquire::http", "Acquire::https", "Acquire::Check-Date", "Acquire::Check-Valid-Until"];

/// A solver with its indices loaded; several threads may ask it at the same time.
#[derive(Debug)]
pub struct Solver {
    /// Keeps other builders out of these directories; apt would not wait for them.
    _held: Flock<File>,
    /// What apt reads instead of the machine's configuration.
    conf: PathBuf,
    archives: Archives,
}

impl Solver {
    /// Makes the private directories and fetches the indices.
    ///
    /// # Errors
    /// apt cannot reach the archive or does not believe its signature.
    pub fn open(site: &Site, archives: &Archives, cache: &Cache) -> Result<Self, Fault> {
        let dir = cache.apt(&archives.digest());
        for part in ["etc/preferences.d", "etc/apt.conf.d", "lists/partial", "cache/archives/partial"] {
            let part = dir.join(part);
            fs::create_dir_all(&part).doing(|| format!("making {}", part.display()))?;
        }
        let write = |name: &str, text: &str| -> Result<PathBuf, Fault> {
            let path = dir.join(name);
            fs::write(&path, text).doing(|| format!("writing {}", path.display()))?;
            Ok(path)
        };
        let held =
            File::create(dir.join("lock")).doing(|| format!("opening {}", dir.join("lock").display()))?;
        let held = Flock::lock(held, FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .doing(|| format!("waiting for {}", dir.display()))?;
        let sources = write("gatehouse.sources", &sources(site, archives))?;
        let status = write("status", "")?;
        let args: Vec<&str> = std::iter::once("dump").chain(MACHINE).collect();
        let machine = tool::run("apt-config", &args)?;
        let conf = write("apt.conf", &(configuration(&dir, &sources, &status) + &machine))?;
        let solver = Self { _held: held, conf, archives: archives.clone() };
        solver.apt("apt-get", &["update"]).map_err(|fault| {
            fault.help("check that the mirror can be reached, or use --archive DIR with an exported archive")
        })?;
        Ok(solver)
    }

    /// The closure of some wishes, sorted by name.
    ///
    /// # Errors
    /// A wish that the archive does not have, or wishes that exclude each other: apt's own words.
    pub fn solve(&self, wishes: &[String], essential: bool) -> Result<Vec<LockedPackage>, Fault> {
        let mut args = vec!["install", "--print-uris", "-qq", "-y"];
        if essential {
            args.push("?essential");
        }
        let wishes = self.exact(wishes)?;
        args.extend(wishes.iter().map(String::as_str));
        let uris = self.apt("apt-get", &args)?;
        let chosen = uris.lines().filter(|l| l.starts_with('\'')).map(chosen).collect::<Option<Vec<_>>>();
        let chosen =
            chosen.ok_or_else(|| Fault::new("apt-get --print-uris printed a line of another form"))?;
        let show: Vec<String> = chosen.iter().map(|c| format!("{}={}", c.name, c.version)).collect();
        let mut args = vec!["show"];
        args.extend(show.iter().map(String::as_str));
        let records = index(&self.apt("apt-cache", &args)?);
        let mut packages = Vec::new();
        for choice in chosen {
            packages.push(self.locked(&choice, &records)?);
        }
        packages.sort();
        Ok(packages)
    }

    /// The wishes with exact versions where they ask for a pattern. One that nothing fits stays for apt to refuse.
    fn exact(&self, wishes: &[String]) -> Result<Vec<String>, Fault> {
        let asks = |wish: &&String| wish.contains('=');
        let names: Vec<&str> = wishes
            .iter()
            .filter(asks)
            .filter_map(|wish| wish.split_once('='))
            .map(|(name, _)| name)
            .collect();
        if names.is_empty() {
            return Ok(wishes.to_vec());
        }
        let known = self.apt("apt-cache", &[&["madison"], names.as_slice()].concat())?;
        let exact = |wish: &String| {
            let name = wish.split_once('=').map_or(wish.as_str(), |(name, _)| name);
            publish::exact_wish(wish, versions(&known, name)).unwrap_or_else(|| wish.clone())
        };
        Ok(wishes.iter().map(exact).collect())
    }

    fn locked(&self, choice: &Chosen, records: &Records) -> Result<LockedPackage, Fault> {
        let (archive, path) = ["security", "main"]
            .into_iter()
            .find_map(|archive| {
                let path = choice.uri.strip_prefix(self.archives.uri(archive)?)?.strip_prefix('/')?;
                Some((archive, path.to_owned()))
            })
            .ok_or_else(|| Fault::new(format!("{} is in no archive of this site", choice.uri)))?;
        let record =
            records.get(&path).ok_or_else(|| Fault::new(format!("apt knows no record of {path}")))?;
        let field = |name: &str| {
            record.get(name).cloned().ok_or_else(|| Fault::new(format!("the record of {path} has no {name}")))
        };
        let version = field("Version")?;
        let source = record.get("Source").cloned().unwrap_or_else(|| choice.name.clone());
        let (source, source_version) = match source.split_once(" (") {
            Some((name, version)) => (name.to_owned(), version.trim_end_matches(')').to_owned()),
            None => (source, version.clone()),
        };
        Ok(LockedPackage {
            name: field("Package")?,
            version,
            architecture: field("Architecture")?,
            size: field("Size")?.parse().doing(|| format!("reading the size of {path}"))?,
            sha256: field("SHA256")?.parse().map_err(Fault::new)?,
            archive: archive.to_owned(),
            path,
            source,
            source_version,
        })
    }

    fn apt(&self, program: &str, args: &[&str]) -> Result<String, Fault> {
        tool::run_with(program, args, ("APT_CONFIG", self.conf.as_os_str()))
    }
}

/// The versions of a package among lines `name | version | source` of `apt-cache madison`.
fn versions<'a>(known: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let name = name.split_once(':').map_or(name, |(name, _)| name);
    known.lines().filter_map(move |line| {
        let mut parts = line.split('|').map(str::trim);
        (parts.next()? == name).then(|| parts.next()).flatten()
    })
}

/// One line of `apt-get --print-uris`: `'URI' FILE SIZE HASH`.
struct Chosen {
    uri: String,
    name: String,
    version: String,
}

fn chosen(line: &str) -> Option<Chosen> {
    let mut words = line.split(' ');
    let uri = words.next()?.trim_matches('\'');
    let file = unescape(words.next()?);
    let mut parts = file.splitn(3, '_');
    Some(Chosen { uri: unescape(uri), name: parts.next()?.to_owned(), version: parts.next()?.to_owned() })
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        match after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if byte.is_ascii() => {
                out.push(char::from(byte));
                rest = &after[2..];
            }
            _ => {
                out.push('%');
                rest = after;
            }
        }
    }
    out + rest
}

/// apt's records by file name: the same version can stand in two archives with different bytes.
type Records = BTreeMap<String, BTreeMap<String, String>>;

fn index(text: &str) -> Records {
    const FIELDS: [&str; 7] = ["Package", "Version", "Architecture", "Size", "SHA256", "Source", "Filename"];
    let mut records = Records::new();
    for paragraph in gatehouse_deb::paragraphs(text) {
        let field = |name: &&str| Some(((*name).to_owned(), paragraph.get(name)?.trim().to_owned()));
        let record: BTreeMap<String, String> = FIELDS.iter().filter_map(field).collect();
        if let Some(path) = record.get("Filename").cloned() {
            records.insert(path, record);
        }
    }
    records
}

fn sources(site: &Site, archives: &Archives) -> String {
    let packages = &site.packages;
    let entry = |uri: &str, suites: &str| {
        format!(
            "Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: {}\nSigned-By: {KEYRING}\n\n",
            packages.components.join(" ")
        )
    };
    let name = &packages.suite;
    let mut text = entry(&archives.main, &format!("{name} {name}-updates"));
    if let Some(security) = &archives.security {
        text.push_str(&entry(security, &format!("{name}-security")));
    }
    text
}

/// Named by `APT_CONFIG`, it is read before the machine's own files, and says that there are none: those may have
/// other indices fetched, or the cache thrown away that makes each question three seconds shorter.
fn configuration(dir: &Path, sources: &Path, status: &Path) -> String {
    let (dir, sources, status) = (dir.display(), sources.display(), status.display());
    format!(
        "Dir::Etc \"{dir}/etc/\";\nDir::Etc::sourcelist \"{sources}\";\nDir::Etc::sourceparts \"/dev/null\";\n\
         Dir::Etc::main \"/dev/null\";\nDir::Etc::parts \"/dev/null\";\n\
         Dir::State \"{dir}/\";\nDir::State::lists \"{dir}/lists/\";\nDir::State::status \"{status}\";\n\
         Dir::Cache \"{dir}/cache/\";\nAPT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\n\
         APT::Install-Recommends \"false\";\nAPT::Update::Error-Mode \"any\";\nAPT::Sandbox::User \"\";\n\
         Acquire::Languages \"none\";\nAcquire::GzipIndexes \"false\";\nAcquire::Retries \"3\";\n\
         Acquire::http::Timeout \"20\";\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_versions_that_there_are() {
        let known = "      bash | 5.2.37-2+b5 | http://m/debian trixie/main amd64 Packages\n\
                     bash-doc | 1 | x\n      bash | 5.1-1 | y\n";
        assert_eq!(versions(known, "bash:amd64").collect::<Vec<_>>(), ["5.2.37-2+b5", "5.1-1"]);
    }

    #[test]
    fn reads_a_line_of_print_uris() {
        let line = "'http://m/debian/pool/main/o/o_1%2bb_amd64.deb' o_1%3a1.0+b_amd64.deb 602 MD5Sum:5d";
        let chosen = chosen(line).expect("of that form");
        assert_eq!(chosen.uri, "http://m/debian/pool/main/o/o_1+b_amd64.deb");
        assert_eq!((chosen.name.as_str(), chosen.version.as_str()), ("o", "1:1.0+b"));
        assert_eq!(unescape("50%"), "50%");
    }
}
