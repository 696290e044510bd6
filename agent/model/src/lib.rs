//! The contract between what is baked into an image and what reads it in the field: sites, sizes, names,
//! digests, locks, manifests and events. Values only: no file, clock, network or process is touched here.
#![forbid(unsafe_code)]

mod contents;
mod digest;
pub mod evaluation;
mod event;
mod fault;
mod lock;
mod manifest;
mod names;
mod problem;
mod rate;
pub mod site;
mod size;
mod subject;

pub use contents::{CONTENTS, ContentPart, Contents};
pub use digest::{Digest, Hasher};
pub use event::{Event, State};
pub use fault::{Doing, Exit, Fault, Refusal};
pub use lock::{
    Closure, Lock, LockedPackage, PackageId, PackageSet, SET_EXTRA, SET_HOST, SET_INSTALLER, SET_MACHINE,
    SET_TOOLS,
};
pub use manifest::{
    Depot, FileRef, ImageFile, ImageManifest, ImagePart, Layer, MachineBoot, NodeKernel, Pool,
};
pub use names::{Mac, NodeName};
pub use problem::Problem;
pub use rate::{BitRate, ByteRate};
pub use site::Site;
pub use size::Size;
pub use subject::{Subject, SubjectPart};
