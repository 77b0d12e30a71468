//! Wall-clock texts of the stored forms, from nanoseconds since 1970 (UTC).

/// Seconds of a day.
const DAY: u64 = 86_400;

struct Civil {
    year: u64,
    month: u64,
    day: u64,
    second_of_day: u64,
}

/// Proleptic Gregorian date of a moment after 1970.
fn civil(seconds: u64) -> Civil {
    // Years start in March here, so that the leap day is a year's last.
    let days = seconds / DAY + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    Civil { year, month, day: day_of_year - (153 * shifted + 2) / 5 + 1, second_of_day: seconds % DAY }
}

fn date(c: &Civil) -> String {
    format!("{:04}-{:02}-{:02}", c.year, c.month, c.day)
}

fn clock(c: &Civil) -> String {
    let s = c.second_of_day;
    format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

/// `2026-01-02T03:04:05Z`: how Kubernetes and Calico write times in resources (RFC 3339, seconds).
pub fn rfc3339(unix_ns: u64) -> String {
    let c = civil(unix_ns / 1_000_000_000);
    format!("{}T{}Z", date(&c), clock(&c))
}

/// `2021-02-22 10:00:00.123456789 +0000 UTC`: how calico-ipam writes the `timestamp` attribute.
/// Trailing zeros of the fraction are left out, as Go does.
pub fn go_string(unix_ns: u64) -> String {
    let c = civil(unix_ns / 1_000_000_000);
    let fraction = match unix_ns % 1_000_000_000 {
        0 => String::new(),
        ns => format!(".{ns:09}").trim_end_matches('0').to_owned(),
    };
    format!("{} {}{fraction} +0000 UTC", date(&c), clock(&c))
}

/// Nanoseconds since 1970 of a time as [`go_string`] has it, in any zone; what follows the zone's
/// offset does not matter.
pub fn parse_go_string(text: &str) -> Option<u64> {
    let mut words = text.split(' ');
    let (date, clock, zone) = (words.next()?, words.next()?, words.next()?);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(clock, ':')?;
    if !(1970..=2554).contains(&year) || !(1..=12).contains(&month) || fraction.len() > 9 {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<9}").parse().ok()?;
    let (sign, offset) = zone.split_at_checked(1)?;
    let offset: i64 = offset.parse().ok().filter(|offset| (0..=1400).contains(offset))?;
    let offset = (offset / 100 * 60 + offset % 100) * 60 * if sign == "-" { -1 } else { 1 };
    let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
    seconds.checked_add_signed(-offset)?.checked_mul(1_000_000_000)?.checked_add(fraction)
}

fn numbers(text: &str, between: char) -> Option<[u64; 3]> {
    let numbers: Option<Vec<u64>> = text.split(between).map(|n| n.parse().ok()).collect();
    numbers?.try_into().ok().filter(|numbers: &[u64; 3]| numbers.iter().all(|n| *n < 10_000))
}

/// Days since 1970 of a date after it; the inverse of [`civil`].
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, shifted) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let day_of_year = (153 * shifted + 2) / 5 + day.max(1) - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_form_is_read_back() {
        for ns in [0, 951_782_400_000_000_000, 1_613_988_000_123_456_789, 4_107_542_400_120_000_000] {
            assert_eq!(parse_go_string(&go_string(ns)), Some(ns));
        }
        let zoned = "2021-02-22 12:30:00.5 +0230 EET m=+1.5";
        assert_eq!(parse_go_string(zoned), Some(1_613_988_000_500_000_000));
        for bad in
            ["", "x", "2021-02-22", "2021-13-22 10:00:00 +0000", "0000-01-01 00:00:00 +0000", "1 2 3 é"]
        {
            assert_eq!(parse_go_string(bad), None, "{bad}");
        }
    }

    #[test]
    fn known_moments() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, text) in cases {
            assert_eq!(rfc3339(seconds * 1_000_000_000), text);
        }
        assert_eq!(rfc3339(u64::MAX), "2554-07-21T23:34:33Z");
    }

    #[test]
    fn the_timestamp_attribute_has_gos_form() {
        assert_eq!(go_string(1_613_988_000_123_456_789), "2021-02-22 10:00:00.123456789 +0000 UTC");
        assert_eq!(go_string(1_613_988_000_120_000_000), "2021-02-22 10:00:00.12 +0000 UTC");
        assert_eq!(go_string(1_613_988_000_000_000_000), "2021-02-22 10:00:00 +0000 UTC");
    }
}
