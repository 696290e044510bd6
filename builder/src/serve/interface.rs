//! Which interface is served, and whether the addresses to give belong to its network. Pure.

use std::net::Ipv4Addr;

use gatehouse_model::{Doing as _, Fault, Problem, Refusal};
use serde::Deserialize;

/// An interface and its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The length of its network's prefix.
    pub prefix: u8,
}

/// As `ip -json address show` tells of it.
#[derive(Debug, Deserialize)]
struct Link {
    ifname: String,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Debug, Deserialize)]
struct Address {
    family: String,
    scope: String,
    local: Option<String>,
    prefixlen: u8,
}

impl Link {
    fn is_up(&self) -> bool {
        self.flags.iter().any(|flag| flag == "UP")
    }

    fn interface(&self) -> Option<Interface> {
        let mut wide =
            self.addr_info.iter().filter(|address| address.family == "inet" && address.scope == "global");
        wide.find_map(|found| {
            let address = found.local.as_ref()?.parse().ok()?;
            Some(Interface { name: self.ifname.clone(), address, prefix: found.prefixlen })
        })
    }
}

/// Chooses among the interfaces that `ip -json address show` tells of: the one with a name, or else the only one that is
/// up and has an address.
///
/// # Errors
/// There is none with that name, or it cannot be served; none or several could be.
pub fn choose(text: &str, wanted: Option<&str>) -> Result<Interface, Fault> {
    let links: Vec<Link> = serde_json::from_str(text).doing(|| "reading the interfaces")?;
    if let Some(name) = wanted {
        return named(&links, name);
    }
    let mut found: Vec<Interface> =
        links.iter().filter(|link| link.is_up()).filter_map(Link::interface).collect();
    if found.len() == 1 {
        return Ok(found.remove(0));
    }
    let names: Vec<_> = found.iter().map(|link| format!("{} ({})", link.name, link.address)).collect();
    let (what, help) = if found.is_empty() {
        let what = format!("no interface that is up has an address; there are: {}", all(&links));
        (what, "give one an address: `ip address add 192.0.2.1/24 dev NAME`")
    } else {
        (format!("several interfaces could be served: {}", names.join(", ")), "name one with --interface")
    };
    Err(Refusal::new(what, help).into())
}

fn named(links: &[Link], name: &str) -> Result<Interface, Fault> {
    let Some(link) = links.iter().find(|link| link.ifname == name) else {
        let what = format!("there is no {name}; there are: {}", all(links));
        return Err(Fault::of_problems(vec![Problem::at("--interface", 0, what)]));
    };
    let refusal = |what: &str, help: String| Err(Refusal::new(format!("{name} {what}"), help).into());
    match link.interface() {
        None => refusal(
            "has no IPv4 address",
            format!("give it an address: `ip address add 192.0.2.1/24 dev {name}`"),
        ),
        Some(_) if !link.is_up() => refusal("is down", format!("`ip link set {name} up`")),
        Some(interface) => Ok(interface),
    }
}

fn all(links: &[Link]) -> String {
    links.iter().map(|link| link.ifname.as_str()).collect::<Vec<_>>().join(", ")
}

impl Interface {
    /// The first address of its network.
    pub fn network(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() & self.mask())
    }

    fn mask(&self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// Whether the addresses from one to another can be given on it.
    ///
    /// # Errors
    /// They are not of its network, or are none.
    pub fn check(&self, first: Ipv4Addr, last: Ipv4Addr) -> Result<(), Fault> {
        let strange = |address: &Ipv4Addr| address.to_bits() & self.mask() != self.network().to_bits();
        let what = if let Some(address) = [first, last].iter().find(|address| strange(address)) {
            let Self { name, prefix, .. } = self;
            format!("{address} is not in {}/{prefix}, the network of {name}", self.network())
        } else if first > last {
            format!("{first} comes after {last}: the first address, then the last")
        } else {
            return Ok(());
        };
        Err(Fault::of_problems(vec![Problem::at("--range", 0, what)]))
    }
}

#[cfg(test)]
mod tests {
    use gatehouse_model::Exit;

    use super::*;

    const LINKS: &str = r#"[
        {"ifname": "lo", "flags": ["LOOPBACK", "UP"], "addr_info": [
            {"family": "inet", "local": "127.0.0.1", "prefixlen": 8, "scope": "host"}]},
        {"ifname": "eth0", "flags": ["BROADCAST", "UP"], "addr_info": [
            {"family": "inet6", "local": "fe80::1", "prefixlen": 64, "scope": "link"},
            {"family": "inet", "local": "192.0.2.77", "prefixlen": 26, "scope": "global"}]},
        {"ifname": "eth1", "flags": ["BROADCAST"], "addr_info": [
            {"family": "inet", "local": "198.51.100.1", "prefixlen": 24, "scope": "global"}]},
        {"ifname": "eth2", "flags": ["BROADCAST", "UP"], "addr_info": []}]"#;

    fn eth0() -> Interface {
        Interface { name: "eth0".to_owned(), address: Ipv4Addr::new(192, 0, 2, 77), prefix: 26 }
    }

    #[test]
    fn the_only_one_or_the_named_one_is_served() {
        assert_eq!(choose(LINKS, None).expect("one"), eth0());
        assert_eq!(choose(LINKS, Some("eth0")).expect("it"), eth0());
        let two = LINKS.replace("[\"BROADCAST\"]", "[\"UP\"]");
        for (text, wanted, exit, said) in [
            (LINKS, Some("nope"), Exit::Problem, "there is no nope; there are: lo, eth0, eth1, eth2"),
            (LINKS, Some("eth1"), Exit::Refusal, "eth1 is down"),
            (LINKS, Some("eth2"), Exit::Refusal, "help: give it an address"),
            (&two, None, Exit::Refusal, "eth0 (192.0.2.77), eth1 (198.51.100.1)"),
            ("[]", None, Exit::Refusal, "no interface that is up has an address"),
        ] {
            let fault = choose(text, wanted).expect_err(said);
            assert_eq!(fault.exit_status(), exit, "{said}");
            assert!(fault.render().contains(said), "{}", fault.render());
        }
    }

    #[test]
    fn what_is_given_is_of_the_network() {
        let eth0 = eth0();
        assert_eq!(eth0.network(), Ipv4Addr::new(192, 0, 2, 64));
        let check =
            |first: u8, last: u8| eth0.check(Ipv4Addr::new(192, 0, 2, first), Ipv4Addr::new(192, 0, 2, last));
        assert!(check(100, 120).is_ok() && check(100, 100).is_ok());
        for (first, last, said) in [
            (100, 130, "192.0.2.130 is not in 192.0.2.64/26, the network of eth0"),
            (3, 120, "192.0.2.3 is not in"),
            (120, 100, "192.0.2.120 comes after 192.0.2.100"),
        ] {
            let fault = check(first, last).expect_err(said);
            assert_eq!(fault.exit_status(), Exit::Problem);
            assert!(fault.render().contains(said), "{}", fault.render());
        }
    }
}
