//! The order in which dpkg can unpack packages into an empty root.

use std::collections::{HashMap, HashSet};

use crate::Control;

/// Indices of packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What dpkg and maintainer scripts rely on: the essential packages, and what those need.
    pub base: Vec<usize>,
    /// All others.
    pub rest: Vec<usize>,
}

/// Puts packages into an order: `base-passwd` first, since scripts and owners need users; what is essential
/// before all others; each behind what it pre-depends on; otherwise as given.
pub fn order(controls: &[&Control]) -> Order {
    let set = Set::new(controls);
    let mut essential: Vec<usize> =
        (0..controls.len()).filter(|index| is_yes(controls[*index], "Essential")).collect();
    essential.sort_by_key(|index| (controls[*index].name() != "base-passwd", *index));
    let base: HashSet<usize> = set.with_needs(&essential).into_iter().collect();
    let mut seen = HashSet::new();
    let mut sorted = Vec::with_capacity(controls.len());
    let first = essential.iter().take(1).copied();
    let of_base = (0..controls.len()).filter(|index| base.contains(index));
    for index in first.chain(of_base).chain(0..controls.len()) {
        set.visit(index, &["Pre-Depends"], &mut seen, &mut sorted);
    }
    let (base, rest) = sorted.into_iter().partition(|index| base.contains(index));
    Order { base, rest }
}

/// What every Debian system has before anything is added to it: packages that are essential or of priority
/// `required` or `important`, and what those need; each behind what it needs, as far as that goes.
pub fn everywhere(controls: &[&Control]) -> Vec<usize> {
    let common = |control: &Control| {
        let priority = control.fields().get("Priority").unwrap_or_default();
        is_yes(control, "Essential") || ["required", "important"].contains(&priority)
    };
    let first: Vec<usize> = (0..controls.len()).filter(|index| common(controls[*index])).collect();
    Set::new(controls).with_needs(&first)
}

fn is_yes(control: &Control, field: &str) -> bool {
    control.fields().get(field).is_some_and(|value| value.eq_ignore_ascii_case("yes"))
}

/// Packages that can be found by their names and by what they provide.
struct Set<'a> {
    controls: &'a [&'a Control],
    by_name: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Set<'a> {
    fn new(controls: &'a [&'a Control]) -> Self {
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, control) in controls.iter().enumerate() {
            let provided = names(control.fields().get("Provides").unwrap_or_default());
            for name in provided.chain([control.name()]) {
                by_name.entry(name).or_default().push(index);
            }
        }
        Self { controls, by_name }
    }

    /// Packages with all that they depend on.
    fn with_needs(&self, packages: &[usize]) -> Vec<usize> {
        let (mut seen, mut found) = (HashSet::new(), Vec::new());
        for index in packages {
            self.visit(*index, &["Pre-Depends", "Depends"], &mut seen, &mut found);
        }
        found
    }

    /// Appends a package behind what some of its fields name; versions were the solver's concern.
    fn visit(&self, index: usize, fields: &[&str], seen: &mut HashSet<usize>, to: &mut Vec<usize>) {
        if !seen.insert(index) {
            return;
        }
        for field in fields {
            for name in names(self.controls[index].fields().get(field).unwrap_or_default()) {
                for needed in self.by_name.get(name).into_iter().flatten() {
                    self.visit(*needed, fields, seen, to);
                }
            }
        }
        to.push(index);
    }
}

/// Every name in a relation field, alternatives included.
fn names(relations: &str) -> impl Iterator<Item = &str> {
    let word = |text: &'_ str| text.trim().find([' ', '(', '[', ':', '\n']).unwrap_or(text.trim().len());
    relations.split([',', '|']).map(move |text| &text.trim()[..word(text)]).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::control_of as control;

    #[test]
    fn the_base_is_whole_and_comes_in_an_order_that_dpkg_can_follow() {
        let all = [
            control("Package: app\nPre-Depends: late (>= 1)"),
            control("Package: base-passwd\nEssential: yes\nDepends: libdebconf"),
            control("Package: early"),
            control("Package: dpkg\nEssential: yes\nPre-Depends: libc (>= 2) | other, tar:any"),
            control("Package: late"),
            control("Package: libc6\nProvides: libc (= 2)\nDepends: base"),
            control("Package: libdebconf"),
            control("Package: tar\nEssential: yes"),
            control("Package: base\nDepends: libc"),
        ];
        let found = order(&all.iter().collect::<Vec<_>>());
        let names = |indices: &[usize]| indices.iter().map(|index| all[*index].name()).collect::<Vec<_>>();
        assert_eq!(names(&found.base), ["base-passwd", "libc6", "tar", "dpkg", "libdebconf", "base"]);
        assert_eq!(names(&found.rest), ["late", "app", "early"]);
        let all = [
            control("Package: app\nDepends: adduser"),
            control("Package: adduser\nPriority: important\nDepends: passwd"),
            control("Package: extra\nPriority: optional"),
            control("Package: passwd\nPriority: required"),
        ];
        assert_eq!(everywhere(&all.iter().collect::<Vec<_>>()), [3, 1]);
    }
}
