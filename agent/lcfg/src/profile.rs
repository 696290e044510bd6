//! A node's profile: what its clients fetch.

use gatehouse_model::Problem;

use crate::compile::PROFILE;
use crate::{Compiled, Component, PackageSpec, context, xml};

/// Who published a profile, when, and from what.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Published {
    /// The server's host name.
    pub by: String,
    /// When, in seconds since 1970; the format carries the years 1970 to 2069.
    pub at: u64,
    /// The server's version.
    pub version: String,
    /// When the newest source file changed, in seconds since 1970.
    pub last_modified: u64,
    /// The newest source file.
    pub last_modified_file: String,
}

/// A profile as values.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Profile {
    /// Who published it.
    pub published: Published,
    /// The components by name, in the order in which they are configured.
    pub components: Vec<(String, Component)>,
    /// The packages, exact where the server has resolved them.
    pub packages: Vec<PackageSpec>,
}

impl Profile {
    /// Takes the components that `profile.components` names, and always `profile` itself; packages are sorted.
    ///
    /// `profile.packages` stays behind: the packages say what came of it.
    pub fn new(compiled: &Compiled, mut packages: Vec<PackageSpec>, published: Published) -> Self {
        let own = compiled.components.get(PROFILE).cloned().unwrap_or_default();
        let listed = own.resources.get("components").map(|list| list.value.clone()).unwrap_or_default();
        let mut names: Vec<&str> = listed.split_whitespace().collect();
        if !names.contains(&PROFILE) {
            names.insert(0, PROFILE);
        }
        let mut components: Vec<(String, Component)> = names
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), compiled.components.get(name)?.clone())))
            .collect();
        if let Some((_, own)) = components.iter_mut().find(|(name, _)| name == PROFILE) {
            own.resources.remove("packages");
        }
        let key = |spec: &PackageSpec| (spec.name.clone(), spec.arch.clone(), spec.context.clone());
        packages.sort_by_key(key);
        Self { published, components, packages }
    }

    /// The profile as XML, as LCFG clients read it; the same profile is always the same bytes.
    pub fn to_xml(&self) -> String {
        xml::write(self)
    }

    /// Reads a profile, as strictly as LCFG's own client.
    ///
    /// # Errors
    /// Everything that is wrong, in the file `profile.xml`.
    pub fn from_xml(text: &str) -> Result<Self, Vec<Problem>> {
        xml::read(text)
    }

    /// The value of a resource that holds where no context is set.
    pub fn get(&self, component: &str, resource: &str) -> Option<&str> {
        let (_, found) = self.components.iter().find(|(name, _)| name == component)?;
        let resource = found.resources.get(resource)?;
        let priority = resource.context.as_deref().map_or(Ok(0), context::priority);
        priority.is_ok_and(|priority| priority >= 0).then_some(resource.value.as_str())
    }

    /// The tags of a list, or the words of a string; none if it is not there.
    pub fn tags(&self, component: &str, list: &str) -> Vec<&str> {
        self.get(component, list).map(|value| value.split_whitespace().collect()).unwrap_or_default()
    }
}
