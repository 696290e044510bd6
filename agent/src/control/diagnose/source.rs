//! Secrets in LCFG sources, where a value stands behind a blank and may go on over lines. Pure.

/// What names a secret, in small letters: in a resource, `openldap.bindpassword`, or a macro, `DB_PASSWORD`.
const NAMES: [&str; 9] =
    ["password", "passwd", "passphrase", "pwd", "rootpw", "secret", "token", "psk", "credential"];

/// The text without the values of what names a secret, and how many were taken out.
pub fn redact(text: &str) -> (String, usize) {
    let (mut out, mut count, mut inside) = (String::with_capacity(text.len()), 0, false);
    for line in text.split_inclusive('\n') {
        let (content, end) = line.strip_suffix('\n').map_or((line, ""), |content| (content, "\n"));
        let kept = if inside { Some(0) } else { value(content) };
        if let Some(kept) = kept {
            out.push_str(&content[..kept]);
            out.push_str("[removed]");
            count += usize::from(!inside);
        } else {
            out.push_str(content);
        }
        out.push_str(end);
        inside = kept.is_some() && content.trim_end_matches('\r').ends_with('\\');
    }
    (out, count)
}

/// Where the value begins of a line whose name tells of a secret.
fn value(line: &str) -> Option<usize> {
    let rest = line.trim_start();
    let rest = match rest.strip_prefix('#') {
        Some(directive) => directive.trim_start().strip_prefix("define")?.trim_start(),
        None => rest,
    };
    let name = &rest[..rest.find(|c: char| c.is_whitespace() || c == '(').unwrap_or(rest.len())];
    let small = name.to_ascii_lowercase();
    if !NAMES.iter().any(|secret| small.contains(secret)) {
        return None;
    }
    let behind = rest[name.len()..].trim_start();
    (!behind.is_empty()).then(|| line.len() - behind.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_behind_telling_names_go() {
        for (text, clean, count) in [
            ("openldap.bindpassword  geheim99\nx.y z\n", "openldap.bindpassword  [removed]\nx.y z\n", 1),
            ("#define DB_PASSWORD hunter22\r\n", "#define DB_PASSWORD [removed]\n", 1),
            ("!mysql.rootpassword mSET(x)", "!mysql.rootpassword [removed]", 1),
            (
                "auth.rootpw one \\\n  two \\\nthree\nx.y z\n",
                "auth.rootpw [removed]\n[removed]\n[removed]\nx.y z\n",
                1,
            ),
            (
                "#include <password.h>\n#ifdef SECRET\nauth.tokens\n",
                "#include <password.h>\n#ifdef SECRET\nauth.tokens\n",
                0,
            ),
        ] {
            assert_eq!(redact(text), (clean.to_owned(), count));
        }
    }
}
