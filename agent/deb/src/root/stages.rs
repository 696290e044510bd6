//! In which stages packages come into a root.

use crate::{Control, everywhere};

/// Packages that are unpacked and configured together, by their places in the list they were given in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// In ascending order, so that the list's own order decides who wins a path.
    pub packages: Vec<usize>,
}

/// What every Debian has first, then all others: their scripts use it (adduser, say) without saying so, because on
/// every system that a package is added to it is there already. The stages depend on the packages alone.
pub fn stages(controls: &[&Control]) -> Vec<Stage> {
    let mut first = everywhere(controls);
    first.sort_unstable();
    let rest = (0..controls.len()).filter(|index| first.binary_search(index).is_err()).collect();
    [first, rest]
        .into_iter()
        .filter(|packages| !packages.is_empty())
        .map(|packages| Stage { packages })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::control_of;

    #[test]
    fn what_is_everywhere_comes_first_and_every_package_once() {
        let all = [
            control_of("Package: app\nDepends: adduser"),
            control_of("Package: adduser\nPriority: important\nDepends: passwd"),
            control_of("Package: extra\nPriority: optional"),
            control_of("Package: passwd\nPriority: required"),
        ];
        let staged = |controls: &[&Control]| -> Vec<Vec<usize>> {
            stages(controls).into_iter().map(|stage| stage.packages).collect()
        };
        assert_eq!(staged(&all.iter().collect::<Vec<_>>()), [vec![1, 3], vec![0, 2]]);
        assert_eq!(staged(&[&all[2]]), [vec![0]]);
        assert!(staged(&[]).is_empty());
    }
}
