//! apt-get, with sources and lists of its own: what anybody has put into the node's `/etc/apt` does not count, and
//! the pool is believed by its signature alone.

use std::process::Output;

use gatehouse_lcfg::Profile;
use gatehouse_model::{Doing as _, Fault};

use super::plan::Plan;
use super::{look, sources};
use crate::node::client::Client;
use crate::node::component::program;
use crate::node::target::Target;

/// Where apt's own lists and sources for the client are; its downloader, which is no root, must get in.
const DIRECTORY: &str = "/var/lib/gatehouse/apt";
/// How apt is run: nobody is there to be asked, and what the administrator has changed in a file stays.
const OPTIONS: [&str; 13] = [
    "-q",
    "-y",
    "--allow-downgrades",
    "--allow-change-held-packages",
    "--no-install-recommends",
    "-oDpkg::Options::=--force-confold",
    "-oDpkg::Options::=--force-confdef",
    "-oDpkg::Use-Pty=0",
    "-oDPkg::Lock::Timeout=120",
    "-oAcquire::Retries=3",
    // A node's disk is small, and what is fetched once is hardly ever wanted again.
    "-oAPT::Keep-Downloaded-Packages=false",
    "-oAPT::Update::Error-Mode=any",
    "-oAcquire::Languages=none",
];

/// Changes the packages of the running node. Whether everything is as it should be is looked at afterwards: apt
/// may have needed a package that the profile does not list.
///
/// # Errors
/// A source cannot be reached, apt or a package's script fails, or something still differs; the fault has the end
/// of what apt said.
pub fn carry_out(
    client: &Client,
    target: &Target,
    profile: &Profile,
    plan: &Plan,
    at_boot: bool,
) -> Result<(), Fault> {
    if plan.repair {
        finish("repairing an interrupted change", &dpkg(target)?)?;
    }
    if plan.now.is_empty() {
        return Ok(());
    }
    prepare(client, profile, target)?;
    finish("reading the package lists", &apt_get(target, &["update".to_owned()])?)?;
    let mut arguments = vec!["install".to_owned()];
    arguments.extend(plan.autoremove.then(|| "--auto-remove".to_owned()));
    arguments.extend(plan.arguments());
    let output = apt_get(target, &arguments)?;
    finish("changing packages", &output)?;
    let left = look(target, profile, at_boot)?;
    match left.now.first() {
        None => Ok(()),
        Some(first) => {
            let (count, end) = (left.now.len(), program::tail(&output));
            Err(Fault::new(format!(
                "apt was content, and {count} packages still differ ({first}); it said:\n{end}"
            ))
            .help("list the packages that the others depend on, or take out those that need them"))
        }
    }
}

/// Writes down where packages come from: the pool, whose key came over TLS, and the profile's archives.
fn prepare(client: &Client, profile: &Profile, target: &Target) -> Result<(), Fault> {
    let key = client.pool_key()?;
    let key = key.ok_or_else(|| Fault::new("the server has not signed its pool yet"))?;
    target.write(sources::KEYRING, 0o644, key.as_bytes())?;
    let suite = sources::suite(&target.read("/etc/os-release"));
    let pool_suite = client.depot()?.pool.suite;
    let mirrors = sources::mirrors(&sources::of_profile(profile), &suite, |path| target.has(path));
    let pool = sources::pool(client.server(), &pool_suite);
    for dir in ["parts", "lists", "lists/partial"] {
        target.directory(&format!("{DIRECTORY}/{dir}"), 0o755)?;
    }
    target.write(
        &format!("{DIRECTORY}/parts/gatehouse.sources"),
        0o644,
        format!("{pool}\n{mirrors}").as_bytes(),
    )?;
    Ok(())
}

fn apt_get(target: &Target, arguments: &[String]) -> Result<Output, Fault> {
    let mut command = target.command("apt-get");
    command.args(OPTIONS);
    command.arg("-oDir::Etc::sourcelist=/dev/null").arg(format!("-oDir::Etc::sourceparts={DIRECTORY}/parts"));
    command.arg(format!("-oDir::State::lists={DIRECTORY}/lists"));
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    program::whole(command).doing(|| "starting apt-get")
}

fn dpkg(target: &Target) -> Result<Output, Fault> {
    let mut command = target.command("dpkg");
    command.args(["--force-confold", "--force-confdef", "--configure", "-a"]);
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    program::whole(command).doing(|| "starting dpkg")
}

fn finish(doing: &str, output: &Output) -> Result<(), Fault> {
    if output.status.success() {
        return Ok(());
    }
    Err(Fault::new(format!("{doing}: ended with {}:\n{}", output.status, program::tail(output))))
}
