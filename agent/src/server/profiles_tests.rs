//! Profiles as they follow the site directory: what a change reaches, what is kept, what is told.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use gatehouse_model::{Digest, NodeName, PackageId};

use super::fixture::{Place, sample_lock, sample_site};
use super::profiles::{Profiles, Refreshed};
use super::watch::Watch;

fn open(place: &Place) -> Profiles {
    Profiles::open(&sample_site(), &sample_lock(), &place.paths()).expect("readable")
}

fn node(name: &str) -> NodeName {
    name.parse().expect("a name")
}

fn names(done: &Refreshed) -> Vec<&str> {
    done.changed.iter().map(NodeName::as_str).collect()
}

fn refresh(profiles: &Profiles) -> Refreshed {
    profiles.refresh().expect("refreshed").expect("something has changed")
}

fn lcfg(place: &Place) -> PathBuf {
    place.paths().site().join("lcfg")
}

#[test]
fn a_change_compiles_only_what_it_reaches() {
    let place = Place::new();
    let profiles = open(&place);
    let mut news = profiles.subscribe();
    assert_eq!(names(&refresh(&profiles)), ["node1", "node2"]);
    assert_eq!(profiles.refresh().expect("refreshed"), None);
    let before = profiles.page(&node("node2")).expect("published");

    // A header that only node1 looks for, which is not there yet.
    fs::write(place.source("node1"), "#include <site/own.h>\n").expect("written");
    let broken = refresh(&profiles);
    assert_eq!((broken.compiled, broken.problems.len(), broken.changed.len()), (1, 1, 0));
    fs::create_dir_all(lcfg(&place).join("include/site")).expect("made");
    let header = "#include <gatehouse/site.h>\nprofile.domain SITE_DOMAIN\nprofile.components profile client\n\
                  profile.packages @site.pkgs\nprofile.comment own\n";
    fs::write(lcfg(&place).join("include/site/own.h"), header).expect("written");
    let done = refresh(&profiles);
    assert_eq!((done.compiled, names(&done)), (1, vec!["node1"]));
    assert!(profiles.problems(&node("node1")).is_empty());
    assert_eq!(profiles.page(&node("node2")).as_ref(), Some(&before));

    // A schema that only node1 uses.
    fs::create_dir_all(lcfg(&place).join("defaults")).expect("made");
    fs::write(lcfg(&place).join("defaults/local.def"), "@size %integer\nsize 1\n").expect("written");
    assert_eq!(profiles.refresh().expect("refreshed").map_or(0, |done| done.compiled), 0, "nobody uses it");
    assert_eq!(news.try_recv().expect("told").len(), 2);
    assert_eq!(news.try_recv().expect("told").len(), 1);
    assert!(news.try_recv().is_err());
}

#[test]
fn what_a_node_says_reaches_those_that_listen() {
    let place = Place::new();
    let listen = "profile.domain d\nprofile.components profile hosts\nprofile.packages @site.pkgs\n\
                  network.interfaces eth0\nnetwork.ipaddr_eth0 ";
    fs::write(place.source("node1"), format!("{listen}10.0.0.1\n")).expect("written");
    fs::write(place.source("node2"), format!("{listen}10.0.0.2\n")).expect("written");
    let profiles = open(&place);
    refresh(&profiles);
    assert!(profiles.page(&node("node1")).expect("published").xml().contains("10.0.0.2"));
    fs::write(place.source("node2"), format!("{listen}10.0.0.3\n")).expect("written");
    assert_eq!(names(&refresh(&profiles)), ["node1", "node2"]);
    assert!(profiles.page(&node("node1")).expect("published").xml().contains("10.0.0.3"));

    // A node that does not compile keeps what it said, over a restart too.
    fs::write(place.source("node2"), "broken\n").expect("written");
    assert!(names(&refresh(&profiles)).is_empty());
    drop(profiles);
    let profiles = open(&place);
    let done = refresh(&profiles);
    assert_eq!((names(&done), done.problems.len()), (vec![], 1));
    assert!(profiles.page(&node("node1")).expect("published").xml().contains("10.0.0.3"));
}

#[test]
fn kept_profiles_are_served_as_they_were_and_a_broken_one_is_not() {
    let place = Place::new();
    let profiles = open(&place);
    let written = refresh(&profiles).written;
    assert!(written > 0);
    let page = profiles.page(&node("node1")).expect("published");
    assert_eq!(open(&place).page(&node("node1")), Some(page.clone()));
    assert_eq!(page.xml().matches("<package ").count() + page.xml().matches("<package>").count(), 1);
    let packages = place.paths().state.join("profiles/packages");
    let section = fs::read_dir(packages).expect("there").next().expect("one").expect("an entry").path();
    fs::write(&section, "<packages></packages>").expect("written");
    assert_eq!(open(&place).page(&node("node1")), None, "not what its name says");
}

#[test]
fn a_component_is_named_by_digest_and_kept_while_a_profile_names_it() {
    let place = Place::new();
    let components = place.paths().site().join("components");
    fs::create_dir_all(&components).expect("made");
    fs::write(components.join("client"), "#!/bin/sh\n").expect("written");
    fs::write(components.join("other"), "not in any profile").expect("written");
    let profiles = open(&place);
    refresh(&profiles);
    let first = Digest::of(b"#!/bin/sh\n");
    assert_eq!(profiles.programs(&node("node1")), [first].into());
    assert_eq!(fs::read(profiles.program(&first)).expect("kept"), b"#!/bin/sh\n");
    assert!(!profiles.program(&Digest::of(b"not in any profile")).exists());
    assert_eq!(open(&place).programs(&node("node1")), [first].into(), "known after a restart");

    fs::write(components.join("client"), "#!/bin/sh\nexit\n").expect("written");
    assert_eq!(names(&refresh(&profiles)), ["node1", "node2"]);
    assert!(!profiles.program(&first).exists());
    fs::remove_file(components.join("client")).expect("removed");
    refresh(&profiles);
    assert!(profiles.programs(&node("node1")).is_empty());
}

#[test]
fn wishes_that_the_lock_does_not_have_are_solved() {
    let place = Place::new();
    fs::write(lcfg(&place).join("packages/site.pkgs"), "bash=*\nless=*\n").expect("written");
    let profiles = open(&place);
    let done = refresh(&profiles);
    assert_eq!(done.told().len(), 1, "{:?}", done.told());
    assert!(done.told()[0].what.ends_with("(and 1 more node)"), "{:?}", done.told());
    profiles.set_solver(std::sync::Arc::new(|wishes: &[String]| {
        let id = |name: &String| PackageId {
            name: name.clone(),
            version: "1".to_owned(),
            architecture: "all".to_owned(),
        };
        Ok(wishes.iter().map(id).collect())
    }));
    assert_eq!(names(&refresh(&profiles)), ["node1", "node2"]);
    assert!(profiles.page(&node("node1")).expect("published").xml().contains("<name>less</name>"));
}

#[test]
fn another_lock_or_site_changes_what_it_reaches() {
    let place = Place::new();
    let profiles = open(&place);
    refresh(&profiles);
    profiles.set_site(&sample_site(), &sample_lock());
    assert_eq!(profiles.refresh().expect("refreshed"), None);
    let mut lock = sample_lock();
    lock.sets[0].packages[0].version = "5.3-1".to_owned();
    profiles.set_site(&sample_site(), &lock);
    assert_eq!(names(&refresh(&profiles)), ["node1", "node2"]);
    let mut site = sample_site();
    site.nodes.remove(1);
    profiles.set_site(&site, &lock);
    assert_eq!(profiles.page(&node("node2")), None);
}

#[test]
fn the_kernel_tells_of_changes_as_editors_make_them() {
    let place = Place::new();
    let site = place.paths().site();
    let mut watch = Watch::new(&site).expect("a watch");
    let long = Duration::from_secs(20);
    let mut waits = |what: &str| watch.wait(long).expect(what).unwrap_or_else(|| panic!("{what}: not told"));
    fs::write(place.source("node1"), "a").expect("written");
    assert!(waits("a write").contains(&place.source("node1")));
    fs::write(lcfg(&place).join("source/.node1.swp"), "x").expect("written");
    fs::rename(lcfg(&place).join("source/.node1.swp"), place.source("node1")).expect("renamed");
    assert!(waits("a rename").contains(&place.source("node1")));
    fs::create_dir_all(lcfg(&place).join("include/deep/er")).expect("made");
    waits("directories");
    fs::write(lcfg(&place).join("include/deep/er/a.h"), "x").expect("written");
    waits("a file in a new directory");
    let (aside, new) = (site.with_file_name("aside"), site.with_file_name("new"));
    fs::create_dir_all(new.join("lcfg/source")).expect("made");
    fs::rename(&site, aside).expect("renamed");
    fs::rename(&new, &site).expect("renamed");
    waits("a whole site replaced");
    fs::write(place.source("node1"), "b").expect("written");
    waits("a write in the new one");
    fs::write(site.join("lcfg/source/node1~"), "x").expect("written");
    fs::write(site.with_file_name("journal"), "x").expect("written");
    assert_eq!(watch.wait(Duration::from_millis(300)).expect("quiet"), None, "not ours");
}
