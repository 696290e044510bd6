//! dnsmasq as DHCP and TFTP server: its configuration, and what its log tells of machines.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

/// Which part of DHCP is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dhcp {
    /// Another server gives addresses; this one only says what to start.
    Proxy,
    /// This one gives addresses, from the first to the last.
    Full(Ipv4Addr, Ipv4Addr),
}

/// What dnsmasq is told.
#[derive(Clone, Debug)]
pub struct Config<'a> {
    /// The interface that is served.
    pub interface: &'a str,
    /// Its address and the length of its network's prefix.
    pub address: (Ipv4Addr, u8),
    /// How much of DHCP.
    pub dhcp: Dhcp,
    /// The directory that is served by TFTP.
    pub tftp: &'a Path,
}

impl Config<'_> {
    /// The configuration's text (dnsmasq(8)). Client architectures are those of RFC 4578: 0 a BIOS, 7 and 9 UEFI of
    /// x86-64, 16 the same by HTTP.
    pub fn text(&self) -> String {
        let (address, prefix) = self.address;
        let mut text = format!(
            "port=0\nno-resolv\nno-hosts\ninterface={}\nexcept-interface=lo\nbind-dynamic\nlog-dhcp\nlog-facility=-\n\
             enable-tftp\ntftp-root={}\ntftp-no-fail\nleasefile-ro\n",
            self.interface,
            self.tftp.display()
        );
        for number in [7, 9] {
            let _ = writeln!(text, "dhcp-match=set:uefi,option:client-arch,{number}");
        }
        match self.dhcp {
            Dhcp::Proxy => {
                let network = Ipv4Addr::from_bits(
                    address.to_bits() & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0),
                );
                let _ = writeln!(text, "dhcp-range={network},proxy");
                text.push_str("pxe-service=x86PC,Gatehouse,grub/bios\n");
                for kind in ["x86-64_EFI", "BC_EFI"] {
                    let _ = writeln!(text, "pxe-service={kind},Gatehouse,grub/uefi.efi");
                }
            }
            Dhcp::Full(first, last) => {
                let _ = writeln!(text, "dhcp-range={first},{last},1h\ndhcp-authoritative");
                text.push_str("dhcp-boot=tag:!uefi,grub/bios.0\ndhcp-boot=tag:uefi,grub/uefi.efi\n");
            }
        }
        text
    }
}

/// A machine that asks, by its hardware address; none where a line of the log tells of something else.
pub fn asks(line: &str) -> Option<(&str, &'static str)> {
    // `dnsmasq-dhcp[7]: 3661 PXE(br0) 52:54:00:12:34:56 proxy`, `… DHCPDISCOVER(br0) 52:54:00:12:34:56`
    let kinds = [("DHCPDISCOVER(", "asks for an address"), ("PXE(", "asks what to start")];
    kinds.iter().find_map(|(mark, said)| {
        let (_, rest) = line.split_once(mark)?;
        let mut words = rest.split_whitespace().skip(1);
        let mac = words.find(|word| word.len() == 17 && word.matches(':').count() == 5)?;
        Some((mac, *said))
    })
}

/// A file that went out by TFTP, and to whom.
pub fn sent(line: &str) -> Option<(&str, &str)> {
    // `dnsmasq-tftp[7]: sent /srv/grub/bios.0 to 10.0.2.100`
    let (_, rest) = line.split_once(": sent ")?;
    rest.rsplit_once(" to ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dnsmasq_is_told() {
        let mut config = Config {
            interface: "eth0",
            address: (Ipv4Addr::new(192, 0, 2, 77), 26),
            dhcp: Dhcp::Proxy,
            tftp: Path::new("/srv"),
        };
        let text = config.text();
        for line in [
            "interface=eth0",
            "tftp-root=/srv",
            "dhcp-range=192.0.2.64,proxy",
            "pxe-service=x86PC,Gatehouse,grub/bios",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        config.dhcp = Dhcp::Full(Ipv4Addr::new(192, 0, 2, 100), Ipv4Addr::new(192, 0, 2, 120));
        let text = config.text();
        assert!(
            text.contains("dhcp-range=192.0.2.100,192.0.2.120,1h\n") && !text.contains("proxy"),
            "{text}"
        );
    }

    #[test]
    fn what_its_log_tells() {
        let mac = "52:54:00:12:34:56";
        let line = format!("dnsmasq-dhcp[7]: 366 DHCPDISCOVER(br0) {mac} ");
        assert_eq!(asks(&line), Some((mac, "asks for an address")));
        assert_eq!(
            asks(&format!("dnsmasq-dhcp[7]: 366 PXE(br0) 10.0.2.9 {mac} proxy")),
            Some((mac, "asks what to start"))
        );
        assert_eq!(asks("dnsmasq-dhcp[7]: 366 available DHCP range: 10.0.2.1"), None);
        assert_eq!(
            sent("dnsmasq-tftp[7]: sent /srv/grub/bios.0 to 10.0.2.9"),
            Some(("/srv/grub/bios.0", "10.0.2.9"))
        );
    }
}
