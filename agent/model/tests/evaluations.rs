//! Evaluations, and the tables and pictures that are made of them. `BLESS=1` writes what was made.

use std::fs;
use std::path::Path;

use gatehouse_model::evaluation::{Beside, Evaluation, chart, table};

fn read(path: &Path) -> Option<Evaluation> {
    let text = fs::read_to_string(path).ok()?;
    Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

fn compare(path: &Path, made: &str) {
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, made).expect("written");
    }
    let wanted = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(made, wanted, "{} differs; BLESS=1 rewrites it", path.display());
}

#[test]
fn tables_and_pictures_are_as_they_were() {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/evaluations");
    let mut count = 0;
    for entry in fs::read_dir(&all).expect("a directory").flatten() {
        let found = read(&entry.path().join("evaluation.json")).expect("an evaluation");
        let [other, outside] = ["other.json", "outside.json"].map(|name| read(&entry.path().join(name)));
        let beside = Beside { vmm: other.as_ref(), node: outside.as_ref() };
        compare(&entry.path().join("table.txt"), &table(&found, beside));
        compare(&entry.path().join("chart.svg"), &chart(&found, beside));
        count += 1;
    }
    assert_eq!(count, 4);
}
