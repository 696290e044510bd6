//! Every input that the fuzz targets keep, tried once each: what they found stays found.

use std::fs;
use std::path::Path;

use gatehouse_model as _;
use proptest as _;
use quick_xml as _;
use regex_lite as _;
use serde as _;

#[path = "../fuzz/checks.rs"]
mod checks;

/// What a target does with its input.
type Check = fn(&[u8]);

#[test]
fn kept_inputs_end_well() {
    let targets: [(&str, Check); 6] = [
        ("preprocessor", checks::preprocessor),
        ("source", checks::source),
        ("spec", checks::spec),
        ("context", checks::context),
        ("schema", checks::schema),
        ("xml", checks::xml),
    ];
    for (name, check) in targets {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut seen = 0;
        for entry in fs::read_dir(folder).expect("there is a corpus") {
            check(&fs::read(entry.expect("an entry").path()).expect("readable"));
            seen += 1;
        }
        assert!(seen > 0, "{name} has no corpus");
    }
}
