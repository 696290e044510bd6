//! `file`: files, directories and links that no other component looks after.

use gatehouse_model::{Doing as _, Fault};

use super::work::Work;
use crate::node::render;

pub(super) fn configure(work: &mut Work<'_>) -> Result<(), Fault> {
    for tag in work.words("files") {
        one(work, tag).doing(|| format!("making {}", work.of("file", tag)))?;
    }
    Ok(())
}

fn one(work: &mut Work<'_>, tag: &str) -> Result<(), Fault> {
    let path = work.of("file", tag);
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") || path.ends_with('/') {
        return Err(work.wrong("file", tag, "write an absolute path"));
    }
    let text = work.of("tmpl", tag);
    let kind = work.of_or("type", tag, "literal");
    if kind == "link" {
        work.own(path)?;
        let outcome = work.target.link(path, text)?;
        work.note(path, outcome);
        return Ok(());
    }
    let mode = work.of_or("mode", tag, "0644");
    let mode = u32::from_str_radix(&mode, 8).ok().filter(|mode| *mode <= 0o7777);
    let mode = mode.ok_or_else(|| work.wrong("mode", tag, "write octal digits such as 0644"))?;
    let (uid, gid) = owner(work, tag)?;
    match kind.as_str() {
        "literal" => {
            let line_end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            work.write_own(path, mode, &format!("{text}{line_end}"))?;
        }
        "dir" => {
            work.own(path)?;
            let outcome = work.target.directory(path, mode)?;
            work.note(path, outcome);
        }
        _ => return Err(work.wrong("type", tag, "write literal, dir or link")),
    }
    let outcome = work.target.owner(path, uid, gid)?;
    work.note(path, outcome);
    Ok(())
}

fn owner(work: &Work<'_>, tag: &str) -> Result<(u32, u32), Fault> {
    let (user, group) = (work.of_or("owner", tag, "root"), work.of_or("group", tag, "root"));
    let uid = render::uid_of(&work.target.read("/etc/passwd"), &user);
    let gid = render::uid_of(&work.target.read("/etc/group"), &group);
    let uid = uid.ok_or_else(|| work.wrong("owner", tag, "name a user that this node has"))?;
    let gid = gid.ok_or_else(|| work.wrong("group", tag, "name a group that this node has"))?;
    Ok((uid, gid))
}
