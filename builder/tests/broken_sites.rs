//! Broken site directories and all that `gatehouse check` says of them. Each case is the template `minimal` with the
//! files of its `site/` laid over it and without what its `without` names. `BLESS=1` writes what was said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Status of a wrong input (DESIGN, exit codes).
const PROBLEM: i32 = 2;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn lay_over(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a directory").map(|entry| entry.expect("an entry")) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            fs::create_dir_all(&to).expect("made");
            lay_over(&from, &to);
        } else {
            fs::copy(&from, &to).expect("copied");
        }
    }
}

fn site_of(case: &Path, dir: &Path) {
    fs::create_dir(dir).expect("made");
    lay_over(&here("../site-templates/minimal"), dir);
    for name in fs::read_to_string(case.join("without")).unwrap_or_default().lines() {
        let path = dir.join(name);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("removed");
    }
    if case.join("site").is_dir() {
        lay_over(&case.join("site"), dir);
    }
}

/// Status and words of `gatehouse check`.
fn check(case: &Path) -> (Option<i32>, String) {
    let temp = tempfile::tempdir().expect("a directory");
    site_of(case, &temp.path().join("site"));
    let gatehouse = env!("CARGO_BIN_EXE_gatehouse");
    let output = Command::new(gatehouse).args(["check", "site"]).current_dir(temp.path()).output();
    let output = output.expect("gatehouse starts");
    assert!(output.stdout.is_empty(), "{output:?}");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

#[test]
fn broken_sites_are_told_all_that_is_wrong() {
    let cases = fs::read_dir(here("tests/golden-bad")).expect("the cases");
    let mut cases: Vec<PathBuf> = cases.map(|entry| entry.expect("an entry").path()).collect();
    cases.sort();
    assert!(cases.len() >= 20);
    for case in cases {
        let (status, said) = check(&case);
        let golden = case.join("said");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&golden, &said).expect("written");
        }
        assert_eq!(status, Some(PROBLEM), "{}: {said}", case.display());
        let wanted = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(said, wanted, "{} differs; BLESS=1 rewrites it", golden.display());
    }
}

#[test]
fn ten_mistakes_are_ten_problems_each_with_its_line() {
    let (_, said) = check(&here("tests/golden-bad/ten-mistakes"));
    let problems: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(problems.len(), 10, "{said}");
    for problem in problems {
        let line = problem.split(':').nth(2).and_then(|number| number.parse::<u32>().ok());
        assert!(line.is_some_and(|line| line > 0), "{problem}");
    }
}
