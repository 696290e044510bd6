//! Looks after the mirrors of a running host, and says so when one has lost a half.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gatehouse_model::State;

use super::Array;
use crate::control::board::Board;
use crate::host::{command, survey};

/// How often it looks: a half that is lost is no haste, as the other one goes on.
const EVERY: Duration = Duration::from_secs(10);

/// How a mirror stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Health {
    /// Both halves hold everything, or are as good as that for all that was ever written.
    Whole,
    /// Its second half is being filled; or waits for the other mirror, whose turn it is.
    Filling,
    /// It runs on this partition alone.
    Alone(String),
}

/// Watches the mirrors, if the host has any, as long as the program runs.
pub fn start(board: &Arc<Board>) {
    if !Path::new("/sys/block").join(Array::State.device()).exists() {
        return;
    }
    let board = Arc::clone(board);
    std::thread::spawn(move || {
        let mut before = [Health::Whole, Health::Whole];
        loop {
            let now = Array::ALL.map(|array| look(Path::new("/sys/block"), array));
            if now != before {
                let state = match tell(&now) {
                    Told::Nothing => State::Succeeded,
                    Told::Filling => State::Progress,
                    Told::Alone => State::Failed,
                };
                let message = remark(&now, &id_of_this_disk());
                board.say("host", "mirroring the disks", state, message.clone());
                board.remark("mirror", &message);
            }
            before = now;
            std::thread::sleep(EVERY);
        }
    });
}

/// The worst of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Nothing,
    Filling,
    Alone,
}

fn tell(mirrors: &[Health]) -> Told {
    let each = mirrors.iter().map(|health| match health {
        Health::Whole => Told::Nothing,
        Health::Filling => Told::Filling,
        Health::Alone(_) => Told::Alone,
    });
    each.max().unwrap_or(Told::Nothing)
}

/// What somebody should know; nothing if all is well.
fn remark(mirrors: &[Health], id: &str) -> String {
    let alone = mirrors.iter().filter_map(|health| match health {
        Health::Alone(part) => Some(part.as_str()),
        _ => None,
    });
    match tell(mirrors) {
        Told::Nothing => String::new(),
        Told::Filling => {
            "the mirror's second half is being filled; until then the first one must not fail".into()
        }
        Told::Alone => format!(
            "the mirror runs on one disk alone ({}); put the other one back and start again, or put in a blank one as \
             large, and start the medium with gatehouse.reinstall={id}",
            alone.collect::<Vec<_>>().join(", ")
        ),
    }
}

fn id_of_this_disk() -> String {
    let args = command::kernel_args().unwrap_or_default();
    let facts = survey::of_this_machine(&args);
    facts.booted_from().and_then(|disk| disk.id.clone()).unwrap_or_default()
}

/// How a mirror stands, by what the kernel shows below a directory.
fn look(block: &Path, array: Array) -> Health {
    let md = block.join(array.device()).join("md");
    let text = |path: &str| fs::read_to_string(md.join(path)).unwrap_or_default().trim().to_owned();
    if text("degraded") == "0" {
        return Health::Whole;
    }
    let states: Vec<(String, String)> = fs::read_dir(&md)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("dev-")?.to_owned()))
        .map(|part| (text(&format!("dev-{part}/state")), part))
        .collect();
    // A half that is being filled is a spare until it is done.
    if states.iter().any(|(state, _)| state.contains("spare") && !state.contains("faulty")) {
        return Health::Filling;
    }
    let alone = states.into_iter().find(|(state, _)| state.contains("in_sync"));
    Health::Alone(alone.map(|(_, part)| part).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_half_is_seen_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join("md8/md").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let look = || look(dir.path(), Array::State);
        put("degraded", "0\n");
        put("dev-vda8/state", "in_sync\n");
        put("dev-vdb8/state", "in_sync\n");
        assert_eq!(look(), Health::Whole);
        put("degraded", "1\n");
        put("dev-vdb8/state", "faulty,blocked\n");
        assert_eq!(look(), Health::Alone("vda8".into()));
        put("dev-vdb8/state", "spare\n");
        assert_eq!(look(), Health::Filling);
        let said = |now: &[Health]| remark(now, "id-1");
        assert_eq!(said(&[Health::Whole, Health::Whole]), "");
        assert!(said(&[Health::Filling, Health::Whole]).contains("being filled"));
        let alone = said(&[Health::Alone("vda8".into()), Health::Filling]);
        assert!(alone.contains("(vda8)") && alone.ends_with("gatehouse.reinstall=id-1"), "{alone}");
    }
}
