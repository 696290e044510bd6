//! `[grid]` and `[[grid-user]]`: the subjects that the site's Grid authority certifies.

use super::read::{At, Reader, Section};
use super::{AUTHORITY_NAME, Grid, GridUser};
use crate::{NodeName, Subject};

pub(super) const GRID: &[&str] = &["base", "certificate-days", "authority-days"];
pub(super) const GRID_USER: &[&str] = &["name", "uid", "dn"];

/// Words that mean something else where users are named: the node's own certificate, and the administrator.
const RESERVED: &[&str] = &["host", "root"];
/// Below are Debian's own accounts, above those of containers.
const UIDS: (u32, u32) = (1000, 60_000);

/// What makes a site a Grid site; none if it has neither section.
pub(super) fn grid(
    r: &mut Reader,
    top: &Section<'_>,
    site: Option<&NodeName>,
    domain: Option<&str>,
) -> Option<Grid> {
    let section = top.section(r, "grid", "grid");
    section.only(r, GRID);
    let sections = top.sections(r, "grid-user");
    if !top.has("grid") && !top.has("grid-user") {
        return None;
    }
    let base = section.read(r, "base", base).map(|at| at.value);
    let base = base.or_else(|| Some(Subject::of_site(site.filter(|_| !section.has("base"))?.as_str())));
    let authority_days = section.number(r, "authority-days", 1, 36_500).unwrap_or(3650);
    let certificate_days = section.number(r, "certificate-days", 1, 3650).unwrap_or(395);
    if certificate_days > authority_days {
        let what = format!(
            "grid.certificate-days: {certificate_days} days are more than authority-days, {authority_days}; write less"
        );
        r.problem(section.line, what);
    }
    let users = users(r, &sections, base.as_ref(), domain);
    Some(Grid { base: base?, certificate_days, authority_days, users })
}

fn base(text: &str) -> Result<Subject, String> {
    let subject: Subject = text.parse()?;
    if subject.has_name() {
        return Err(format!("{text:?} is the name of one; write what stands before CN"));
    }
    Ok(subject)
}

fn users(
    r: &mut Reader,
    sections: &[Section<'_>],
    base: Option<&Subject>,
    domain: Option<&str>,
) -> Vec<GridUser> {
    let mut users: Vec<GridUser> = Vec::new();
    for section in sections {
        section.only(r, GRID_USER);
        let name = section.read(r, "name", user_name);
        let name = section.require(r, "name", name, "\"alice\"");
        let uid = section.number(r, "uid", UIDS.0, UIDS.1);
        let uid = section.require(r, "uid", uid, "20001");
        let given = section.read(r, "dn", |text| user_dn(text, base, domain));
        if let Some(name) = &name
            && users.iter().any(|user| user.name == name.value)
        {
            r.problem(
                name.line,
                format!("grid-user.name: {} is there already; write another one", name.value),
            );
        }
        if let Some(other) = uid.and_then(|uid| users.iter().find(|user| user.uid == uid)) {
            let what =
                format!("grid-user.uid: {} is that of {} already; write another one", other.uid, other.name);
            r.problem(section.line, what);
        }
        let (Some(name), Some(uid)) = (name, uid) else { continue };
        let own = || Some(At { line: name.line, value: base?.named(&name.value) });
        let dn = if section.has("dn") { given } else { own() };
        let Some(dn) = dn else { continue };
        if let Some(other) = users.iter().find(|user| user.dn == dn.value) {
            let what =
                format!("grid-user.dn: {} is that of {} already; write another one", other.dn, other.name);
            r.problem(dn.line, what);
        }
        users.push(GridUser { name: name.value, uid, dn: dn.value });
    }
    users
}

/// A name that is good for an account, and as a tag of an LCFG list, which knows no hyphens.
fn user_name(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if RESERVED.contains(&text) {
        return Err(format!("{text:?} has a meaning of its own; write another name"));
    }
    if text.len() <= 32 && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(good) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is not a user's name; write 1 to 32 lower-case letters, digits and underscores, a letter first"
    ))
}

fn user_dn(text: &str, base: Option<&Subject>, domain: Option<&str>) -> Result<Subject, String> {
    let subject: Subject = text.parse()?;
    let Some(base) = base else { return Ok(subject) };
    if !subject.is_below(base) || !subject.has_name() {
        return Err(format!("{text:?} is not a name below {base}; write {base}/CN=Alice"));
    }
    let name = subject.parts().last().map(|(_, name)| name.as_str()).unwrap_or_default();
    let host = domain.is_some_and(|domain| name.ends_with(&format!(".{domain}")));
    if host || name == AUTHORITY_NAME {
        return Err(format!("{text:?} is not a person's name, but one of the site's own; write another one"));
    }
    Ok(subject)
}
