//! What one server gives in place of the directory's own files: loaders and menus that name it. The directory, whose
//! digests are known, stays as it is.

use std::fs;
use std::net::SocketAddrV4;
use std::path::Path;

use gatehouse_model::{Digest, Doing as _, Fault};

use super::{IPXE, LIST, LOADERS, MENU, Menus, SITES};
use crate::image::grub::{told_bios, told_uefi};

/// Files by their paths.
#[derive(Debug)]
pub struct Told {
    /// What goes by TFTP.
    pub tftp: Vec<(&'static str, Vec<u8>)>,
    /// What goes by HTTP: GRUB goes on the way that it came.
    pub http: Vec<(&'static str, Vec<u8>)>,
}

impl Told {
    /// Makes them of a directory, for an HTTP server with a TFTP server at the same address.
    ///
    /// # Errors
    /// The directory is not one of these, or of another version.
    pub fn of(dir: &Path, server: SocketAddrV4) -> Result<Self, Fault> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read(&path).doing(|| format!("reading {}", path.display()))
        };
        let [bios, efi] = LOADERS;
        let bios_image = told_bios(read(bios)?, *server.ip()).doing(|| format!("reading {bios}"))?;
        let efi_image = |device: String| told_uefi(read(efi)?, &device).doing(|| format!("reading {efi}"));
        let menus = there(&read(LIST)?, &read(SITES)?, &String::from_utf8_lossy(&read(MENU)?));
        let menu = menus.grub(Some(server)).into_bytes();
        Ok(Self {
            tftp: vec![
                (bios, bios_image.clone()),
                (efi, efi_image(format!("tftp,{}", server.ip()))?),
                (MENU, menu.clone()),
            ],
            http: vec![
                (bios, bios_image),
                (efi, efi_image(format!("http,{server}"))?),
                (MENU, menu),
                (IPXE, menus.ipxe(Some(server)).into_bytes()),
            ],
        })
    }
}

/// What the menus that are there say.
fn there(list: &[u8], sites: &[u8], menu: &str) -> Menus {
    let to = if menu.contains("gatehouse.install-to=rule") { "gatehouse.install-to=rule" } else { "" };
    Menus { contents: Digest::of(list), sites: Digest::of(sites), to }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::netboot::place;

    #[test]
    fn a_server_is_named_in_what_it_gives() {
        let dir = tempfile::tempdir().expect("a directory");
        let efi = format!("MZ given=none{:22}\n", "");
        let old = there(b"list", b"sites", "gatehouse.install-to=rule");
        let files = [
            (LOADERS[0], vec![0; 0x400]),
            (LOADERS[1], efi.clone().into_bytes()),
            (LIST, b"list".to_vec()),
            (SITES, b"sites".to_vec()),
            (MENU, old.grub(None).into_bytes()),
        ];
        for (path, bytes) in files {
            fs::write(place(dir.path(), path).expect("made"), bytes).expect("written");
        }
        let told = Told::of(dir.path(), "192.0.2.1:8000".parse().expect("an address")).expect("told");
        let has = |files: &[(&str, Vec<u8>)], path: &str, text: &str| {
            let (_, bytes) = files.iter().find(|(name, _)| *name == path).expect("it is there");
            assert!(String::from_utf8_lossy(bytes).contains(text), "{path}");
        };
        has(&told.tftp, LOADERS[1], "given=tftp,192.0.2.1 ");
        has(&told.http, LOADERS[1], "given=http,192.0.2.1:8000 ");
        for files in [&told.tftp, &told.http] {
            has(files, MENU, "gatehouse_http=\"192.0.2.1:8000\"\n");
            has(files, MENU, "\"gatehouse.install-to=rule\"\n");
        }
        has(&told.http, IPXE, "gatehouse.from=http://192.0.2.1:8000 ");
        assert_eq!(fs::read_to_string(dir.path().join(LOADERS[1])).expect("read"), efi);
    }
}
