//! Bytes on disks: partition tables that were checked before they are written, FAT filesystems, boot code.
//! Everything works on `Read + Write + Seek`: no root, no mounts, no loop devices, no paths of the host.
#![forbid(unsafe_code)]

mod bios;
pub mod fat;
pub mod table;
mod window;

pub use bios::embed_grub;
pub use fat::{FatFile, FatLimits, FatSpec, FatTree, read_fat, replace_fat, write_fat};
pub use table::{
    CheckedTable, Health, NewPart, Part, PartKind, Planned, Room, Table, grown, guid_text, layout,
    read_table, write_table,
};
pub use window::{Synced, Window};

use std::io::{Read, Seek, Write};

/// Anything with bytes at positions: an image file, a block device, a `Cursor` in tests.
pub trait Device: Read + Write + Seek {}

impl<T: Read + Write + Seek> Device for T {}
