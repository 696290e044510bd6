//! Where packages come from: the install server's pool, and the archives that the profile names besides.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use gatehouse_lcfg::Profile;

/// The pool's public key on an installed node.
pub const KEYRING: &str = "/etc/apt/keyrings/gatehouse.asc";
/// Where an installed node's apt finds the pool.
pub const SOURCE: &str = "/etc/apt/sources.list.d/gatehouse.sources";
/// What Debian's archives are signed with; the newer name first.
const DEBIAN: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.pgp", "/usr/share/keyrings/debian-archive-keyring.gpg"];

/// The pool as `sources.list(5)` has it.
pub fn pool(server: Ipv4Addr, suite: &str) -> String {
    stanza(&format!("http://{server}/"), suite, KEYRING)
}

fn stanza(address: &str, suite: &str, key: &str) -> String {
    format!("Types: deb\nURIs: {address}\nSuites: {suite}\nComponents: main\nSigned-By: {key}\n")
}

/// The archives that a profile names: `apt.mirror`, or what older sources say by `updaterpms.rpmpath`.
pub fn of_profile(profile: &Profile) -> Vec<String> {
    let mirror = profile.tags("apt", "mirror");
    let all = if mirror.is_empty() { profile.tags("updaterpms", "rpmpath") } else { mirror };
    all.into_iter().map(str::to_owned).collect()
}

/// Those archives as `sources.list(5)` has them; nothing where there are none.
pub fn mirrors(addresses: &[String], suite: &str, has: impl Fn(&str) -> bool) -> String {
    let key = DEBIAN.into_iter().find(|path| has(path)).unwrap_or(DEBIAN[1]);
    let mut out = String::new();
    for address in addresses {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}", stanza(address, suite, key));
    }
    out
}

/// The name of the release that a node runs, from `/etc/os-release`.
pub fn suite(os_release: &str) -> String {
    let line = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    line.map_or("stable", |name| name.trim_matches('"')).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_named_as_apt_reads_them() {
        assert_eq!(suite("ID=debian\nVERSION_CODENAME=trixie\n"), "trixie");
        assert_eq!(suite(""), "stable");
        let text = mirrors(&["http://deb.example.org/debian".into()], "trixie", |path| path == DEBIAN[0]);
        assert_eq!(
            text,
            "Types: deb\nURIs: http://deb.example.org/debian\nSuites: trixie\nComponents: main\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.pgp\n\n"
        );
        assert_eq!(mirrors(&[], "trixie", |_| true), "");
        assert!(pool(Ipv4Addr::new(10, 0, 2, 20), "trixie").contains("URIs: http://10.0.2.20/\n"));
    }
}
