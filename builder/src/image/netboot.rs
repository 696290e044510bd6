//! `OUT/pxe/`: what machines that start from the network are given. GRUB comes by TFTP (or by UEFI HTTP boot), all else
//! by HTTP; what is installed is believed by digest only.
//!
//! ```text
//! grub/bios.0 grub/uefi.efi grub/grub.cfg   the loaders, and their menu
//! boot.ipxe                                 the same for those who start iPXE
//! contents.json sites.tar                   what is installed, and the sites; their digests are in the menus
//! image/root-a image/depot-a esp/…          the pieces
//! SHA256SUMS                                of all of them, for `gatehouse verify` and for sha256sum
//! ```

mod renew;
mod told;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

use gatehouse_model::site::{BOOT_CFG, InstallTo};
use gatehouse_model::{Contents, Digest, Doing as _, Fault};

use super::SUMS;
use super::contents::{boot_files, to_json};
use super::parts::Parts;
use super::site_part::Content;
use crate::cache::digest_file;
use crate::interrupt::Fleeting;
use crate::tool;

pub use renew::{Renewed, differences, named, remove_other};
pub use told::Told;

/// The directory's name.
pub const PXE: &str = "pxe";
/// Where the two lists and the menus are in it.
const LIST: &str = "contents.json";
const SITES: &str = "sites.tar";
const IPXE: &str = "boot.ipxe";
/// GRUB's menu.
pub const MENU: &str = "grub/grub.cfg";
/// The loaders, for BIOS and UEFI.
pub const LOADERS: [&str; 2] = ["grub/bios.0", "grub/uefi.efi"];
/// The menu, with words in capitals to be filled in.
const MENU_FORM: &str = include_str!("netboot.cfg");
const IPXE_FORM: &str = include_str!("netboot.ipxe");

/// Makes the directory anew: beside its place first, so that it is whole or as it was.
///
/// # Errors
/// The cache has lost a part; the disk is full.
pub fn make(out: &Path, parts: &Parts, contents: &Contents, site: &[Content]) -> Result<(), Fault> {
    let doing = || format!("making {}", out.join(PXE).display());
    let small = small(parts, contents, site)?;
    let sums = sums(&small, contents);
    if is_whole(&out.join(PXE), &sums) {
        return Ok(());
    }
    let partial = Fleeting::new(out.join(format!("{PXE}.partial")));
    let dir = partial.path();
    remove(dir).doing(doing)?;
    for (path, from) in
        [(&contents.root.path, &parts.root.path), (&contents.depot.path, &parts.depot_fs.path)]
    {
        copy(from, &place(dir, path)?)?;
    }
    for file in boot_files(parts) {
        let mut to = File::create(place(dir, &format!("esp/{}", file.path))?).doing(doing)?;
        io::copy(&mut file.open()?, &mut to).doing(doing)?;
    }
    for (path, bytes) in small.into_iter().chain([(SUMS, sums.into_bytes())]) {
        fs::write(place(dir, path)?, bytes).doing(doing)?;
    }
    tool::run("sync", &["-f", &dir.display().to_string()]).doing(doing)?;
    remove(&out.join(PXE)).doing(doing)?;
    fs::rename(dir, out.join(PXE)).doing(doing)
}

/// The small files, by their paths.
fn small(
    parts: &Parts,
    contents: &Contents,
    site: &[Content],
) -> Result<Vec<(&'static str, Vec<u8>)>, Fault> {
    let (list, tar) = (to_json(contents)?, sites(site, contents.epoch).doing(|| format!("making {SITES}"))?);
    let menus = Menus::of(list.as_bytes(), &tar, site)?;
    let (grub, ipxe) = (menus.grub(None).into_bytes(), menus.ipxe(None).into_bytes());
    let [bios, efi] = LOADERS;
    Ok(vec![
        (LIST, list.into_bytes()),
        (SITES, tar),
        (bios, parts.grub.net_bios.clone()),
        (efi, parts.grub.net_efi.clone()),
        (MENU, grub),
        (IPXE, ipxe),
    ])
}

/// Whether a directory has just these files: one that was damaged is made anew.
fn is_whole(dir: &Path, sums: &str) -> bool {
    let matches = |(sha256, path): (&str, &str)| {
        digest_file(&dir.join(path)).is_ok_and(|(found, _)| found.to_string() == sha256)
    };
    fs::read(dir.join(SUMS)).is_ok_and(|there| there == sums.as_bytes())
        && sums.lines().all(|line| line.split_once("  ").is_some_and(matches))
}

/// A line for each file, in the order of their names. Of the large ones the list of what is installed knows the digests.
fn sums(small: &[(&str, Vec<u8>)], contents: &Contents) -> String {
    let mut files: BTreeMap<String, Digest> =
        small.iter().map(|(path, bytes)| ((*path).to_owned(), Digest::of(bytes))).collect();
    files.extend([&contents.root, &contents.depot].map(|file| (file.path.clone(), file.sha256)));
    files.extend(contents.esp.iter().map(|file| (format!("esp/{}", file.path), file.sha256)));
    files.iter().fold(String::new(), |text, (path, sha256)| text + &format!("{sha256}  {path}\n"))
}

/// What both menus tell the kernel.
struct Menus {
    contents: Digest,
    sites: Digest,
    to: &'static str,
}

impl Menus {
    fn of(list: &[u8], tar: &[u8], site: &[Content]) -> Result<Self, Fault> {
        Ok(Self { contents: Digest::of(list), sites: Digest::of(tar), to: to(site)? })
    }

    fn fill(&self, form: &str) -> String {
        let digests = format!("gatehouse.contents={} gatehouse.sites={}", self.contents, self.sites);
        form.replace("DIGESTS", &digests).replace("WHERE", self.to)
    }

    /// GRUB's, for one HTTP server, or else for the server that GRUB knows.
    fn grub(&self, server: Option<SocketAddrV4>) -> String {
        let known = || "$net_default_server".to_owned();
        self.fill(MENU_FORM).replace("SERVER", &server.map_or_else(known, |server| server.to_string()))
    }

    /// The same for iPXE.
    fn ipxe(&self, server: Option<SocketAddrV4>) -> String {
        let known = || "${next-server}".to_owned();
        self.fill(IPXE_FORM).replace("SERVER", &server.map_or_else(known, |server| server.to_string()))
    }
}

/// Whoever starts from the network means the rule, unless the site says something else.
fn to(site: &[Content]) -> Result<&'static str, Fault> {
    let boot = super::site_part::with_boot(site.to_vec(), InstallTo::Rule)?;
    let text =
        boot.iter().find(|(path, _)| path == BOOT_CFG).map(|(_, bytes)| String::from_utf8_lossy(bytes));
    let by_rule = text.is_some_and(|text| text.contains("set to=rule"));
    Ok(if by_rule { "gatehouse.install-to=rule" } else { "" })
}

/// The site partition's files as a tar stream without a trace of where and when it was made.
fn sites(files: &[Content], epoch: u64) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in files.iter().filter(|(path, _)| path != BOOT_CFG) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(epoch);
        tar.append_data(&mut header, path, bytes.as_slice())?;
    }
    tar.into_inner()
}

fn place(dir: &Path, path: &str) -> Result<PathBuf, Fault> {
    let place = dir.join(path);
    let parent = place.parent().unwrap_or(dir);
    fs::create_dir_all(parent).doing(|| format!("making {}", parent.display()))?;
    Ok(place)
}

fn copy(from: &Path, to: &Path) -> Result<(), Fault> {
    let (from, to) = (from.display().to_string(), to.display().to_string());
    tool::run("cp", &["--reflink=auto", "--no-preserve=mode", &from, &to]).map(drop)
}

/// Removes a directory if it is there.
pub fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_menu_names_what_must_come() {
        let (contents, sites) = (Digest::of(b"c"), Digest::of(b"s"));
        let menus = Menus { contents, sites, to: "gatehouse.install-to=rule" };
        let server = Some(SocketAddrV4::new([192, 0, 2, 1].into(), 8080));
        for text in [menus.grub(server), menus.ipxe(server)] {
            assert!(
                text.contains(&format!("gatehouse.contents={contents} gatehouse.sites={sites}")),
                "{text}"
            );
            assert!(text.contains("gatehouse.install-to=rule") && text.contains("192.0.2.1:8080"), "{text}");
            assert!(!["WHERE", "SERVER"].iter().any(|word| text.contains(word)), "{text}");
        }
        assert!(menus.grub(None).contains("gatehouse_http=\"$net_default_server\"\n"));
        assert!(menus.ipxe(None).contains("gatehouse.from=http://${next-server} "));
    }

    #[test]
    fn what_was_damaged_is_not_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let sums = format!("{}  a\n", Digest::of(b"a"));
        for (name, text, whole) in [("a", "a", false), (SUMS, &*sums, true), ("a", "b", false)] {
            fs::write(dir.path().join(name), text).expect("written");
            assert_eq!(is_whole(dir.path(), &sums), whole, "{name}: {text}");
        }
    }

    #[test]
    fn the_sites_are_the_same_bytes_without_what_is_the_boot_loaders() {
        let files = vec![("boot.cfg".to_owned(), b"x".to_vec()), ("site.toml".to_owned(), b"y".to_vec())];
        let tar = sites(&files, 7).expect("made");
        assert_eq!(tar, sites(&files[1..], 7).expect("made"));
    }
}
