//! A well-formed XML document as a tree of elements, built without recursion and with limits.

use gatehouse_model::Problem;
use quick_xml::XmlVersion;
use quick_xml::errors::{Error, IllFormedError};
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::reader::Reader;

use crate::values::is_xml_char;

/// The name under which problems of a profile are reported.
pub(crate) const FILE: &str = "profile.xml";
/// Far deeper than lists can nest.
const MAX_DEPTH: usize = 32;

/// One element.
#[derive(Debug, Default)]
pub(super) struct Element {
    pub(super) name: String,
    pub(super) attributes: Vec<(String, String)>,
    pub(super) children: Vec<Element>,
    /// All its text, decoded once, children's text not included.
    pub(super) text: String,
    /// Written as `<x/>`.
    pub(super) closed: bool,
    pub(super) line: usize,
    /// The line of a comment or processing instruction directly inside.
    pub(super) odd: Option<usize>,
}

impl Element {
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn problem(&self, what: impl Into<String>) -> Problem {
        Problem::at(FILE, self.line, what)
    }
}

/// Reads a document; a document that is not well-formed has one problem.
pub(super) fn parse(text: &str) -> Result<Element, Problem> {
    let mut reader = Reader::from_str(text);
    reader.config_mut().check_comments = true;
    let mut builder = Builder::default();
    // Lines are counted from the last event on, so that long documents are read once.
    let (mut line, mut counted) = (1, 0);
    loop {
        let before = usize::try_from(reader.buffer_position()).unwrap_or(text.len());
        line += text[counted..before].matches('\n').count();
        counted = before;
        let event = reader.read_event().map_err(|error| Problem::at(FILE, line, unreadable(&error)))?;
        if matches!(event, Event::Eof) {
            return builder.finish(line);
        }
        builder.event(event, line).map_err(|what| Problem::at(FILE, line, what))?;
    }
}

fn unreadable(error: &Error) -> String {
    match error {
        Error::IllFormed(IllFormedError::MissingEndTag(name)) => format!("<{name}> is never closed"),
        error => format!("the document is not well-formed XML: {error}"),
    }
}

#[derive(Default)]
struct Builder {
    stack: Vec<Element>,
    root: Option<Element>,
}

impl Builder {
    fn event(&mut self, event: Event, line: usize) -> Result<(), String> {
        match event {
            Event::Start(start) => self.open(&start, line, false),
            Event::Empty(start) => self.open(&start, line, true).and_then(|()| self.close()),
            Event::End(_) => self.close(),
            Event::Text(text) => self.text(&text.xml10_content()),
            Event::CData(_) if self.stack.is_empty() => Err("text outside the profile".to_owned()),
            Event::CData(text) => self.text(&text.xml10_content()),
            Event::GeneralRef(reference) => self.text(character(&reference)?.encode_utf8(&mut [0; 4])),
            Event::Comment(_) | Event::PI(_) => {
                if let Some(element) = self.stack.last_mut() {
                    element.odd.get_or_insert(line);
                }
                Ok(())
            }
            Event::Decl(_) | Event::DocType(_) if self.stack.is_empty() && self.root.is_none() => Ok(()),
            Event::Decl(_) | Event::DocType(_) => Err("a declaration inside the document".to_owned()),
            Event::Eof => Ok(()),
        }
    }

    fn open(&mut self, start: &BytesStart, line: usize, closed: bool) -> Result<(), String> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(format!("elements are nested more than {MAX_DEPTH} deep"));
        }
        if self.root.is_some() {
            return Err("a second element at the top".to_owned());
        }
        let name = start.name().as_ref().to_owned();
        let name = String::from_utf8(name.into()).map_err(|_| "a name that is not UTF-8".to_owned())?;
        let valid = name.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_alphanumeric() || "_-.:".contains(c));
        if !valid {
            return Err(format!("{name:?} is not an element's name"));
        }
        let mut element = Element { name, closed, line, ..Element::default() };
        for attribute in start.attributes() {
            let attribute =
                attribute.map_err(|error| format!("the attributes are not well-formed: {error}"))?;
            let value = attribute.normalized_value(XmlVersion::Explicit1_0);
            let value =
                value.map_err(|error| format!("an attribute is not well-formed: {error}"))?.into_owned();
            let key = String::from_utf8(attribute.key.as_ref().to_owned().into());
            let key = key.map_err(|_| "an attribute's name is not UTF-8".to_owned())?;
            if let Some(c) = value.chars().find(|c| !is_xml_char(*c)) {
                return Err(format!("{c:?} in an attribute is not an XML character"));
            }
            element.attributes.push((key, value));
        }
        self.stack.push(element);
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        let element = self.stack.pop().ok_or("an end without its start")?;
        match self.stack.last_mut() {
            Some(parent) => parent.children.push(element),
            None => self.root = Some(element),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        if let Some(c) = text.chars().find(|c| !is_xml_char(*c)) {
            return Err(format!("{c:?} is not an XML character"));
        }
        match self.stack.last_mut() {
            Some(element) => element.text.push_str(text),
            None if text.trim_matches(['\u{feff}', ' ', '\t', '\r', '\n']).is_empty() => {}
            None => return Err("text outside the profile".to_owned()),
        }
        Ok(())
    }

    fn finish(self, line: usize) -> Result<Element, Problem> {
        if let Some(open) = self.stack.last() {
            return Err(open.problem(format!("<{}> is never closed", open.name)));
        }
        self.root.ok_or_else(|| Problem::at(FILE, line, "there is no element"))
    }
}

/// The character a reference stands for; only XML's own five entities exist.
fn character(reference: &BytesRef) -> Result<char, String> {
    let name = reference.xml10_content();
    if let Some(c) =
        reference.resolve_char_ref().map_err(|error| format!("&{name}; is not a character: {error}"))?
    {
        return Ok(c);
    }
    match name.as_ref() {
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "amp" => Ok('&'),
        "apos" => Ok('\''),
        "quot" => Ok('"'),
        _ => Err(format!("&{name}; is not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_become_trees() {
        let root = parse("<?xml version=\"1.0\"?>\n<!DOCTYPE a>\n<!-- c -->\n<a x=\"1&#10;&lt;\">\n <b/><![CDATA[<&]]>&#10;&amp;<c></c></a>\n").unwrap();
        assert_eq!(root.attribute("x"), Some("1\n<"));
        assert_eq!(root.text, "\n <&\n&");
        assert_eq!((root.line, root.children[0].line), (4, 5));
        assert!(root.children[0].closed && !root.children[1].closed);
    }

    #[test]
    fn what_is_not_well_formed_has_one_problem() {
        for bad in [
            "",
            "x",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<a/>x",
            "<a>&nope;</a>",
            "<a>&#1;</a>",
            "<a>\u{1}</a>",
            "<a x=\"1\" x=\"2\"/>",
            "<a x=1/>",
            "<a><1/></a>",
            "<a>&</a>",
            "<a><!-- -- --></a>",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse(&"<a>".repeat(100_000)).is_err());
    }
}
