//! Spans of time as people write and read them.

use std::time::Duration;

/// `1500ms`, `15s`, `10m`, `2h`; a bare number is seconds.
pub fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let count: u64 = count.parse().map_err(|_| wrong())?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    count.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(wrong)
}

fn wrong() -> String {
    "write a number and ms, s, m or h, such as 15s or 10m".into()
}

/// In its two largest units: `4m12s`.
pub fn show(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// How long ago, by this machine's calendar and a server's, which may differ: for eyes. 0 says that it is not known.
pub fn ago(unix_ms: i64) -> String {
    if unix_ms == 0 {
        return "?".into();
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let then = Duration::from_millis(u64::try_from(unix_ms).unwrap_or_default());
    show(now.saturating_sub(then))
}

/// Seconds of which a negative number says that they are not known.
pub fn left(seconds: i64) -> String {
    u64::try_from(seconds).map_or_else(|_| "-".into(), |seconds| show(Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_shown_as_people_write_them() {
        for (text, ms) in [("15s", 15_000), ("10m", 600_000), ("2h", 7_200_000), ("250ms", 250), ("7", 7_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)));
        }
        for text in ["", "s", "-1s", "1.5s", "1d", "99999999999999999999s"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(ago(0), "?");
        for (seconds, text) in [(9, "9s"), (252, "4m12s"), (3_720, "1h2m"), (90_000, "1d1h")] {
            assert_eq!(show(Duration::from_secs(seconds)), text);
        }
    }
}
