//! A process with all that it has started, as `/proc` shows them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use crate::vmm::usage::Usage;

/// One process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// Its number.
    pub pid: u32,
    parent: u32,
    /// Clock ticks that it and its children that have ended have run.
    ticks: u64,
}

/// A process and its descendants; `proc` is `/proc`. Empty when it has ended.
pub(super) fn of(proc: &Path, first: u32) -> Vec<Process> {
    let all: Vec<Process> = fs::read_dir(proc)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| parse(&fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?))
        .collect();
    let mut tree: Vec<Process> = all.iter().filter(|process| process.pid == first).copied().collect();
    let mut looked = 0;
    while let Some(parent) = tree.get(looked).map(|process| process.pid) {
        tree.extend(all.iter().filter(|process| process.parent == parent));
        looked += 1;
    }
    tree
}

/// Reads `/proc/PID/stat`; the name in it may hold anything.
fn parse(stat: &str) -> Option<Process> {
    let (pid, rest) = stat.split_once(' ')?;
    let words: Vec<&str> = rest.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| words.get(field - 3)?.parse::<u64>().ok();
    let ticks = [14, 15, 16, 17].into_iter().map(number).sum::<Option<u64>>()?;
    Some(Process { pid: pid.parse().ok()?, parent: u32::try_from(number(4)?).ok()?, ticks })
}

/// What a tree has used. The memory is the first process's: a node's is mapped into it as a whole.
pub(super) fn usage(proc: &Path, first: u32, tree: &[Process]) -> Usage {
    let hertz = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|hertz| u64::try_from(hertz).ok());
    let ticks = tree.iter().map(|process| process.ticks).sum::<u64>();
    let run = Duration::from_millis(ticks * 1000 / hertz.filter(|hertz| *hertz > 0).unwrap_or(100));
    let text = |name: &str| fs::read_to_string(proc.join(first.to_string()).join(name)).unwrap_or_default();
    let count = |text: &str, key: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    };
    let sum = |key: &str| {
        let io = |process: &Process| fs::read_to_string(proc.join(process.pid.to_string()).join("io")).ok();
        tree.iter().map(|process| count(&io(process)?, key)).fold(None, |all, one| match (all, one) {
            (Some(all), Some(one)) => Some(all + one),
            (all, one) => all.or(one),
        })
    };
    Usage {
        cpu_seconds: run.as_secs_f64(),
        memory: count(&text("status"), "VmRSS:").unwrap_or(0) << 10,
        read: sum("read_bytes:"),
        written: sum("write_bytes:"),
        ..Usage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(proc: &Path, pid: u32, parent: u32, ticks: u32) {
        let dir = proc.join(pid.to_string());
        fs::create_dir_all(&dir).expect("made");
        let stat = format!("{pid} (a ) b) S {parent} 1 1 0 -1 0 0 0 0 0 {ticks} 1 2 3 20 0 1 0 5 6 7\n");
        fs::write(dir.join("stat"), stat).expect("written");
        fs::write(dir.join("status"), "Name:\tx\nVmRSS:\t    2048 kB\n").expect("written");
        fs::write(dir.join("io"), format!("rchar: 9\nread_bytes: {pid}\nwrite_bytes: 4096\n"))
            .expect("written");
    }

    #[test]
    fn a_tree_is_counted_as_a_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        for (pid, parent, ticks) in [(10, 1, 100), (11, 10, 50), (12, 11, 44), (20, 1, 7)] {
            process(dir.path(), pid, parent, ticks);
        }
        let tree = of(dir.path(), 10);
        let pids: Vec<u32> = tree.iter().map(|process| process.pid).collect();
        assert_eq!(pids, [10, 11, 12]);
        let used = usage(dir.path(), 10, &tree);
        assert!((used.cpu_seconds - 2.12).abs() < 0.001, "{used:?}");
        assert_eq!((used.memory, used.read, used.written), (2 << 20, Some(33), Some(3 * 4096)));
        assert_eq!(of(dir.path(), 13), []);
        assert!(!of(Path::new("/proc"), std::process::id()).is_empty());
    }
}
