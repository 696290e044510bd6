//! Ways into a trial by ssh: a key of its own, forwarded ports, and a file for `ssh -F`.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gatehouse_model::{Doing as _, Fault, Site};

use crate::tool;

/// One forwarded port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The host's or a node's name.
    pub name: String,
    /// Its address on the site's network.
    pub address: Ipv4Addr,
    /// The port on 127.0.0.1.
    pub port: u16,
    /// Whether it is a node that the trial waits for: not the host, no machine of its own, none that people start.
    pub awaited: bool,
}

/// All forwarded ports of a trial.
#[derive(Clone, Debug)]
pub struct Ways {
    /// The trial's public key.
    pub public_key: String,
    /// The file for `ssh -F`.
    pub config: PathBuf,
    /// The host's way first, then the nodes'.
    pub all: Vec<Way>,
}

/// Makes the key, picks free ports and writes the file; a resumed trial keeps its key.
///
/// # Errors
/// ssh-keygen is missing, or there is no free port.
pub fn prepare(dir: &Path, site: &Site) -> Result<Ways, Fault> {
    let ssh = dir.join("ssh");
    fs::create_dir_all(&ssh).doing(|| format!("making {}", ssh.display()))?;
    let key = ssh.join("id");
    if !key.exists() {
        let key = key.display().to_string();
        tool::run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "gatehouse-try", "-f", &key])
            .map_err(|fault| fault.help("install openssh-client"))?;
    }
    let public_key = fs::read_to_string(ssh.join("id.pub")).doing(|| "reading the trial's key")?;
    let host = (site.name.to_string(), site.network.host, false);
    let nodes = site.nodes.iter().map(|node| {
        let awaited = node.machine.is_none() && node.autostart;
        (node.name.to_string(), node.address, awaited)
    });
    // All are held open until every port is chosen, so that none is chosen twice.
    let mut held = Vec::new();
    let mut all = Vec::new();
    for (name, address, awaited) in std::iter::once(host).chain(nodes) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing(|| "looking for a free port")?;
        all.push(Way { name, address, port: listener.local_addr()?.port(), awaited });
        held.push(listener);
    }
    let config = ssh.join("config");
    fs::write(&config, render(&all, &key)).doing(|| format!("writing {}", config.display()))?;
    Ok(Ways { public_key: public_key.trim().to_owned(), config, all })
}

fn render(ways: &[Way], key: &Path) -> String {
    let block =
        |way: &Way| format!("Host {} {}\n  HostName 127.0.0.1\n  Port {}\n", way.name, way.address, way.port);
    let blocks: String = ways.iter().map(block).collect();
    // Every trial makes its machines and their keys anew, so a known key would only be in the way.
    format!(
        "{blocks}Host *\n  User root\n  IdentityFile {}\n  IdentitiesOnly yes\n  StrictHostKeyChecking no\n  \
         UserKnownHostsFile /dev/null\n  LogLevel ERROR\n  ConnectTimeout 60\n",
        quoted(&key.display().to_string())
    )
}

/// A path as ssh reads it in its configuration; `%` would begin a word that it fills in.
fn quoted(path: &str) -> String {
    format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"))
}

/// A path as a person may give it to a shell.
pub fn for_shell(path: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "/._-+:,@%=".contains(letter);
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

impl Ways {
    /// The way to a host or node.
    pub fn of(&self, name: &str) -> Option<&Way> {
        self.all.iter().find(|way| way.name == name)
    }

    /// Whether the trial waits for a node.
    pub fn awaits(&self, name: &str) -> bool {
        self.of(name).is_some_and(|way| way.awaited)
    }

    /// Waits until every node lets one in that the trial waits for.
    ///
    /// # Errors
    /// One does not within the time.
    pub fn wait_for_all(&self, at_most: Duration) -> Result<(), Fault> {
        let begun = Instant::now();
        for way in self.all.iter().filter(|way| way.awaited) {
            loop {
                let output = self.command(&way.name, &["true"]).output().doing(|| "starting ssh")?;
                if output.status.success() {
                    break;
                }
                if begun.elapsed() > at_most {
                    let words = String::from_utf8_lossy(&output.stderr);
                    return Err(Fault::new(format!("ssh into {}: {}", way.name, words.trim())));
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        Ok(())
    }

    /// A command that runs something there.
    pub fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(&self.config).args(["-o", "BatchMode=yes", name]).args(args);
        command.stdin(Stdio::null());
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_a_host_block_for_each() {
        let way = Way { name: "ce".into(), address: Ipv4Addr::new(10, 0, 2, 21), port: 4022, awaited: true };
        let text = render(&[way], Path::new("/k/id"));
        assert!(
            text.starts_with("Host ce 10.0.2.21\n  HostName 127.0.0.1\n  Port 4022\nHost *\n  User root\n")
        );
        assert!(text.contains("IdentityFile \"/k/id\"\n"));
    }

    #[test]
    fn paths_are_quoted_where_they_must_be() {
        for (path, ssh, shell) in [
            ("/x/a-b.c", "\"/x/a-b.c\"", "/x/a-b.c"),
            ("/x/my trials", "\"/x/my trials\"", "'/x/my trials'"),
            ("/x/50%", "\"/x/50%%\"", "/x/50%"),
            ("/x/a\"b\\c'd", "\"/x/a\\\"b\\\\c'd\"", "'/x/a\"b\\c'\\''d'"),
        ] {
            assert_eq!((quoted(path), for_shell(path)), (ssh.to_owned(), shell.to_owned()));
        }
    }
}
