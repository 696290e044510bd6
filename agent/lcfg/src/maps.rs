//! Spanning maps: what one node's profile says, used in another's.
//!
//! A schema's `@address %publish: hosts/all` offers the value of `address` in the map `hosts/all`, under that name.
//! `@nodes %subscribe: hosts/all address_$ names_$` is a list: its tags are the nodes that offer anything in the map,
//! sorted by name, with `_` for `-`; a tag's resources have the values that its node offers under the names of the
//! templates' fields. A map's name may hold references to the same node's resources. An empty value offers nothing.
//! A value that is offered cannot depend on a map.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What one node offers: values by resource, by map.
pub type Contributions = BTreeMap<String, Arc<BTreeMap<String, String>>>;

/// What all nodes offer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Maps {
    maps: BTreeMap<String, Map>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Map {
    /// The tags by the nodes' names.
    tags: BTreeMap<String, String>,
    /// The values of each tag.
    values: BTreeMap<String, Arc<BTreeMap<String, String>>>,
}

impl Maps {
    /// Replaces what a node offered; the answer is the maps that are others now.
    pub(crate) fn replace(
        &mut self,
        node: &str,
        old: &Contributions,
        new: &Contributions,
    ) -> BTreeSet<String> {
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
        let tag = node.replace('-', "_");
        let mut all = BTreeSet::new();
        for name in changed {
            let map = self.maps.entry(name.clone()).or_default();
            if let Some(values) = new.get(name).filter(|values| !values.is_empty()) {
                map.tags.insert(node.to_owned(), tag.clone());
                map.values.insert(tag.clone(), Arc::clone(values));
            } else {
                map.tags.remove(node);
                map.values.remove(&tag);
            }
            if map.tags.is_empty() {
                self.maps.remove(name);
            }
            all.insert(name.clone());
        }
        all
    }

    /// The tags of the nodes that offer something in a map, with spaces between.
    pub(crate) fn tags(&self, map: &str) -> String {
        let tags: Vec<&str> =
            self.maps.get(map).into_iter().flat_map(|map| map.tags.values().map(String::as_str)).collect();
        tags.join(" ")
    }

    /// What a tag's node offers under a name.
    pub(crate) fn value(&self, map: &str, tag: &str, resource: &str) -> Option<&str> {
        self.maps.get(map)?.values.get(tag)?.get(resource).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(all: &[(&str, &str, &str)]) -> Contributions {
        let mut offers = Contributions::new();
        for (map, resource, value) in all {
            Arc::make_mut(offers.entry((*map).to_owned()).or_default())
                .insert((*resource).to_owned(), (*value).to_owned());
        }
        offers
    }

    #[test]
    fn nodes_come_and_go() {
        let mut maps = Maps::default();
        let none = Contributions::new();
        let first = offers(&[("hosts", "address", "10.0.0.2"), ("dhcp", "mac", "02:00")]);
        assert_eq!(maps.replace("wn-1", &none, &first).len(), 2);
        maps.replace("ce", &none, &offers(&[("hosts", "address", "10.0.0.1")]));
        assert_eq!(maps.tags("hosts"), "ce wn_1");
        assert_eq!(maps.value("hosts", "wn_1", "address"), Some("10.0.0.2"));
        assert_eq!(maps.value("hosts", "ce", "mac"), None);
        let second = offers(&[("hosts", "address", "10.0.0.2")]);
        assert_eq!(maps.replace("wn-1", &first, &second), BTreeSet::from(["dhcp".to_owned()]));
        assert_eq!(maps.tags("dhcp"), "");
        maps.replace("wn-1", &second, &none);
        assert_eq!(maps.tags("hosts"), "ce");
    }
}
