//! Where a backup goes to and comes from: a file, a file on another machine, or a pipe.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;

use gatehouse_model::{Doing as _, Exit, Fault};

/// A place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Standard output or input.
    Pipe,
    /// A file here.
    File(PathBuf),
    /// A file on a machine that is reached by ssh.
    Ssh {
        /// As ssh wants it: `user@host`.
        host: String,
        /// The port; ssh's own if it is not given.
        port: Option<u16>,
        /// The file there.
        path: String,
    },
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Pipe);
        }
        let Some(rest) = text.strip_prefix("ssh://") else { return Ok(Self::File(text.into())) };
        let wrong = || format!("{text:?} is no place on another machine; write ssh://user@host/path");
        let (host, path) = rest.split_once('/').ok_or_else(wrong)?;
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| wrong())?)),
            None => (host, None),
        };
        // ssh would take it for an option.
        if host.is_empty() || path.is_empty() || host.starts_with('-') {
            return Err(wrong());
        }
        Ok(Self::Ssh { host: host.to_owned(), port, path: format!("/{path}") })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pipe => f.write_str("-"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Ssh { host, port: None, path } => write!(f, "ssh://{host}{path}"),
            Self::Ssh { host, port: Some(port), path } => write!(f, "ssh://{host}:{port}{path}"),
        }
    }
}

impl Place {
    /// A command on the other machine.
    fn ssh(host: &str, port: Option<u16>, command: &str) -> Command {
        let mut ssh = Command::new("ssh");
        if let Some(port) = port {
            ssh.arg("-p").arg(port.to_string());
        }
        ssh.args(["--", host, command]);
        ssh
    }

    /// What stands there.
    ///
    /// # Errors
    /// There is nothing.
    pub fn read(&self) -> Result<Box<dyn Read>, Fault> {
        match self {
            Self::Pipe => Ok(Box::new(io::stdin())),
            Self::File(path) => {
                Ok(Box::new(File::open(path).doing(|| format!("opening {}", path.display()))?))
            }
            Self::Ssh { host, port, path } => {
                let mut child = Self::ssh(host, *port, &format!("exec cat {}", quoted(path)))
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .spawn()
                    .doing(|| "starting ssh")?;
                let out = child.stdout.take().ok_or_else(|| Fault::new("ssh has no standard output"))?;
                Ok(Box::new(Fetching { child, out }))
            }
        }
    }
}

/// A file that comes over ssh; a cut connection is seen by what is missing of the file.
struct Fetching {
    child: Child,
    out: std::process::ChildStdout,
}

impl Read for Fetching {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.out.read(buffer)
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A backup that is being written; there under its name once it is finished, and not at all if it never is.
#[derive(Debug)]
pub struct Out {
    target: Target,
    /// How many bytes have gone out.
    pub written: u64,
}

#[derive(Debug)]
enum Target {
    Pipe(io::Stdout),
    File {
        file: File,
        path: PathBuf,
    },
    Ssh {
        child: Child,
        host: String,
        port: Option<u16>,
        path: String,
    },
    /// Nothing is left to do.
    Done,
}

impl Out {
    /// Begins to write.
    ///
    /// # Errors
    /// The file cannot be made; standard output is a terminal.
    pub fn open(place: &Place) -> Result<Self, Fault> {
        let target = match place {
            Place::Pipe if io::stdout().is_terminal() => {
                return Err(Fault::new("a backup on a terminal is of no use to anybody")
                    .help("send it into a pipe, or name a file with -o")
                    .exit(Exit::Problem));
            }
            Place::Pipe => Target::Pipe(io::stdout()),
            Place::File(path) => {
                let partial = partial(path);
                let mut options = OpenOptions::new();
                let options = options.write(true).create(true).truncate(true).mode(0o600);
                let file = options.open(&partial).doing(|| format!("making {}", partial.display()))?;
                Target::File { file, path: path.clone() }
            }
            Place::Ssh { host, port, path } => {
                let command = format!("umask 077 && exec cat >{}", quoted(&partial_name(path)));
                let mut ssh = Place::ssh(host, *port, &command);
                let child =
                    ssh.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().doing(|| "starting ssh")?;
                Target::Ssh { child, host: host.clone(), port: *port, path: path.clone() }
            }
        };
        Ok(Self { target, written: 0 })
    }

    /// All is written: it gets its name, once it is on the disk.
    ///
    /// # Errors
    /// It cannot be synced or renamed.
    pub fn finish(mut self) -> Result<(), Fault> {
        match &mut self.target {
            Target::Pipe(out) => out.flush().doing(|| "writing to stdout")?,
            Target::Done => {}
            Target::File { file, path } => {
                let doing = || format!("writing {}", path.display());
                file.sync_all().and_then(|()| fs::rename(partial(path), &path)).doing(doing)?;
                let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
                File::open(dir).and_then(|dir| dir.sync_all()).doing(doing)?;
            }
            Target::Ssh { child, host, port, path } => {
                let doing = || format!("writing {path} on {host}");
                drop(child.stdin.take());
                ended(child.wait().doing(doing)?).doing(doing)?;
                // Not before: what ends early for want of a connection must not get the name.
                let (from, to) = (quoted(&partial_name(path)), quoted(path));
                let command = format!("sync {from} && mv {from} {to}");
                ended(Place::ssh(host, *port, &command).status().doing(doing)?).doing(doing)?;
            }
        }
        self.target = Target::Done;
        Ok(())
    }
}

fn ended(status: std::process::ExitStatus) -> Result<(), Fault> {
    if status.success() { Ok(()) } else { Err(Fault::new(format!("ssh ended with {status}"))) }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = match &mut self.target {
            Target::Pipe(out) => out.write(bytes)?,
            Target::File { file, .. } => file.write(bytes)?,
            Target::Ssh { child, .. } => match &mut child.stdin {
                Some(pipe) => pipe.write(bytes)?,
                None => 0,
            },
            Target::Done => 0,
        };
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.target {
            Target::Pipe(out) => out.flush(),
            _ => Ok(()),
        }
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        match &mut self.target {
            Target::File { path, .. } => drop(fs::remove_file(partial(path))),
            Target::Ssh { child, host, port, path } => {
                let _ = child.kill();
                let _ = child.wait();
                let command = format!("rm -f {}", quoted(&partial_name(path)));
                let _ = Place::ssh(host, *port, &command).stdin(Stdio::null()).status();
            }
            Target::Pipe(_) | Target::Done => {}
        }
    }
}

/// A name that no other backup to the same place has.
fn partial_name(name: &str) -> String {
    format!("{name}.{}.partial", std::process::id())
}

fn partial(path: &Path) -> PathBuf {
    path.with_file_name(partial_name(&path.file_name().unwrap_or_default().to_string_lossy()))
}

/// A path as a word of a shell's.
fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_shown() {
        let ssh = |host: &str, port, path: &str| Place::Ssh { host: host.into(), port, path: path.into() };
        for (text, place) in [
            ("-", Place::Pipe),
            ("ce.tar.zst", Place::File("ce.tar.zst".into())),
            ("ssh://root@store/srv/ce's", ssh("root@store", None, "/srv/ce's")),
            ("ssh://store:2222/x", ssh("store", Some(2222), "/x")),
        ] {
            assert_eq!(text.parse(), Ok(place.clone()));
            assert_eq!(place.to_string(), text);
        }
        for wrong in
            ["ssh://store", "ssh://store/", "ssh:///x", "ssh://store:x/y", "ssh://-oProxyCommand=x/y"]
        {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
        assert_eq!(quoted("/srv/ce's"), "'/srv/ce'\\''s'");
    }

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = Place::File(dir.path().join("ce"));
        fs::write(dir.path().join("ce"), "old").expect("written");
        let names = || fs::read_dir(dir.path()).expect("read").count();
        let mut out = Out::open(&place).expect("opened");
        out.write_all(b"half").expect("written");
        assert_eq!(names(), 2);
        drop(out);
        assert_eq!((names(), fs::read(dir.path().join("ce")).expect("there")), (1, b"old".to_vec()));
        let mut out = Out::open(&place).expect("opened");
        out.write_all(b"whole").expect("written");
        assert_eq!(out.written, 5);
        out.finish().expect("finished");
        assert_eq!((names(), fs::read(dir.path().join("ce")).expect("there")), (1, b"whole".to_vec()));
    }
}
