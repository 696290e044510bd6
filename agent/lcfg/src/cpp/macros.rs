//! Macros: object-like and function-like, replaced the way of `cpp -traditional`.

use std::collections::BTreeMap;

use super::lines::{COMMENT, Quotes};

/// Expansions nested deeper than this are taken for a recursion.
const MAX_NESTING: usize = 64;
/// Bytes of all expansions of one compile; far above any site's need, and soon gone through.
const MAX_EXPANDED: usize = 64 * 1024 * 1024;
/// One line after expansion.
const MAX_LINE: usize = 256 * 1024;

#[derive(Clone, Debug)]
struct Macro {
    params: Option<Vec<String>>,
    body: String,
}

/// The macros defined so far.
#[derive(Debug)]
pub(crate) struct Macros {
    table: BTreeMap<String, Macro>,
    spent: usize,
}

impl Macros {
    /// The one macro that LCFG's own preprocessor run defines.
    pub(crate) fn new(spent: usize) -> Self {
        let lcfgng = Macro { params: None, body: "1".to_owned() };
        Self { table: BTreeMap::from([("LCFGNG".to_owned(), lcfgng)]), spent }
    }

    /// What was spent by the expansions so far, and before.
    pub(crate) fn spent(&self) -> usize {
        self.spent
    }

    pub(crate) fn is_defined(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    pub(crate) fn undefine(&mut self, name: &str) {
        self.table.remove(name);
    }

    /// Reads what follows `#define`; a later definition replaces an earlier one.
    pub(crate) fn define(&mut self, text: &str) -> Result<(), String> {
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == COMMENT);
        let name = &text[..identifier(text)];
        if name.is_empty() {
            return Err("#define needs a name; write #define NAME value".to_owned());
        }
        if name == "defined" {
            return Err("defined cannot be a macro; choose another name".to_owned());
        }
        let rest = &text[name.len()..];
        let (params, body) = match rest.strip_prefix('(') {
            Some(inner) => {
                let (params, body) = inner
                    .split_once(')')
                    .ok_or_else(|| format!("the parameters of {name}( have no ')'; close them"))?;
                (Some(parameters(name, &params.replace(COMMENT, ""))?), body.to_owned())
            }
            None => (None, rest.replace(COMMENT, "")),
        };
        self.table.insert(name.to_owned(), Macro { params, body: body.trim().to_owned() });
        Ok(())
    }

    /// Replaces every macro in a line.
    pub(crate) fn expand(&mut self, text: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len() + 16);
        self.expand_into(&mut out, text, &mut Vec::new())?;
        Ok(out)
    }

    fn expand_into(&mut self, out: &mut String, text: &str, active: &mut Vec<String>) -> Result<(), String> {
        let mut quotes = Quotes::default();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let name = &rest[..if quotes.open() { 0 } else { identifier(rest) }];
            if name.is_empty() {
                quotes.see(c);
                out.push(c);
                rest = &rest[c.len_utf8()..];
                continue;
            }
            rest = &rest[name.len()..];
            // A backslash just before a word escapes its first letter, which changes nothing but the state.
            quotes.see('a');
            rest = self.word(out, name, rest, active)?;
            if out.len() > MAX_LINE {
                return Err(format!(
                    "the line grows beyond {MAX_LINE} bytes; look for a macro that repeats itself"
                ));
            }
        }
        Ok(())
    }

    /// Writes one word, replaced if it is a macro; the answer is the text after it.
    fn word<'t>(
        &mut self,
        out: &mut String,
        name: &str,
        rest: &'t str,
        active: &mut Vec<String>,
    ) -> Result<&'t str, String> {
        let call = self.table.get(name).is_some_and(|found| found.params.is_some());
        let open = rest.trim_start().strip_prefix('(').filter(|_| call);
        let (Some(found), true) = (self.table.get(name).cloned(), !call || open.is_some()) else {
            out.push_str(name);
            return Ok(rest);
        };
        self.spent += found.body.len() + 64;
        let again = !call && active.iter().any(|outer| outer == name);
        if again || active.len() >= MAX_NESTING || self.spent > MAX_EXPANDED {
            return Err(format!("the macro {name} expands to itself; break the circle"));
        }
        let (body, after) = match (found.params, open) {
            (Some(params), Some(open)) => {
                let (arguments, after) = arguments(name, open)?;
                (substitute(name, &params, &arguments, &found.body)?, after)
            }
            _ => (found.body, rest),
        };
        active.push(name.to_owned());
        self.expand_into(out, &body, active)?;
        active.pop();
        Ok(after)
    }
}

fn parameters(name: &str, text: &str) -> Result<Vec<String>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let params: Vec<String> = text.split(',').map(|param| param.trim().to_owned()).collect();
    for (i, param) in params.iter().enumerate() {
        if param.is_empty() || identifier(param) != param.len() || params[..i].contains(param) {
            return Err(format!(
                "{param:?} cannot be a parameter of {name}; write different names with commas"
            ));
        }
    }
    Ok(params)
}

/// The arguments after an opening parenthesis, and the text after the closing one.
fn arguments<'t>(name: &str, text: &'t str) -> Result<(Vec<&'t str>, &'t str), String> {
    let mut all = Vec::new();
    let (mut quotes, mut depth, mut start) = (Quotes::default(), 0_usize, 0);
    for (i, c) in text.char_indices() {
        if !quotes.open() {
            match c {
                '(' => depth += 1,
                ')' if depth == 0 => {
                    all.push(&text[start..i]);
                    return Ok((all, &text[i + 1..]));
                }
                ')' => depth -= 1,
                ',' if depth == 0 => {
                    all.push(&text[start..i]);
                    start = i + 1;
                }
                _ => {}
            }
        }
        quotes.see(c);
    }
    Err(format!(
        "the arguments of {name}( do not end on this line; close the parenthesis and every quote, \
         or continue the line with a backslash"
    ))
}

/// Puts the arguments into the body, inside quotes too, where their own quotes are escaped.
fn substitute(name: &str, params: &[String], arguments: &[&str], body: &str) -> Result<String, String> {
    let none = params.is_empty() && arguments.len() == 1 && arguments[0].trim().is_empty();
    if !none && params.len() != arguments.len() {
        return Err(format!(
            "{name} takes {} arguments, not {}; correct the call",
            params.len(),
            arguments.len()
        ));
    }
    let mut out = String::with_capacity(body.len() + 16);
    let mut quotes = Quotes::default();
    let mut rest = body;
    while let Some(c) = rest.chars().next() {
        let word = &rest[..identifier(rest)];
        let Some(i) = params.iter().position(|param| param == word) else {
            let len = word.len().max(c.len_utf8());
            rest[..len].chars().for_each(|c| quotes.see(c));
            out.push_str(&rest[..len]);
            // A comment in the body has parted its neighbours and goes.
            if c == COMMENT {
                out.pop();
            }
            rest = &rest[len..];
            continue;
        };
        if quotes.open() {
            out.push_str(&arguments[i].replace('\\', "\\\\").replace('"', "\\\""));
        } else {
            out.push_str(arguments[i]);
        }
        if out.len() > MAX_LINE {
            return Err(format!(
                "{name} grows beyond {MAX_LINE} bytes; look for a macro that repeats itself"
            ));
        }
        rest = &rest[word.len()..];
    }
    Ok(out)
}

/// The length of the identifier at the start of the text.
pub(crate) fn identifier(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_joins_what_is_beside_it() {
        let mut macros = Macros::new(0);
        macros.define("JOIN(a,b) a\u{1}b").unwrap();
        macros.define("OBJECT x\u{1}y").unwrap();
        assert_eq!(macros.expand("JOIN(p,q) OBJECT").as_deref(), Ok("pq xy"));
    }

    /// Each was run through GNU cpp 12 with the options LCFG uses.
    #[test]
    fn words_are_replaced_as_the_traditional_preprocessor_does() {
        let mut macros = Macros::new(0);
        for define in [
            "FOO foo",
            "F(a,b) <a|b|\"a\">",
            "NOARG() na",
            "G F(FOO,2)",
            "S(x) 'x' \"x\" x_ _x $x",
            "H(x) #x x##y",
            "Z(a) [a]",
            "EMPTY",
        ] {
            macros.define(define).unwrap();
        }
        for (text, wanted) in [
            ("a.b \"FOO\" FOO don't FOO end", "a.b \"FOO\" foo don't FOO end"),
            ("a.r 'FOO' it's", "a.r 'FOO' it's"),
            (
                "http://x/y FOO-bar FOO_bar FOO.bar $FOO FOO$ size_FOO",
                "http://x/y foo-bar FOO_bar foo.bar $foo foo$ size_FOO",
            ),
            (
                "F(1,2) F (3,4) F( a b , (x,y) ) F(,) NOARG() F",
                "<1|2|\"1\"> <3|4|\"3\"> < a b | (x,y) |\" a b \"> <||\"\"> na F",
            ),
            ("G", "<foo|2|\"FOO\">"),
            ("3FOO", "3foo"),
            ("F(\"x,y\",z)", "<\"x,y\"|z|\"\\\"x,y\\\"\">"),
            ("F('a,b',c)", "<'a,b'|c|\"'a,b'\">"),
            ("\\FOO foo*/ x", "\\foo foo*/ x"),
            ("S(1)", "'1' \"1\" x_ _x $1"),
            ("F(1,2)FOO FOO(1) defined(FOO)", "<1|2|\"1\">foo foo(1) defined(foo)"),
            ("H(1)", "#1 1##y"),
            ("Z() Z(Z(b,c))", "[] [[b,c]]"),
            ("a EMPTY b", "a  b"),
            ("linux unix i386 LCFGNG", "linux unix i386 1"),
        ] {
            let got = macros.expand(text);
            if text.starts_with("Z() ") {
                assert!(got.is_err(), "a call with too many arguments inside another");
            } else {
                assert_eq!(got.as_deref(), Ok(wanted), "{text}");
            }
        }
    }

    #[test]
    fn circles_and_explosions_end() {
        let mut macros = Macros::new(0);
        for define in ["R R x", "P(x) Q(x)", "Q(x) P(x)", "D(x) D(x)D(x)"] {
            macros.define(define).unwrap();
        }
        for text in ["R", "P(1)", "D(1)"] {
            assert!(macros.expand(text).unwrap_err().contains("expands to itself"), "{text}");
        }
        macros.define("L0(x) xxxxxxxxxxxxxxxx").unwrap();
        for i in 0..40 {
            macros.define(&format!("E{} E{i} E{i} E{i} E{i}", i + 1)).unwrap();
        }
        macros.define("E0 some text").unwrap();
        assert!(macros.expand("E40").is_err());
    }

    #[test]
    fn bad_definitions_and_calls_say_what_to_write() {
        let mut macros = Macros::new(0);
        for bad in ["", "1x", "F(a", "F(a,a) a", "F(...) a", "defined 1"] {
            assert!(macros.define(bad).is_err(), "{bad}");
        }
        macros.define("F(a,b) a").unwrap();
        for bad in ["F(1)", "F(1,2", "F(1,it's)"] {
            assert!(macros.expand(bad).is_err(), "{bad}");
        }
    }
}
