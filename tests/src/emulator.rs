//! QEMU's monitor: what was written to which drive, and the cable of the network card.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Try;

/// Asks the monitor of the trial in a directory one thing.
///
/// # Panics
/// QEMU does not answer, or says no.
pub fn ask(dir: &Path, command: &str, arguments: Option<Value>) -> Value {
    let mut monitor = UnixStream::connect(dir.join("qmp.sock")).expect("QEMU listens");
    monitor.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    let mut request = json!({ "execute": command });
    if let Some(arguments) = arguments {
        request["arguments"] = arguments;
    }
    let words = format!("{}\n{request}\n", json!({ "execute": "qmp_capabilities" }));
    monitor.write_all(words.as_bytes()).expect("QEMU takes it");
    let lines = BufReader::new(monitor).lines().map(|line| line.expect("QEMU answers"));
    let answers = lines.map(|line| serde_json::from_str::<Value>(&line).expect("QEMU speaks JSON"));
    let mut answers = answers.filter(|answer| answer.get("event").is_none());
    // The greeting, the answer to the first command, and ours.
    let answer = answers.nth(2).expect("QEMU answers");
    assert!(answer.get("error").is_none(), "{command}: {answer}");
    answer["return"].clone()
}

/// Plugs the emulated NIC's cable in or out.
pub fn set_link(dir: &Path, up: bool) {
    ask(dir, "set_link", Some(json!({ "name": "net", "up": up })));
}

/// How many bytes have been written to a drive since QEMU was started.
///
/// # Panics
/// There is no such drive.
pub fn written(dir: &Path, drive: &str) -> u64 {
    let all = ask(dir, "query-blockstats", None);
    let stats = all.as_array().and_then(|all| all.iter().find(|one| one["device"] == drive));
    stats
        .and_then(|one| one["stats"]["wr_bytes"].as_u64())
        .unwrap_or_else(|| panic!("no drive {drive}: {all}"))
}

/// Cuts the power of the trial in a directory, and waits until the emulator is gone: what it was about to write is on
/// its disks then, or never will be.
///
/// # Panics
/// QEMU does not answer.
pub fn cut_power(machine: Try, dir: &Path) {
    let mut monitor = UnixStream::connect(dir.join("qmp.sock")).expect("QEMU listens");
    machine.kill();
    // Its end closes the connection, and may do so before all was read.
    let _ = monitor.read_to_end(&mut Vec::new());
}
