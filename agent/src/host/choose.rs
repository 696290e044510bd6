//! Which disk and which NIC a site means: all keys of a rule must match, and a refusal says of everything
//! seen why it did or did not.

use gatehouse_model::Refusal;
use gatehouse_model::site::{DiskRule, DiskSort, NicRule};

use super::facts::{DiskFact, Facts, Firmware, LinkFact, list, round};

/// The NIC that the site's rule names.
///
/// # Errors
/// None matches, or several do.
pub fn nic<'a>(rule: &NicRule, facts: &'a Facts) -> Result<&'a LinkFact, Refusal> {
    let judged: Vec<_> = facts.links.iter().map(|link| (link, nic_against(rule, link))).collect();
    let fits: Vec<_> =
        judged.iter().filter(|(_, against)| against.is_empty()).map(|(link, _)| *link).collect();
    if let [only] = fits.as_slice() {
        return Ok(only);
    }
    let seen = judged.iter().map(|(link, against)| (link.to_string(), against.clone()));
    let what = describe("NIC", fits.len(), 1, &seen.collect::<Vec<_>>());
    Err(Refusal::new(what, "name one NIC under network.nic in site.toml, by mac, driver, path or link"))
}

/// The disks that a rule names.
///
/// # Errors
/// Not as many match as are wanted.
pub fn disks<'a>(rule: &DiskRule, facts: &'a Facts) -> Result<Vec<&'a DiskFact>, Refusal> {
    let judged: Vec<_> = facts.disks.iter().map(|disk| (disk, against(rule, disk, facts))).collect();
    let mut fits: Vec<&DiskFact> =
        judged.iter().filter(|(_, against)| against.is_empty()).map(|(disk, _)| *disk).collect();
    match rule.sort {
        Some(DiskSort::Smallest) => fits.sort_by_key(|disk| disk.bytes),
        Some(DiskSort::Largest) => fits.sort_by_key(|disk| std::cmp::Reverse(disk.bytes)),
        None => {}
    }
    let wanted = usize::try_from(rule.count).unwrap_or(usize::MAX);
    if fits.len() == wanted || (fits.len() > wanted && rule.sort.is_some()) {
        fits.truncate(wanted);
        return Ok(fits);
    }
    let seen = judged.iter().map(|(disk, against)| (disk.to_string(), against.clone()));
    let what = describe("disk", fits.len(), wanted, &seen.collect::<Vec<_>>());
    Err(Refusal::new(
        what,
        "change the keys of [[disk]] in site.toml so that they name the disk, or add sort",
    ))
}

/// Why a disk is not one that a rule names; nothing: it is.
pub fn against(rule: &DiskRule, disk: &DiskFact, facts: &Facts) -> Vec<String> {
    [never(disk, facts), disk_against(rule, disk)].concat()
}

/// Whether a rule means one certain disk, whatever else may show.
pub fn is_exact(rule: &DiskRule) -> bool {
    let exact = |text: &Option<String>| text.as_ref().is_some_and(|glob| !glob.contains(['*', '?']));
    [&rule.serial, &rule.wwn, &rule.path].into_iter().any(exact)
}

/// Everything seen, a line each, with why it did not match.
fn describe(noun: &str, fits: usize, wanted: usize, seen: &[(String, Vec<String>)]) -> String {
    let number = if fits == 0 { "no".to_owned() } else { fits.to_string() };
    let plural = if fits == 1 { "" } else { "s" };
    let verb = if fits == 1 { "matches" } else { "match" };
    let mut out = format!("{number} {noun}{plural} {verb} the rule, which wants {wanted}; seen:");
    if seen.is_empty() {
        out.push_str(" none at all");
    }
    out + &list(seen.iter().map(|(line, against)| {
        let why = if against.is_empty() { "matches".to_owned() } else { against.join(", ") };
        format!("{line}: {why}")
    }))
}

fn nic_against(rule: &NicRule, link: &LinkFact) -> Vec<String> {
    let mut against = Vec::new();
    if let Some(mac) = rule.mac.filter(|mac| *mac != link.mac) {
        against.push(format!("mac is not {mac}"));
    }
    text(&mut against, "driver", rule.driver.as_deref(), link.driver.iter().map(String::as_str));
    let places = std::iter::once(link.name.as_str()).chain(link.path.as_deref());
    text(&mut against, "path", rule.path.as_deref(), places);
    if rule.link.is_some_and(|wanted| wanted != (link.carrier == Some(true))) {
        against.push(format!("link is not {}", rule.link == Some(true)));
    }
    against
}

/// Why a disk is not installed to, whatever a rule says.
pub fn never(disk: &DiskFact, facts: &Facts) -> Vec<String> {
    let mut against = Vec::new();
    if let Some(booted) = facts.booted_from() {
        if booted.name == disk.name {
            against.push("the system was booted from it".to_owned());
        } else if booted.id.is_some() && booted.id == disk.id {
            against.push(format!("a copy of {}, which the system was booted from", booted.name));
        }
    }
    if let Some(twin) = facts.disks.iter().find(|other| other.name != disk.name && is_same(other, disk)) {
        against.push(format!("another path to {}", twin.name));
    }
    if !disk.used_by.is_empty() {
        against.push(format!("used by {}", disk.used_by.join(", ")));
    }
    if disk.read_only {
        against.push("write protected".to_owned());
    }
    if disk.sector_size != 512 && facts.firmware == Firmware::Bios {
        against.push(format!("sectors of {} bytes, from which a BIOS does not start", disk.sector_size));
    }
    if disk.trouble.is_some() && disk.claim.is_none() {
        against.push("damaged".to_owned());
    }
    against
}

/// One disk on two paths. Some virtual disks and cheap sticks all have one name, so that sizes count too.
fn is_same(one: &DiskFact, other: &DiskFact) -> bool {
    one.wwn.is_some() && one.wwn == other.wwn && one.bytes == other.bytes && one.serial == other.serial
}

fn disk_against(rule: &DiskRule, disk: &DiskFact) -> Vec<String> {
    let mut against = Vec::new();
    let device = format!("/dev/{}", disk.name);
    let by_path = disk.paths.iter().map(String::as_str);
    text(&mut against, "path", rule.path.as_deref(), by_path.chain([disk.name.as_str(), device.as_str()]));
    for (key, wanted, value) in [
        ("serial", &rule.serial, &disk.serial),
        ("model", &rule.model, &disk.model),
        ("vendor", &rule.vendor, &disk.vendor),
        ("bus", &rule.bus, &disk.bus),
    ] {
        text(&mut against, key, wanted.as_deref(), value.iter().map(String::as_str));
    }
    if let Some(wwn) = &rule.wwn
        && !disk.wwn.iter().any(|value| matches(&bare(wwn), &bare(value)))
    {
        against.push(format!("wwn is not {wwn:?}"));
    }
    if let Some(ssd) = rule.ssd.filter(|ssd| *ssd != disk.ssd) {
        against.push(format!("ssd is not {ssd}"));
    }
    if let Some(least) = rule.min_size.filter(|size| disk.bytes < size.as_bytes()) {
        against.push(format!("smaller than {}", round(least.as_bytes())));
    }
    if let Some(most) = rule.max_size.filter(|size| disk.bytes > size.as_bytes()) {
        against.push(format!("larger than {}", round(most.as_bytes())));
    }
    against
}

/// A world wide name without what says of which kind it is: the kernel, lsblk and udev each write that in their own way.
fn bare(wwn: &str) -> String {
    let wwn = wwn.to_lowercase();
    let rest = ["naa.", "eui.", "0x"].iter().find_map(|prefix| wwn.strip_prefix(prefix));
    rest.map_or_else(|| wwn.clone(), str::to_owned)
}

fn text<'a>(
    against: &mut Vec<String>,
    key: &str,
    wanted: Option<&str>,
    mut values: impl Iterator<Item = &'a str>,
) {
    if let Some(glob) = wanted
        && !values.any(|value| matches(glob, value))
    {
        against.push(format!("{key} is not {glob:?}"));
    }
}

/// Whether a glob of `*` and `?` matches a whole text.
pub fn matches(glob: &str, text: &str) -> bool {
    let (glob, text): (Vec<char>, Vec<char>) = (glob.chars().collect(), text.chars().collect());
    let (mut g, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match glob.get(g) {
            Some('*') => {
                star = Some((g, t));
                g += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => (g, t) = (g + 1, t + 1),
            _ => {
                // The last star takes one character more; earlier ones need never be tried again.
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                (g, t) = (at + 1, taken + 1);
            }
        }
    }
    glob[g..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wwn_is_named_in_any_of_its_forms() {
        let disk = |wwn: &str| DiskFact { wwn: Some(wwn.into()), ..DiskFact::default() };
        let fits = |rule: &str, wwn: &str| {
            let rule = DiskRule { wwn: Some(rule.into()), ..DiskRule::default() };
            disk_against(&rule, &disk(wwn)).is_empty()
        };
        for rule in ["naa.5000c500A1B2C3D4", "0x5000c500a1b2c3d4", "5000C500a1b2c3d4", "0x5000c500*", "naa.*"]
        {
            assert!(fits(rule, "naa.5000c500a1b2c3d4"), "{rule}");
        }
        assert!(fits("eui.0025385b71b00a12", "eui.0025385B71B00A12") && fits("t10.ATA*", "t10.ATA  X"));
        assert!(!fits("0x5000c500", "naa.5000c500a1b2c3d4"));
    }

    #[test]
    fn a_rule_without_globs_is_exact() {
        let of = |serial: &str| DiskRule { serial: Some(serial.into()), ..DiskRule::default() };
        assert!(is_exact(&of("Z1")) && !is_exact(&of("Z*")) && !is_exact(&DiskRule::default()));
    }

    #[test]
    fn globs_match_whole_texts() {
        for (glob, text) in [
            ("", ""),
            ("*", ""),
            ("a*c", "abc"),
            ("a*c", "ac"),
            ("*b*b", "abab"),
            ("S?1*", "SX1"),
            ("é?", "éa"),
        ] {
            assert!(matches(glob, text), "{glob} {text}");
        }
        for (glob, text) in [("", "a"), ("a", "ab"), ("a*c", "abd"), ("?", ""), ("*ba", "bab"), ("A", "a")] {
            assert!(!matches(glob, text), "{glob} {text}");
        }
    }
}
