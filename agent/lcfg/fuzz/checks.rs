//! What must hold for any bytes: no crash, no hang, and what is written reads back the same. The fuzz targets search for
//! bytes for which it does not; `tests/corpus.rs` tries those that are kept.
#![allow(dead_code, reason = "each target uses one of them")]

use gatehouse_lcfg::{Contexts, PackageSpec, Profile, Published, Sources, compile};

/// The bytes as text; none that is not is a source.
fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// Compiles, and reads the profile back.
fn compiled(sources: &Sources) {
    let Ok(compiled) = compile(sources, "n", "#define SITE 1\n") else { return };
    let profile = Profile::new(&compiled, compiled.wishes.to_vec(), Published::default());
    let xml = profile.to_xml();
    let again = Profile::from_xml(&xml).expect("what the compiler writes can be read");
    assert_eq!(again.to_xml(), xml);
    let _ = again.in_contexts(&Contexts::install());
}

/// Files of one site, parted by NUL: the source, two headers and a package list.
pub fn preprocessor(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let mut sources = Sources::new();
    let paths = ["source/n", "include/a.h", "include/b.h", "packages/a.pkgs"];
    for (path, text) in paths.into_iter().zip(text.split('\0')) {
        sources.insert(path, text);
    }
    compiled(&sources);
}

/// One source.
pub fn source(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let mut sources = Sources::new();
    sources.insert("source/n", text);
    compiled(&sources);
}

/// One package specification.
pub fn spec(data: &[u8]) {
    let Some(Ok(spec)) = text(data).map(str::parse::<PackageSpec>) else { return };
    for text in [spec.to_string(), format!("{spec:#}")] {
        let again: PackageSpec = text.parse().expect("what is written can be read");
        assert_eq!(again.to_string(), spec.to_string(), "{text:?}");
    }
    let _ = spec.fits("1:2.0-1");
}

/// Contexts line by line, a NUL, and an expression.
pub fn context(data: &[u8]) {
    let Some((set, expression)) = text(data).and_then(|text| text.split_once('\0')) else { return };
    let Ok(contexts) = Contexts::parse(set) else { return };
    let packages = vec![PackageSpec {
        name: "a".to_owned(),
        context: Some(expression.to_owned()),
        ..PackageSpec::default()
    }];
    let profile = Profile { packages, ..Profile::default() };
    let _ = profile.in_contexts(&contexts);
}

/// A schema, a NUL, and a source that uses it.
pub fn schema(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let (schema, source) = text.split_once('\0').unwrap_or((text, "profile.components x\n"));
    let mut sources = Sources::new();
    sources.insert("defaults/x.def", schema);
    sources.insert("source/n", source);
    compiled(&sources);
}

/// A profile.
pub fn xml(data: &[u8]) {
    let Some(Ok(profile)) = text(data).map(Profile::from_xml) else { return };
    let xml = profile.to_xml();
    let again = Profile::from_xml(&xml).expect("what is written can be read");
    assert_eq!(again.to_xml(), xml);
}
