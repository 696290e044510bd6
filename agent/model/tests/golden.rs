//! Wrong site files and what is said of them, and the header of a right one. `BLESS=1` writes what was said.

use std::fs;
use std::path::{Path, PathBuf};

use gatehouse_model::Site;
use gatehouse_model::site::{Header, SiteFile, json_schema};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn golden(path: &Path, said: &str) {
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, said).expect("writing a golden file");
    }
    let wanted = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(said, wanted, "{} differs; BLESS=1 rewrites it", path.display());
}

fn lines(text: &str) -> String {
    let problems = Site::parse(text).expect_err("a wrong site file was taken");
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n") + "\n"
}

#[test]
fn wrong_site_files_are_told_all_that_is_wrong() {
    let mut cases: Vec<PathBuf> =
        fs::read_dir(here("tests/golden-bad")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 8);
    for case in cases {
        let text = fs::read_to_string(case.join("site.toml")).unwrap();
        golden(&case.join("problems.txt"), &lines(&text));
    }
}

#[test]
fn ten_mistakes_are_ten_problems() {
    let text = fs::read_to_string(here("tests/golden-bad/ten-mistakes/site.toml")).unwrap();
    assert_eq!(Site::parse(&text).expect_err("wrong").len(), 10);
}

#[test]
fn headers_and_written_files_of_right_sites() {
    let mut cases: Vec<PathBuf> =
        fs::read_dir(here("tests/golden")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    for case in cases {
        let text = fs::read_to_string(case.join("site.toml")).unwrap();
        let site = Site::parse(&text).unwrap();
        for node in &site.nodes {
            golden(&case.join(format!("{}.h", node.name)), &Header::of(&site).for_node(node));
        }
        let written = SiteFile::parse(&text).unwrap().to_text();
        golden(&case.join("written.toml"), &written);
        assert_eq!(Site::parse(&written).as_ref(), Ok(&site));
    }
}

#[test]
fn the_templates_are_right() {
    for template in fs::read_dir(here("../../site-templates")).unwrap() {
        let path = template.unwrap().path().join("site.toml");
        let text = fs::read_to_string(&path).unwrap();
        let site = Site::parse(&text).unwrap_or_else(|all| panic!("{}: {all:?}", path.display()));
        let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
        assert_eq!(Site::parse(&windows), Ok(site));
    }
}

#[test]
fn the_schema_describes_every_key() {
    let schema: serde_json::Value = serde_json::from_str(&json_schema()).unwrap();
    let sections = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    for section in sections.filter(|section| section.get("properties").is_some()) {
        for (key, property) in section["properties"].as_object().unwrap() {
            assert!(
                property.get("description").is_some(),
                "{key} of {} has no description",
                section["description"]
            );
        }
    }
}

proptest::proptest! {
    /// Whatever is done to a file, it is either taken by both readers or every problem is told in order.
    #[test]
    fn damaged_files_are_told_in_order(cut in 0..2000_usize, len in 0..40_usize, put in "[a-z\"=\\[\\]{}\\n#0-9.]{0,6}") {
        let text = include_str!("golden/full/site.toml");
        let cut = cut.min(text.len());
        let end = (cut + len).min(text.len());
        let damaged = format!("{}{put}{}", &text[..cut], &text[end..]);
        match Site::parse(&damaged) {
            Ok(site) => {
                let written = SiteFile::parse(&damaged).expect("the strict reader took it").to_text();
                proptest::prop_assert_eq!(Site::parse(&written), Ok(site));
            }
            Err(problems) => {
                proptest::prop_assert!(problems.iter().all(|problem| problem.line > 0), "{:?}", problems);
                proptest::prop_assert!(problems.is_sorted_by_key(|problem| problem.line));
            }
        }
    }
}
