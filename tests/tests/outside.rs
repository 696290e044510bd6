//! The paper's second user interface: another machine on the segment, outside of the gateway, from which the same
//! commands are measured.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use gatehouse_tests::lan::{Lan, MAC, Machine, approve, is_possible, wait_for_state};
use gatehouse_tests::work::in_file;
use gatehouse_tests::{Try, open_to_all, site, try_uml};
use serde_json::Value;

const INSTALL: Duration = Duration::from_secs(1200);

/// The gateway with a node `ui2` on a machine of its own.
fn gateway_and_more(into: &Path) -> std::path::PathBuf {
    let dir = site("grid-gateway", into);
    let node = format!(
        "[[node]]\nname = \"ui2\"\nrole = \"user-interface\"\naddress = \"10.0.2.25\"\nmemory = \"2GiB\"\n\
         machine = {{ mac = \"{MAC}\" }}\n\n[grid]"
    );
    in_file(&dir.join("site.toml"), "[grid]", &node);
    let source = fs::read_to_string(dir.join("lcfg/source/ui")).expect("read");
    fs::write(dir.join("lcfg/source/ui2"), source).expect("written");
    dir
}

/// Evaluates on a node; the figures go to a file.
fn evaluate(trial: &Try, node: &str, to: &Path, more: &[&str]) -> Value {
    let runs = std::env::var("GATEHOUSE_RUNS").unwrap_or_else(|_| "3".to_owned());
    let mut words = vec!["evaluate", "--json", "--node", node, "--runs", &runs, "--slow-runs", "1"];
    words.extend(more);
    let ended = trial.gatectl(&words);
    assert_eq!(ended.code, 0, "{ended:?}");
    fs::write(to, &ended.stdout).expect("written");
    let found: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let tests = found["tests"].as_array().expect("a list");
    assert_eq!(tests.len(), 6, "{found}");
    for test in tests {
        assert_eq!(test["failed"], 0, "{test}");
        println!("{node}: {} {}", test["label"], test["mean"]);
    }
    found
}

#[test]
fn a_user_interface_outside_of_the_gateway_measures_the_same() {
    if !is_possible() {
        return;
    }
    let temp =
        tempfile::Builder::new().prefix("gatehouse-outside-").tempdir_in("/var/tmp").expect("a directory");
    open_to_all(temp.path());
    let (site, dir) = (gateway_and_more(temp.path()), temp.path().join("trial"));
    let mut trial = try_uml(&site, &dir, &[]);
    trial.wait_for("running; log in", INSTALL);

    File::create(temp.path().join("disk.img")).and_then(|disk| disk.set_len(8 << 30)).expect("made");
    let lan = Lan::of_trial(&dir);
    let mut machine = Machine::start(&lan, temp.path(), 1, false);
    approve(&trial, "ui2", &mut machine, &temp.path().join("console.log"));
    wait_for_state(&trial, "ui2", "running");
    let job = "globus-job-run ce.grid.example.org/jobmanager-pbs /bin/hostname";
    let seen = trial.ssh("ui2", &format!("runuser -l alice -c 'grid-proxy-init -q && {job}'"));
    assert_eq!(seen.stdout, "wn\n", "{seen:?}");

    let kept = std::env::var_os("GATEHOUSE_KEEP").map_or_else(|| temp.path().to_owned(), Into::into);
    let (inside, outside, chart) = (kept.join("ui.json"), kept.join("ui2.json"), kept.join("both.svg"));
    evaluate(&trial, "ui2", &outside, &[]);
    let beside = outside.display().to_string();
    evaluate(&trial, "ui", &inside, &["--beside", &beside, "--svg", &chart.display().to_string()]);
    let drawn = fs::read_to_string(&chart).expect("read");
    assert!(drawn.contains("light, below: on ui2"), "{drawn}");
    assert_eq!(drawn.matches("class=\"second\"").count(), 6, "{drawn}");
    drop(machine);
    assert_eq!(trial.interrupt().code, 0);
}
