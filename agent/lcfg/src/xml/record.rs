//! One resource element, and the records of a list inside it.

use gatehouse_model::Problem;

use super::tree::{Element, FILE};
use super::{RECORD, unescape_tag};
use crate::Component;
use crate::context;
use crate::template::{self, MAX_DEPTH};
use crate::values::{Kind, Resource, is_name, is_tag, parse_derivation};

/// Reads the resources of one component.
pub(super) struct Records<'a> {
    pub(super) component: Component,
    pub(super) problems: &'a mut Vec<Problem>,
    /// The names of the lists around the element at hand.
    path: Vec<String>,
    /// The tags of the records around it, outermost first.
    tags: Vec<String>,
}

impl<'a> Records<'a> {
    pub(super) fn new(problems: &'a mut Vec<Problem>) -> Self {
        Self { component: Component::default(), problems, path: Vec::new(), tags: Vec::new() }
    }

    /// Reads an element as the resource of this full name.
    pub(super) fn resource(&mut self, element: &Element, name: &str) {
        if let Some(line) = element.odd {
            self.problems.push(Problem::at(
                FILE,
                line,
                "Unexpected element '#comment': no comments in a component",
            ));
        }
        if element.closed {
            return;
        }
        if !is_name(name) {
            return self.wrong(element, format!("{name:?} is not a resource's name"));
        }
        match self.read(element, name) {
            Ok(resource) => self.insert(element, name, resource),
            Err(what) => self.wrong(element, what),
        }
    }

    fn wrong(&mut self, element: &Element, what: impl Into<String>) {
        self.problems.push(element.problem(what));
    }

    fn read(&mut self, element: &Element, name: &str) -> Result<Resource, String> {
        let context =
            element.attribute("cfg:context").filter(|text| !text.trim().is_empty()).map(str::to_owned);
        context.as_deref().map_or(Ok(()), context::check)?;
        let kind = element.attribute("cfg:type").map_or(Ok(Kind::String), Kind::parse)?;
        let kind = match element.attribute("cfg:template") {
            Some(templates) => Kind::List(template::list(templates.split_whitespace())?),
            None => kind,
        };
        let value = match &kind {
            Kind::List(templates) => self.list(element, name, templates)?,
            _ if !element.children.is_empty() => {
                return Err(format!(
                    "unexpected element <{}> in <{}>",
                    element.children[0].name, element.name
                ));
            }
            _ => kind.canonical(&element.text)?,
        };
        let derivation = element.attribute("cfg:derivation").map(parse_derivation).unwrap_or_default();
        Ok(Resource { value, kind, derivation, context })
    }

    /// The tags of a list, its records' resources read on the way.
    fn list(&mut self, element: &Element, name: &str, templates: &[String]) -> Result<String, String> {
        if self.tags.len() >= MAX_DEPTH || self.path.iter().any(|outer| outer == name) {
            return Err(format!("the list {name} is nested in itself or more than {MAX_DEPTH} deep"));
        }
        self.path.push(name.to_owned());
        let mut tags: Vec<String> = Vec::new();
        for child in &element.children {
            match record_tag(child) {
                Ok(tag) => {
                    let record = child.name.ends_with(RECORD);
                    if tags.contains(&tag) && record {
                        self.wrong(child, format!("the list {name} has the tag {tag} twice"));
                    } else if !tags.contains(&tag) {
                        tags.push(tag.clone());
                    }
                    self.tags.push(tag);
                    if record {
                        self.record(child, templates);
                    } else {
                        self.field(child, templates);
                    }
                    self.tags.pop();
                }
                Err(what) => self.wrong(child, what),
            }
        }
        self.path.pop();
        Ok(tags.join(" "))
    }

    fn record(&mut self, record: &Element, templates: &[String]) {
        if let Some(line) = record.odd {
            self.problems.push(Problem::at(
                FILE,
                line,
                "Unexpected element '#comment': no comments in a component",
            ));
        }
        for child in &record.children {
            self.field(child, templates);
        }
    }

    /// One field of the record whose tag was last seen.
    fn field(&mut self, element: &Element, templates: &[String]) {
        let Some(template) = templates.iter().find(|template| template::field(template) == element.name)
        else {
            return self.wrong(element, format!("<{}> is not a field of the list's templates", element.name));
        };
        match template::fill(template, &self.tags) {
            Some(name) => self.resource(element, &name),
            None => self.wrong(element, format!("the template {template} takes more tags than there are")),
        }
    }

    /// The same resource may be here again with the same value, or with another under a context of its own.
    fn insert(&mut self, element: &Element, name: &str, resource: Resource) {
        let same = self.component.all(name).find(|old| old.context == resource.context);
        if let Some(old) = same {
            if old.value != resource.value {
                let what =
                    format!("{name} is here twice, with the values {:?} and {:?}", old.value, resource.value);
                self.wrong(element, what);
            }
        } else if resource.context.is_some() {
            self.component.variants.entry(name.to_owned()).or_default().push(resource);
        } else {
            self.component.resources.insert(name.to_owned(), resource);
        }
    }
}

/// The tag of a record, or of a field in the compact form.
fn record_tag(element: &Element) -> Result<String, String> {
    if element.closed {
        return Err(format!("<{}/> closes itself; write <{0}></{0}>", element.name));
    }
    let name = element.attribute("cfg:name").ok_or_else(|| format!("<{}> has no cfg:name", element.name))?;
    let tag = unescape_tag(name);
    if is_tag(tag) { Ok(tag.to_owned()) } else { Err(format!("cfg:name {name:?} is not a tag")) }
}
