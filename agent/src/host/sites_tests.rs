//! Tables of which site a machine is.

use std::collections::BTreeMap;

use super::*;
use crate::host::facts::{Dmi, Firmware, LinkFact};

const MINIMAL: &str = include_str!("../../../site-templates/minimal/site.toml");

fn site(name: &str, matches: &str) -> Vec<u8> {
    let text = MINIMAL.replace("name = \"minimal\"", &format!("name = \"{name}\""));
    text.replace("\n[[disk]]\n", &format!("\n{matches}\n[[disk]]\n")).into_bytes()
}

fn machine(serial: Option<&str>) -> Facts {
    let link = LinkFact {
        name: "eth0".into(),
        mac: "02:00:5e:00:00:07".parse().unwrap(),
        driver: None,
        carrier: None,
        speed: None,
        path: None,
    };
    Facts {
        disks: Vec::new(),
        links: vec![link],
        memory: None,
        cpus: 1,
        firmware: Firmware::Uefi,
        hypervisor: None,
        virtualisation: Vec::new(),
        boot_disk: None,
        boot_id: String::new(),
        dmi: Dmi { serial: serial.map(str::to_owned), ..Dmi::default() },
    }
}

fn chosen(files: &SiteFiles, serial: Option<&str>, line: &str) -> Result<String, String> {
    let sites: BTreeMap<_, _> =
        split(files).iter().map(|(name, files)| (name.clone(), parse(files))).collect();
    let args = KernelArgs::parse(line).unwrap();
    choose(&sites, &machine(serial), &args).map_err(|refusal| refusal.what)
}

#[test]
fn the_machine_says_which_site_it_is() {
    let files = SiteFiles::from([
        ("sites/one/site.toml".to_owned(), site("north", "[match]\nserial = [\"SN-1*\"]")),
        ("sites/one/lcfg/source/node1".to_owned(), b"x".to_vec()),
        ("sites/two/site.toml".to_owned(), site("south", "[match]\nmac = [\"02:00:5e:00:00:07\"]")),
        ("sites/any/site.toml".to_owned(), site("any", "")),
        ("sites/notes.txt".to_owned(), b"".to_vec()),
    ]);
    assert_eq!(split(&files)["one"].keys().collect::<Vec<_>>(), ["lcfg/source/node1", "site.toml"]);
    assert_eq!(chosen(&files, Some("X"), ""), Ok("two".into()));
    assert_eq!(chosen(&files, Some("X"), "gatehouse.site=any"), Ok("any".into()));
    assert_eq!(chosen(&files, Some("X"), "gatehouse.site=north"), Ok("one".into()));
    assert_eq!(
        chosen(&files, Some("SN-12"), ""),
        Err("the medium has 2 sites for this machine (serial number SN-12; network interfaces 02:00:5e:00:00:07):\n  \
             sites/any: any, for any machine\n  sites/one: north, for serial \"SN-1*\"\n  \
             sites/two: south, for mac 02:00:5e:00:00:07"
            .into())
    );
    let none = chosen(&files, None, "gatehouse.site=west").unwrap_err();
    assert!(
        none.starts_with("the medium has no sites called west for this machine (serial number none;"),
        "{none}"
    );
}

#[test]
fn one_site_is_for_any_machine_unless_it_says_for_which() {
    let one = |matches| SiteFiles::from([("site.toml".to_owned(), site("north", matches))]);
    assert_eq!(chosen(&one(""), None, ""), Ok(String::new()));
    assert!(chosen(&one("[match]\nserial = [\"A\"]"), Some("B"), "").is_err());
    let broken = SiteFiles::from([("site.toml".to_owned(), b"schema = 2".to_vec())]);
    let said = chosen(&broken, None, "").unwrap_err();
    assert!(
        said.starts_with("the site directory \"\" of the medium has problems:\n  site.toml:1: "),
        "{said}"
    );
    assert!(chosen(&SiteFiles::new(), None, "").unwrap_err().starts_with("the medium has no sites for this"));
}
