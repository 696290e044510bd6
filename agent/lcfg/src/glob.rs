//! Patterns with `*` for any characters and `?` for one.

/// Whether the text fits the pattern. Only the last star is ever tried again, so that no pattern takes long.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, from));
            at += 1;
        } else if pattern.get(at).is_some_and(|c| *c == b'?' || *c == text[from]) {
            (at, from) = (at + 1, from + 1);
        } else if let Some((place, taken)) = star {
            star = Some((place, taken + 1));
            (at, from) = (place + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "a", true),
            ("?*", "", false),
            ("*b*d", "abcbd", true),
            ("*b*d", "abcb", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
        assert!(matches(&"*a".repeat(30), &"a".repeat(60)));
        assert!(!matches(&"*a".repeat(30), &"b".repeat(20_000)));
    }
}
