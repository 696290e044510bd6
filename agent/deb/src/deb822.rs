//! Paragraphs of `Field: value` as in control files, `Packages` indices and dpkg's status.
//!
//! Tolerant: carriage returns, comments, blank runs and lines that are no field are passed over.

use std::fmt;

/// One paragraph: fields in the order of the text, found without regard to case.
///
/// A value is the text after the colon; further lines follow after `\n`, each with its leading blank.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paragraph {
    fields: Vec<(String, String)>,
}

impl Paragraph {
    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Replaces a field's value, or adds the field at the end.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        match self.fields.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            Some((_, old)) => *old = value.into(),
            None => self.fields.push((name.to_owned(), value.into())),
        }
    }

    /// Takes a field out.
    pub fn remove(&mut self, name: &str) {
        self.fields.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn line(&mut self, line: &str) {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = self.fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            self.fields.push((name.trim_end().to_owned(), value.trim_start().to_owned()));
        }
    }
}

impl fmt::Display for Paragraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fields.iter().try_for_each(|(name, value)| {
            let blank = if value.is_empty() || value.starts_with('\n') { "" } else { " " };
            writeln!(f, "{name}:{blank}{value}")
        })
    }
}

/// The paragraphs of a text, one after the other.
pub fn paragraphs(text: &str) -> Paragraphs<'_> {
    Paragraphs { lines: text.lines() }
}

/// Iterator made by [`paragraphs`].
#[derive(Clone, Debug)]
pub struct Paragraphs<'a> {
    lines: std::str::Lines<'a>,
}

impl Iterator for Paragraphs<'_> {
    type Item = Paragraph;

    fn next(&mut self) -> Option<Paragraph> {
        let mut paragraph = Paragraph::default();
        for line in self.lines.by_ref() {
            if line.trim_end().is_empty() {
                if !paragraph.fields.is_empty() {
                    break;
                }
            } else if !line.starts_with('#') {
                paragraph.line(line);
            }
        }
        // As dpkg does: blanks stay at the end of a line, and go at the end of a value.
        for (_, value) in &mut paragraph.fields {
            value.truncate(value.trim_end().len());
        }
        (!paragraph.fields.is_empty()).then_some(paragraph)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_folded_fields_in_order() {
        let text = "\n\nPackage: a \r\nDepends: b, \r\n c \n# no\nConffiles:\n /etc/a 0\nno field\n\n \n\npackage: z\n";
        let all: Vec<_> = paragraphs(text).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(
            all[0].iter().collect::<Vec<_>>(),
            [("Package", "a"), ("Depends", "b, \n c"), ("Conffiles", "\n /etc/a 0")]
        );
        assert_eq!(all[0].to_string(), "Package: a\nDepends: b, \n c\nConffiles:\n /etc/a 0\n");
        assert_eq!(all[1].get("PACKAGE"), Some("z"));
    }

    #[test]
    fn sets_and_removes_without_regard_to_case() {
        let mut paragraph = paragraphs("A: 1\nB: 2\n").next().unwrap();
        paragraph.set("a", "3");
        paragraph.set("C", "4");
        paragraph.remove("b");
        assert_eq!(paragraph.to_string(), "A: 3\nC: 4\n");
    }

    proptest! {
        #[test]
        fn printing_and_parsing_is_identity(
            fields in prop::collection::btree_map("[A-Z][a-z-]{0,8}", "([a-z0-9:.]{1,8})?(\n [a-z0-9.:]{1,8}){0,3}", 1..6)
        ) {
            let mut made = Paragraph::default();
            for (name, value) in &fields {
                made.set(name, value.as_str());
            }
            let read: Vec<_> = paragraphs(&made.to_string()).collect();
            prop_assert_eq!(read, vec![made]);
        }

        #[test]
        fn any_text_is_read(text in "\\PC{0,200}") {
            prop_assert!(paragraphs(&text).count() <= text.len());
        }
    }
}
