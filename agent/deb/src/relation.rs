//! Dependency fields in dpkg's own spelling: what it writes into its status file.

use crate::Version;

/// Rewrites a dependency field as dpkg does: one line, one blank around each operator, old operators renewed.
///
/// What cannot be understood is kept, trimmed.
pub fn canonical(value: &str) -> String {
    let groups = value.split(',').map(str::trim).filter(|group| !group.is_empty());
    let groups = groups.map(|group| group.split('|').map(alternative).collect::<Vec<_>>().join(" | "));
    groups.collect::<Vec<_>>().join(", ")
}

fn alternative(text: &str) -> String {
    let text = text.trim();
    let Some((name, rest)) = text.split_once('(') else {
        return text.to_owned();
    };
    let Some((bound, "")) = rest.trim_end().split_once(')') else {
        return text.to_owned();
    };
    let bound = bound.trim();
    let digits = bound.find(|c| !"<=>".contains(c)).unwrap_or(bound.len());
    let (operator, version) = bound.split_at(digits);
    let operator = match operator {
        "" => "=",
        "<" => "<=",
        ">" => ">=",
        other => other,
    };
    format!("{} ({operator} {})", name.trim(), version_text(version))
}

/// A version as dpkg prints it: no zero epoch.
pub fn version_text(text: &str) -> String {
    text.parse::<Version>().map_or_else(|_| text.trim().to_owned(), |version| version.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_spelled_as_dpkg_spells_it() {
        let table = [
            ("a", "a"),
            ("a,b ,\n c", "a, b, c"),
            ("foo(>=1.0)|bar ,", "foo (>= 1.0) | bar"),
            ("q:any (= 2)", "q:any (= 2)"),
            ("a (<< 0:1-1)", "a (<< 1-1)"),
            ("a (< 1), b (> 2), c (3)", "a (<= 1), b (>= 2), c (= 3)"),
            ("a (>= 1", "a (>= 1"),
        ];
        for (given, wanted) in table {
            assert_eq!(canonical(given), wanted);
        }
    }
}
