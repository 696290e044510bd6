//! The client on the installed node: tells the install server that the node is up.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use gatehouse_model::{Doing as _, Fault};

use crate::node::client::{Client, Credentials, Home};
use crate::node::configure::{APPLIED, CERTIFICATE, HOME, KEY};
use crate::wire::{Ack, Milestone};

/// The first and the longest pause between attempts.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Acknowledges that the node runs; asks until it is answered.
///
/// # Errors
/// What the install left on this node is missing or damaged.
pub fn report() -> Result<(), Fault> {
    let read = |path: &str| fs::read_to_string(path).doing(|| format!("reading {path}"));
    let home: Home = serde_json::from_str(&read(HOME)?).doing(|| format!("reading {HOME}"))?;
    let own = Credentials { certificate: read(CERTIFICATE)?, key: read(KEY)? };
    let client = Client::new(&home, Some(&own))?;
    let profile = read(APPLIED)?.trim().to_owned();
    let ack = Ack { milestone: Milestone::Running, profile, root: None, phases: Vec::new() };
    let (mut pause, longest) = PAUSES;
    let mut last = String::new();
    while let Err(fault) = client.acknowledge(&ack) {
        // The same words again and again would only fill the journal.
        let words = fault.to_string();
        if words != last {
            eprint!("{}", fault.render());
            last = words;
        }
        sleep(pause);
        pause = (pause * 2).min(longest);
    }
    println!("told {} that {} is up", home.server, home.node);
    Ok(())
}
