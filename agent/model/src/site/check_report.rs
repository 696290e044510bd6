//! `[report]`: where a machine sends what became of its install.

use super::ReportTo;
use super::read::{Reader, Section};
use super::values;

pub(super) const REPORT: &[&str] = &["url", "authority"];

pub(super) fn report(r: &mut Reader, top: &Section<'_>) -> Option<ReportTo> {
    let section = top.section(r, "report", "report");
    section.only(r, REPORT);
    if !top.has("report") {
        return None;
    }
    let url = section.read(r, "url", https);
    let authority = section.read(r, "authority", certificates).map(|at| at.value);
    let url = section.require(r, "url", url, "\"https://reports.example.org/gatehouse\"");
    Some(ReportTo { url: url?.value, authority })
}

/// An address that is posted to. A name and a password in it would be secrets in an image.
fn https(text: &str) -> Result<String, String> {
    let write = "write one such as \"https://reports.example.org/gatehouse\"";
    let Some(rest) = text.strip_prefix("https://") else {
        return Err(format!("{text:?} is no address that can be trusted; {write}"));
    };
    let place = rest.split(['/', '?']).next().unwrap_or_default();
    if place.contains('@') {
        return Err(format!(
            "it has a name or password in it, which anybody with the image can read; {write}"
        ));
    }
    let (name, port) =
        if let Some((address, rest)) = place.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            let port = if rest.is_empty() { Some("443") } else { rest.strip_prefix(':') };
            (address.parse::<std::net::Ipv6Addr>().is_ok(), port)
        } else {
            let (name, port) = place.split_once(':').unwrap_or((place, "443"));
            (values::server(&name.to_ascii_lowercase()).is_ok(), Some(port))
        };
    let port = port.is_some_and(|port| port.parse::<u16>().is_ok());
    let graphic = text.chars().all(|c| c.is_ascii_graphic() && c != '#');
    if name && port && graphic {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is no address; {write}"))
    }
}

/// One or more certificates in PEM, as text with lines ended by newlines.
fn certificates(text: &str) -> Result<String, String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    const WRITE: &str = "write the text of the authority's certificate (PEM) between two lines of \"\"\"";
    if text.contains("PRIVATE KEY") {
        return Err(format!("this is a private key, and no longer a secret; {WRITE}"));
    }
    let mut all = String::new();
    for piece in text.split(BEGIN).skip(1) {
        let body: String = piece.split(END).next().unwrap_or_default().split_whitespace().collect();
        if !piece.contains(END) || !values::base64(&body).as_deref().is_some_and(is_whole_der) {
            return Err(format!("the certificate is damaged or cut off; {WRITE}"));
        }
        all.push_str(BEGIN);
        all.push('\n');
        for line in body.as_bytes().chunks(64) {
            all.push_str(&String::from_utf8_lossy(line));
            all.push('\n');
        }
        all.push_str(END);
        all.push('\n');
    }
    if all.is_empty() { Err(format!("it is no certificate; {WRITE}")) } else { Ok(all) }
}

/// A sequence (X.690, 8.1.3) whose length is that of the bytes; what is in it only who uses it can say.
fn is_whole_der(bytes: &[u8]) -> bool {
    let Some((0x30, rest)) = bytes.split_first().map(|(tag, rest)| (*tag, rest)) else { return false };
    let Some((first, rest)) = rest.split_first() else { return false };
    let count = usize::from(first & 0x7f);
    if first & 0x80 == 0 {
        return count == rest.len();
    }
    let Some((length, body)) = rest.split_at_checked(count).filter(|_| (1..=4).contains(&count)) else {
        return false;
    };
    length.iter().fold(0, |all, byte| all << 8 | usize::from(*byte)) == body.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_with_tls_and_without_secrets() {
        for good in [
            "https://reports.example.org",
            "https://Reports.example.org:8443/a/b?site=1",
            "https://192.0.2.7/x",
            "https://[2001:db8::1]:8443/",
        ] {
            assert_eq!(https(good).as_deref(), Ok(good));
        }
        for bad in [
            "http://reports.example.org",
            "https://",
            "https:///x",
            "https://a b",
            "https://a/#b",
            "https://a:https/",
            "https://[::1/",
            "https://[::1]x/",
            "reports.example.org",
        ] {
            assert!(https(bad).is_err(), "{bad}");
        }
        let said = https("https://joe:hunter2@reports.example.org/").unwrap_err();
        assert!(!said.contains("hunter2"), "{said}");
    }

    #[test]
    fn a_certificate_is_whole() {
        let good = "-----BEGIN CERTIFICATE-----\r\nMAMCAQE=\r\n-----END CERTIFICATE-----\r\n";
        let unix = good.replace('\r', "");
        assert_eq!(certificates(good), Ok(unix.clone()));
        assert_eq!(certificates(&format!("its names\n{unix}\n{unix}")), Ok(format!("{unix}{unix}")));
        for bad in
            ["x", "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n", &unix.replace("MAMC", "MAQC"), "PRIVATE KEY"]
        {
            assert!(certificates(bad).is_err(), "{bad}");
        }
    }
}
