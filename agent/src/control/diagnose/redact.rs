//! What must not leave the machine is taken out of every text: private keys, password hashes, tokens, passwords in
//! addresses and settings, and the values that are known here. Pure. Rather too much is taken out than too little.

use super::source;

/// The beginnings of password hashes (crypt(5)).
const HASHES: [&str; 12] =
    ["$1$", "$2a$", "$2b$", "$2x$", "$2y$", "$5$", "$6$", "$7$", "$y$", "$gy$", "$sha1$", "$argon2"];
/// What names a secret that follows it, in small letters.
const NAMES: [&str; 8] =
    ["password", "passwd", "passphrase", "secret", "token", "authorization", "psk", "api-key"];
/// Digits of a token that are left, so that what is a digest after all can be told.
const LEFT: usize = 8;
/// How many digits a token has, and a digest of SHA-256 as well.
const TOKEN: usize = 64;

/// What kind of text something is looked for in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Any.
    Text,
    /// A list of packages: full of digests, which look as tokens do, and of names such as passwd.
    Packages,
    /// An LCFG source.
    Source,
}

/// What is taken out of a text besides what looks like a secret.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Values that are known to be secret.
    pub known: &'a [String],
    /// What kind of text it is.
    pub form: Form,
}

/// The text without secrets, and how many were taken out.
pub fn redact(text: &str, rules: Rules<'_>) -> (String, usize) {
    let mut count = 0;
    let mut text = text.to_owned();
    for value in rules.known.iter().filter(|value| value.len() >= LEFT) {
        let found = text.matches(value.as_str()).count();
        if found > 0 {
            text = text.replace(value.as_str(), "[secret removed]");
            count += found;
        }
    }
    let mut text = keys(&text, &mut count);
    match rules.form {
        Form::Packages => return (text, count),
        Form::Source => {
            let (clean, more) = source::redact(&text);
            (text, count) = (clean, count + more);
        }
        Form::Text => {}
    }
    let lines = text.split_inclusive('\n').map(|line| of_line(line, &mut count));
    (lines.collect(), count)
}

/// Private keys in PEM's form, over lines or in one with `\n` in it; one that is cut off is taken out to the text's end.
fn keys(text: &str, count: &mut usize) -> String {
    const BEGIN: &str = "-----BEGIN ";
    const END: &str = "-----END ";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let label = &rest[at + BEGIN.len()..];
        let label = &label[..label.find("-----").unwrap_or(label.len())];
        let body = at + BEGIN.len() + label.len();
        if label.contains('\n') || !label.contains("PRIVATE KEY") {
            out.push_str(&rest[..body]);
            rest = &rest[body..];
            continue;
        }
        out.push_str(&rest[..at]);
        out.push_str("[private key removed]");
        *count += 1;
        let after = rest[body..].find(END).map(|end| body + end + END.len());
        let end = after.and_then(|from| rest[from..].find("-----").map(|end| from + end + "-----".len()));
        rest = &rest[end.unwrap_or(rest.len())..];
    }
    out.push_str(rest);
    out
}

fn of_line(line: &str, count: &mut usize) -> String {
    let line = hashes(line, count);
    let line = named(&line, count);
    let line = in_addresses(&line, count);
    words(&line, count)
}

fn hashes(line: &str, count: &mut usize) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let hash = |c: char| c.is_ascii_alphanumeric() || "$./=,+-*".contains(c);
        let length = rest.find(|c| !hash(c)).unwrap_or(rest.len());
        if HASHES.iter().any(|begin| rest.starts_with(begin)) && length > 12 {
            out.push_str("[password hash removed]");
            *count += 1;
            rest = &rest[length..];
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

/// What stands behind a telling name and `=` or `:`, or behind a program's option of that name and a blank, to the end of
/// the word or of the quotes.
fn named(line: &str, count: &mut usize) -> String {
    let small = line.to_ascii_lowercase();
    let mut out = String::with_capacity(line.len());
    let mut done = 0;
    let mut at = 0;
    while let Some((begin, name)) = next_name(&small, at) {
        at = begin + name.len();
        let behind = &line[at..];
        let gap = behind.find(|c: char| !matches!(c, '"' | '\'' | ' ' | '\\')).unwrap_or(behind.len());
        let option = || {
            let word = small[..begin].rfind(char::is_whitespace).map_or(0, |at| at + 1);
            (gap > 0 && small[word..].starts_with('-')).then_some(&behind[gap..])
        };
        let Some(value) = behind[gap..].strip_prefix(['=', ':']).or_else(option) else { continue };
        let from = line.len() - value.trim_start_matches([' ', '"', '\'', '\\']).len();
        let quoted = line[at..from].trim_end_matches('\\').ends_with(['"', '\'']);
        let bearer = ["bearer ", "basic "].iter().find(|word| small[from..].starts_with(**word));
        let from = from + bearer.map_or(0, |word| word.len());
        let ends = |c: char| {
            matches!(c, '"' | '\'' | '\n' | '\\')
                || (!quoted && matches!(c, ' ' | ',' | ';' | '&' | '}' | ')'))
        };
        let to = line[from..].find(ends).map_or(line.len(), |end| from + end);
        // Words such as `token: used` and flags tell nothing.
        if to - from < 6 {
            continue;
        }
        out.push_str(&line[done..from]);
        out.push_str("[removed]");
        *count += 1;
        (done, at) = (to, to);
    }
    out.push_str(&line[done..]);
    out
}

fn next_name(small: &str, from: usize) -> Option<(usize, &'static str)> {
    let found = NAMES.iter().filter_map(|name| small[from..].find(name).map(|at| (from + at, *name)));
    found.min_by_key(|(at, _)| *at)
}

/// `user:password@` in addresses, and `key=` as that of the status page.
fn in_addresses(line: &str, count: &mut usize) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let begin = at + 3;
        let length = rest[begin..].find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>'));
        let end = begin + length.unwrap_or(rest.len() - begin);
        let address = &rest[begin..end];
        out.push_str(&rest[..begin]);
        let host = address.split('/').next().unwrap_or_default();
        let mut kept = address.to_owned();
        if let Some((user, _)) = host.rsplit_once('@').and_then(|(user, _)| user.split_once(':')) {
            kept = format!("{user}:[removed]{}", &address[host.rfind('@').unwrap_or(0)..]);
            *count += 1;
        }
        if let Some(key) = kept.find("key=").map(|key| key + "key=".len()) {
            let length = kept[key..].find('&').unwrap_or(kept.len() - key);
            kept.replace_range(key..key + length, "[removed]");
            *count += 1;
        }
        out.push_str(&kept);
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// Tokens, and secret keys of age.
fn words(line: &str, count: &mut usize) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    loop {
        let Some(at) = rest.find(|c: char| c.is_ascii_alphanumeric()) else {
            out.push_str(rest);
            return out;
        };
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
        let (word, behind) = rest.split_at(length);
        let hex = word.bytes().all(|byte| byte.is_ascii_hexdigit());
        if word.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
            out.push_str("[private key removed]");
            *count += 1;
        } else if hex && word.len() == TOKEN {
            out.push_str(&word[..LEFT]);
            out.push_str("[56 digits removed]");
            *count += 1;
        } else {
            out.push_str(word);
        }
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOKEN64: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn secrets_are_taken_out() {
        let rules = Rules { known: &["hunter2hunter2".to_owned()], form: Form::Text };
        for (text, clean, count) in [
            ("nothing here\n", "nothing here\n", 0),
            ("it is hunter2hunter2.\n", "it is [secret removed].\n", 1),
            (
                "a\n-----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY-----\nb\n",
                "a\n[private key removed]\nb\n",
                1,
            ),
            (
                r#"{"key":"-----BEGIN PRIVATE KEY-----\nMHc\n-----END PRIVATE KEY-----\n"}"#,
                r#"{"key":"[private key removed]\n"}"#,
                1,
            ),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl", "[private key removed]", 1),
            (
                "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n",
                "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n",
                0,
            ),
            ("root:$6$salt$abcdefghijk/.:19000:0\n", "root:[password hash removed]:19000:0\n", 1),
            ("auth.pwd $y$j9T$abc/def.ghi$XyZ012345\n", "auth.pwd [password hash removed]\n", 1),
            ("costs $5 or ${HOME}$1\n", "costs $5 or ${HOME}$1\n", 0),
            (r#"{"token":"abcdef123","x":1}"#, r#"{"token":"[removed]","x":1}"#, 1),
            ("PASSWORD=geheim99 next\n", "PASSWORD=[removed] next\n", 1),
            ("curl --proxy-password geheim99 next\n", "curl --proxy-password [removed] next\n", 1),
            ("see the password manager\n", "see the password manager\n", 0),
            ("Authorization: Bearer abcdef.ghi\n", "Authorization: Bearer [removed]\n", 1),
            ("asks with a wrong token: from 10.0.2.21\n", "asks with a wrong token: from 10.0.2.21\n", 0),
            ("https://u:pa55@h/x?a=1 http://h:80/y\n", "https://u:[removed]@h/x?a=1 http://h:80/y\n", 1),
            ("see https://h/status?key=zzz now\n", "see https://h/status?key=[removed] now\n", 1),
            ("AGE-SECRET-KEY-1QQQ\n", "[private key removed]\n", 1),
        ] {
            assert_eq!(redact(text, rules), (clean.to_owned(), count));
        }
        let text = format!("got {TOKEN64}\n");
        assert_eq!(redact(&text, rules), ("got 01234567[56 digits removed]\n".to_owned(), 1));
        assert_eq!(redact(&text, Rules { form: Form::Packages, ..rules }), (text.clone(), 0));
    }

    proptest! {
        #[test]
        fn whatever_the_text_nothing_planted_is_left(before in "\\PC{0,40}", after in "[\"', \n\\\\:=&]?\\PC{0,40}") {
            let hash = "$6$abcdefgh$0123456789abcdef";
            let text = format!("{before} {hash}\n{after}\n-----BEGIN RSA PRIVATE KEY-----\nQUJD\n-----END RSA PRIVATE KEY-----\n");
            let (clean, count) = redact(&text, Rules { known: &[], form: Form::Text });
            prop_assert!(count >= 2);
            prop_assert!(!clean.contains("0123456789abcdef") && !clean.contains("QUJD"), "{}", clean);
        }
    }
}
