//! A site's own components: programs that are fetched by their digest and called with the method as argument and the
//! resources in the environment (`LCFG_<component>_<resource>`), as LCFG's components are.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use gatehouse_lcfg::Profile;
use gatehouse_model::{Digest, Doing as _, Fault};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::Means;
use crate::node::target::Target;

/// How much of what a program says is kept: its end, in bytes.
pub const TAIL: usize = 4096;
/// Where programs lie on a node, each under its digest.
const DIRECTORY: &str = "/var/lib/gatehouse/components";
/// A program that has not ended by then never will.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// apt may have to fetch and unpack hundreds of packages on an emulated machine.
const LONGEST_CHANGE: Duration = Duration::from_secs(4 * 3600);
/// How long the end of what a program said is waited for, when something it started holds on to its output.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Where what a profile names is looked for.
pub const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Calls the program of a component.
///
/// # Errors
/// It cannot be fetched or started, does not end, or ends with another status than 0; the fault has the end of what
/// it said.
pub(super) fn run(means: &Means<'_>, component: &str, method: &str, digest: &Digest) -> Result<(), Fault> {
    let path = fetch(means, digest).doing(|| format!("fetching the program of {component}"))?;
    let mut command = means.target.command(&path);
    command.arg(method).env_clear().env("PATH", SEARCH_PATH).env("LC_ALL", "C.UTF-8");
    command.envs(environment(means.profile, component));
    let output = watched(command, LONGEST).doing(|| format!("starting the program of {component}"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = tail(&output);
    Err(Fault::new(format!("{component} {method} ended with {}:\n{words}", output.status)))
}

/// The path of a program on the node, where it is fetched if it is not there.
fn fetch(means: &Means<'_>, digest: &Digest) -> Result<String, Fault> {
    let Means { target, client, .. } = means;
    let path = format!("{DIRECTORY}/{digest}");
    let there = std::fs::read(target.at(&path)).is_ok_and(|bytes| Digest::of(&bytes) == *digest);
    if !there {
        let bytes = client.program(digest)?;
        target.directory(DIRECTORY, 0o700)?;
        target.write(&path, 0o700, &bytes)?;
    }
    Ok(path)
}

/// Removes the programs that a profile no longer names.
///
/// # Errors
/// What the file system says.
pub fn tidy(target: &Target, profile: &Profile) -> Result<(), Fault> {
    let named: Vec<&str> = profile
        .tags("profile", "programs")
        .into_iter()
        .filter_map(|name| profile.get("profile", &format!("program_{name}")))
        .collect();
    let Ok(entries) = std::fs::read_dir(target.at(DIRECTORY)) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !named.contains(&name.as_str()) {
            target.remove(&format!("{DIRECTORY}/{name}"))?;
        }
    }
    Ok(())
}

/// The environment of a component's program: for each resource its value and its type, and the names of all of them.
fn environment(profile: &Profile, component: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let found = profile.components.iter().find(|(name, _)| name == component);
    let mut names = Vec::new();
    for (name, resource) in found.iter().flat_map(|(_, found)| &found.resources) {
        let Some(value) = profile.get(component, name) else { continue };
        all.insert(format!("LCFG_{component}_{name}"), value.to_owned());
        all.insert(format!("LCFGTYPE_{component}_{name}"), resource.kind.to_string());
        names.push(name.as_str());
    }
    // LCFG's own key is `_RESOURCES`, behind the same prefix as every name.
    all.insert(format!("LCFG_{component}__RESOURCES"), names.join(" "));
    all
}

/// Runs a program that may take hours to its end.
pub fn whole(command: Command) -> io::Result<Output> {
    watched(command, LONGEST_CHANGE)
}

/// Runs a program to its end with all that it says in one stream, of which the end is kept in `stdout`. One that
/// takes too long is killed with everything it has started.
///
/// # Errors
/// It cannot be started.
pub fn watched(mut command: Command, longest: Duration) -> io::Result<Output> {
    let (reader, writer) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    let mut child = command.spawn()?;
    // The command holds the pipe's other end, at whose close the reading ends.
    drop(command);
    let kept = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&kept);
    let reading = thread::spawn(move || read_tail(reader, &into));
    let status = wait(&mut child, longest)?;
    let begun = Instant::now();
    while !reading.is_finished() && begun.elapsed() < LAST_WORDS {
        thread::sleep(Duration::from_millis(5));
    }
    let stdout = kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(Output { status, stdout, stderr: Vec::new() })
}

fn wait(child: &mut Child, longest: Duration) -> io::Result<ExitStatus> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if begun.elapsed() > longest {
            let group = i32::try_from(child.id()).map_err(io::Error::other)?;
            // It may just have ended by itself.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            return child.wait();
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Reads to the end; of what comes, the last [`TAIL`] bytes are kept.
pub fn read_tail(mut reader: impl io::Read, kept: &Mutex<Vec<u8>>) {
    let mut piece = [0; TAIL];
    while let Ok(count) = reader.read(&mut piece) {
        if count == 0 {
            return;
        }
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&piece[..count]);
        let over = kept.len().saturating_sub(TAIL);
        kept.drain(..over);
    }
}

/// The end of what a program said, as text.
pub fn tail(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use gatehouse_lcfg::{Component, Kind, Resource};

    use super::*;

    fn shell(line: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        command
    }

    #[test]
    fn the_end_of_what_it_says_is_kept() {
        let output = watched(shell("echo out; echo err >&2; exit 3"), LONGEST).expect("it runs");
        assert_eq!((output.status.code(), tail(&output).as_str()), (Some(3), "out\nerr"));
        let long = watched(shell("seq 1 5000"), LONGEST).expect("it runs");
        assert_eq!(long.stdout.len(), TAIL);
        assert!(tail(&long).ends_with("4999\n5000"));
    }

    #[test]
    fn one_that_does_not_end_is_killed_with_what_it_started() {
        let output =
            watched(shell("echo here; sleep 600 & sleep 600"), Duration::from_millis(300)).expect("it runs");
        assert!(!output.status.success());
        assert_eq!(tail(&output), "here");
    }

    #[test]
    fn one_that_leaves_a_daemon_behind_is_not_waited_for() {
        let output = watched(shell("echo here; sleep 5 &"), LONGEST).expect("it runs");
        assert!(output.status.success());
        assert_eq!(tail(&output), "here");
    }

    #[test]
    fn resources_are_in_the_environment() {
        let resource = |value: &str, kind| Resource { value: value.into(), kind, ..Resource::default() };
        let resources = [
            ("lines".to_owned(), resource("a b", Kind::List(vec!["text_$".into()]))),
            ("on".to_owned(), resource("yes", Kind::Boolean)),
            ("text_a".to_owned(), resource("one\ntwo", Kind::String)),
        ];
        let motd = Component { resources: resources.into(), ..Component::default() };
        let profile = Profile { components: vec![("motd".into(), motd)], ..Profile::default() };
        let all = environment(&profile, "motd");
        let get = |name: &str| all.get(name).map(String::as_str);
        assert_eq!(get("LCFG_motd_lines"), Some("a b"));
        assert_eq!(get("LCFGTYPE_motd_lines"), Some("list: text_$"));
        assert_eq!(get("LCFGTYPE_motd_on"), Some("boolean"));
        assert_eq!(get("LCFG_motd_text_a"), Some("one\ntwo"));
        assert_eq!(get("LCFG_motd__RESOURCES"), Some("lines on text_a"));
        assert_eq!(all.len(), 7);
    }
}
