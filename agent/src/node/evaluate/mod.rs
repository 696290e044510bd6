//! The evaluation of a site, on the node whose profile says what is measured (`evaluate.tests`): each command once to
//! warm up, then so many times, one after the other.

mod account;
mod run;

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use gatehouse_lcfg::Profile;
use gatehouse_model::evaluation::{self, ByLabel, Counts, Figures};
use gatehouse_model::{Doing as _, Exit, Fault, Refusal};
use nix::fcntl::{Flock, FlockArg};

use self::account::Account;
use self::run::timed;

/// One at a time measures: a command, or an order of the host.
const LOCK: &str = "/run/gatehouse/evaluate.lock";
/// How long the preparation may take.
const PREPARE: Duration = Duration::from_secs(600);

/// `gatehouse-agent node evaluate`.
#[derive(Args, Clone, Copy, Debug)]
pub struct EvaluateOptions {
    /// How often each command is run
    #[arg(long, default_value_t = evaluation::RUNS, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// How often those are run that take long
    #[arg(long, default_value_t = evaluation::SLOW_RUNS, value_parser = clap::value_parser!(u32).range(1..))]
    slow_runs: u32,
    /// As JSON, by name
    #[arg(long)]
    json: bool,
}

/// What a profile says of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite {
    user: String,
    prepare: String,
    tests: Vec<Test>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Test {
    label: String,
    command: String,
    expect: Vec<String>,
    slow: bool,
    limit: Duration,
}

impl Suite {
    /// What the profile says; none where it names no tests.
    pub fn of(profile: &Profile) -> Option<Self> {
        let get = |name: &str| profile.get("evaluate", name).unwrap_or_default().to_owned();
        let or = |text: String, usual: &str| if text.is_empty() { usual.to_owned() } else { text };
        let test = |tag: &str| Test {
            label: or(get(&format!("label_{tag}")), tag),
            command: get(&format!("command_{tag}")),
            expect: get(&format!("expect_{tag}")).split_whitespace().map(str::to_owned).collect(),
            slow: get(&format!("slow_{tag}")) == "yes",
            limit: Duration::from_secs(get(&format!("limit_{tag}")).parse().unwrap_or(120)),
        };
        let tests: Vec<Test> = profile.tags("evaluate", "tests").into_iter().map(test).collect();
        (!tests.is_empty()).then(|| Self { user: or(get("user"), "root"), prepare: get("prepare"), tests })
    }

    /// The longest that it can take, if every run takes as long as it may.
    pub fn longest(&self, counts: Counts) -> Duration {
        let each =
            self.tests.iter().map(|test| test.limit.saturating_mul(test.runs(counts).saturating_add(1)));
        each.fold(PREPARE * 2, Duration::saturating_add)
    }

    /// Measures. `tell` is given how far it is, in percent, and what is measured; at `stop` it ends after the run that
    /// goes on.
    ///
    /// # Errors
    /// The account is not there, the preparation fails, or it is stopped. Runs that fail are counted.
    pub fn run(
        &self,
        counts: Counts,
        stop: &AtomicBool,
        tell: &mut dyn FnMut(u8, &str),
    ) -> Result<Vec<Figures>, Fault> {
        let _only = lock()?;
        let account = Account::of(&self.user)?;
        self.make_ready(&account)?;
        let all: u64 = self.tests.iter().map(|test| u64::from(test.runs(counts)) + 1).sum();
        let mut done: u64 = 0;
        let mut begin = |label: &str| {
            tell(u8::try_from(done * 100 / all.max(1)).unwrap_or(100), label);
            done += 1;
            if stop.load(Ordering::Relaxed) {
                Err(Fault::new("nobody waits for it any longer"))
            } else {
                Ok(())
            }
        };
        let tests = self.tests.iter();
        tests.map(|test| test.measure(&account, test.runs(counts), &mut || begin(&test.label))).collect()
    }

    fn make_ready(&self, account: &Account) -> Result<(), Fault> {
        if self.prepare.is_empty() {
            return Ok(());
        }
        let mut command = account.command("sh");
        command.args(["-c", &self.prepare]);
        let doing = || format!("preparing with {:?}", self.prepare);
        let ended = timed(command, PREPARE).doing(doing)?;
        if ended.is_good() { Ok(()) } else { Err(Fault::new(ended.trouble())).doing(doing) }
    }
}

impl Test {
    fn runs(&self, counts: Counts) -> u32 {
        if self.slow { counts.slow_runs } else { counts.runs }
    }

    fn measure(
        &self,
        account: &Account,
        runs: u32,
        step: &mut dyn FnMut() -> Result<(), Fault>,
    ) -> Result<Figures, Fault> {
        let words = account.words(&self.command).doing(|| format!("measuring {}", self.label))?;
        let once = || {
            let mut command = account.command(&words[0]);
            command.args(&words[1..]);
            timed(command, self.limit).map_err(|error| error.to_string())?.verdict(&self.expect)
        };
        step()?;
        // What it leaves in caches is what it is for.
        let _ = once();
        let mut found = Vec::new();
        for _ in 0..runs {
            step()?;
            found.push(once());
        }
        Ok(Figures::of(&self.label, self.slow, &found))
    }
}

fn lock() -> Result<Flock<File>, Fault> {
    let open = || {
        fs::create_dir_all(Path::new(LOCK).parent().unwrap_or(Path::new("/")))?;
        File::create(LOCK)
    };
    let file = open().doing(|| format!("opening {LOCK}"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        let help = "wait until it has ended: two at once would each measure the other";
        Fault::new("this node is being evaluated already").help(help).exit(Exit::InUse)
    })
}

/// What this node has nothing to do for.
fn nothing() -> Fault {
    let help = "set evaluate.tests and evaluate.command_TAG in its sources";
    Refusal::new("the profile of this node names no tests", help).into()
}

/// Does what an order of the host says.
///
/// # Errors
/// As [`Suite::run`]; or the profile names no tests.
pub(super) fn by_order(
    profile: &Profile,
    counts: Counts,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(u8, &str),
) -> Result<Vec<Figures>, Fault> {
    Suite::of(profile).ok_or_else(nothing)?.run(counts, stop, tell)
}

/// Measures and prints, for whoever asks on the node itself.
///
/// # Errors
/// As [`Suite::run`]; or the profile names no tests.
pub(super) fn by_hand(profile: &Profile, options: EvaluateOptions) -> Result<(), Fault> {
    let counts = Counts { runs: options.runs, slow_runs: options.slow_runs };
    let mut last = String::new();
    let mut tell = |percent: u8, label: &str| {
        if label != last {
            eprintln!("{percent:3} %: {label}");
            label.clone_into(&mut last);
        }
    };
    let found = by_order(profile, counts, &AtomicBool::new(false), &mut tell)?;
    if options.json {
        println!("{}", serde_json::to_string(&ByLabel(found))?);
    } else {
        print!("{}", evaluation::commands(&found));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use gatehouse_lcfg::{Component, Resource};

    use super::*;

    fn profile(pairs: &[(&str, &str)]) -> Profile {
        let resource = |value: &str| Resource { value: value.into(), ..Resource::default() };
        let resources = pairs.iter().map(|(name, value)| ((*name).to_owned(), resource(value))).collect();
        let components = vec![("evaluate".to_owned(), Component { resources, ..Component::default() })];
        Profile { components, ..Profile::default() }
    }

    #[test]
    fn a_suite_is_what_the_profile_says() {
        assert_eq!(Suite::of(&Profile::default()), None);
        assert_eq!(Suite::of(&profile(&[("tests", ""), ("user", "grid")])), None);
        let suite = Suite::of(&profile(&[
            ("tests", "ls stock"),
            ("user", "grid"),
            ("command_ls", "ls /"),
            ("label_stock", "pbs"),
            ("expect_stock", "wn1 wn2"),
            ("slow_stock", "yes"),
            ("limit_stock", "30"),
        ]))
        .expect("it has tests");
        let [ls, stock] = &suite.tests[..] else { panic!("{suite:?}") };
        assert_eq!((ls.label.as_str(), ls.slow, ls.limit.as_secs()), ("ls", false, 120));
        assert_eq!((stock.label.as_str(), stock.slow, stock.limit.as_secs()), ("pbs", true, 30));
        assert_eq!(stock.expect, ["wn1", "wn2"]);
        let longest = suite.longest(Counts { runs: 50, slow_runs: 10 });
        assert_eq!(longest.as_secs(), 1200 + 51 * 120 + 11 * 30);
    }

    #[test]
    fn each_command_is_run_once_more_than_is_counted() {
        let place = tempfile::tempdir().expect("a directory");
        let log = place.path().join("log");
        let line = format!("sh -c 'echo x >>{}'", log.display());
        let test = Test { label: "x".into(), command: line, expect: vec![], slow: false, limit: PREPARE };
        // The account of whoever runs the tests, as root's is that of most.
        let Ok(account) = Account::of("root") else { return };
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let mut steps = 0;
        let mut step = || {
            steps += 1;
            if steps > 4 { Err(Fault::new("stopped")) } else { Ok(()) }
        };
        let figures = test.measure(&account, 3, &mut step).expect("measured");
        assert_eq!((figures.runs, figures.failed), (3, 0));
        assert_eq!(fs::read_to_string(&log).expect("text").lines().count(), 4);
        assert!(test.measure(&account, 3, &mut step).is_err(), "it ends when it is told to");
    }
}
