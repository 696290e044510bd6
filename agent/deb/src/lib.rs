//! Reading .deb files, unpacking them the way dpkg does, and dpkg's database: what is left for
//! `dpkg --configure -a` is exactly what dpkg's own `--unpack` leaves. On top of that, the recipe for whole roots.
#![forbid(unsafe_code)]

mod ar;
mod archive;
mod claims;
mod control;
mod database;
mod deb822;
mod index;
pub mod kernel;
mod order;
mod owners;
mod place;
mod relation;
pub mod root;
mod status;
mod triggers;
mod unpack;
mod version;

pub use archive::Deb;
pub use control::{Conffile, Control, ControlFile};
pub(crate) use database::listed;
pub use database::{read_status, redirects, with_preinst, write};
pub use deb822::{Paragraph, Paragraphs, paragraphs};
pub use index::entry as index_entry;
pub use order::{Order, everywhere, order};
pub use relation::canonical as canonical_relations;
pub use status::{Installed, stanza};
pub use triggers::{Directive, Trigger};
pub use unpack::{Overlap, Unpacked, controls, unpack, unpack_all};
pub use version::Version;
