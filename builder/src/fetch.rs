//! Packages into the cache: in parallel, resumed where they broke off, believed only by their digest.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gatehouse_model::{Doing as _, Exit, Fault, LockedPackage};

use crate::cache::{Cache, digest_file, settle};
use crate::lock::Archives;
use crate::parallel::each;
use crate::term;

/// Connections at a time; more gain nothing from one mirror.
const PARALLEL: usize = 6;
/// How often a broken transfer is taken up again.
const TRIES: u32 = 4;

/// Makes sure that every package is in the cache with the right bytes.
///
/// # Errors
/// A package cannot be had, or the mirror has other bytes than the lock says (exit 5).
pub fn fetch(packages: &[&LockedPackage], archives: &Archives, cache: &Cache) -> Result<(), Fault> {
    let missing: Vec<_> = each(packages, PARALLEL, |package| Ok(!in_cache(package, cache)?))?
        .into_iter()
        .zip(packages)
        .filter_map(|(missing, package)| missing.then_some(*package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let bar = term::bar("fetching packages", term::Unit::Bytes, missing.iter().map(|p| p.size).sum());
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(30)))
        .build()
        .into();
    each(&missing, PARALLEL, |package| {
        fetch_one(package, archives, cache, &agent, &bar)
            .doing(|| format!("fetching {} {}", package.name, package.version))
    })?;
    bar.finish();
    Ok(())
}

/// Whether the cache has the package; wrong bytes are put aside and said.
fn in_cache(package: &LockedPackage, cache: &Cache) -> Result<bool, Fault> {
    let path = cache.deb(&package.sha256);
    if !path.exists() {
        return Ok(false);
    }
    let (digest, _) = digest_file(&path).doing(|| format!("reading {}", path.display()))?;
    if digest == package.sha256 {
        return Ok(true);
    }
    term::say(&format!("the cached {} {} is damaged; fetching it again", package.name, package.version));
    fs::remove_file(&path).doing(|| format!("removing {}", path.display()))?;
    Ok(false)
}

fn fetch_one(
    package: &LockedPackage,
    archives: &Archives,
    cache: &Cache,
    agent: &ureq::Agent,
    bar: &term::Bar,
) -> Result<(), Fault> {
    let archive = archives.uri(&package.archive).ok_or_else(|| {
        Fault::new(format!("the lock takes it from the {} archive, which is not known here", package.archive))
    })?;
    let uri = format!("{archive}/{}", package.path);
    let to = cache.deb(&package.sha256);
    let partial = to.with_extension("partial");
    let mut tries = 0;
    loop {
        match transfer(&uri, &partial, package.size, agent, bar) {
            Ok(()) => break,
            Err(fault) if tries + 1 == TRIES => {
                return Err(fault.help(
                    "check that the mirror can be reached, or run `gatehouse lock` if it no longer has this version",
                ));
            }
            Err(_) => tries += 1,
        }
        std::thread::sleep(Duration::from_millis(500 << tries));
    }
    let (digest, _) = digest_file(&partial).doing(|| format!("reading {}", partial.display()))?;
    if digest != package.sha256 {
        fs::remove_file(&partial).doing(|| format!("removing {}", partial.display()))?;
        let text = format!("{uri} has the digest {digest}, site.lock says {}", package.sha256);
        return Err(Fault::new(text).exit(Exit::Mismatch).help("do not trust this mirror; use another"));
    }
    settle(&partial, &to)
}

/// Brings the rest of a file, from where an earlier try broke off.
fn transfer(uri: &str, partial: &Path, size: u64, agent: &ureq::Agent, bar: &term::Bar) -> Result<(), Fault> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(partial)
        .doing(|| format!("opening {}", partial.display()))?;
    let mut have = file.seek(SeekFrom::End(0))?;
    if have > size {
        file.set_len(0)?;
        have = 0;
    }
    if have == size {
        return Ok(());
    }
    let mut body = open(uri, have, agent).doing(|| format!("asking for {uri}"))?;
    let mut buffer = vec![0; 256 << 10];
    while have < size {
        let count = body.read(&mut buffer).doing(|| format!("reading {uri}"))?;
        if count == 0 {
            return Err(Fault::new(format!("{uri} ended after {have} of {size} bytes")));
        }
        file.write_all(&buffer[..count]).doing(|| format!("writing {}", partial.display()))?;
        let count = u64::try_from(count).unwrap_or(0);
        have += count;
        bar.add(count);
    }
    Ok(())
}

fn open(uri: &str, from: u64, agent: &ureq::Agent) -> Result<Box<dyn Read>, Fault> {
    if let Some(path) = uri.strip_prefix("file://") {
        let mut file = File::open(PathBuf::from(path))?;
        file.seek(SeekFrom::Start(from))?;
        return Ok(Box::new(file));
    }
    let mut request = agent.get(uri);
    if from > 0 {
        request = request.header("Range", format!("bytes={from}-"));
    }
    let response = request.call()?;
    let partial = response.status().as_u16() == 206;
    let mut body: Box<dyn Read> = Box::new(response.into_body().into_reader());
    if from > 0 && !partial {
        io::copy(&mut body.by_ref().take(from), &mut io::sink())?;
    }
    Ok(body)
}
