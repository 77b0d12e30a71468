//! UTC times as text, from the system clock's value alone (no time zone, no leap second).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 24 * 3600;

/// A moment in UTC, to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Utc {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    milli: u32,
}

/// RFC 3339 with milliseconds: `2026-11-21T22:00:03.417Z`. A clock before 1970 reads as 1970.
pub fn rfc3339(time: SystemTime) -> String {
    let Utc { year, month, day, hour, minute, second, milli } = utc(time);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// The form in names of rotated files, as lumberjack's: `2026-11-21T22-00-03.417`.
pub fn file_name(time: SystemTime) -> String {
    let Utc { year, month, day, hour, minute, second, milli } = utc(time);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}-{minute:02}-{second:02}.{milli:03}")
}

/// The moment that [`file_name`] wrote; `None` for any other text.
pub fn from_file_name(text: &str) -> Option<SystemTime> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let days = days_since_epoch(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
    let seconds = number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    let time =
        UNIX_EPOCH + Duration::from_secs(days * DAY + seconds) + Duration::from_millis(number(20, 23)?);
    // Writing it again proves the separators, the ranges and the length.
    (file_name(time) == text).then_some(time)
}

fn utc(time: SystemTime) -> Utc {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, rest) = (since.as_secs() / DAY, since.as_secs() % DAY);
    let (year, month, day) = date(days);
    Utc {
        year,
        month,
        day,
        hour: rest / 3600,
        minute: rest / 60 % 60,
        second: rest % 60,
        milli: since.subsec_millis(),
    }
}

/// Days in 400, 100, 4 and 1 Gregorian years, counted from a 1 March so that the leap day is
/// the last of its cycle.
const CYCLES: [(u64, u64, u64); 4] =
    [(400, 146_097, u64::MAX), (100, 36_524, 3), (4, 1_461, u64::MAX), (1, 365, 3)];
/// Days from 1 March to the first of each month, March first.
const MONTHS: [u64; 12] = [0, 31, 61, 92, 122, 153, 184, 214, 245, 275, 306, 337];
/// Days from 1 March of year 0 to 1 January 1970.
const EPOCH: u64 = 719_468;

/// Year, month and day of the day that is `days` after 1 January 1970.
fn date(days: u64) -> (u64, u64, u64) {
    let mut rest = days + EPOCH;
    let mut year = 0;
    for (years, length, most) in CYCLES {
        // The last century of 400 years, and the last year of 4, is a day longer.
        let n = (rest / length).min(most);
        year += n * years;
        rest -= n * length;
    }
    let index = MONTHS.iter().rposition(|&start| start <= rest).unwrap_or(0);
    let day = rest - MONTHS[index] + 1;
    if index < 10 { (year, index as u64 + 3, day) } else { (year + 1, index as u64 - 9, day) }
}

/// The inverse of [`date`]; `None` before 1970 or for a month that does not exist.
fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    let (from_march, index) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let leap_days = from_march / 4 - from_march / 100 + from_march / 400;
    let start = MONTHS.get(usize::try_from(index).ok()?)?;
    (from_march * 365 + leap_days + start + day).checked_sub(EPOCH + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7)
    }

    #[test]
    fn known_moments() {
        // Values of date(1): date -u -d @N +%FT%T.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (951_868_799, "2000-02-29T23:59:59.007Z"),
            (1_709_251_199, "2024-02-29T23:59:59.007Z"),
            (1_709_251_200, "2024-03-01T00:00:00.007Z"),
            (1_767_225_599, "2025-12-31T23:59:59.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            assert_eq!(rfc3339(at(seconds)), text);
        }
    }

    #[test]
    fn every_day_of_five_centuries_reads_back() {
        let mut previous = String::new();
        for day in 0..5 * 146_097 / 4 {
            let text = file_name(at(day * DAY));
            assert!(text > previous, "{text} does not follow {previous}");
            assert_eq!(from_file_name(&text), Some(at(day * DAY)), "{text}");
            previous = text;
        }
    }

    #[test]
    fn other_texts_are_no_moment() {
        for text in [
            "",
            "x",
            "2026-13-01T00-00-00.000",
            "2026-02-30T00-00-00.000",
            "2026-11-21T22-00-03.417x",
            "1969-12-31T00-00-00.000",
            "2026-11-21T22:00:03.417",
            "ééééééééééééé",
        ] {
            assert_eq!(from_file_name(text), None, "{text}");
        }
    }

    #[test]
    fn a_clock_before_1970_is_no_panic() {
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000Z");
    }
}
