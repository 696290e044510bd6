//! What a console has shown, in files: capped, and read back by lines.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use gatehouse_model::{Doing as _, Fault};

/// A log is moved aside at this size; with the one before it, a console takes twice that.
const CAP: u64 = 4 << 20;

/// A log that is moved to `.1` when it is full.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Log {
    /// Opens a log at its end.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).doing(|| format!("making {}", dir.display()))?;
        }
        let file = append(path).doing(|| format!("opening {}", path.display()))?;
        let length = file.metadata().doing(|| format!("reading {}", path.display()))?.len();
        Ok(Self { path: path.to_owned(), file, length })
    }

    /// Opens an empty log: what was in it is thrown away.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn anew(path: &Path) -> Result<Self, Fault> {
        for old in [path.to_owned(), aside(path)] {
            match fs::remove_file(&old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).doing(|| format!("removing {}", old.display()));
                }
                _ => {}
            }
        }
        Self::open(path)
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// The disk is full, most likely.
    pub fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.length >= CAP {
            fs::rename(&self.path, aside(&self.path))?;
            self.file = append(&self.path)?;
            self.length = 0;
        }
        self.length += u64::try_from(bytes.len()).unwrap_or(0);
        self.file.write_all(bytes)
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Where a full log is moved to.
pub fn aside(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// The files of a log as they are now, oldest first: what is written or moved later does not change what is read.
///
/// # Errors
/// They are there and cannot be opened.
pub fn snapshot(path: &Path) -> io::Result<Vec<io::Take<File>>> {
    let mut files = Vec::new();
    for path in [aside(path), path.to_owned()] {
        match File::open(&path) {
            Ok(file) => {
                let length = file.metadata()?.len();
                files.push(file.take(length));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

/// The last lines of these files, or all of them.
///
/// # Errors
/// They cannot be read.
pub fn last(files: Vec<io::Take<File>>, lines: Option<usize>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for mut file in files {
        file.read_to_end(&mut bytes)?;
    }
    if let Some(lines) = lines {
        let from = bytes.len() - last_lines(&bytes, lines).len();
        bytes.drain(..from);
    }
    Ok(bytes)
}

/// The last lines; one that has no end yet counts.
pub fn last_lines(bytes: &[u8], lines: usize) -> &[u8] {
    if lines == 0 {
        return &[];
    }
    let whole = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let begin = whole.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').nth(lines - 1);
    begin.map_or(bytes, |(at, _)| &bytes[at + 1..])
}

/// What was shown before, for a terminal of today: colours stay; what would move about, clear it, or have it answer
/// as if somebody had typed, is left out.
pub fn harmless(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        // The controls from U+0080 to U+009F: some terminals take them for an escape character and a letter.
        if first == 0xc2 && after.first().is_some_and(|second| (0x80..=0x9f).contains(second)) {
            rest = &after[1..];
            continue;
        }
        let escape = if first == 0x1b { sequence(after) } else { 0 };
        if first != 0x1b {
            if first >= b' ' || matches!(first, b'\n' | b'\r' | b'\t' | 0x08) {
                out.push(first);
            }
            rest = after;
            continue;
        }
        if after[..escape].starts_with(b"[") && after[..escape].ends_with(b"m") {
            out.push(first);
            out.extend_from_slice(&after[..escape]);
        }
        rest = &after[escape..];
    }
    out
}

/// How long an escape sequence is behind its escape character (ECMA-48: CSI ends in a byte from `@` to `~`; strings such
/// as OSC end in BEL or ESC \).
fn sequence(bytes: &[u8]) -> usize {
    let up_to = |end: Option<usize>| end.map_or(bytes.len(), |at| at + 1);
    match bytes.first() {
        None => 0,
        Some(b'[') => up_to(bytes.iter().skip(1).position(|b| (0x40..=0x7e).contains(b)).map(|at| at + 1)),
        Some(b']' | b'P' | b'X' | b'^' | b'_') => {
            let bell = bytes.iter().position(|byte| *byte == 0x07);
            let string = bytes.windows(2).position(|two| two == b"\x1b\\").map(|at| at + 1);
            up_to([bell, string].into_iter().flatten().min())
        }
        // Intermediate bytes, as in the choice of a character set, and a final one.
        Some(_) => up_to(bytes.iter().position(|byte| !(0x20..=0x2f).contains(byte))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_moved_aside_and_read_with_what_came_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("console-ce.log");
        let mut log = Log::open(&path).expect("opened");
        for _ in 0..5 {
            log.add(&vec![b'x'; 1 << 20]).expect("added");
        }
        log.add(b"\nlast\n").expect("added");
        assert_eq!(fs::metadata(&path).expect("there").len(), (1 << 20) + 6);
        assert_eq!(fs::metadata(aside(&path)).expect("there").len(), 4 << 20);
        let read = |lines| last(snapshot(&path).expect("opened"), lines).expect("read");
        assert_eq!(read(None).len(), (5 << 20) + 6);
        assert_eq!(read(Some(1)), b"last\n");
        drop(Log::anew(&path).expect("emptied"));
        assert_eq!(read(None), b"");
    }

    #[test]
    fn the_last_lines_are_found() {
        for (text, lines, found) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nlogin: ", 2, "b\nlogin: "),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\n", 0, ""),
            ("", 3, ""),
            ("\n\n\n", 1, "\n"),
        ] {
            assert_eq!(last_lines(text.as_bytes(), lines), found.as_bytes(), "{text:?} {lines}");
        }
    }

    #[test]
    fn a_terminal_is_not_upset_by_what_was_before() {
        for (shown, harmless_text) in [
            ("plain\r\n\tb\x08", "plain\r\n\tb\x08"),
            ("\x1b[0;32m OK \x1b[0m", "\x1b[0;32m OK \x1b[0m"),
            ("a\x1b[6nb\x1b[cc\x1b[2Jd\x1b[?1049he", "abcde"),
            ("a\x1b]11;?\x07b\x1b]0;title\x1b\\c\x1bP+q\x1b\\d", "abcd"),
            ("a\x1b(Bb\x1b7c\x07\x0e", "abc"),
            ("a\u{9b}2Jb\u{e9}\u{a0}c", "a2Jb\u{e9}\u{a0}c"),
            ("cut\x1b[", "cut"),
            ("cut\x1b", "cut"),
        ] {
            assert_eq!(harmless(shown.as_bytes()), harmless_text.as_bytes(), "{shown:?}");
        }
    }
}
