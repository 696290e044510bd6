//! What a node's thread does next, as a pure function of what is there and what is wanted.

use crate::vmm::Power;

/// What is wanted of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Running,
    Stopped,
    /// That it goes on if it runs, and is not started: the host stops, and the node's turn has not come.
    Left,
}

/// What a node's thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// End a VM that is not a node's own system: an installer of an agent that is gone.
    Clear,
    /// Install it from the beginning.
    Install,
    /// Start it from its disk.
    Start,
    /// It runs: see that it stays so.
    Watch,
    /// Stop it.
    Stop,
    /// Put in place what was restored.
    Swap,
    /// Nothing to do until something is wanted.
    Rest,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Clear => "end the installer left in the vm of",
            Self::Install => "install",
            Self::Start => "start",
            Self::Watch => "watch",
            Self::Stop => "stop",
            Self::Swap => "put the restored disks in place of",
            Self::Rest => "leave stopped",
        })
    }
}

/// What is on a machine of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Has {
    /// Nothing that it could be started from.
    Nothing,
    /// Its disks.
    Disks,
    /// Disks that were restored, and are not in place yet; with others or none before.
    Restored,
}

/// The decision.
pub(super) fn next_step(has: Has, power: Power, wanted: Wanted) -> Step {
    match (has, power, wanted) {
        (Has::Restored, Power::On, _) | (Has::Disks, Power::On, Wanted::Stopped) => Step::Stop,
        (Has::Restored, Power::Off, _) => Step::Swap,
        (Has::Nothing, Power::On, _) => Step::Clear,
        (Has::Nothing, Power::Off, Wanted::Running) => Step::Install,
        (Has::Disks, Power::On, Wanted::Running | Wanted::Left) => Step::Watch,
        (Has::Disks, Power::Off, Wanted::Running) => Step::Start,
        (_, Power::Off, Wanted::Stopped | Wanted::Left) => Step::Rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_follows_from_what_is_there() {
        use Has::{Disks, Nothing, Restored};
        let table = [
            (Nothing, Power::Off, Wanted::Running, Step::Install),
            (Nothing, Power::On, Wanted::Running, Step::Clear),
            (Nothing, Power::On, Wanted::Stopped, Step::Clear),
            (Nothing, Power::Off, Wanted::Stopped, Step::Rest),
            (Disks, Power::Off, Wanted::Running, Step::Start),
            (Disks, Power::On, Wanted::Running, Step::Watch),
            (Disks, Power::On, Wanted::Stopped, Step::Stop),
            (Disks, Power::Off, Wanted::Stopped, Step::Rest),
            (Disks, Power::On, Wanted::Left, Step::Watch),
            (Disks, Power::Off, Wanted::Left, Step::Rest),
            (Nothing, Power::Off, Wanted::Left, Step::Rest),
            (Restored, Power::On, Wanted::Running, Step::Stop),
            (Restored, Power::On, Wanted::Stopped, Step::Stop),
            (Restored, Power::Off, Wanted::Running, Step::Swap),
            (Restored, Power::Off, Wanted::Stopped, Step::Swap),
        ];
        for (has, power, wanted, step) in table {
            assert_eq!(next_step(has, power, wanted), step, "{has:?} {power:?} {wanted:?}");
        }
    }
}
