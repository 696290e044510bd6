use std::io::{Seek as _, SeekFrom, Write as _};
use std::process::Command;

use gatehouse_model::site::VmmKind;
use proptest::prelude::*;

use super::*;
use crate::host::backup::manifest::{NodeBackup, Store, Wholeness};
use crate::host::backup::ranges;
use crate::host::backup::writer::Writer;
use crate::host::lifecycle::record::Record;

/// What was taken in: a copy of every store, and the files.
#[derive(Default)]
struct Taken {
    stores: Vec<File>,
    files: Vec<(String, u32, Vec<u8>)>,
    told: u64,
}

impl Take for Taken {
    fn manifest(&mut self, _: &Manifest) -> Result<(), Fault> {
        Ok(())
    }

    fn store(&mut self, _: &str) -> Result<Option<File>, Fault> {
        let file = tempfile::tempfile()?;
        self.stores.push(file.try_clone()?);
        Ok(Some(file))
    }

    fn file(&mut self, name: &str, mode: u32, bytes: &[u8]) -> Result<(), Fault> {
        self.files.push((name.to_owned(), mode, bytes.to_owned()));
        Ok(())
    }

    fn tell(&mut self, bytes: u64) -> Result<(), Fault> {
        self.told += bytes;
        Ok(())
    }
}

fn manifest(store: &File) -> Manifest {
    let (bytes, data) =
        (store.metadata().expect("there").len(), ranges::total(&ranges::of_file(store).expect("read")));
    Manifest {
        schema: SCHEMA,
        made: 1_767_225_600_000,
        agent: "0.1.0".into(),
        site: "minimal.example.org".into(),
        authority: Digest::of(b"authority"),
        of: Of::Node(NodeBackup {
            name: "ce".parse().expect("a name"),
            vmm: VmmKind::Uml,
            node: serde_json::Value::Null,
            mac: "02:00:5e:00:00:01".parse().expect("a mac"),
            record: Record {
                profile: "x".into(),
                root: "PARTUUID=1".into(),
                seconds: 1.5,
                phases: vec![],
                restored: None,
            },
            state: Wholeness::Off,
            stores: vec![Store { name: "disk0".into(), bytes, data }],
        }),
    }
}

fn backup(store: &File) -> Vec<u8> {
    let mut writer = Writer::begin(Vec::new(), &manifest(store)).expect("begun");
    let found = ranges::of_file(store).expect("read");
    writer.store("stores/disk0", store, &found, &mut |_| Ok(())).expect("written");
    writer.file("state/x", 0o640, b"text").expect("written");
    writer.finish().expect("ended").0
}

fn contents(mut file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).expect("sought");
    file.read_to_end(&mut bytes).expect("read");
    bytes
}

fn sparse_file(size: u64, pieces: &[(u64, usize, u8)]) -> File {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(size).expect("long");
    for (at, length, byte) in pieces {
        let at = at % size;
        let length = (*length).min(usize::try_from(size - at).expect("small"));
        file.write_all_at(&vec![*byte; length], at).expect("written");
    }
    file
}

proptest! {
    /// Any layout of data and holes, zeros that are written among it, comes back as it was; and no byte more was read.
    #[test]
    fn a_store_comes_back_as_it_was(
        size in 1_u64..600_000,
        pieces in prop::collection::vec((any::<u64>(), 1_usize..60_000, prop_oneof![Just(0_u8), any::<u8>()]), 0..8),
    ) {
        let store = sparse_file(size, &pieces);
        let bytes = backup(&store);
        let mut taken = Taken::default();
        let whole = read(&bytes[..], &mut taken).expect("whole");
        prop_assert_eq!(&whole.manifest, &manifest(&store));
        prop_assert_eq!(taken.told, whole.manifest.data() + 4);
        prop_assert!(contents(&taken.stores[0]) == contents(&store));
        prop_assert!(ranges::total(&ranges::of_file(&taken.stores[0]).expect("read")) <= whole.manifest.data());
    }
}

#[test]
fn files_keep_their_modes_and_what_is_damaged_is_none() {
    let store = sparse_file(1 << 20, &[(70_000, 5000, 7), (900_000, 40_000, 9)]);
    let bytes = backup(&store);
    let mut taken = Taken::default();
    read(&bytes[..], &mut taken).expect("whole");
    assert_eq!(taken.files, [("state/x".to_owned(), 0o640, b"text".to_vec())]);
    assert_eq!(read_head(&bytes[..]).expect("a manifest"), manifest(&store));
    for at in (0..bytes.len()).step_by(bytes.len() / 40) {
        let mut wrong = bytes.clone();
        wrong[at] ^= 0x10;
        let fault = read(&wrong[..], &mut Taken::default()).expect_err("damaged");
        assert!(matches!(fault.exit_status(), Exit::Mismatch | Exit::Problem), "{at}: {fault}");
        let fault = read(&bytes[..at], &mut Taken::default()).expect_err("cut off");
        assert_eq!(fault.exit_status(), Exit::Mismatch, "{at}: {fault}");
    }
}

#[test]
fn tar_unpacks_it_with_its_holes() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = sparse_file(8 << 20, &[(3 << 20, 10_000, 7), (5 << 20, 10, 9)]);
    let mut file = File::create(dir.path().join("x.tar.zst")).expect("made");
    file.write_all(&backup(&store)).expect("written");
    let ended = Command::new("tar")
        .args(["--zstd", "-xf", "x.tar.zst"])
        .current_dir(dir.path())
        .status()
        .expect("tar starts");
    assert!(ended.success());
    let unpacked = File::open(dir.path().join("stores/disk0")).expect("there");
    assert!(contents(&unpacked) == contents(&store));
    assert!(ranges::total(&ranges::of_file(&unpacked).expect("read")) < 1 << 20);
}
