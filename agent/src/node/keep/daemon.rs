//! The daemon: tells the server that the node is up, then looks for a new profile whenever it is told or due, and in
//! between at the node's health. It ends only with the node: a server that is away, a profile that cannot be read and a
//! component that fails are all said and tried again.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use gatehouse_lcfg::Profile;
use gatehouse_model::site::{ACK_PORT, NOTIFY_PORT};
use gatehouse_model::{Doing as _, Fault};

use super::errands::Errands;
use super::health::{self, Health};
use super::journal::{Journal, seconds};
use super::poll::{self, Poll};
use super::{Node, status};
use crate::node::component::nfs;
use crate::node::progress::Teller;
use crate::node::target::Target;
use crate::node::{machine, packages};
use crate::tool;
use crate::wire::{Ack, Milestone, Sign};

/// The least time between two looks, however often the node is told.
const LEAST: Duration = Duration::from_millis(500);
/// The first pause before what failed is tried again; each is twice as long as the last.
const UNDONE: Duration = Duration::from_secs(5);

/// Runs until the node is shut down.
///
/// # Errors
/// What the install left on this node is missing or damaged.
pub fn run() -> Result<(), Fault> {
    let node = Node::open(Target::running())?;
    let (ears, health) = (Ears::default(), Health::default());
    let lacks_modules = !machine::has_modules();
    let said = String::new();
    let mut daemon =
        Daemon { ears, health, said, is_up: false, lacks_modules, acked: None, waiting: None, node };
    let errands = Errands::default();
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        let outcome = daemon.round();
        // By the newest profile, which says what they are.
        errands.look(&daemon.node);
        let settings = Settings::of(daemon.node.profile().ok().as_ref());
        let pause = match &outcome {
            Ok(true) => settings.poll.next(poll::random()),
            Ok(false) => (UNDONE * (1 << failures.min(10))).min(settings.poll.every),
            Err(_) => poll::pause(failures, poll::random()).min(settings.poll.every),
        };
        failures = if matches!(outcome, Ok(true)) { 0 } else { failures + 1 };
        let trouble = outcome.err().map(|fault| fault.render()).unwrap_or_default();
        daemon.say_trouble(&trouble);
        status::leave_note(&daemon.node.target, seconds() + pause.as_secs(), &trouble);
        if daemon.rest(&settings, pause) {
            println!("told that there is something new");
            sleep(LEAST.saturating_sub(begun.elapsed()));
        }
    }
}

struct Daemon {
    node: Node,
    ears: Ears,
    health: Health,
    /// The trouble that was said last: the same words again and again would only fill the journal.
    said: String,
    /// Whether the server knows that the node is up.
    is_up: bool,
    /// Whether the kernel has no modules here: the disk came from a host with another.
    lacks_modules: bool,
    /// The profile that was acknowledged last.
    acked: Option<String>,
    /// What the server could not be told.
    waiting: Option<Ack>,
}

impl Daemon {
    /// Looks for a new profile and applies what differs; whether all of that succeeded.
    fn round(&mut self) -> Result<bool, Fault> {
        // First of all, before the lock: a node that is not heard of counts as one that hangs.
        let hello = self.tell_up().and_then(|()| self.bring_modules());
        let mut keeper = self.node.keeper()?;
        let news = hello.and_then(|()| keeper.fetch());
        // What was left undone is done with or without a server.
        let profile = self.node.profile();
        let done = profile.as_ref().ok().map(|profile| keeper.apply(profile, &mut |text| println!("{text}")));
        let done = done.transpose()?.unwrap_or_default();
        let ack = keeper.ack(&done);
        let is_new = self.acked.as_ref() != Some(&ack.profile)
            || news.as_ref().is_ok_and(|news| *news != super::News::None);
        if is_new || !done.is_nothing() {
            self.waiting = Some(ack);
        }
        let sign = profile.as_ref().ok().map(|profile| keeper.sign(profile));
        drop(keeper);
        news?;
        let settings = Settings::of(profile.as_ref().ok());
        self.acknowledge(&settings, sign)?;
        // A server that has started anew learns from this how the node is.
        self.health.repeat();
        profile.map(|_| done.is_good())
    }

    /// Waits until it is time for the next look at the profile, and looks at the node's health meanwhile. Whether
    /// the server has told of something new.
    fn rest(&mut self, settings: &Settings, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            let next = self.look_at_health();
            let left = until.saturating_duration_since(Instant::now());
            if self.ears.wait(settings.notify_port, self.node.home.server, left.min(next)) {
                return true;
            }
            if left <= next {
                return false;
            }
        }
    }

    /// Makes the checks, and tells the server what is new of them. The pause until the next look.
    fn look_at_health(&mut self) -> Duration {
        // Without a profile there is nothing to check, which the next round says.
        let profile = self.node.profile().unwrap_or_default();
        match nfs::renew(&profile) {
            Ok(renewed) => renewed.iter().for_each(|point| println!("{point} was mounted anew")),
            Err(fault) => eprint!("{}", fault.render()),
        }
        let failing = health::look(&profile);
        let etag = Journal::open(&self.node.target).state().etag.clone();
        if let Some(ack) = self.health.news(&failing, &etag) {
            for failure in &failing {
                println!("{}: {}", failure.component, failure.output);
            }
            // A server that is away is told at the next look.
            if self.node.client.acknowledge(&ack).is_ok() {
                self.health.has_told(&failing);
            }
        }
        self.health.pause(health::every(&profile))
    }

    fn tell_up(&mut self) -> Result<(), Fault> {
        if self.is_up {
            return Ok(());
        }
        let etag = Journal::open(&self.node.target).state().etag.clone();
        self.node.client.acknowledge(&Ack::new(Milestone::Up, &etag))?;
        self.is_up = true;
        println!("told {} that {} is up", self.node.home.server, self.node.home.node);
        Ok(())
    }

    fn bring_modules(&mut self) -> Result<(), Fault> {
        if !self.lacks_modules {
            return Ok(());
        }
        let mut teller = Teller::new(self.node.home.node.clone());
        packages::put_modules(&self.node.client, &self.node.target, &mut teller)?;
        self.lacks_modules = false;
        if machine::has_modules() {
            tool::run("systemctl", &["restart", "systemd-modules-load"])?;
            // What could not start without them.
            tool::run("systemctl", &["start", "--no-block", "default.target"])?;
        }
        Ok(())
    }

    fn acknowledge(&mut self, settings: &Settings, sign: Option<Sign>) -> Result<(), Fault> {
        let Some(ack) = &self.waiting else { return Ok(()) };
        if settings.ack {
            self.node.client.acknowledge(ack)?;
            if let Some(sign) = sign {
                tell_sign(self.node.home.server, settings.ack_port, &sign);
            }
        }
        self.acked = Some(ack.profile.clone());
        self.waiting = None;
        Ok(())
    }

    fn say_trouble(&mut self, trouble: &str) {
        if trouble != self.said {
            eprint!("{trouble}");
            trouble.clone_into(&mut self.said);
        }
    }
}

/// Sends a sign of life. It may be lost: what counts went over TLS.
pub(super) fn tell_sign(server: Ipv4Addr, port: u16, sign: &Sign) {
    let sent = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.send_to(sign.to_string().as_bytes(), (server, port)));
    if let Err(error) = sent {
        eprintln!("sending a sign to {server} port {port}: {error}");
    }
}

/// What the profile says of the client itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    poll: Poll,
    /// Whether the server is told how a profile was applied.
    pub(super) ack: bool,
    notify_port: u16,
    /// Where the server hears signs.
    pub(super) ack_port: u16,
}

impl Settings {
    /// Where the profile says nothing or nothing that can be understood, what is usual holds: a node that no longer
    /// looks for profiles could not be put right.
    pub(super) fn of(profile: Option<&Profile>) -> Self {
        let get = |name: &str| profile.and_then(|profile| profile.get("client", name));
        let port = |name: &str, usual| get(name).and_then(|text| text.parse().ok()).unwrap_or(usual);
        Self {
            poll: get("poll").and_then(|text| Poll::parse(text).ok()).unwrap_or(poll::USUAL),
            ack: get("ack").is_none_or(|value| value == "yes"),
            notify_port: port("notifyport", NOTIFY_PORT),
            ack_port: port("ackport", ACK_PORT),
        }
    }
}

/// Hears the server's notices.
#[derive(Debug, Default)]
pub(super) struct Ears {
    socket: Option<(u16, UdpSocket)>,
    said: String,
}

impl Ears {
    /// Waits so long, or until a datagram comes from the server. Without its port a node hears nothing, and looks when
    /// it is due.
    pub(super) fn wait(&mut self, port: u16, server: Ipv4Addr, at_most: Duration) -> bool {
        let begun = Instant::now();
        if let Err(fault) = self.open(port) {
            let text = fault.render();
            if text != self.said {
                eprint!("{text}");
                self.said = text;
            }
        }
        loop {
            let left = at_most.saturating_sub(begun.elapsed());
            let Some((_, socket)) = self.socket.as_ref().filter(|_| !left.is_zero()) else {
                sleep(left);
                return false;
            };
            let mut bytes = [0; 512];
            let heard = socket.set_read_timeout(Some(left)).and_then(|()| socket.recv_from(&mut bytes));
            match heard {
                Ok((_, from)) if from.ip() == IpAddr::V4(server) => {
                    drain(socket);
                    return true;
                }
                // A stranger's, or an error that an earlier datagram brought back.
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return false;
                }
                Err(_) => sleep(LEAST.min(left)),
            }
        }
    }

    fn open(&mut self, port: u16) -> Result<(), Fault> {
        if self.socket.as_ref().is_none_or(|(open, _)| *open != port) {
            self.socket = None;
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))
                .doing(|| format!("listening for notices at UDP port {port}"))?;
            self.socket = Some((port, socket));
        }
        Ok(())
    }
}

/// Takes what else has come: one look is the answer to all.
fn drain(socket: &UdpSocket) {
    let mut bytes = [0; 512];
    if socket.set_nonblocking(true).is_ok() {
        while socket.recv_from(&mut bytes).is_ok() {}
        // It was set before, so that it can be set.
        let _ = socket.set_nonblocking(false);
    }
}

#[cfg(test)]
mod tests {
    use gatehouse_lcfg::{Component, Resource};

    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_the_usual_ones() {
        let usual = Settings { poll: poll::USUAL, ack: true, notify_port: 732, ack_port: 733 };
        assert_eq!(Settings::of(None), usual);
        let resource = |value: &str| Resource { value: value.into(), ..Resource::default() };
        let with = |pairs: &[(&str, &str)]| {
            let resources = pairs.iter().map(|(name, value)| ((*name).to_owned(), resource(value))).collect();
            let components = vec![("client".to_owned(), Component { resources, ..Component::default() })];
            Settings::of(Some(&Profile { components, ..Profile::default() }))
        };
        assert_eq!(with(&[("poll", "often"), ("notifyport", "0x"), ("ackport", "99999")]), usual);
        let set = with(&[("poll", "1h"), ("ack", ""), ("notifyport", "1732"), ("ackport", "1733")]);
        assert_eq!((set.ack, set.notify_port, set.ack_port), (false, 1732, 1733));
        assert_eq!(set.poll.next(u32::MAX), Duration::from_secs(3600));
    }

    #[test]
    fn only_the_server_is_heard() {
        let free =
            || UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let (mut ears, port) = (Ears::default(), free());
        let short = Duration::from_millis(300);
        assert!(!ears.wait(port, Ipv4Addr::LOCALHOST, Duration::from_millis(10)), "nobody says anything");
        let from = |address: &str| UdpSocket::bind((address, 0)).expect("a socket");
        for _ in 0..3 {
            from("127.0.0.1").send_to(b"lcfg notify x y\n", ("127.0.0.1", port)).expect("sent");
        }
        assert!(ears.wait(port, Ipv4Addr::LOCALHOST, short), "the server is heard");
        assert!(!ears.wait(port, Ipv4Addr::LOCALHOST, Duration::from_millis(10)), "all at once");
        from("127.0.0.2").send_to(b"lcfg notify x y\n", ("127.0.0.1", port)).expect("sent");
        assert!(!ears.wait(port, Ipv4Addr::LOCALHOST, Duration::from_millis(50)), "a stranger is not");

        let taken = UdpSocket::bind("0.0.0.0:0").expect("a port");
        let taken = taken.local_addr().expect("bound").port();
        assert!(!Ears::default().wait(taken, Ipv4Addr::LOCALHOST, Duration::from_millis(10)));
    }
}
