//! Machines that were given a loader and then fell silent. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::image::netboot::{LOADERS, MENU};

/// How long GRUB may take to ask for its menu. It does so at once, unless the firmware does not start it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Machines by their addresses, with the loader that each was given and when.
#[derive(Debug, Default)]
pub struct Silent(BTreeMap<String, (String, Instant)>);

impl Silent {
    /// A machine has fetched a file.
    pub fn heard(&mut self, from: &str, path: &str, now: Instant) {
        if LOADERS.contains(&path) {
            self.0.insert(from.to_owned(), (path.to_owned(), now));
        } else if path == MENU {
            self.0.remove(from);
        }
    }

    /// Those that have been silent for too long, each once, with its loader.
    pub fn overdue(&mut self, now: Instant) -> Vec<(String, String)> {
        let late = |(_, since): &(String, Instant)| now.duration_since(*since) >= PATIENCE;
        let (overdue, rest) = std::mem::take(&mut self.0).into_iter().partition(|(_, given)| late(given));
        self.0 = rest;
        let overdue: BTreeMap<_, _> = overdue;
        overdue.into_iter().map(|(from, (loader, _))| (from, loader)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_no_menu_is_told_of_once() {
        let (mut silent, begun) = (Silent::default(), Instant::now());
        silent.heard("192.0.2.5", LOADERS[0], begun);
        silent.heard("192.0.2.6", LOADERS[1], begun);
        silent.heard("192.0.2.6", MENU, begun + Duration::from_secs(2));
        silent.heard("192.0.2.7", "esp/slot-a/vmlinuz", begun);
        assert!(silent.overdue(begun + Duration::from_secs(19)).is_empty());
        let late = begun + PATIENCE;
        assert_eq!(silent.overdue(late), [("192.0.2.5".to_owned(), LOADERS[0].to_owned())]);
        assert!(silent.overdue(late).is_empty());
    }
}
