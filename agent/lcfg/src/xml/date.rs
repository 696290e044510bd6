//! `DD/MM/YY HH:MM:SS`, in UTC; two digits of the year from 70 on belong to the last century.

const DAY: u64 = 86_400;

/// Writes seconds since 1970.
pub(super) fn write(seconds: u64) -> String {
    let (year, month, day) = civil(seconds / DAY);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{day:02}/{month:02}/{:02} {hour:02}:{minute:02}:{second:02}", year % 100)
}

/// Reads what [`write`] writes, years 1970 to 2069; empty is 0.
pub(super) fn read(text: &str) -> Option<u64> {
    let text = text.trim();
    if text.is_empty() {
        return Some(0);
    }
    let (date, time) = text.split_once(' ')?;
    let [day, month, year] = numbers(date, '/')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let year = if year < 70 { 2000 + year } else { 1900 + year };
    let days = days(year, month, day);
    let exists = civil(days) == (year, month, day) && hour < 24 && minute < 60 && second < 60;
    exists.then_some(days * DAY + hour * 3600 + minute * 60 + second)
}

fn numbers(text: &str, separator: char) -> Option<[u64; 3]> {
    let two = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
    let parts: Option<Vec<u64>> =
        text.split(separator).map(|part| if two(part) { part.parse().ok() } else { None }).collect();
    parts?.try_into().ok()
}

/// Year, month and day of a day since 1970 (Howard Hinnant's algorithm, for years after 1970).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil`]; for a day that does not exist, some other one, 0 if it lies before 1970.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * shifted_month + 2) / 5 + day;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    (era * 146_097 + of_era).saturating_sub(719_468 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "01/01/70 00:00:00"),
            (951_782_400, "29/02/00 00:00:00"),
            (1_381_146_511, "07/10/13 11:48:31"),
            (1_773_325_329, "12/03/26 14:22:09"),
            (3_155_759_999, "31/12/69 23:59:59"),
        ] {
            assert_eq!(write(seconds), text);
            assert_eq!(read(text), Some(seconds));
        }
        for bad in [
            "30/02/24 00:00:00",
            "1/1/70 00:00:00",
            "01/01/70",
            "01/13/70 00:00:00",
            "00/00/70 00:00:00",
            "x",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        for day in 0..36_525 {
            assert_eq!(read(&write(day * DAY + 7)), Some(day * DAY + 7));
        }
    }
}
