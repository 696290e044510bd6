//! What nodes offer to others, remembered from one run of a program to the next.
//!
//! To compile one node that subscribes to a spanning map, what all others offer must be known. It is remembered with
//! the digests of all that it was made of; a node of which anything has changed is read again.

use std::collections::BTreeMap;

use gatehouse_model::Digest;
use serde::{Deserialize, Serialize};

use crate::Sources;
use crate::maps::Contributions;
use crate::schemas::{BUILT_IN, Schemas};
use crate::sources::Depends;

/// What is remembered of a site.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Of this program's own schemas and the site's.
    schemas: String,
    /// The files that nodes looked for.
    paths: Vec<String>,
    /// What was there; none for a file that was not.
    texts: Vec<Option<Digest>>,
    nodes: BTreeMap<String, Remembered>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    header: Digest,
    /// Places in the list of paths.
    looked: Vec<usize>,
    offers: Contributions,
}

/// Collects what is to be remembered.
pub(crate) struct Remembering<'a> {
    sources: &'a Sources,
    memory: Memory,
    places: BTreeMap<&'a str, usize>,
}

impl<'a> Remembering<'a> {
    pub(crate) fn new(sources: &'a Sources, schemas: &Schemas) -> Self {
        let memory = Memory { schemas: digest_of(sources, schemas), ..Memory::default() };
        Self { sources, memory, places: BTreeMap::new() }
    }

    pub(crate) fn node(&mut self, name: &str, header: &str, depends: &'a Depends, offers: &Contributions) {
        let looked = depends.files().map(|path| self.place(path)).collect();
        let header = Digest::of(header.as_bytes());
        let node = Remembered { header, looked, offers: offers.clone() };
        self.memory.nodes.insert(name.to_owned(), node);
    }

    fn place(&mut self, path: &'a str) -> usize {
        let Self { sources, memory, places } = self;
        *places.entry(path).or_insert_with(|| {
            memory.paths.push(path.to_owned());
            memory.texts.push(text_digest(sources, path));
            memory.paths.len() - 1
        })
    }

    pub(crate) fn finish(self) -> Memory {
        self.memory
    }
}

impl Memory {
    /// What the nodes offer of which nothing has changed, with what they looked at.
    pub(crate) fn still_true<'a>(
        self,
        sources: &Sources,
        schemas: &Schemas,
        header: impl Fn(&str) -> Option<&'a str>,
    ) -> Vec<(String, Depends, Contributions)> {
        if self.schemas != digest_of(sources, schemas) {
            return Vec::new();
        }
        let same: Vec<bool> = self
            .paths
            .iter()
            .zip(&self.texts)
            .map(|(path, text)| text_digest(sources, path) == *text)
            .collect();
        let mut all = Vec::new();
        for (name, node) in self.nodes {
            let same_header = header(&name).is_some_and(|text| Digest::of(text.as_bytes()) == node.header);
            if !same_header || !node.looked.iter().all(|place| same.get(*place) == Some(&true)) {
                continue;
            }
            let mut depends = Depends::default();
            for place in node.looked {
                let set = if self.texts[place].is_some() { &mut depends.read } else { &mut depends.other };
                set.insert(self.paths[place].clone());
            }
            all.push((name, depends, node.offers));
        }
        all
    }
}

fn text_digest(sources: &Sources, path: &str) -> Option<Digest> {
    sources.get(path).map(|text| Digest::of(text.as_bytes()))
}

fn digest_of(sources: &Sources, schemas: &Schemas) -> String {
    let mut text = String::from(env!("CARGO_PKG_VERSION"));
    text.extend(BUILT_IN.iter().map(|(_, text)| *text));
    for path in &schemas.depends.read {
        text.push_str(path);
        text.push_str(sources.get(path).unwrap_or_default());
    }
    Digest::of(text.as_bytes()).to_string()
}
