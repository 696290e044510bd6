//! What GRUB does first where it came from the network: it makes out whose menu it reads.
//!
//! Firmware hands GRUB no more than the answer of the DHCP server that gave the address. `gatehouse serve` beside such a
//! server is another machine: it writes where it is into the loaders that it hands out. Where nothing is written, as on
//! servers of the user's own, the answer counts: GRUB has put its server into `$root`. These lines are read by a parser
//! without conditions and comments; so a regular expression takes what is written, or else what follows it.

use std::net::Ipv4Addr;

use gatehouse_model::Fault;

/// Where the address is in the loader for a BIOS: in its first sectors, of which only the first bytes are used. What
/// comes after them is compressed.
const PLACE: usize = 0x200;
/// What is replaced in the loader for UEFI, which is not compressed: there is room for any device.
const NOTHING: &str = "given=none                      ";
const GIVEN: &str = "given=";

/// For a BIOS: PXE loads to 0x7c00, and the place stays as it is. Debian's GRUB reads the menu at `fw_path` rather than
/// at `prefix`, and would try fifteen names first that have the machine's addresses in them.
pub(super) const BIOS: &str = "\
read_byte -v a 0x7e00
read_byte -v b 0x7e01
read_byte -v c 0x7e02
read_byte -v d 0x7e03
regexp --set=2:root '^(tftp,0x0.0x0.0x0.0x0 )?([^ ]+)' \"tftp,0x$a.0x$b.0x$c.0x$d $root\"
set prefix=($root)/grub
set fw_path=$prefix
set feature_net_search_cfg=n
";
/// The same for UEFI.
pub(super) const UEFI: &str = concat!(
    "set given=none                      \n",
    "regexp --set=2:root '^(none )?([^ ]+)' \"$given $root\"\n",
    "set prefix=($root)/grub\n",
    "set fw_path=$prefix\n",
    "set feature_net_search_cfg=n\n",
);

/// The loader for a BIOS that goes on with the TFTP server at an address.
///
/// # Errors
/// It is not one of these.
pub fn told_bios(mut image: Vec<u8>, server: Ipv4Addr) -> Result<Vec<u8>, Fault> {
    let place = image.get_mut(PLACE..PLACE + 4).filter(|place| place.iter().all(|byte| *byte == 0));
    place.ok_or_else(other)?.copy_from_slice(&server.octets());
    Ok(image)
}

/// The loader for UEFI that goes on with a device of GRUB's: `tftp,192.0.2.1` or `http,192.0.2.1:8000`.
///
/// # Errors
/// It is not one of these.
pub fn told_uefi(mut image: Vec<u8>, device: &str) -> Result<Vec<u8>, Fault> {
    let found = image.windows(NOTHING.len()).position(|bytes| bytes == NOTHING.as_bytes());
    let start = found.ok_or_else(other)?;
    let said = format!("{GIVEN}{device:width$}", width = NOTHING.len() - GIVEN.len());
    image[start..start + NOTHING.len()].copy_from_slice(said.as_bytes());
    Ok(image)
}

fn other() -> Fault {
    Fault::new("the loader has no place for its server's address: another version has built it")
        .help("build it anew")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bios_is_told_an_address() {
        let server = Ipv4Addr::new(192, 0, 2, 1);
        let told = told_bios(vec![0; 0x400], server).expect("told");
        assert_eq!(told[PLACE..PLACE + 5], [192, 0, 2, 1, 0]);
        assert!(BIOS.contains(&format!("read_byte -v a {:#x}\n", 0x7c00 + PLACE)));
        assert!(told_bios(told, server).is_err(), "it has one");
        assert!(told_bios(Vec::new(), server).is_err());
    }

    #[test]
    fn uefi_is_told_a_device() {
        let image = format!("MZ\0{UEFI}\0").into_bytes();
        for device in ["tftp,192.0.2.1", "http,255.255.255.255:65535"] {
            let told = told_uefi(image.clone(), device).expect("told");
            assert_eq!(told.len(), image.len());
            let text = String::from_utf8(told).expect("text");
            assert!(
                text.lines().any(|line| line.trim_end().ends_with(&format!("set given={device}"))),
                "{text}"
            );
        }
        assert!(told_uefi(b"MZ".to_vec(), "tftp,192.0.2.1").is_err());
    }
}
