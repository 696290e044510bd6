//! Names of people and machines in X.509 certificates, as Grid software writes them: `/O=Grid/OU=site/CN=Alice`.

use std::fmt;
use std::str::FromStr;

/// The longest text of one part (X.520, upper bounds).
const LONGEST: usize = 64;

/// What a part of a subject says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SubjectPart {
    /// `C`: country, two capital letters.
    Country,
    /// `ST`: state or province.
    State,
    /// `L`: locality.
    Locality,
    /// `O`: organization.
    Organization,
    /// `OU`: organizational unit.
    Unit,
    /// `CN`: common name.
    Name,
}

// `DC` is not among them: it is of use only several times in one subject, which the authority cannot write.
const PARTS: [(&str, SubjectPart); 6] = [
    ("C", SubjectPart::Country),
    ("ST", SubjectPart::State),
    ("L", SubjectPart::Locality),
    ("O", SubjectPart::Organization),
    ("OU", SubjectPart::Unit),
    ("CN", SubjectPart::Name),
];

impl fmt::Display for SubjectPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = PARTS.iter().find(|(_, part)| part == self);
        f.write_str(found.map_or("", |(key, _)| *key))
    }
}

/// A distinguished name in slash form. Its texts are of characters that need no quoting in any file of the Grid's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject(Vec<(SubjectPart, String)>);

impl Subject {
    /// `/O=Grid/OU=<site>`: where a site's subjects are if it does not say so itself.
    pub fn of_site(site: &str) -> Self {
        Self(vec![(SubjectPart::Organization, "Grid".to_owned()), (SubjectPart::Unit, site.to_owned())])
    }

    /// This one with a common name behind it.
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        let mut parts = self.0.clone();
        parts.push((SubjectPart::Name, name.to_owned()));
        Self(parts)
    }

    /// Its parts in order.
    pub fn parts(&self) -> &[(SubjectPart, String)] {
        &self.0
    }

    /// Whether it has a common name, as that of a person or a machine does.
    pub fn has_name(&self) -> bool {
        self.0.iter().any(|(part, _)| *part == SubjectPart::Name)
    }

    /// Whether it begins with all of another and goes on.
    pub fn is_below(&self, base: &Self) -> bool {
        self.0.len() > base.0.len() && self.0.starts_with(&base.0)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(part, text)| write!(f, "/{part}={text}"))
    }
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const WRITE: &str = "write it as /O=Grid/OU=site1";
        let rest = text.strip_prefix('/').ok_or_else(|| format!("{text:?} begins with no slash; {WRITE}"))?;
        let mut parts: Vec<(SubjectPart, String)> = Vec::new();
        for piece in rest.split('/') {
            let (key, value) = piece.split_once('=').unwrap_or((piece, ""));
            let Some((_, part)) = PARTS.iter().find(|(known, _)| *known == key) else {
                let keys = PARTS.map(|(known, _)| known).join(", ");
                return Err(format!("{key:?} in {text:?} is not one of {keys}; {WRITE}"));
            };
            if parts.iter().any(|(other, _)| other == part) {
                return Err(format!("{key} stands in {text:?} twice; write it once"));
            }
            parts.push((*part, value_of(*part, value)?));
        }
        if parts.iter().rev().skip(1).any(|(part, _)| *part == SubjectPart::Name) {
            return Err(format!("{text:?} goes on after CN; write CN last"));
        }
        Ok(Self(parts))
    }
}

fn value_of(part: SubjectPart, value: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || " .-_@:()".contains(c);
    if value.is_empty() || value.len() > LONGEST || !value.chars().all(good) || value.trim() != value {
        return Err(format!(
            "{value:?} cannot stand behind {part}=; write 1 to {LONGEST} letters without accents, digits, blanks \
             and . - _ @ : ( )"
        ));
    }
    let country = value.len() == 2 && value.chars().all(|c| c.is_ascii_uppercase());
    if part == SubjectPart::Country && !country {
        return Err(format!("{value:?} is not a country; write two capital letters, such as C=IE"));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_print_and_parse() {
        for good in
            ["/O=Grid", "/C=IE/O=Grid/OU=a b", "/C=IE/ST=Dublin/L=here/O=Grid/OU=x/CN=Alice (1) a@b.c:d_e-f"]
        {
            assert_eq!(good.parse::<Subject>().map(|subject| subject.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "/",
            "O=Grid",
            "/O=",
            "/O= Grid",
            "/O=Grid/",
            "/O=Grid//OU=x",
            "/DC=org/DC=example",
            "/OU=a/OU=b",
            "/C=ie",
            "/CN=a/O=Grid",
            "/CN=host/ce",
            "/CN=Caf\u{e9}",
            "/CN=a\"b",
            "/CN=a<b",
            "/CN=a'b",
            "/CN=a=b",
            "/CN=a\nb",
        ] {
            assert!(bad.parse::<Subject>().is_err(), "{bad}");
        }
        assert!(format!("/CN={}", "a".repeat(65)).parse::<Subject>().is_err());
    }

    #[test]
    fn below_is_longer_with_the_same_beginning() {
        let base = Subject::of_site("gate");
        assert_eq!(base.to_string(), "/O=Grid/OU=gate");
        let below = |text: &str| text.parse::<Subject>().expect("a subject").is_below(&base);
        assert!(below("/O=Grid/OU=gate/CN=alice") && below("/O=Grid/OU=gate/L=x/CN=alice"));
        assert!(
            !below("/O=Grid/OU=gate") && !below("/O=Grid/OU=gateway/CN=alice") && !below("/O=Grid/CN=alice")
        );
        assert!(base.named("alice").is_below(&base) && base.named("alice").has_name() && !base.has_name());
    }
}
