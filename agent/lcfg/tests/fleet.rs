//! Nodes compiled together: what a change reaches, what nodes say to each other, what is remembered.

use std::collections::BTreeMap;

use gatehouse_lcfg::{Fleet, told_once};
use gatehouse_model as _;
use proptest as _;
use quick_xml as _;
use regex_lite as _;
use serde as _;

const MAP: &str = "@say %publish: talk\nsay\n@heard %subscribe: talk say_$\nheard\n@say_$ %string\nsay_$\n";

fn fleet(files: &[(&str, &str)]) -> Fleet {
    let mut fleet = Fleet::new();
    for (path, text) in files {
        fleet.change(path, Some(text));
    }
    let nodes = files.iter().filter_map(|(path, _)| path.strip_prefix("source/"));
    fleet.set_nodes(nodes.map(|node| (node.to_owned(), "#define SITE 1\n".to_owned())));
    fleet
}

/// The nodes that are compiled now, each with what it heard, or `!` if it failed.
fn round(fleet: &mut Fleet) -> Vec<String> {
    let heard = |compiled: &gatehouse_lcfg::Compiled| {
        let Some(own) = compiled.components.get("t") else { return String::new() };
        let value = |name: &str| own.resources.get(name).map(|found| found.value.clone()).unwrap_or_default();
        let tags = value("heard");
        let told = |tag| format!(" {tag}:{}", value(&format!("say_{tag}")));
        tags.split_whitespace().map(told).collect::<Vec<_>>().concat()
    };
    let done = fleet.compile(|_, compiled| Ok(heard(compiled)));
    done.into_iter()
        .map(|(node, made)| made.map_or(format!("{node}!"), |heard| format!("{node}{heard}")))
        .collect()
}

#[test]
fn a_change_reaches_those_that_looked_at_it() {
    let mut fleet = fleet(&[
        ("source/a", "#include <own.h>\nprofile.packages @one.pkgs\n"),
        ("source/b", "profile.packages @two.pkgs\nprofile.components profile tool\ntool.x 1\n"),
        ("include/own.h", "local.x 1\n"),
        ("packages/one.pkgs", "#include \"more.pkgs\"\n"),
        ("packages/more.pkgs", "a=1\n"),
        ("packages/two.pkgs", "b=1\n"),
    ]);
    assert_eq!(round(&mut fleet), ["a", "b"]);
    assert!(!fleet.is_stale());
    assert!(round(&mut fleet).is_empty());
    let mut after = |path: &str, text: Option<&str>| {
        fleet.change(path, text);
        round(&mut fleet)
    };
    assert_eq!(after("include/own.h", Some("local.x 2\n")), ["a"]);
    assert!(after("include/own.h", Some("local.x 2\n")).is_empty(), "the same text");
    assert_eq!(after("packages/more.pkgs", Some("a=2\n")), ["a"]);
    assert_eq!(after("packages/two.pkgs", None), ["b!"]);
    assert_eq!(after("packages/two.pkgs", Some("b=2\n")), ["b"]);
    assert!(after("include/unknown.h", Some("x")).is_empty());
    assert_eq!(after("source/b", None), ["b!"]);
    assert_eq!(after("source/b", Some("#include <later.h>\ntool.x 1\n")), ["b!"]);
    assert_eq!(after("include/later.h", Some("profile.components tool\n")), ["b"]);
    assert_eq!(after("defaults/local.def", Some("@x %integer\nx\n")), ["a"]);
    assert_eq!(after("defaults/local.def", Some("@x %boolean\nx\n")), ["a!"]);
    assert_eq!(after("defaults/local.def", None), ["a"]);
    assert_eq!(after("defaults/tool.def", Some("#include \"part\"\n")), ["b!"]);
    assert_eq!(after("defaults/part", Some("@x %string\n")), ["b"]);
}

#[test]
fn programs_and_headers_reach_those_that_use_them() {
    let mut fleet =
        fleet(&[("source/a", "profile.components tool\ntool.x 1\n"), ("source/b", "local.x SITE\n")]);
    round(&mut fleet);
    fleet.set_programs([("tool".to_owned(), "0".to_owned())].into());
    assert_eq!(round(&mut fleet), ["a"]);
    fleet.set_programs([("other".to_owned(), "0".to_owned())].into());
    assert_eq!(round(&mut fleet), ["a"]);
    let header = |node: &str, text: &str| (node.to_owned(), text.to_owned());
    fleet.set_nodes([header("a", "#define SITE 1\n"), header("b", "#define SITE 2\n")]);
    assert_eq!(round(&mut fleet), ["b"]);
    fleet.renew();
    assert_eq!(round(&mut fleet).len(), 2);
}

#[test]
fn nodes_hear_each_other() {
    let mut fleet = fleet(&[
        ("defaults/t.def", MAP),
        ("source/a-1", "profile.components t\nt.say one\n"),
        ("source/b", "profile.components t\n"),
        ("source/deaf", "t.say three\n"),
    ]);
    assert_eq!(
        round(&mut fleet),
        ["a-1 a_1:one deaf:three", "b a_1:one deaf:three", "deaf a_1:one deaf:three"]
    );
    fleet.change("source/a-1", Some("profile.components t\nt.say uno\n"));
    assert_eq!(round(&mut fleet).len(), 3);
    fleet.change("source/a-1", Some("profile.components t\nt.say uno\nlocal.x 1\n"));
    assert_eq!(round(&mut fleet), ["a-1 a_1:uno deaf:three"], "the others hear the same");

    // Wrong at once, and wrong only when packages are looked at: what it said before counts, for itself too.
    fleet.change("source/a-1", Some("broken\nt.say dos\n"));
    assert_eq!(round(&mut fleet), ["a-1!"]);
    fleet.change("source/a-1", Some("t.say dos\nprofile.packages @none.pkgs\n"));
    let done = round(&mut fleet);
    assert!(done.iter().all(|node| node == "a-1!" || node.contains("a_1:uno")), "{done:?}");
    fleet.change("packages/none.pkgs", Some("a=1\n"));
    assert_eq!(round(&mut fleet).last().map(String::as_str), Some("deaf a_1:dos deaf:three"));

    let one = |node: &str| (node.to_owned(), "#define SITE 1\n".to_owned());
    fleet.set_nodes([one("b"), one("deaf")]);
    assert_eq!(round(&mut fleet), ["b deaf:three", "deaf deaf:three"]);
}

#[test]
fn what_was_said_before_a_restart_counts_until_the_node_compiles() {
    let files = [("defaults/t.def", MAP), ("source/a", "broken\n"), ("source/b", "profile.components t\n")];
    let mut fleet = fleet(&files);
    let offered = BTreeMap::from([("say".to_owned(), "old".to_owned())]);
    fleet.set_offers("a", [("talk".to_owned(), offered.into())].into());
    assert_eq!(round(&mut fleet), ["a!", "b a:old"]);
    fleet.change("source/a", Some("t.say new\n"));
    assert_eq!(round(&mut fleet), ["a a:new", "b a:new"]);
}

#[test]
fn one_node_is_compiled_with_what_others_offer() {
    let files =
        [("defaults/t.def", MAP), ("source/a", "t.say one\n"), ("source/b", "profile.components t\n")];
    let heard = |fleet: &mut Fleet| {
        let (compiled, _) = fleet.compile_one("b", None).expect("it compiles");
        compiled.components["t"].resources["say_a"].value.clone()
    };
    let mut first = fleet(&files);
    assert_eq!(heard(&mut first), "one");
    assert!(first.has_asked());
    let mut second = fleet(&files);
    second.recall(first.memory());
    assert_eq!(heard(&mut second), "one");
    assert!(!second.has_asked(), "all was remembered");
    let mut third = fleet(&files);
    third.change("source/a", Some("t.say two\n"));
    third.recall(first.memory());
    assert_eq!(heard(&mut third), "two");
    assert!(third.has_asked());
    assert_eq!(round(&mut third), ["a a:two", "b a:two"], "remembering leaves nothing out");
}

#[test]
fn a_problem_of_many_nodes_is_told_once() {
    let mut fleet = fleet(&[
        ("source/a", "#include <h.h>\n"),
        ("source/b", "\n#include <h.h>\n"),
        ("source/c", "#include <h.h>\nalone\n"),
        ("include/h.h", "grub.timeout x\n"),
    ]);
    let done = fleet.compile(|_, _| Ok(()));
    let problems: Vec<_> =
        done.iter().filter_map(|(node, made)| Some((node.as_str(), made.as_ref().err()?))).collect();
    let told = told_once(problems.iter().map(|(node, problems)| (*node, problems.as_slice())));
    let told: Vec<String> = told.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "lcfg/include/h.h:1: grub.timeout: \"x\" is not an integer; write digits, perhaps after a minus sign \
             (included from lcfg/source/a:1) (and 2 more nodes)",
            "lcfg/source/c:2: \"alone\" is not a resource; write component.resource and a value"
        ]
    );
}
