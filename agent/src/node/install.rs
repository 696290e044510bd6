//! The installer: the first process of a node's initramfs. It asks the install server what the node shall be,
//! makes it so on the node's own disk, acknowledges and powers off; on a machine of its own it is approved first, and
//! starts the machine anew.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use gatehouse_lcfg::{Contexts, Profile};
use gatehouse_model::{Doing as _, Fault, State};
use rcgen::{KeyPair, PublicKeyData as _};

use crate::node::client::{Client, Credentials, Enrolled, Fetched, Home};
use crate::node::component::{self, Means};
use crate::node::configure;
use crate::node::disks::{self, Disks, Made};
use crate::node::keep::journal::Journal;
use crate::node::keep::plan;
use crate::node::machine;
use crate::node::method::{Method, steps};
use crate::node::own_disk;
use crate::node::packages;
use crate::node::progress::Teller;
use crate::node::target::Target;
use crate::wire::{Ack, Milestone, PASSPORT_PATH, Passport, PhaseTime, fingerprint};

/// Where the new root is mounted.
const TARGET: &str = "/target";
/// Where programs are found; a first process starts without any environment.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long the server may take to answer at all.
const SERVER_WAIT: Duration = Duration::from_secs(120);
/// How long a fault stands on the console before the power goes, and before a machine tries again: somebody may stand
/// before it.
const LAST_WORDS: Duration = Duration::from_secs(5);
const LAST_WORDS_OF_MACHINE: Duration = Duration::from_secs(60);
/// How often a machine asks whether it was approved.
const ASK: Duration = Duration::from_secs(3);
/// How long the last events may take to be sent.
const FLUSH: Duration = Duration::from_secs(3);

/// Installs this node and powers off, whatever happens.
pub fn init() -> ! {
    if std::env::var_os("PATH").is_none_or(|path| path != SEARCH_PATH) {
        let own = std::env::args_os().next().unwrap_or_else(|| "/init".into());
        // Only a failure comes back; the programs are then missed one by one, with a fault each.
        let error = Command::new(own).arg0("init").env("PATH", SEARCH_PATH).env("LC_ALL", "C").exec();
        eprintln!("starting again with a search path: {error}");
    }
    let mut is_machine = false;
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| installed(&mut is_machine))) {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
        eprintln!("error: the installer panicked: {}", words.unwrap_or("without words"));
        sleep(LAST_WORDS);
    }
    machine::leave(is_machine)
}

/// Runs the install and tells how it ended.
fn installed(is_machine: &mut bool) {
    let started = machine::mount_basics().and_then(|()| machine::open_console()).and_then(|()| passport());
    let passport = match started {
        Ok(passport) => passport,
        Err(fault) => {
            eprint!("{}", fault.render());
            return sleep(LAST_WORDS);
        }
    };
    *is_machine = passport.token.is_none();
    let mut teller = Teller::new(passport.node.clone());
    if let Err(fault) = Install::new(&passport, &mut teller).run() {
        eprint!("\n{}\n", fault.render());
        teller.say("install", State::Failed, None, fault.render().trim());
        teller.finish(LAST_WORDS);
        sleep(if *is_machine { LAST_WORDS_OF_MACHINE } else { LAST_WORDS });
    }
}

/// Reads the passport and removes it: its token is used once, and nothing else needs it.
fn passport() -> Result<Passport, Fault> {
    let path = format!("/{PASSPORT_PATH}");
    let text = fs::read_to_string(&path).doing(|| format!("reading {path}")).map_err(|fault| {
        fault.help("start this node through its host, which gives the installer a passport")
    })?;
    fs::remove_file(&path).doing(|| format!("removing {path}"))?;
    serde_json::from_str(&text).doing(|| format!("reading {path}"))
}

/// One run of the installer.
struct Install<'a> {
    passport: &'a Passport,
    teller: &'a mut Teller,
    target: Target,
    phases: Vec<PhaseTime>,
    made: Vec<Made>,
    journal: Journal,
}

/// What the server said: who this node is, and what it shall be.
struct Orders {
    home: Home,
    client: Client,
    own: Credentials,
    /// On a machine of its own: the disk that was chosen.
    disk: Option<String>,
    fetched: Fetched,
    profile: Profile,
    steps: Vec<(String, Method)>,
}

impl<'a> Install<'a> {
    fn new(passport: &'a Passport, teller: &'a mut Teller) -> Self {
        let boot = PhaseTime { phase: "boot".into(), seconds: machine::uptime() };
        let target = Target::new(Path::new(TARGET));
        let journal = Journal::open(&target);
        Self { passport, teller, target, phases: vec![boot], made: Vec::new(), journal }
    }

    fn run(&mut self) -> Result<(), Fault> {
        self.phase("machine", |install| {
            machine::load_modules();
            machine::set_clock(install.passport.time)?;
            machine::network_up(install.passport)
        })?;
        let orders = self.phase("enrol", Self::enrol)?;
        for (tag, method) in &orders.steps {
            self.phase(tag, |install| install.step(&orders, method))?;
        }
        // A profile without %umount% must not leave a disk half written.
        self.target.release()?;
        if let Some(disk) = &orders.disk {
            self.phase("loader", |install| install.make_bootable(&orders, disk))?;
        }
        let root = self.made.iter().find(|part| part.wanted.point == "/");
        let ack = Ack {
            root: root.map(|part| format!("PARTUUID={}", part.part_uuid)),
            phases: self.phases.clone(),
            ..Ack::new(Milestone::Installed, &orders.fetched.etag)
        };
        let seconds = machine::uptime();
        self.teller.say("install", State::Succeeded, None, &format!("{seconds:.1} s since power on"));
        self.teller.finish(FLUSH);
        acknowledge(&orders.client, &ack)
    }

    /// Does a part of the install, telling its start and end and taking its time.
    fn phase<T>(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        let begun = Instant::now();
        self.teller.say(name, State::Started, None, "");
        let result = work(self).doing(|| name.to_owned())?;
        let seconds = begun.elapsed().as_secs_f64();
        self.teller.say(name, State::Succeeded, None, &format!("{seconds:.1} s"));
        self.phases.push(PhaseTime { phase: name.to_owned(), seconds });
        Ok(result)
    }

    fn enrol(&mut self) -> Result<Orders, Fault> {
        let home = Home::from(self.passport);
        let stranger = Client::new(&home, None)?;
        stranger.wait_for_server(SERVER_WAIT)?;
        let Enrolled { client, own, disk } = self.introduce(&stranger)?;
        self.teller.connect(client.clone());
        let mut waits = |why: &str| self.teller.say("waiting for disks", State::Progress, None, why);
        let disk = disk.map(|rule| own_disk::of_this_machine(&rule, &home.node, &mut waits)).transpose()?;
        let fetched = client.profile()?;
        let profile =
            Profile::from_xml(&fetched.xml).map_err(Fault::of_problems).doing(|| "reading the profile")?;
        let profile = profile.in_contexts(&Contexts::install()).map_err(Fault::of_problems)?;
        let steps = steps(&profile)?;
        Ok(Orders { home, client, own, disk, fetched, profile, steps })
    }

    /// Gets a certificate: for the token, or once somebody has approved what the console shows.
    fn introduce(&mut self, stranger: &Client) -> Result<Enrolled, Fault> {
        let key = KeyPair::generate().doing(|| "making the node's key")?;
        if let Some(token) = self.passport.token.as_deref() {
            let known = stranger.enrol(&key, Some(token))?;
            return known.ok_or_else(|| Fault::new("the server takes the token and gives no certificate"));
        }
        let (node, server) = (&self.passport.node, self.passport.server);
        let print = fingerprint(&key.subject_public_key_info());
        println!(
            "\n  This machine asks {server} to be installed as {node}; nothing was written yet.\n  \
             If that is right, on the host there: gatectl node approve {node} {print}\n"
        );
        loop {
            match stranger.enrol(&key, None) {
                Ok(Some(known)) => return Ok(known),
                Ok(None) => {}
                // The server may be starting anew; whoever stands before the console sees why it takes so long.
                Err(fault) => self.teller.say("enrol", State::Progress, None, &fault.to_string()),
            }
            sleep(ASK);
        }
    }

    fn make_bootable(&self, orders: &Orders, disk: &str) -> Result<(), Fault> {
        let depot = orders.client.depot()?;
        let boot = depot.machine.ok_or_else(|| Fault::new("the depot has no boot loader for machines"))?;
        own_disk::make_bootable(disk, &self.passport.node, &self.made, &orders.client, &boot)
    }

    fn step(&mut self, orders: &Orders, method: &Method) -> Result<(), Fault> {
        let target = self.target.clone();
        let Orders { home, client, profile, .. } = orders;
        let means = Means { profile, home, target: &target, client };
        match method {
            Method::Disks => {
                let node = &self.passport.node;
                let on = orders.disk.as_ref().map_or(Disks::Virtual, |disk| Disks::Machine(disk, node));
                self.made = disks::prepare(profile, target.root(), on)?;
                self.journal = Journal::open(&target);
                Ok(())
            }
            Method::Packages => {
                packages::put(client, &profile.packages, &target, self.teller)?;
                configure::identity(&target, &self.made)?;
                self.journal.applied("fstab", plan::digest(profile, "fstab"))?;
                target.bind()
            }
            Method::Install(name) => component::run(&means, &mut self.journal, name, "install"),
            Method::Program(name, method) => component::run(&means, &mut self.journal, name, method),
            Method::Client => {
                let agent = Path::new("/proc/self/exe");
                configure::client(&target, home, &orders.own, agent, &orders.fetched, &mut self.journal)
            }
            Method::SetTimeZone => configure::timezone(&target, profile),
            Method::Unmount => target.release(),
            Method::OneShot(line) => target.run("/bin/sh", &["-c", line]).map(drop),
        }
    }
}

/// The acknowledgement is what makes the host start the node from its disk: it is tried a few times.
fn acknowledge(client: &Client, ack: &Ack) -> Result<(), Fault> {
    let mut outcome = client.acknowledge(ack);
    for _ in 0..5 {
        if outcome.is_ok() {
            break;
        }
        sleep(Duration::from_secs(2));
        outcome = client.acknowledge(ack);
    }
    outcome
}
