//! The account that runs the commands, with the environment of its login.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use gatehouse_model::{Doing as _, Fault};

use super::run::timed;

/// What an account has before its shell has read its profile.
const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// How long a shell may take to read its profile, on an emulated machine.
const SETUP: Duration = Duration::from_secs(120);
/// Tells what a profile printed from what was asked for: the first NUL.
const ENVIRONMENT: &str = "printf '\\0'; exec env -0";
const WORDS: &str = "printf '\\0%s' \"$@\"";

/// An account.
#[derive(Clone, Debug)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
    home: PathBuf,
    environment: BTreeMap<OsString, OsString>,
}

impl Account {
    /// Looks an account up and has a shell read its profile, once: what that costs is no part of any command.
    pub(super) fn of(user: &str) -> Result<Self, Fault> {
        let passwd = fs::read_to_string("/etc/passwd").doing(|| "reading /etc/passwd")?;
        let mut account = entry(&passwd, user).ok_or_else(|| {
            Fault::new(format!("there is no account {user}"))
                .help("name one in evaluate.user that the node has (auth.users)")
        })?;
        account.environment = account.at_login().doing(|| format!("reading the login profile of {user}"))?;
        Ok(account)
    }

    fn at_login(&self) -> Result<BTreeMap<OsString, OsString>, Fault> {
        let mut command = self.command("sh");
        command.args(["-lc", ENVIRONMENT]);
        let ended = timed(command, SETUP)?;
        let fields = ended.stdout.split(|byte| *byte == 0).skip(1);
        let all: BTreeMap<_, _> = fields.filter_map(variable).collect();
        if ended.is_good() && !all.is_empty() {
            return Ok(all);
        }
        Err(Fault::new(ended.trouble()))
    }

    /// A program that is run as this account, in its home and in a process group of its own. It has the account's own
    /// group alone: a wrapper that sets further ones would be part of what is measured.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        // As a login does where there is no home.
        let place = if self.home.is_dir() { self.home.as_path() } else { Path::new("/") };
        command.env_clear().envs(&self.environment).current_dir(place);
        command.uid(self.uid).gid(self.gid).stdin(Stdio::null()).process_group(0);
        command
    }

    /// The words of a command line, with variables put in.
    pub(super) fn words(&self, line: &str) -> Result<Vec<OsString>, Fault> {
        let mut command = self.command("sh");
        command.arg("-c").arg(format!("set -- {line}\n{WORDS}"));
        let work = || {
            let ended = timed(command, SETUP)?;
            if !ended.is_good() {
                return Err(Fault::new(ended.trouble()));
            }
            let words = ended.stdout.split(|byte| *byte == 0).skip(1);
            let words: Vec<OsString> = words.map(|word| OsStr::from_bytes(word).to_owned()).collect();
            match words.first() {
                Some(first) if !first.is_empty() => Ok(words),
                _ => Err(Fault::new("it has no words")),
            }
        };
        work().doing(|| format!("reading the command {line:?}"))
    }
}

fn variable(field: &[u8]) -> Option<(OsString, OsString)> {
    let equals = field.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (&field[..equals], &field[equals + 1..]);
    // The shell's own; they mean nothing to a program that it did not start.
    let own = [&b"_"[..], b"SHLVL", b"PWD", b"OLDPWD"].contains(&name);
    (!own).then(|| (OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(value).to_owned()))
}

/// An account as `/etc/passwd` has it. Read here: a static program has no C library's ways of looking it up.
fn entry(passwd: &str, user: &str) -> Option<Account> {
    let fields: Vec<&str> =
        passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == user)?;
    let [_, _, uid, gid, _, home, shell] = fields[..] else { return None };
    let shell = if shell.is_empty() { "/bin/sh" } else { shell };
    let first = [
        ("HOME", home),
        ("USER", user),
        ("LOGNAME", user),
        ("SHELL", shell),
        ("PATH", SEARCH_PATH),
        ("LC_ALL", "C.UTF-8"),
    ];
    let environment = first.map(|(name, value)| (name.into(), value.into())).into();
    Some(Account { uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.into(), environment })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever runs the tests, with a home of his own.
    fn me(home: &Path) -> Account {
        let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
        let line = format!("me:x:{uid}:{gid}:Me:{}:\n", home.display());
        entry(&format!("root:x:0:0::/root:/bin/bash\nbroken\n{line}"), "me").expect("an account")
    }

    #[test]
    fn accounts_are_those_of_the_node() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\ngrid:x:1000:100:Grid:/home/grid:\n";
        let grid = entry(passwd, "grid").expect("it is there");
        assert_eq!((grid.uid, grid.gid, grid.home.as_path()), (1000, 100, "/home/grid".as_ref()));
        assert_eq!(
            grid.environment.get(OsStr::new("SHELL")).map(OsString::as_os_str),
            Some("/bin/sh".as_ref())
        );
        assert!(entry(passwd, "gri").is_none() && entry("grid:x:many:1::/:", "grid").is_none());
    }

    #[test]
    fn the_environment_is_that_of_a_login() {
        let home = tempfile::tempdir().expect("a directory");
        let profile = "echo welcome\nexport GRID_CE='a host'\nexport GRID_SE=se\n";
        fs::write(home.path().join(".profile"), profile).expect("written");
        let mut me = me(home.path());
        me.environment = me.at_login().expect("a login");
        let get = |name: &str| me.environment.get(OsStr::new(name)).and_then(|value| value.to_str());
        assert_eq!((get("GRID_CE"), get("USER"), get("PWD")), (Some("a host"), Some("me"), None));
        let words = me.words("echo $GRID_SE/x \"$GRID_CE\" 'a;b' $HOME").expect("words");
        let home = home.path().to_str().expect("text");
        assert_eq!(words, ["echo", "se/x", "a host", "a;b", home]);
        for wrong in ["", "$NOTHING", "echo 'x"] {
            assert!(me.words(wrong).is_err(), "{wrong}");
        }
    }
}
