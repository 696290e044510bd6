//! dpkg's database under `/var/lib/dpkg`: written for packages that were unpacked, and read.

use std::collections::BTreeSet;
use std::fs::{self, FileTimes, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gatehouse_model::{Doing, Fault};

use crate::claims::Claims;
use crate::place::Places;
use crate::status::{Installed, stanza};
use crate::triggers::{Directive, Interests, Pending};
use crate::{Unpacked, paragraphs};

/// Files that dpkg keeps among the names of triggers.
const NOT_NAMES: [&str; 3] = ["File", "Lock", "Unincorp"];

/// The packages of a root's status file, in its order; none where there is no such file.
pub fn read_status(root: &Path) -> Result<Vec<Installed>, Fault> {
    let text = read(&Admin::find(root)?.path.join("status"))?;
    paragraphs(&text).map(Installed::new).collect::<Result<_, _>>().doing(|| "reading dpkg's status")
}

/// The paths of a root that dpkg diverts or gives another owner or mode. Unpacking here heeds neither, so a root
/// with any that matter is for dpkg to fill.
pub fn redirects(root: &Path) -> Result<Vec<String>, Fault> {
    let admin = Admin::find(root)?;
    let diverted = read(&admin.path.join("diversions"))?;
    let overridden = read(&admin.path.join("statoverride"))?;
    // Three lines each: the path, where it goes, whose diversion it is.
    let diverted = diverted.lines().step_by(3).map(str::to_owned);
    let overridden = overridden.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).map(str::to_owned);
    Ok(diverted.chain(overridden).collect())
}

/// Every path that the packages of a root bring.
pub(crate) fn listed(root: &Path) -> Result<BTreeSet<String>, Fault> {
    let info = Admin::find(root)?.path.join("info");
    let mut paths = BTreeSet::new();
    for entry in fs::read_dir(&info).doing(|| format!("reading {}", info.display()))? {
        let path = entry.doing(|| format!("reading {}", info.display()))?.path();
        if path.extension().is_some_and(|suffix| suffix == "list") {
            paths.extend(read(&path)?.lines().map(str::to_owned));
        }
    }
    Ok(paths)
}

/// The packages whose `preinst` dpkg would have run before it unpacked them; running it is the caller's decision.
pub fn with_preinst(packages: &[Unpacked]) -> Vec<&Unpacked> {
    packages.iter().filter(|package| package.control.script("preinst").is_some()).collect()
}

/// Enters unpacked packages into dpkg's database, so that `dpkg --configure -a` goes on from there.
///
/// Files made here get `time`, seconds since 1970; those of the control archives keep their own.
/// A package that is on the root already is refused: upgrades are dpkg's.
pub fn write(root: &Path, packages: &[Unpacked], time: u64) -> Result<(), Fault> {
    let before = read_status(root)?;
    let all = merge(&before, packages)?;
    let admin = Admin::make(root)?;
    admin.directories()?;
    let listens = before.iter().filter(|package| package.hears_triggers());
    admin.triggers(packages, &listens.map(Installed::database_name).collect(), time)?;
    for package in packages {
        admin.info(package, time).doing(|| format!("entering {}", package.control.name()))?;
    }
    admin.put("info/format", b"1\n", 0o644, time)?;
    let text: String = all.iter().map(|package| package.fields.to_string() + "\n").collect();
    admin.put("status", text.as_bytes(), 0o644, time)
}

/// The stanzas of the status file to be.
fn merge(before: &[Installed], packages: &[Unpacked]) -> Result<Vec<Installed>, Fault> {
    let mut all: Vec<Installed> = Vec::with_capacity(before.len() + packages.len());
    let names: BTreeSet<String> = packages.iter().map(|package| package.control.database_name()).collect();
    for old in before {
        if !names.contains(&old.database_name()) {
            all.push(old.clone());
        } else if old.state != "not-installed" {
            return Err(Fault::new(format!("{} is {} on this root already", old.name, old.state))
                .help("start from an empty root, or let dpkg unpack it"));
        }
    }
    if names.len() != packages.len() {
        return Err(Fault::new("a package is given twice"));
    }
    for package in packages {
        all.push(Installed::new(stanza(&package.control))?);
    }
    all.sort_by(Installed::order);
    Ok(all)
}

/// The database's directory, found without leaving the root.
struct Admin {
    path: PathBuf,
}

impl Admin {
    const PATH: &str = "var/lib/dpkg";

    fn find(root: &Path) -> Result<Self, Fault> {
        let claims = Claims::new(root);
        let real = Places::looking(&claims).directory(Path::new(Self::PATH))?;
        Ok(Self { path: root.join(real) })
    }

    fn make(root: &Path) -> Result<Self, Fault> {
        let claims = Claims::new(root);
        let real = Places::new(&claims).directory(Path::new(Self::PATH))?;
        claims.finish()?;
        Ok(Self { path: root.join(real) })
    }

    fn directories(&self) -> Result<(), Fault> {
        for name in ["info", "triggers", "updates", "parts", "alternatives"] {
            let path = self.path.join(name);
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => {
                    made.and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
                        .doing(|| format!("making directory {}", path.display()))?;
                }
            }
            if !fs::symlink_metadata(&path)?.is_dir() {
                return Err(Fault::new(format!("{} is not a directory", path.display())));
            }
        }
        Ok(())
    }

    /// Writes a file whole under another name, then gives it its own.
    fn put(&self, name: &str, data: &[u8], mode: u32, time: u64) -> Result<(), Fault> {
        let path = self.path.join(name);
        let new = self.path.join(format!("{name}-new"));
        let write = || {
            let _ = fs::remove_file(&new);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(data)?;
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(time);
            file.set_times(FileTimes::new().set_modified(time).set_accessed(time))?;
            fs::rename(&new, &path)
        };
        write().doing(|| format!("writing {}", path.display()))
    }

    fn info(&self, package: &Unpacked, time: u64) -> Result<(), Fault> {
        let name = package.control.database_name();
        let list: String = package.files.iter().flat_map(|path| [path.as_str(), "\n"]).collect();
        self.put(&format!("info/{name}.list"), list.as_bytes(), 0o644, time)?;
        if let Some(sums) = &package.md5sums {
            self.put(&format!("info/{name}.md5sums"), sums.as_bytes(), 0o644, time)?;
        }
        for (suffix, file) in package.control.files() {
            // dpkg makes the list itself and ignores one that a package brings.
            if suffix != "list" {
                self.put(&format!("info/{name}.{suffix}"), &file.data, file.mode, file.mtime)?;
            }
        }
        Ok(())
    }

    /// Enters interests, and leaves a note of what wakes the packages that were there before.
    fn triggers(&self, packages: &[Unpacked], listens: &BTreeSet<String>, time: u64) -> Result<(), Fault> {
        let mut interests = self.interests()?;
        let mut pending = Pending::read(&read(&self.path.join("triggers/Unincorp"))?);
        for package in packages {
            let name = package.control.database_name();
            for path in &package.files {
                interests.touched(path, listens).iter().for_each(|hit| pending.add(hit, Some(&name)));
            }
            for directive in package.control.triggers()? {
                match directive {
                    Directive::Interest(trigger) => interests.add(&trigger, &name),
                    Directive::Activate(trigger) => {
                        let path_hits = interests.touched(&trigger.name, listens);
                        if !path_hits.is_empty() || interests.is_heard(&trigger.name, listens) {
                            pending.add(&trigger.name, trigger.wait.then_some(&name));
                        }
                    }
                }
            }
        }
        self.put("triggers/File", interests.files_text().as_bytes(), 0o644, time)?;
        for (name, text) in interests.names_text() {
            self.put(&format!("triggers/{name}"), text.as_bytes(), 0o644, time)?;
        }
        self.put("triggers/Unincorp", pending.text().as_bytes(), 0o644, time)
    }

    fn interests(&self) -> Result<Interests, Fault> {
        let mut interests = Interests::default();
        let folder = self.path.join("triggers");
        interests.read_files(&read(&folder.join("File"))?);
        for entry in fs::read_dir(&folder).doing(|| format!("reading {}", folder.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !NOT_NAMES.contains(&name.as_str()) && entry.file_type()?.is_file() {
                interests.read_name(&name, &read(&entry.path())?);
            }
        }
        Ok(interests)
    }
}

/// A file's text; nothing where there is no file.
fn read(path: &Path) -> Result<String, Fault> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        bytes => {
            Ok(String::from_utf8_lossy(&bytes.doing(|| format!("reading {}", path.display()))?).into_owned())
        }
    }
}
