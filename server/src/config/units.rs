//! Quantities as people write them: durations as in Go (`1h30m`), sizes in bytes (`512MB`, `2GiB`), booleans as in Go's
//! flag package. Each function answers with a value or with what is wrong, ready to follow the text itself. Knows no
//! flag by name.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// `K`, `M`, `G`, `T` count in thousands; with an `i` they count in 1024. A closing `B` says nothing more.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("", 1),
    ("k", 1_000),
    ("m", 1_000_000),
    ("g", 1_000_000_000),
    ("t", 1_000_000_000_000),
    ("ki", 1 << 10),
    ("mi", 1 << 20),
    ("gi", 1 << 30),
    ("ti", 1 << 40),
];

/// A duration as Go writes it: numbers each with a unit, such as `300ms`, `1.5h`, `1h30m`. A bare `0` is allowed.
pub fn duration(text: &str) -> Result<Duration, String> {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    if unsigned.starts_with('-') {
        return Err("a duration here cannot be negative".to_owned());
    }
    if !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("it has no unit; write for example {unsigned}s or {unsigned}ms"));
    }
    match nanoseconds(unsigned) {
        Some(total) => Ok(Duration::from_nanos(total)),
        None => Err("it is not a duration; write for example 300ms, 5s or 1h30m".to_owned()),
    }
}

/// Where etcd counts in milliseconds: a bare number is that many, anything else is a [`duration`].
pub fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(ms) => Ok(Duration::from_millis(u64::from(ms))),
        Err(_) => duration(text).map_err(|_| "write a number of milliseconds, for example 100".to_owned()),
    }
}

/// A number of bytes, with or without a unit.
pub fn bytes(text: &str) -> Result<u64, String> {
    size(text).ok_or_else(|| "it is not a size; write bytes or for example 512MB or 2GiB".to_owned())
}

/// As [`bytes()`], where a negative number has a meaning too.
pub fn signed_bytes(text: &str) -> Result<i64, String> {
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let magnitude = i64::try_from(bytes(unsigned)?).map_err(|_| "it is too large".to_owned())?;
    Ok(sign * magnitude)
}

/// The spellings that Go's flag package takes for a boolean.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("it must be true or false".to_owned()),
    }
}

fn nanoseconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(number_len(rest));
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let (_, nanoseconds) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(scaled(number, *nanoseconds)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

fn size(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(number_len(text));
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
    scaled(number, *bytes)
}

fn number_len(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len())
}

/// A decimal number times a unit, rounded down; None when it is no number or does not fit.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Nine places keep the arithmetic in bounds; nobody writes more by hand.
    let fraction = &fraction[..fraction.len().min(9)];
    let places = 10_u128.pow(fraction.len() as u32);
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let part = u64::try_from(fraction * u128::from(unit) / places).ok()?;
    whole.checked_mul(unit)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let cases = [
            ("0", 0),
            ("0s", 0),
            ("300ms", 300_000_000),
            ("5s", 5_000_000_000),
            ("+5s", 5_000_000_000),
            ("10m", 600_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("1us", 1_000),
            ("1\u{b5}s2ns", 1_002),
            ("2h0m0s", 7_200_000_000_000),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(duration(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
        for text in ["", "s", "5", "5x", "5s5", "1.2.3s", ".s", "-5s", "1 s", "9999999999h", "5S", "\u{661}s"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration("5"), Err("it has no unit; write for example 5s or 5ms".to_owned()));
    }

    #[test]
    fn bare_numbers_are_milliseconds_where_etcd_counts_so() {
        assert_eq!(milliseconds("100"), Ok(Duration::from_millis(100)));
        assert_eq!(milliseconds("1s"), Ok(Duration::from_secs(1)));
        for text in ["", "-5", "1x", "99999999999"] {
            assert!(milliseconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_take_units_of_both_kinds() {
        let cases = [
            ("0", 0),
            ("1572864", 1_572_864),
            ("2GiB", 2 << 30),
            ("2Gi", 2 << 30),
            ("512MB", 512_000_000),
            ("512m", 512_000_000),
            ("1.5KiB", 1536),
            ("64 MiB", 64 << 20),
            ("100B", 100),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "GiB", "1XB", "1.2.3", "-1", "99999999TiB", "0x10", "1bb"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert_eq!(signed_bytes("-1"), Ok(-1));
        assert_eq!(signed_bytes("8GiB"), Ok(8 << 30));
        assert!(signed_bytes("99999999999999999999").is_err());
        assert!(signed_bytes("--1").is_err());
    }

    #[test]
    fn booleans_are_those_of_gos_flag_package() {
        for text in ["1", "t", "T", "true", "TRUE", "True"] {
            assert_eq!(boolean(text), Ok(true));
        }
        for text in ["0", "f", "F", "false", "FALSE", "False"] {
            assert_eq!(boolean(text), Ok(false));
        }
        for text in ["", "yes", "on", "tRUE"] {
            assert!(boolean(text).is_err());
        }
    }
}
