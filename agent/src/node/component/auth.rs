//! `auth`: root's password and keys, and users besides those that packages make.

use gatehouse_model::{Doing as _, Fault};

use super::work::Work;
use crate::node::render::{self, User};

pub(super) fn configure(work: &mut Work<'_>) -> Result<(), Fault> {
    let hash = Some(work.get("rootpwd")).filter(|hash| !hash.is_empty()).unwrap_or("*");
    work.edit("/etc/shadow", |shadow| render::with_password(shadow, "root", hash))?;
    // One that is no longer listed stays: files may be his.
    for tag in work.words("extrapasswd") {
        user(work, tag).doing(|| format!("making the user {tag}"))?;
    }
    let keys: Vec<String> =
        work.words("rootkeys").into_iter().map(|tag| work.of("rootkey", tag).to_owned()).collect();
    work.target.directory("/root/.ssh", 0o700)?;
    work.write("/root/.ssh/authorized_keys", 0o600, &render::authorized_keys(&keys))
}

fn user(work: &mut Work<'_>, tag: &str) -> Result<(), Fault> {
    let passwd = work.target.read("/etc/passwd");
    let name = work.of_or("pw_name", tag, tag);
    let number =
        |field: &str, text: &str| text.parse::<u32>().map_err(|_| work.wrong(field, tag, "write a number"));
    let uid = match work.of("pw_uid", tag) {
        "" => render::uid_of(&passwd, &name).unwrap_or_else(|| render::free_uid(&passwd)),
        given => number("pw_uid", given)?,
    };
    let gid = number("pw_gid", &work.of_or("pw_gid", tag, &uid.to_string()))?;
    let user = User {
        password: work.of_or("pw_passwd", tag, "*"),
        uid,
        gid,
        comment: work.of("pw_gecos", tag).to_owned(),
        home: work.of_or("pw_dir", tag, &format!("/home/{name}")),
        shell: work.of_or("pw_shell", tag, "/bin/bash"),
        name,
    };
    work.edit("/etc/passwd", |file| render::with_entry(file, &user.passwd()))?;
    work.edit("/etc/shadow", |file| render::with_password(file, &user.name, &user.password))?;
    let groups = work.target.read("/etc/group");
    if !groups.lines().any(|line| line.split(':').nth(2) == Some(gid.to_string().as_str())) {
        let group = format!("{}:x:{gid}:", user.name);
        work.edit("/etc/group", |file| render::with_entry(file, &group))?;
        let shadow = format!("{}:!::", user.name);
        work.edit("/etc/gshadow", |file| render::with_entry(file, &shadow))?;
    }
    if work.target.has(&user.home) {
        return Ok(());
    }
    work.target.directory(&user.home, 0o700)?;
    work.target.owner(&user.home, uid, gid).map(drop)
}
