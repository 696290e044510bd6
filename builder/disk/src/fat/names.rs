//! Which paths and labels a FAT can hold.

use std::collections::BTreeMap;

use gatehouse_model::{Fault, Problem};

/// What is wrong with one part of a path, if anything; names that only some systems accept are wrong too.
pub fn wrong_name(name: &str) -> Option<&'static str> {
    if name.is_empty() || name == "." || name == ".." {
        return Some("has an empty part, . or ..; write a relative path without them");
    }
    if name.len() > 255 {
        return Some("has a name of more than 255 bytes; shorten it");
    }
    if name.ends_with(['.', ' ']) || name.starts_with(' ') {
        return Some("has a name with a space or full stop at its edge, which FAT cannot hold; rename it");
    }
    let refused = |c: char| c.is_control() || "\"*/:<>?\\|".contains(c) || c > '\u{ffff}';
    name.contains(refused).then_some("has a character that FAT cannot hold; rename it")
}

/// Finds all paths that cannot be written, and those that FAT, which ignores case, takes for one.
pub fn check_paths<'a>(paths: impl Iterator<Item = &'a str>) -> Result<(), Vec<Problem>> {
    let mut problems = Vec::new();
    let mut seen: BTreeMap<String, (&str, bool)> = BTreeMap::new();
    for path in paths {
        let trimmed = path.strip_suffix('/').unwrap_or(path);
        if let Some(wrong) = trimmed.split('/').find_map(wrong_name) {
            problems.push(Problem::at(path, 0, wrong));
            continue;
        }
        let ends = path.match_indices('/').map(|(end, _)| (end, true));
        let own = (path.len() == trimmed.len()).then_some((path.len(), false));
        for (end, directory) in ends.chain(own) {
            let spelt = &path[..end];
            let known = seen.insert(spelt.to_uppercase(), (spelt, directory));
            if known.is_some_and(|known| known != (spelt, true) || !directory) {
                problems.push(Problem::at(path, 0, "is the same to FAT as another path; rename one"));
                break;
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// The label as the boot sector has it, padded with spaces; none if it is empty.
pub fn bytes_of_label(label: &str) -> Result<Option<[u8; 11]>, Fault> {
    let allowed = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b"_- ".contains(&b);
    if label.len() > 11 || !label.bytes().all(allowed) || label.starts_with(' ') {
        let help = "write at most 11 of A-Z, 0-9, _, - and space";
        return Err(Fault::new(format!("{label:?} cannot be the label of a FAT")).help(help));
    }
    let mut bytes = [b' '; 11];
    bytes[..label.len()].copy_from_slice(label.as_bytes());
    Ok((!label.is_empty()).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_judged_all_at_once() {
        assert_eq!(check_paths(["EFI/BOOT/a", "EFI/BOOT/b", "EFI/", "x", "é/ü"].into_iter()), Ok(()));
        let wrong =
            check_paths(["/a", "b//c", "../d", "e:f", "g.", "h", "H", "i/j", "I/k", "l", "l/m"].into_iter());
        let files = wrong.unwrap_err().into_iter().map(|problem| problem.file).collect::<Vec<_>>();
        assert_eq!(files, ["/a", "b//c", "../d", "e:f", "g.", "H", "I/k", "l/m"]);
    }

    #[test]
    fn labels_are_padded() {
        assert_eq!(bytes_of_label("GATEHOUSE").unwrap(), Some(*b"GATEHOUSE  "));
        assert_eq!(bytes_of_label("").unwrap(), None);
        for wrong in ["gatehouse", "TWELVE CHARS", "A/B", " A"] {
            bytes_of_label(wrong).unwrap_err();
        }
    }
}
