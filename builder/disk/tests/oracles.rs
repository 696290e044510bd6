//! What other programs say of the tables and filesystems made here, and that they are the same every time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use gatehouse_disk::{
    CheckedTable, FatFile, FatLimits, FatSpec, FatTree, PartKind, Planned, layout, read_fat, replace_fat,
    write_fat, write_table,
};
use gatehouse_model::{Digest, Size};

/// Runs a tool on a file; `None`, and a line that says so, where it is not installed.
fn oracle(tool: &str, options: &[&str], file: &Path) -> Option<(bool, String)> {
    match Command::new(tool).args(options).arg(file).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{tool} is needed in CI: {error}");
            println!("skipped, because {tool} does not start: {error}");
            None
        }
    }
}

fn assert_fsck_is_silent(image: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(image).unwrap();
    let Some((good, text)) = oracle("fsck.vfat", &["-n"], file.path()) else { return };
    assert!(good, "{text}");
    // One line for its version and one with the numbers of files and clusters.
    assert_eq!(text.lines().count(), 2, "{text}");
}

fn spec(sector_size: u64) -> FatSpec {
    FatSpec { label: "GATEHOUSE".into(), volume_id: 0xdead_beef, epoch: 1_795_000_001, sector_size }
}

/// Files as a boot partition and a site have them; more in one directory than a cluster holds.
fn files() -> Vec<FatFile<'static>> {
    let mut files = vec![
        FatFile::bytes("EFI/BOOT/BOOTX64.EFI", vec![0x4d; 700_001]),
        FatFile::bytes("EFI/debian/a rather long name, with spaces.cfg", "set timeout=0\n"),
        FatFile::bytes("slots/a/vmlinuz-6.12.48+deb13-amd64", vec![1; 3 << 20]),
        FatFile::bytes("empty", ""),
        FatFile::bytes("größe/Übersicht.txt", "é"),
        FatFile::bytes("deep/er/and/deeper/still/x", "x"),
        FatFile::directory("report"),
    ];
    for number in 0..90_u8 {
        files.push(FatFile::bytes(format!("include/header-number-{number}.h"), vec![number; 600]));
        files.push(FatFile::bytes(format!("{number}-in-the-root-directory"), [number]));
    }
    files
}

fn fat(sector_size: u64, size: Size, files: Vec<FatFile<'_>>) -> Vec<u8> {
    let mut image = Cursor::new(vec![0; usize::try_from(size.as_bytes()).unwrap()]);
    write_fat(&mut image, &spec(sector_size), files).unwrap();
    image.into_inner()
}

#[test]
fn fsck_has_nothing_to_say() {
    for (sector_size, size) in [(512, 33), (512, 64), (512, 260), (512, 261), (4096, 257)] {
        assert_fsck_is_silent(&fat(sector_size, Size::mib(size), files()));
    }
    assert_fsck_is_silent(&fat(512, Size::mib(33), vec![]));
    let mut unlabelled = Cursor::new(vec![0; 33 << 20]);
    let spec = FatSpec { label: String::new(), ..spec(512) };
    write_fat(&mut unlabelled, &spec, files()).unwrap();
    assert_fsck_is_silent(unlabelled.get_ref());
}

#[test]
fn a_partition_too_small_is_refused() {
    for sector_size in [512, 4096] {
        let smallest = FatSpec::smallest(sector_size).as_bytes();
        let mut image = Cursor::new(vec![0; usize::try_from(smallest).unwrap() - 1]);
        let fault = write_fat(&mut image, &spec(sector_size), vec![]).unwrap_err().to_string();
        assert!(fault.starts_with("a FAT32 needs "), "{fault}");
    }
    let mut image = Cursor::new(vec![0; 33 << 20]);
    let fault = write_fat(&mut image, &spec(512), vec![FatFile::bytes("x", vec![1; 40 << 20])]).unwrap_err();
    assert_eq!(fault.to_string(), "writing x: No space left on device");
}

#[test]
fn the_same_files_give_the_same_bytes_whatever_was_there() {
    let image = fat(512, Size::mib(33), files());
    let digest = Digest::of(&image);
    let mut backwards = files();
    backwards.reverse();
    assert_eq!(Digest::of(&fat(512, Size::mib(33), backwards)), digest);

    let mut used = Cursor::new(vec![0xaa; 33 << 20]);
    write_fat(&mut used, &FatSpec { epoch: 1, ..spec(512) }, vec![FatFile::bytes("old", "old")]).unwrap();
    replace_fat(&mut used, spec(512).epoch, files()).unwrap();
    assert_eq!(Digest::of(used.get_ref()), digest);
}

#[test]
fn what_was_written_is_read() {
    let wanted = |file: FatFile<'_>| {
        let mut image = Cursor::new(vec![0; 33 << 20]);
        write_fat(&mut image, &spec(512), vec![file]).unwrap();
        read_fat(&mut image, FatLimits::default()).unwrap()
    };
    assert_eq!(wanted(FatFile::bytes("a/B.c", "text")), [("a/B.c".to_owned(), b"text".to_vec())]);
    assert_eq!(wanted(FatFile::directory("a/b")), []);
    let mut image = Cursor::new(fat(512, Size::mib(64), files()));
    let read = read_fat(&mut image, FatLimits::default()).unwrap();
    assert_eq!(read.len(), 186);
    assert!(read.contains(&("größe/Übersicht.txt".to_owned(), "é".as_bytes().to_vec())));
    let kernel = read.iter().find(|(path, _)| path.starts_with("slots/a/")).unwrap();
    assert_eq!(kernel.1, vec![1; 3 << 20]);
}

#[test]
fn strays_are_left_out_and_limits_hold() {
    let files = || {
        vec![
            FatFile::bytes("s/site.toml", "schema = 1\n"),
            FatFile::bytes("s/.DS_Store", "x"),
            FatFile::bytes("s/notes.txt~", "x"),
            FatFile::bytes("System Volume Information/IndexerVolumeGuid", "x"),
            FatFile::bytes("holiday.mp4", vec![0; 5000]),
            FatFile::bytes("a/b/c/d", "x"),
        ]
    };
    let image = fat(512, Size::mib(33), files());
    let limits = FatLimits { file_bytes: 4999, depth: 2, ..FatLimits::default() };
    let tree = FatTree::read(Cursor::new(&image), limits).unwrap();
    assert_eq!(tree.files.keys().collect::<Vec<_>>(), ["s/site.toml"]);
    let strays = tree.strays.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>();
    let all = ["a/b/c", "holiday.mp4", "s/.DS_Store", "s/notes.txt~", "System Volume Information"];
    assert_eq!(strays.len(), all.len());
    assert!(all.iter().all(|path| strays.contains(path)), "{strays:?}");

    for limits in [
        limits,
        FatLimits { entries: 9, ..FatLimits::default() },
        FatLimits { total_bytes: 5000, ..FatLimits::default() },
    ] {
        read_fat(Cursor::new(&image), limits).unwrap_err();
    }
    FatTree::read(Cursor::new(&image), FatLimits { entries: 5, ..limits }).unwrap_err();
    assert_eq!(read_fat(Cursor::new(&image), FatLimits::default()).unwrap().len(), files().len());
    for nothing in [vec![0; 33 << 20], vec![], vec![0xff; 1 << 20]] {
        let fault = read_fat(Cursor::new(nothing), FatLimits::default()).unwrap_err().to_string();
        assert!(fault.starts_with("reading the FAT filesystem: "), "{fault}");
    }
}

#[test]
fn a_large_file_is_read_back_and_its_time_printed() {
    let started = std::time::Instant::now();
    let mut file = tempfile::tempfile().unwrap();
    file.set_len(128 << 20).unwrap();
    let kernel = vec![0x5a; 60 << 20];
    write_fat(&mut file, &spec(512), vec![FatFile::bytes("vmlinuz", &kernel)]).unwrap();
    println!("writing a FAT with a file of 60 MiB took {:?}", started.elapsed());
    let limits = FatLimits { file_bytes: 60 << 20, ..FatLimits::default() };
    assert!(read_fat(&mut file, limits).unwrap() == [("vmlinuz".to_owned(), kernel)]);
}

fn planned(name: &str, kind: PartKind, number: u8, size: Size) -> Planned {
    let guid = Digest::of(&[number]).uuid();
    Planned { name: name.into(), kind, guid, size }
}

/// A whole image: table, boot partition and site partition, in a sparse file.
fn image(file: &mut File) {
    let parts = [
        planned("gh-bios", PartKind::BiosBoot, 1, Size::mib(1)),
        planned("gh-esp", PartKind::Esp, 2, Size::mib(64)),
        planned("gh-site", PartKind::BasicData, 3, Size::mib(33)),
        planned("gh-root-a", PartKind::LinuxData, 4, Size::bytes(1_000_000)),
    ];
    let (parts, bytes) = layout(&parts, 1, 512);
    file.set_len(bytes).unwrap();
    let table = CheckedTable::new(parts, Digest::of(b"disk").uuid(), bytes, 512).unwrap();
    for number in [2, 3] {
        let mut window = table.part(number).unwrap().window(&mut *file, 512);
        write_fat(&mut window, &spec(512), files()).unwrap();
    }
    write_table(&table, file).unwrap();
}

#[test]
fn sgdisk_finds_no_problem_and_two_images_are_one() {
    let mut digests = Vec::new();
    for _ in 0..2 {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        image(file.as_file_mut());
        let mut bytes = Vec::new();
        file.as_file_mut().seek(SeekFrom::Start(0)).unwrap();
        file.as_file_mut().read_to_end(&mut bytes).unwrap();
        digests.push(Digest::of(&bytes));
        let Some((good, text)) = oracle("sgdisk", &["-v"], file.path()) else { continue };
        assert!(good && text.contains("No problems found"), "{text}");
        let Some((_, text)) = oracle("sgdisk", &["-p"], file.path()) else { continue };
        for row in ["EF02  gh-bios", "EF00  gh-esp", "0700  gh-site", "8300  gh-root-a"] {
            assert!(text.contains(row), "{text}");
        }
    }
    assert_eq!(digests[0], digests[1]);
}
