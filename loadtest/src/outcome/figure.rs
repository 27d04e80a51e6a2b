//! What a figure's name says: its unit, how a person writes its value, and whether less or more of it is better.

use super::Faults;

/// The unit of a value before any `_per_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Micros,
    Seconds,
    Bytes,
    Percent,
    Count,
}

/// What is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Less,
    More,
    /// Neither: it describes the load or the client, not the server.
    Neutral,
}

impl Unit {
    /// Of the figure with this name.
    pub(crate) fn of(name: &str) -> Self {
        unit_and_stem(name).0
    }

    /// How much one of this unit is in microseconds, bytes, percent or pieces.
    pub(crate) fn scale(self) -> f64 {
        if self == Self::Seconds { 1e6 } else { 1.0 }
    }

    /// Whether a value of one can be told in the other.
    pub(crate) fn is_of_a_kind_with(self, other: Self) -> bool {
        let kind = |unit| if unit == Self::Seconds { Self::Micros } else { unit };
        kind(self) == kind(other)
    }

    /// In words, with the article.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Micros | Self::Seconds => "a time",
            Self::Bytes => "a number of bytes",
            Self::Percent => "a percentage",
            Self::Count => "a plain number",
        }
    }
}

/// The name without its unit: `delivery_p99` of `delivery_p99_us`, `connects` of `connects_per_second`.
pub(crate) fn stem(name: &str) -> String {
    unit_and_stem(name).1
}

fn unit_and_stem(name: &str) -> (Unit, String) {
    let (head, per) = name.split_once("_per_").map_or((name, None), |(head, per)| (head, Some(per)));
    let units = [
        ("us", Unit::Micros),
        ("seconds", Unit::Seconds),
        ("bytes", Unit::Bytes),
        ("percent", Unit::Percent),
    ];
    for (suffix, unit) in units {
        let Some(rest) = head.strip_suffix(suffix) else { continue };
        if rest.is_empty() || rest.ends_with('_') {
            let rest = rest.trim_end_matches('_');
            return (unit, per.map_or_else(|| rest.to_owned(), |per| format!("{rest}_per_{per}")));
        }
    }
    match per {
        None | Some("second") => (Unit::Count, head.to_owned()),
        Some(_) => (Unit::Count, name.to_owned()),
    }
}

/// Which direction of the figure with this name is the better one.
pub(crate) fn better(name: &str) -> Better {
    let kind = name.split('_').next().unwrap_or_default();
    if matches!(kind, "lag" | "client" | "closed" | "asked" | "sent" | "received") || name == "seconds" {
        return Better::Neutral;
    }
    let less = Faults::default().counts().iter().any(|(fault, _)| *fault == name);
    if less || matches!(name, "gaps" | "gap_messages") {
        return Better::Less;
    }
    match Unit::of(name) {
        Unit::Percent if name == "kept_percent" => Better::More,
        Unit::Percent if kind != "server" => Better::Neutral,
        Unit::Micros | Unit::Seconds | Unit::Bytes | Unit::Percent => Better::Less,
        Unit::Count if name.ends_with("_per_second") => Better::More,
        Unit::Count => Better::Neutral,
    }
}

/// The value of the figure with this name, as a person writes it: `4.10 ms`, `1,200/s`, `9.8 KiB`.
pub(crate) fn show(name: &str, value: f64) -> String {
    let text = show_unit(Unit::of(name), value);
    if name.ends_with("_per_second") { text + "/s" } else { text }
}

/// A value of this unit, as a person writes it.
pub(crate) fn show_unit(unit: Unit, value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    match unit {
        Unit::Seconds if value == 0.0 => "0 s".to_owned(),
        Unit::Micros | Unit::Seconds => duration(value * unit.scale()),
        Unit::Bytes => bytes(value),
        Unit::Percent => format!("{} %", digits(value)),
        Unit::Count => count(value),
    }
}

/// Three significant digits in the largest unit that is not more than the value.
fn duration(us: f64) -> String {
    let size = us.abs();
    if size < 999.5 {
        format!("{} us", digits(us))
    } else if size < 999_500.0 {
        format!("{} ms", digits(us / 1e3))
    } else {
        format!("{} s", digits(us / 1e6))
    }
}

fn bytes(value: f64) -> String {
    let mut rest = value;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if rest.abs() < 1023.5 {
            return format!("{} {unit}", digits(rest));
        }
        rest /= 1024.0;
    }
    format!("{} TiB", digits(rest))
}

fn count(value: f64) -> String {
    if value.fract() != 0.0 && value.abs() < 100.0 { digits(value) } else { grouped(&format!("{value:.0}")) }
}

/// About three significant digits, and all of a whole number's.
pub(crate) fn digits(value: f64) -> String {
    let size = value.abs();
    if size >= 99.95 || value.fract() == 0.0 {
        grouped(&format!("{value:.0}"))
    } else if size >= 9.995 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// Thousands apart, in a text of digits with or without a sign.
pub(crate) fn grouped(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let mut grouped = String::from(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_what_the_name_ends_with() {
        let units = [
            ("delivery_p99_us", Unit::Micros, "delivery_p99"),
            ("server_cpu_us_per_delivery", Unit::Micros, "server_cpu_per_delivery"),
            ("back_seconds", Unit::Seconds, "back"),
            ("seconds", Unit::Seconds, ""),
            ("server_bytes_per_connection", Unit::Bytes, "server_per_connection"),
            ("sent_bytes_per_second", Unit::Bytes, "sent_per_second"),
            ("kept_percent", Unit::Percent, "kept"),
            ("deliveries_per_second", Unit::Count, "deliveries"),
            ("delivery_count", Unit::Count, "delivery_count"),
            ("bus", Unit::Count, "bus"),
        ];
        for (name, unit, stem) in units {
            assert_eq!(unit_and_stem(name), (unit, stem.to_owned()), "{name}");
        }
    }

    #[test]
    fn values_are_written_with_three_digits_and_the_fitting_unit() {
        let values = [
            ("delivery_p99_us", 4100.0, "4.10 ms"),
            ("delivery_p99_us", 999.6, "1.00 ms"),
            ("delivery_p99_us", 12.34, "12.3 us"),
            ("back_seconds", 0.25, "250 ms"),
            ("back_seconds", 12.0, "12 s"),
            ("server_bytes_per_connection", 10_035.2, "9.80 KiB"),
            ("sent_bytes_per_second", 3.0 * 1024.0 * 1024.0, "3 MiB/s"),
            ("deliveries_per_second", 1_234_567.4, "1,234,567/s"),
            ("published_per_second", 0.5, "0.50/s"),
            ("lost", 0.0, "0"),
            ("x", -1234.0, "-1,234"),
            ("client_cpu_percent", 48.26, "48.3 %"),
            ("delivery_p99_us", f64::NAN, "-"),
            ("delivery_p99_us", f64::INFINITY, "-"),
        ];
        for (name, value, text) in values {
            assert_eq!(show(name, value), text, "{name} {value}");
        }
    }

    #[test]
    fn knows_which_direction_is_better() {
        let less = ["delivery_p99_us", "server_cpu_percent", "server_bytes_per_connection", "lost", "gaps"];
        let more = ["deliveries_per_second", "connects_per_second", "kept_percent"];
        let neutral = ["connections", "seconds", "lag_p99_us", "client_cpu_percent", "closed_1000"];
        assert!(less.iter().all(|name| better(name) == Better::Less));
        assert!(more.iter().all(|name| better(name) == Better::More));
        assert!(neutral.iter().all(|name| better(name) == Better::Neutral));
        assert_eq!(better("sent_bytes_per_second"), Better::Neutral);
    }
}
