//! One store backed up and restored, for `ci/bench backup`: what `gatectl node backup` and `restore` do with a store once
//! they have it.
//!
//! `backup write STORE FILE`, `backup read FILE STORE`

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use gatehouse_agent::host::backup::manifest::{Manifest, NodeBackup, Of, SCHEMA, Store, Wholeness};
use gatehouse_agent::host::backup::ranges;
use gatehouse_agent::host::backup::reader::{self, Take};
use gatehouse_agent::host::backup::writer::Writer;
use gatehouse_agent::host::lifecycle::record::Record;
use gatehouse_model::site::VmmKind;
use gatehouse_model::{Digest, Doing as _, Fault};

fn main() -> Result<(), Fault> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", store, file] => write(Path::new(store), Path::new(file)),
        ["read", file, store] => reader::read(File::open(file)?, &mut One(store.into()))
            .map(drop)
            .doing(|| format!("reading {file}")),
        _ => Err(Fault::new("write STORE FILE, or read FILE STORE")),
    }
}

fn write(store: &Path, to: &Path) -> Result<(), Fault> {
    let file = File::open(store)?;
    let found = ranges::of_file(&file)?;
    let (bytes, data) = (file.metadata()?.len(), ranges::total(&found));
    let node = NodeBackup {
        name: "bench".parse().map_err(Fault::new)?,
        vmm: VmmKind::Uml,
        node: serde_json::Value::Null,
        mac: "02:00:5e:00:00:01".parse().map_err(Fault::new)?,
        record: Record {
            profile: String::new(),
            root: String::new(),
            seconds: 0.0,
            phases: Vec::new(),
            restored: None,
        },
        state: Wholeness::Off,
        stores: vec![Store { name: "disk0".into(), bytes, data }],
    };
    let manifest = Manifest {
        schema: SCHEMA,
        made: 0,
        agent: String::new(),
        site: String::new(),
        authority: Digest::of(b""),
        of: Of::Node(node),
    };
    let mut writer = Writer::begin(File::create(to)?, &manifest)?;
    writer.store("stores/disk0", &file, &found, &mut |_| Ok(()))?;
    let (out, _) = writer.finish()?;
    Ok(out.sync_all()?)
}

struct One(PathBuf);

impl Take for One {
    fn manifest(&mut self, _: &Manifest) -> Result<(), Fault> {
        Ok(())
    }

    fn store(&mut self, _: &str) -> Result<Option<File>, Fault> {
        Ok(Some(OpenOptions::new().write(true).create(true).truncate(true).open(&self.0)?))
    }

    fn file(&mut self, _: &str, _: u32, _: &[u8]) -> Result<(), Fault> {
        Ok(())
    }

    fn tell(&mut self, _: u64) -> Result<(), Fault> {
        Ok(())
    }
}
