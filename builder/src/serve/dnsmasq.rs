//! dnsmasq as DHCP and TFTP server: its configuration, and what its log tells of machines.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use super::interface::Interface;
use crate::image::netboot;

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
    pub interface: &'a Interface,
    /// How much of DHCP.
    pub dhcp: Dhcp,
    /// The directory that is served by TFTP.
    pub tftp: &'a Path,
    /// The port of the HTTP server.
    pub http_port: u16,
}

impl Config<'_> {
    /// The configuration's text (dnsmasq(8)). Client architectures are those of RFC 4578: 0 a BIOS, 7 and 9 UEFI of
    /// x86-64, 16 the same by HTTP. No file with the process's number is written: the usual one may be another dnsmasq's.
    pub fn text(&self) -> String {
        let Interface { name, address, .. } = self.interface;
        let mut text = format!(
            "port=0\npid-file\nno-resolv\nno-hosts\ninterface={name}\nexcept-interface=lo\nbind-dynamic\nlog-dhcp\n\
             log-facility=-\nenable-tftp\ntftp-root={}\ntftp-no-fail\nleasefile-ro\n",
            self.tftp.display()
        );
        for number in [7, 9] {
            let _ = writeln!(text, "dhcp-match=set:uefi,option:client-arch,{number}");
        }
        let [bios, efi] = netboot::LOADERS;
        text.push_str("dhcp-match=set:http,option:client-arch,16\n");
        let _ = writeln!(text, "dhcp-boot=tag:http,http://{address}:{}/{efi}", self.http_port);
        match self.dhcp {
            Dhcp::Proxy => {
                let _ = writeln!(text, "dhcp-range={},proxy", self.interface.network());
                // What asks for HTTP is answered as PXE is, with the vendor class that it has itself.
                text.push_str("dhcp-pxe-vendor=PXEClient,HTTPClient\n");
                // PXE adds `.0` to the name.
                let _ = writeln!(text, "pxe-service=x86PC,Gatehouse,{}", bios.trim_end_matches(".0"));
                for kind in ["x86-64_EFI", "BC_EFI"] {
                    let _ = writeln!(text, "pxe-service={kind},Gatehouse,{efi}");
                }
            }
            Dhcp::Full(first, last) => {
                let _ = writeln!(text, "dhcp-range={first},{last},1h\ndhcp-authoritative");
                text.push_str("dhcp-option-force=tag:http,option:vendor-class,HTTPClient\n");
                let _ = writeln!(text, "dhcp-boot=tag:!uefi,tag:!http,{bios}\ndhcp-boot=tag:uefi,{efi}");
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

/// Whether a line tells of trouble. GRUB opens its menu twice, the first time only to see whether it is there.
pub fn is_trouble(line: &str) -> bool {
    ["failed", "cannot", "error"].iter().any(|word| line.contains(word))
        && ![netboot::MENU, "closed received"].iter().any(|usual| line.contains(usual))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dnsmasq_is_told() {
        let interface =
            Interface { name: "eth0".to_owned(), address: Ipv4Addr::new(192, 0, 2, 77), prefix: 26 };
        let mut config =
            Config { interface: &interface, dhcp: Dhcp::Proxy, tftp: Path::new("/srv"), http_port: 8000 };
        let has = |text: &str, lines: &[&str]| {
            for line in lines {
                assert!(text.lines().any(|found| found == *line), "{line}: {text}");
            }
        };
        let both = [
            "interface=eth0",
            "tftp-root=/srv",
            "dhcp-match=set:http,option:client-arch,16",
            "dhcp-boot=tag:http,http://192.0.2.77:8000/grub/uefi.efi",
        ];
        let text = config.text();
        has(&text, &both);
        has(
            &text,
            &[
                "dhcp-range=192.0.2.64,proxy",
                "dhcp-pxe-vendor=PXEClient,HTTPClient",
                "pxe-service=x86PC,Gatehouse,grub/bios",
                "pxe-service=BC_EFI,Gatehouse,grub/uefi.efi",
            ],
        );
        config.dhcp = Dhcp::Full(Ipv4Addr::new(192, 0, 2, 100), Ipv4Addr::new(192, 0, 2, 120));
        let text = config.text();
        has(&text, &both);
        has(
            &text,
            &[
                "dhcp-range=192.0.2.100,192.0.2.120,1h",
                "dhcp-option-force=tag:http,option:vendor-class,HTTPClient",
                "dhcp-boot=tag:!uefi,tag:!http,grub/bios.0",
                "dhcp-boot=tag:uefi,grub/uefi.efi",
            ],
        );
        assert!(!text.contains("proxy"), "{text}");
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
        assert!(is_trouble("dnsmasq-tftp[7]: failed sending /srv/esp/slot-a/vmlinuz to 10.0.2.9"));
        for usual in [
            "dnsmasq-tftp[7]: error 0 closed received from 10.0.2.9",
            "dnsmasq-tftp[7]: failed sending /srv/grub/grub.cfg to 10.0.2.9",
            "dnsmasq[7]: exiting on receipt of SIGTERM",
        ] {
            assert!(!is_trouble(usual), "{usual}");
        }
        assert_eq!(asks("dnsmasq-dhcp[7]: 366 available DHCP range: 10.0.2.1"), None);
        assert_eq!(
            sent("dnsmasq-tftp[7]: sent /srv/grub/bios.0 to 10.0.2.9"),
            Some(("/srv/grub/bios.0", "10.0.2.9"))
        );
    }
}
