//! Which of two versions is greater, by Debian's rules, for the prefix `>`.

use std::cmp::Ordering;

/// Compares versions with epoch and revision.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let split = |text: &str| {
        let (epoch, rest) = text.split_once(':').unwrap_or(("0", text));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
        (epoch.to_owned(), upstream.to_owned(), revision.to_owned())
    };
    let (a, b) = (split(a), split(b));
    part(&a.0, &b.0).then_with(|| part(&a.1, &b.1)).then_with(|| part(&a.2, &b.2))
}

/// Text and numbers by turns; `~` sorts before the end, letters before other characters.
fn part(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (word_a, word_b) = (take(&mut a, false), take(&mut b, false));
        let order = words(word_a, word_b).then_with(|| {
            let number_a = take(&mut a, true).trim_start_matches('0');
            let number_b = take(&mut b, true).trim_start_matches('0');
            number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b))
        });
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

fn take<'a>(text: &mut &'a str, digits: bool) -> &'a str {
    let end = text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len());
    let (head, tail) = text.split_at(end);
    *text = tail;
    head
}

fn words(a: &str, b: &str) -> Ordering {
    let weight = |c: Option<u8>| match c {
        Some(b'~') => -1,
        None => 0,
        Some(c) if c.is_ascii_alphabetic() => i32::from(c),
        Some(c) => i32::from(c) + 256,
    };
    let (a, b) = (a.as_bytes(), b.as_bytes());
    (0..a.len().max(b.len()))
        .map(|i| weight(a.get(i).copied()).cmp(&weight(b.get(i).copied())))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_dpkg_does() {
        for (low, high) in [
            ("1.0~rc1", "1.0"),
            ("1.0", "1.0-1"),
            ("1.9", "1.10"),
            ("9", "1:1"),
            ("1.0a", "1.0+"),
            ("2.05b-41", "2.05b-41.4"),
            ("1.0", "1.0.1"),
        ] {
            assert_eq!(compare(low, high), Ordering::Less, "{low} {high}");
            assert_eq!(compare(high, low), Ordering::Greater, "{high} {low}");
        }
        assert_eq!(compare("1.01-0", "0:1.1"), Ordering::Equal);
    }
}
