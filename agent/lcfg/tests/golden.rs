//! Whole sites compiled, and the profiles they give compared with what is on file.
//!
//! A case is a folder: `lcfg/` with exactly one `source/<node>`, perhaps `site.h`, and `expected.xml` or
//! `expected.problems`. `BLESS=1` rewrites what is expected. `reference.xml`, where there is one, is a profile that
//! Edinburgh's own library reads, with the values that the sources must give.

use std::fs;
use std::path::{Path, PathBuf};

use gatehouse_lcfg::{Profile, Published, Sources, compile};
use gatehouse_model as _;
use proptest as _;
use quick_xml as _;

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the golden folder is readable")
        .map(|entry| entry.expect("the golden folder is readable").path())
        .collect();
    cases.sort();
    cases
}

fn read_all(folder: &Path, prefix: &str, sources: &mut Sources) {
    for entry in fs::read_dir(folder).expect("the golden folder is readable") {
        let entry = entry.expect("the golden folder is readable");
        let name = format!("{prefix}{}", entry.file_name().to_str().expect("the golden folder is readable"));
        if entry.file_type().expect("the golden folder is readable").is_dir() {
            read_all(&entry.path(), &format!("{name}/"), sources);
        } else {
            sources.insert(name, fs::read_to_string(entry.path()).expect("the golden folder is readable"));
        }
    }
}

fn published() -> Published {
    Published {
        by: "lcfg.grid.example.org".to_owned(),
        at: 1_773_325_329,
        version: "0.1.0".to_owned(),
        last_modified: 1_773_325_321,
        last_modified_file: "lcfg/source/node".to_owned(),
    }
}

/// The name of the expected file and what the case gives.
fn outcome(case: &Path) -> (&'static str, String) {
    let mut sources = Sources::new();
    read_all(&case.join("lcfg"), "", &mut sources);
    let nodes: Vec<&str> = sources.iter().filter_map(|(path, _)| path.strip_prefix("source/")).collect();
    let [node] = nodes[..] else { panic!("{} must have one source", case.display()) };
    let header = fs::read_to_string(case.join("site.h")).unwrap_or_default();
    match compile(&sources, node, &header) {
        Ok(compiled) => {
            let xml = Profile::new(&compiled, compiled.wishes.clone(), published()).to_xml();
            ("expected.xml", xml)
        }
        Err(problems) => {
            let lines: Vec<String> = problems.iter().map(|problem| format!("{problem}\n")).collect();
            ("expected.problems", lines.concat())
        }
    }
}

#[test]
fn sites_give_what_is_on_file() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = Vec::new();
    for case in cases() {
        let (name, got) = outcome(&case);
        let file = case.join(name);
        if bless {
            fs::write(&file, &got).unwrap();
        }
        if fs::read_to_string(&file).unwrap_or_default() != got {
            wrong.push(format!("{} differs; now it is:\n{got}", file.display()));
        }
        if name == "expected.xml" {
            let again = Profile::from_xml(&got).map(|profile| profile.to_xml());
            assert_eq!(again.as_deref(), Ok(got.as_str()), "{}: reading and writing again", case.display());
        }
    }
    assert!(wrong.is_empty(), "{}\nBLESS=1 accepts this", wrong.join("\n"));
}

#[test]
fn reference_profiles_have_the_values_of_the_sources() {
    let mut seen = 0;
    for case in cases() {
        let Ok(text) = fs::read_to_string(case.join("reference.xml")) else { continue };
        let reference = Profile::from_xml(&text).unwrap();
        let ours = Profile::from_xml(&outcome(&case).1).unwrap();
        for (name, component) in &reference.components {
            for resource in component.resources.keys() {
                let (want, got) = (reference.get(name, resource), ours.get(name, resource));
                assert_eq!(got, want, "{name}.{resource}");
            }
        }
        let specs = |profile: &Profile| -> Vec<String> {
            profile.packages.iter().map(|spec| format!("{spec:#}")).collect()
        };
        assert_eq!(specs(&ours), specs(&reference));
        seen += 1;
    }
    assert!(seen > 0);
}
