//! Whole sites compiled, and the profiles they give compared with what is on file.
//!
//! A case is a folder: `lcfg/`, perhaps `site.h`, and for each `source/<node>` an `expected.xml` or
//! `expected.problems`; where there are several nodes their names stand before: `<node>.xml`.
//! `BLESS=1` rewrites what is expected. `reference.xml`, where there is one, is a profile that
//! Edinburgh's own library reads, with the values that the sources must give.

use std::fs;
use std::path::{Path, PathBuf};

use gatehouse_lcfg::{Fleet, Profile, Published, Sources};
use gatehouse_model::Problem;
use proptest as _;
use quick_xml as _;
use regex_lite as _;
use serde as _;

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

/// The names of the expected files and what the case gives.
fn outcome(case: &Path) -> Vec<(String, String)> {
    let mut sources = Sources::new();
    read_all(&case.join("lcfg"), "", &mut sources);
    let nodes: Vec<String> =
        sources.iter().filter_map(|(path, _)| path.strip_prefix("source/")).map(str::to_owned).collect();
    let header = fs::read_to_string(case.join("site.h")).unwrap_or_default();
    let mut fleet = Fleet::new();
    fleet.set_sources(sources);
    fleet.set_nodes(nodes.iter().map(|node| (node.clone(), header.clone())));
    fleet.set_programs([("local".to_owned(), "0123".to_owned())].into());
    let round = fleet
        .compile(|_, compiled| Ok(Profile::new(compiled, compiled.wishes.to_vec(), published()).to_xml()));
    assert_eq!(round.len(), nodes.len());
    let told = |(node, made): (String, Result<String, Vec<Problem>>)| {
        let (ending, text) = match made {
            Ok(xml) => ("xml", xml),
            Err(problems) => {
                let lines: Vec<String> = problems.iter().map(|problem| format!("{problem}\n")).collect();
                ("problems", lines.concat())
            }
        };
        (format!("{}.{ending}", if nodes.len() == 1 { "expected" } else { &node }), text)
    };
    round.into_iter().map(told).collect()
}

#[test]
fn sites_give_what_is_on_file() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = Vec::new();
    for (case, (name, got)) in cases().into_iter().flat_map(|case| {
        let all = outcome(&case);
        all.into_iter().map(move |one| (case.clone(), one))
    }) {
        let file = case.join(&name);
        if bless {
            fs::write(&file, &got).unwrap();
        }
        if fs::read_to_string(&file).unwrap_or_default() != got {
            wrong.push(format!("{} differs; now it is:\n{got}", file.display()));
        }
        if got.starts_with("<?xml") {
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
        let ours = Profile::from_xml(&outcome(&case)[0].1).unwrap();
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

#[test]
fn the_reference_is_what_the_schemas_say() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference.md");
    let got = gatehouse_lcfg::reference();
    if std::env::var_os("BLESS").is_some() {
        fs::write(&file, &got).unwrap();
    }
    assert_eq!(
        fs::read_to_string(&file).unwrap_or_default(),
        got,
        "{} differs; BLESS=1 accepts it",
        file.display()
    );
}
