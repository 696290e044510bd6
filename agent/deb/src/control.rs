//! The control archive: the package's fields, its scripts and its lists.

use std::collections::BTreeMap;
use std::io::{self, Read};

use gatehouse_model::{Doing, Fault};

use crate::triggers::{self, Directive};
use crate::{Paragraph, paragraphs};

/// A file of the control archive other than `control` itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970 as the archive says.
    pub mtime: u64,
    /// The contents.
    pub data: Vec<u8>,
}

/// A line of `conffiles`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conffile {
    /// The absolute path.
    pub path: String,
    /// Whether the package no longer ships it and asks that it be removed.
    pub remove_on_upgrade: bool,
}

/// What a package says about itself.
#[derive(Clone, Debug)]
pub struct Control {
    fields: Paragraph,
    files: BTreeMap<String, ControlFile>,
}

impl Control {
    /// Reads an uncompressed control archive.
    pub fn read(reader: impl Read) -> Result<Self, Fault> {
        let mut archive = tar::Archive::new(reader);
        let mut files = BTreeMap::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = path.trim_start_matches("./").to_owned();
            if name.is_empty() || name.contains('/') || name.starts_with('.') {
                return Err(Fault::new(format!("{path:?} may not stand in a control archive")));
            }
            let (mode, mtime) = (entry.header().mode()? & 0o7777, entry.header().mtime()?);
            let mut data = Vec::new();
            entry.read_to_end(&mut data).doing(|| format!("reading {name}"))?;
            files.insert(name, ControlFile { mode, mtime, data });
        }
        // Checksums stand at the end of the compressed stream, behind the archive's last block.
        io::copy(&mut archive.into_inner(), &mut io::sink())?;
        let text = files.remove("control").ok_or_else(|| Fault::new("there is no control file"))?;
        let fields = paragraphs(&String::from_utf8_lossy(&text.data)).next().unwrap_or_default();
        let control = Self { fields, files };
        control.check()?;
        Ok(control)
    }

    /// Names become file names in dpkg's database, so only harmless ones pass.
    fn check(&self) -> Result<(), Fault> {
        let plain = |text: &str, extra: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
        };
        if !plain(self.name(), "+-._") {
            return Err(Fault::new(format!("{:?} is not a package name", self.name())));
        }
        if !plain(self.architecture(), "-") {
            return Err(Fault::new(format!("{:?} is not an architecture", self.architecture())));
        }
        if let Err(text) = self.version().parse::<crate::Version>() {
            return Err(Fault::new(text));
        }
        self.triggers().map(|_| ())
    }

    /// All fields in their order.
    pub fn fields(&self) -> &Paragraph {
        &self.fields
    }

    /// The field `Package`.
    pub fn name(&self) -> &str {
        self.fields.get("Package").unwrap_or_default()
    }

    /// The field `Version`.
    pub fn version(&self) -> &str {
        self.fields.get("Version").unwrap_or_default()
    }

    /// The field `Architecture`.
    pub fn architecture(&self) -> &str {
        self.fields.get("Architecture").unwrap_or_default()
    }

    /// Whether several architectures of this package can be installed together.
    pub fn is_multi_arch_same(&self) -> bool {
        self.fields.get("Multi-Arch") == Some("same")
    }

    /// The name as dpkg's database has it: with the architecture where the name alone is not enough.
    pub fn database_name(&self) -> String {
        let name = self.name();
        if self.is_multi_arch_same() { format!("{name}:{}", self.architecture()) } else { name.to_owned() }
    }

    /// The files of the control archive by name, without `control`.
    pub fn files(&self) -> &BTreeMap<String, ControlFile> {
        &self.files
    }

    /// A maintainer script: `preinst`, `postinst`, `prerm`, `postrm` or `config`.
    pub fn script(&self, name: &str) -> Option<&ControlFile> {
        self.files.get(name)
    }

    /// A list of the control archive as text.
    fn text(&self, name: &str) -> Option<String> {
        self.files.get(name).map(|file| String::from_utf8_lossy(&file.data).into_owned())
    }

    /// The lines of `conffiles` in order.
    pub fn conffiles(&self) -> Vec<Conffile> {
        let text = self.text("conffiles").unwrap_or_default();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines
            .map(|line| match line.split_once(' ') {
                Some(("remove-on-upgrade", path)) => {
                    Conffile { path: path.trim().to_owned(), remove_on_upgrade: true }
                }
                None | Some(_) => Conffile { path: line.to_owned(), remove_on_upgrade: false },
            })
            .collect()
    }

    /// The lines of `triggers` in order.
    pub fn triggers(&self) -> Result<Vec<Directive>, Fault> {
        triggers::parse(&self.text("triggers").unwrap_or_default())
            .doing(|| format!("reading the triggers of {}", self.name()))
    }

    /// Whether the package brings its own `md5sums`.
    pub fn has_md5sums(&self) -> bool {
        self.files.contains_key("md5sums")
    }
}

/// What a package with these fields says about itself, for tests.
#[cfg(test)]
pub(crate) fn control_of(fields: &str) -> Control {
    let mut builder = tar::Builder::new(Vec::new());
    let text = format!("Version: 1\nArchitecture: all\n{fields}\n");
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "./control", text.as_bytes()).expect("added");
    Control::read(builder.into_inner().expect("ended").as_slice()).expect("read")
}
