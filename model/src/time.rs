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

#[cfg(test)]
mod tests {
    use super::*;

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
