//! The preprocessor against GNU cpp, run with the options that LCFG gives it.

use std::io::Write;
use std::process::{Command, Stdio};

use gatehouse_lcfg::{Sources, compile};
use gatehouse_model as _;
use proptest as _;
use quick_xml as _;
use regex_lite as _;
use serde as _;

const TEXT: &str = r#"#define FOO foo
#define F(a,b) <a|b|"a">
#define NOARG() na
#define G F(FOO,2)
#define JOIN(a,b) a/**/b
#define OBJECT x/* c */y
#define S(x) 'x' "x" x_ _x
t.a "FOO" FOO don't FOO /* c */ end
t.b "x /* c */ y" FOO /* gone */ z
t.c http://x/y FOO-bar FOO_bar FOO.bar /FOO FOO# size_FOO
t.d F(1,2) F (3,4) F( a b , (x,y) ) F(,) NOARG() F
t.e G JOIN(p,q) OBJECT x/**/y 3FOO
t.f F("x,y",z) F('a,b',c)
t.g one \
    two
#ifdef FOO /* c */
t.h yes
#endif
#if defined FOO && (1+1==2) && LCFGNG
t.i yes
#elif 1
t.i no
#else
t.i no
#endif
#ifndef FOO
# junk
#elif UNKNOWN || 3 * 2 > 5
t.j elif
#endif
t.k \FOO foo*/ x it's FOO
t.l S(1) linux unix i386
#define FOO bar
t.m FOO
#undef FOO
t.n FOO a /* b
c */ d
"#;

/// The values as a compile gives them, one line each with single spaces.
fn ours() -> Vec<String> {
    let mut sources = Sources::new();
    sources.insert("source/n", TEXT);
    let compiled = compile(&sources, "n", "").expect("the text has no problem");
    let resources = &compiled.components["t"].resources;
    resources.iter().map(|(name, resource)| squeeze(&format!("t.{name} {}", resource.value))).collect()
}

fn squeeze(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn values_come_out_as_from_gnu_cpp() {
    let options = ["-traditional", "-x", "c", "-undef", "-nostdinc", "-P", "-Ui386", "-DLCFGNG", "-"];
    let spawned = Command::new("cpp")
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut cpp) = spawned else {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "cpp is missing");
        println!("skipped, because cpp is not installed");
        return;
    };
    cpp.stdin.take().unwrap().write_all(TEXT.as_bytes()).unwrap();
    let output = cpp.wait_with_output().unwrap();
    assert!(output.status.success());
    let theirs = String::from_utf8(output.stdout).unwrap();
    let theirs: Vec<String> = theirs.lines().map(squeeze).filter(|line| !line.is_empty()).collect();
    assert_eq!(ours(), theirs);
}
