//! Package specifications, and the lists that wishes are made from.

mod list;
mod spec;
mod version;

pub use spec::PackageSpec;

pub(crate) use list::{Lists, Word};
pub(crate) use version::compare as compare_versions;
