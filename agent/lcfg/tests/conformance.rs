//! The reader and writer against what Edinburgh's lcfg-core 1.54.7 was seen to accept and refuse, and the round trip.

use std::collections::BTreeMap;

use gatehouse_lcfg::{Component, Contexts, Kind, PackageSpec, Profile, Published, Resource};
use gatehouse_model as _;
use proptest::prelude::*;
use quick_xml as _;
use regex_lite as _;
use serde as _;

fn document(components: &str, packages: &str) -> String {
    format!(
        "<profile xmlns=\"http://www.lcfg.org/namespace/profile-1.1\" \
         xmlns:cfg=\"http://www.lcfg.org/namespace/cfg-1.0\">\n<lcfg><published_by>s</published_by>\
         <components>{components}</components><packages>{packages}</packages></lcfg></profile>"
    )
}

/// Reads one component `c` with this inside.
fn component(inside: &str) -> Result<Profile, String> {
    read(&document(&format!("<c>{inside}</c>"), ""))
}

fn packages(inside: &str) -> Result<Profile, String> {
    read(&document("", inside))
}

fn read(text: &str) -> Result<Profile, String> {
    Profile::from_xml(text).map_err(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

#[track_caller]
fn refused(got: Result<Profile, String>, because: &str) {
    let what = got.expect_err("must be refused");
    assert!(what.starts_with("profile.xml:") && what.contains(because), "{what}");
}

#[test]
fn the_envelope() {
    refused(read("<lcfg><components></components><packages></packages></lcfg>"), "not <profile>");
    refused(
        read("<profile><lcfg><packages/><components/></lcfg></profile>"),
        "<packages> is before <components>",
    );
    refused(read("<profile><lcfg><components></components></lcfg></profile>"), "there is no <packages>");
    refused(
        read("<profile><lcfg><x><y/></x><components/><packages/></lcfg></profile>"),
        "must hold text only",
    );
    refused(read("<p:profile><lcfg><components/><packages/></lcfg></p:profile>"), "not <profile>");
    let late = "<!DOCTYPE profile><profile><lcfg><new>x</new><components/><packages/>\
                <last_modified>07/10/13 11:45:10</last_modified><published_at>x</published_at></lcfg></profile>";
    refused(read(late), "\"x\" is not a date");
    let good = read(&late.replace("<published_at>x</published_at>", "")).unwrap();
    assert_eq!(good.published.last_modified, 1_381_146_310);
}

#[test]
fn comments_are_fatal_inside_a_component_only() {
    refused(component("<!-- c --><r>1</r>"), "Unexpected element '#comment'");
    refused(component("<r>1<!-- c --></r>"), "Unexpected element '#comment'");
    refused(component("<?pi x?><r>1</r>"), "Unexpected element '#comment'");
    let between = document("<!-- c --><a><r>1</r></a><!-- c --><b></b>", "<!-- c -->");
    assert_eq!(read(&between).unwrap().get("a", "r"), Some("1"));
}

#[test]
fn values_and_types() {
    let got = component("<r></r><s/>").unwrap();
    assert_eq!((got.get("c", "r"), got.get("c", "s")), (Some(""), None));
    let got = component("<a cfg:type=\"boolean\">on</a><b cfg:type=\"boolean\">false</b>").unwrap();
    assert_eq!((got.get("c", "a"), got.get("c", "b")), (Some("yes"), Some("")));
    refused(component("<r cfg:type=\"integer\">12x</r>"), "\"12x\" is not an integer");
    refused(component("<r cfg:type=\"nonsense\">1</r>"), "is not a type");
    let got = component("<r cfg:type=\"string(a comment)\"> a&#10;b&lt;c <![CDATA[<&]]></r>").unwrap();
    assert_eq!(got.get("c", "r"), Some(" a\nb<c <&"));
    refused(component("<r><x>1</x></r>"), "unexpected element <x>");
    assert_eq!(component("<l cfg:type=\"list: a_$\">x y</l>").unwrap().get("c", "l"), Some(""));
}

#[test]
fn lists() {
    let record = |name: &str| format!("<l cfg:template=\"\"><l_RECORD cfg:name=\"{name}\"></l_RECORD></l>");
    refused(component(&record("a-b")), "is not a tag");
    for (name, tag) in [("_1", "1"), ("__y", "_y"), ("_", "_"), ("x", "x")] {
        assert_eq!(component(&record(name)).unwrap().tags("c", "l"), [tag]);
    }
    refused(
        component("<l cfg:template=\"s_$\"><l_RECORD cfg:name=\"x\"><t>1</t></l_RECORD></l>"),
        "<t> is not a field",
    );
    let deep = "<l cfg:template=\"m_$\"><l_RECORD cfg:name=\"x\"><m cfg:template=\"b_$_$ size_$\">\
                <m_RECORD cfg:name=\"y\"><b>1</b><size>2</size></m_RECORD></m></l_RECORD></l>";
    let got = component(deep).unwrap();
    assert_eq!(
        (got.get("c", "m_x"), got.get("c", "b_x_y"), got.get("c", "size_y")),
        (Some("y"), Some("1"), Some("2"))
    );
    refused(component("<l cfg:template=\"\"><l_RECORD cfg:name=\"x\"/></l>"), "closes itself");
    refused(component("<l cfg:template=\"\"><l_RECORD></l_RECORD></l>"), "has no cfg:name");
    refused(component("<l cfg:template=\"\"><l_RECORD c:name=\"x\"></l_RECORD></l>"), "has no cfg:name");
    refused(component("<l c:template=\"\"><l_RECORD cfg:name=\"x\"></l_RECORD></l>"), "unexpected element");
    refused(
        component("<l cfg:template=\"b_$_$\"><l_RECORD cfg:name=\"x\"><b>1</b></l_RECORD></l>"),
        "more tags",
    );
    refused(
        component(
            "<l cfg:template=\"l_$\"><l_RECORD cfg:name=\"x\"><l cfg:template=\"l_$\"><l_RECORD \
                       cfg:name=\"x\"><l cfg:template=\"\"></l></l_RECORD></l></l_RECORD></l>",
        ),
        "nested in itself",
    );
    let compact =
        component("<l cfg:template=\"s_$\"><s cfg:name=\"x\">1</s><s cfg:name=\"y\">2</s></l>").unwrap();
    assert_eq!(
        (compact.get("c", "l"), compact.get("c", "s_x"), compact.get("c", "s_y")),
        (Some("x y"), Some("1"), Some("2"))
    );
}

#[test]
fn variants() {
    refused(component("<r>1</r><r>2</r>"), "r is here twice");
    assert!(component("<r>1</r><r>1</r>").is_ok());
    let got = component("<r>1</r><r cfg:context=\"install\">2</r>").unwrap();
    assert_eq!(got.get("c", "r"), Some("1"));
    let got = component("<r>1</r><r cfg:context=\"!install\">2</r><s cfg:context=\"install\">3</s>").unwrap();
    assert_eq!((got.get("c", "r"), got.get("c", "s")), (Some("2"), None));
    refused(component("<r cfg:context=\"a=\">1</r>"), "is not a context");
    refused(component("<r cfg:context=\"install\">1</r><r cfg:context=\"install\">2</r>"), "r is here twice");
    refused(
        component("<r cfg:context=\"!a\">1</r><r cfg:context=\"!b\">2</r>"),
        "make their contexts exclude each other",
    );
}

#[test]
fn a_profile_in_contexts_has_what_holds_there() {
    let text = document(
        "<c><r>1</r><r cfg:context=\"install\">2</r><r cfg:context=\"net=home\">3</r><s cfg:context=\"install\">4</s></c>",
        "<package><name>a</name><v>1</v></package><package cfg:context=\"install\"><name>a</name><v>2</v></package>\
         <package cfg:context=\"!install\"><name>b</name><v>1</v></package>",
    );
    let profile = read(&text).unwrap();
    let seen = |contexts: &str| {
        let there = profile.in_contexts(&Contexts::parse(contexts).unwrap()).unwrap();
        let packages: Vec<String> = there.packages.iter().map(ToString::to_string).collect();
        let value = |name| there.get("c", name).unwrap_or("-").to_owned();
        format!("{} {} {}", value("r"), value("s"), packages.join(" "))
    };
    assert_eq!(seen(""), "1 - a=1 b=1");
    assert_eq!(seen("install=yes"), "2 4 a=2");
    assert_eq!(seen("install=yes\nnet=home"), "3 4 a=2");
    assert_eq!(seen("net=home"), "3 - a=1 b=1");
    let clash = read(&text.replace("net=home", "net")).unwrap();
    let both = Contexts::parse("net=yes").unwrap();
    assert!(clash.in_contexts(&both).is_ok());
    let clash =
        read(&document("<c><r cfg:context=\"a\">1</r><r cfg:context=\"b | a\">2</r></c>", "")).unwrap();
    let told = clash.in_contexts(&Contexts::parse("a=yes").unwrap()).unwrap_err();
    assert!(told[0].what.contains("c.r has the values \"1\" and \"2\""), "{told:?}");
}

#[test]
fn package_elements() {
    let package =
        |name: &str, v: &str, r: &str| format!("<package><name>{name}</name><v>{v}</v><r>{r}</r></package>");
    let twice = format!("{}{}", package("a", "1", "1"), package("a", "2", "1"));
    refused(packages(&twice), "Version conflict");
    assert!(packages(&format!("{}{}", package("a", "1", "1"), package("a", "2", "1/i386"))).is_ok());
    let got = packages(&package("i386/glibc", "2.3.2", "95")).unwrap();
    assert_eq!(got.packages[0].arch.as_deref(), Some("i386"));
    for (v, r) in [("1:2.0-1ubuntu1", "*"), ("1:2.0", "1ubuntu1")] {
        let got = packages(&package("foo", v, r)).unwrap();
        assert_eq!(got.packages[0].debian_version().as_deref(), Some("1:2.0-1ubuntu1"));
    }
    refused(packages(&package("+a", "1", "1")), "is not a package's name");
    refused(
        packages("<package><name>a</name><category>x</category></package>"),
        "unexpected element <category>",
    );
    refused(packages("<other></other>"), "unexpected element <other>");
}

#[test]
fn a_problem_names_its_line() {
    refused(
        component("\n<a>1</a>\n<b cfg:type=\"integer\">x</b>\n<l cfg:template=\"\">\n<q_RECORD/></l>"),
        "profile.xml:6:",
    );
    let all = Profile::from_xml(&document("<c><a cfg:type=\"integer\">x</a></c>", "<x></x>")).unwrap_err();
    assert_eq!(all.len(), 2, "all problems are told at once");
}

#[test]
fn lists_that_hold_each_other_are_all_written() {
    let list = |value: &str| Resource {
        value: value.to_owned(),
        kind: Kind::List(vec!["s_$".to_owned()]),
        derivation: Vec::new(),
        context: None,
    };
    let resources = [("s__z", list("x")), ("s_x", list("_z"))].map(|(name, list)| (name.to_owned(), list));
    let components = vec![(
        "a".to_owned(),
        Component { resources: resources.into_iter().collect(), ..Component::default() },
    )];
    let profile = Profile { components, ..Profile::default() };
    let again = Profile::from_xml(&profile.to_xml()).expect("it reads");
    assert_eq!(again.components, profile.components);
}

fn resource() -> impl Strategy<Value = Resource> {
    let derivation = prop::collection::vec(("[a-z/.]{1,8}", prop::collection::vec(1_u32..99, 0..3)), 0..3);
    let plain = "[ -~\\n\\t\\r\u{e9}\u{1f600}]{0,12}".prop_map(|value| (Kind::String, value));
    let integer = any::<i32>().prop_map(|value| (Kind::Integer, value.to_string()));
    let boolean = any::<bool>().prop_map(|value| (Kind::Boolean, if value { "yes" } else { "" }.to_owned()));
    let tags = prop::sample::subsequence(vec!["x", "y", "_z", "3a", "_"], 0..4);
    let templates = prop::sample::subsequence(vec!["s_$", "t_$", "u_$_$", "v_$"], 0..4);
    let list = (tags, templates).prop_map(|(tags, templates)| {
        (Kind::List(templates.into_iter().map(str::to_owned).collect()), tags.join(" "))
    });
    (prop_oneof![plain, integer, boolean, list], derivation)
        .prop_map(|((kind, value), derivation)| Resource { value, kind, derivation, context: None })
}

/// Gives each variant a context of its own, of which none holds where none is set.
fn in_contexts(all: BTreeMap<String, Vec<Resource>>) -> BTreeMap<String, Vec<Resource>> {
    let contexts = ["install", "net=\"a <b>\" & !install"].map(|text| Some(text.to_owned()));
    let each = |(name, variants): (String, Vec<Resource>)| {
        let variants = variants.into_iter().zip(contexts.clone());
        (name, variants.map(|(resource, context)| Resource { context, ..resource }).collect())
    };
    all.into_iter().map(each).collect()
}

fn profile() -> impl Strategy<Value = Profile> {
    let name = prop_oneof!["[a-z][a-z0-9]{0,4}", "(s|t|v)_(x|y|_z|3a)", "u_(x|y)_(x|_z|3a)",];
    let variants = prop::collection::vec(resource(), 1..3);
    let component = (
        prop::collection::btree_map(name.clone(), resource(), 0..12),
        prop::collection::btree_map(name, variants, 0..5),
    )
        .prop_map(|(resources, variants)| Component { resources, variants: in_contexts(variants) });
    let components = prop::collection::btree_map("[a-z][a-z0-9_]{0,6}", component, 0..4);
    let spec = (
        "[a-z][a-z0-9+.-]{0,6}",
        prop::option::of("([0-9]:)?[0-9.]{1,4}(-[0-9])?"),
        prop::option::of("[0-9a-z]{1,3}"),
    )
        .prop_map(|(name, version, release)| PackageSpec {
            name,
            version,
            release,
            ..PackageSpec::default()
        });
    let packages = prop::collection::vec(spec, 0..4).prop_map(|specs| {
        let all: BTreeMap<String, PackageSpec> =
            specs.into_iter().map(|spec| (spec.name.clone(), spec)).collect();
        all.into_values().collect()
    });
    let published =
        (any::<[bool; 1]>(), 0_u64..3_155_760_000, "[ -~]{0,8}").prop_map(|(_, at, by)| Published {
            by,
            at,
            version: "0.1.0".to_owned(),
            last_modified: at / 2,
            last_modified_file: "lcfg/source/n".to_owned(),
        });
    (published, components, packages).prop_map(|(published, components, packages)| Profile {
        published,
        components: components.into_iter().collect(),
        packages,
    })
}

proptest! {
    #[test]
    fn writing_reading_writing_gives_the_same_bytes(profile in profile()) {
        let first = profile.to_xml();
        let again = Profile::from_xml(&first);
        prop_assert!(again.is_ok(), "{:?}\n{}", again, first);
        let again = again.unwrap();
        prop_assert_eq!(&again.to_xml(), &first);
        prop_assert_eq!(again, profile);
    }

    #[test]
    fn no_text_makes_the_reader_fall_over(text in "(<[a-z/]{0,4}|>|/>|[a-z&;\"=! -]{0,3}|<profile>|<lcfg>){0,20}") {
        let _ = Profile::from_xml(&text);
    }
}
