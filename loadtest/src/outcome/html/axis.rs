//! Axes: from values to places on paper, with ticks at round values.

use std::f64::consts::LOG10_2;
use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use super::super::figure::{self, Unit};

/// What stands at an axis, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantity {
    /// Seconds since the start, written as `1:30`.
    Moment,
    /// Microseconds, logarithmic.
    Latency,
    /// From zero.
    Amount(Unit),
    /// From zero, per second.
    Rate,
    /// A quantile as 1/(1-q), logarithmic, written in percent.
    Quantile,
}

/// A range of places on paper and the ticks within it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    pub(super) quantity: Quantity,
    pub(super) begin: f64,
    pub(super) end: f64,
    /// Place and label.
    pub(super) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// An axis that holds all these values; those that are no finite numbers do not count.
    pub(super) fn new(quantity: Quantity, values: impl Iterator<Item = f64>, ticks_max: u32) -> Self {
        let places = values.filter(|value| value.is_finite()).map(|value| quantity.place(value));
        let (low, high) = places
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), place| (low.min(place), high.max(place)));
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        match quantity {
            Quantity::Moment => Self::moments(low, high, ticks_max),
            Quantity::Amount(_) | Quantity::Rate => Self::amounts(quantity, high, ticks_max),
            Quantity::Latency => Self::latencies(low, high, ticks_max),
            Quantity::Quantile => Self::quantiles(high, ticks_max),
        }
    }

    fn moments(low: f64, high: f64, ticks_max: u32) -> Self {
        let (begin, end) = if high - low < 1.0 { (low, low + 1.0) } else { (low, high) };
        let step = MOMENTS.into_iter().find(|step| whole((end - begin) / step) < ticks_max);
        let step = step.unwrap_or_else(|| round_step((end - begin) / 86_400.0, ticks_max) * 86_400.0);
        Self::with_ticks(Quantity::Moment, begin, end, (begin / step).ceil() * step, step)
    }

    fn amounts(quantity: Quantity, high: f64, ticks_max: u32) -> Self {
        let high = if high > 0.0 { high } else { 1.0 };
        let step = if quantity == Quantity::Amount(Unit::Bytes) {
            let unit = 1024_f64.powf(high.log(1024.0).floor());
            round_step(high / unit, ticks_max) * unit
        } else {
            round_step(high, ticks_max)
        };
        Self::with_ticks(quantity, 0.0, (high / step).ceil() * step, 0.0, step)
    }

    fn latencies(low: f64, high: f64, ticks_max: u32) -> Self {
        let steps: &[f64] = if high - low > 2.0 { &[0.0, 1.0] } else { &[0.0, LOG10_2, 1.0 - LOG10_2, 1.0] };
        let place = |decade: f64, step: &f64| decade + step;
        let below = |value: f64| {
            steps.iter().rev().map(|step| place(value.floor(), step)).find(|at| *at <= value + NEAR)
        };
        let above =
            |value: f64| steps.iter().map(|step| place(value.floor(), step)).find(|at| *at >= value - NEAR);
        let begin = below(low).unwrap_or(low);
        let mut end = above(high).unwrap_or(high);
        if end - begin < 0.3 {
            end = begin + LOG10_2;
        }
        let mut ticks = Vec::new();
        let every = whole(((end - begin) / f64::from(ticks_max.max(2))).ceil()).max(1);
        for decade in (whole_signed(begin)..=whole_signed(end)).step_by(every as usize) {
            for step in &steps[..steps.len() - 1] {
                let at = place(f64::from(decade), step);
                if at >= begin - NEAR && at <= end + NEAR {
                    ticks.push((at, figure::show_unit(Unit::Micros, 10_f64.powf(at).round())));
                }
            }
        }
        Self { quantity: Quantity::Latency, begin, end, ticks }
    }

    fn quantiles(high: f64, ticks_max: u32) -> Self {
        let end = high.max(1.0);
        let every = whole((end / f64::from(ticks_max.max(2))).ceil()).max(1);
        let mut ticks: Vec<_> = (0..=whole(end))
            .step_by(every as usize)
            .map(|nines| (f64::from(nines), percent(nines)))
            .collect();
        if every == 1 && ticks_max > 5 {
            ticks.insert(1, (LOG10_2, "50 %".to_owned()));
        }
        Self { quantity: Quantity::Quantile, begin: 0.0, end, ticks }
    }

    fn with_ticks(quantity: Quantity, begin: f64, end: f64, first: f64, step: f64) -> Self {
        let count = whole(((end - first) / step + NEAR).max(0.0));
        let ticks = (0..=count).map(|index| {
            let at = first + step * f64::from(index);
            (at, quantity.label(at, step))
        });
        let ticks = ticks.collect();
        Self { quantity, begin, end, ticks }
    }
}

/// As `plotters` wants it; its values are places on paper.
impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, (first, last): (i32, i32)) -> i32 {
        let part = (place - self.begin) / (self.end - self.begin);
        first.saturating_add(whole_signed((part * f64::from(last - first)).round()))
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> Range<f64> {
        self.begin..self.end
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, place: &f64) -> String {
        self.ticks
            .iter()
            .find(|(at, _)| at.total_cmp(place).is_eq())
            .map_or_else(String::new, |(_, label)| label.clone())
    }
}

impl Quantity {
    /// Where a value stands on paper.
    pub(super) fn place(self, value: f64) -> f64 {
        match self {
            Self::Latency => value.max(1.0).log10(),
            Self::Quantile => (1.0 / (1.0 - value).clamp(1e-9, 1.0)).log10(),
            Self::Moment | Self::Amount(_) | Self::Rate => value,
        }
    }

    /// The value at a place, in words, for whoever points at it.
    pub(super) fn read(self, value: f64) -> String {
        match self {
            Self::Moment => moment(value, 1.0),
            Self::Latency => figure::show_unit(Unit::Micros, value),
            Self::Amount(unit) => figure::show_unit(unit, value.round()),
            Self::Rate => format!("{}/s", figure::show_unit(Unit::Count, value.round())),
            Self::Quantile => {
                format!("{:.5}", value * 100.0).trim_end_matches('0').trim_end_matches('.').to_owned() + " %"
            }
        }
    }

    fn label(self, value: f64, step: f64) -> String {
        match self {
            Self::Moment => moment(value, step),
            Self::Rate | Self::Amount(Unit::Count) => short(value),
            Self::Amount(unit) => figure::show_unit(unit, value),
            Self::Latency | Self::Quantile => String::new(),
        }
    }
}

/// `0:30`, `1:02:00`, or with hours alone where the ticks are hours apart.
fn moment(seconds: f64, step: f64) -> String {
    let whole = whole(seconds.max(0.0));
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    match hours {
        _ if step >= 3600.0 => format!("{hours} h"),
        0 => format!("{minutes}:{rest:02}"),
        _ => format!("{hours}:{minutes:02}:{rest:02}"),
    }
}

/// `1.2M`, `300k`.
fn short(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{scaled:.2}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

/// So many nines: `99.9 %`.
fn percent(nines: u32) -> String {
    match nines {
        0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        _ => format!("99.{} %", "9".repeat(nines as usize - 2)),
    }
}

/// 1, 2 or 5 times a power of ten, so that at most so many steps reach so high.
fn round_step(high: f64, steps_max: u32) -> f64 {
    let least = high / f64::from(steps_max.max(1));
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|times| times * power)
        .find(|step| *step >= least * (1.0 - NEAR))
        .unwrap_or(power * 10.0)
}

/// The whole part; as near as can be if it is out of range.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, as is said")]
fn whole(value: f64) -> u32 {
    value as u32
}

/// The whole number below; as near as can be if it is out of range.
#[expect(clippy::cast_possible_truncation, reason = "the cast saturates, as is said")]
fn whole_signed(value: f64) -> i32 {
    (value + NEAR).floor() as i32
}

/// What rounding may cost.
const NEAR: f64 = 1e-6;

/// Steps between moments, in seconds.
const MOMENTS: [f64; 17] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_200.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0,
    43_200.0, 86_400.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_not_too_many() {
        let labels = |quantity, low, high| {
            let axis = Axis::new(quantity, [low, high].into_iter(), 6);
            axis.ticks.into_iter().map(|(_, label)| label).collect::<Vec<_>>()
        };
        assert_eq!(labels(Quantity::Moment, 0.0, 120.0), ["0:00", "0:30", "1:00", "1:30", "2:00"]);
        assert_eq!(labels(Quantity::Moment, 0.0, 4.0 * 3600.0), ["0 h", "1 h", "2 h", "3 h", "4 h"]);
        assert_eq!(labels(Quantity::Rate, 0.0, 994_000.0), ["0", "200k", "400k", "600k", "800k", "1M"]);
        assert_eq!(
            labels(Quantity::Amount(Unit::Bytes), 0.0, 100e6),
            ["0 B", "20 MiB", "40 MiB", "60 MiB", "80 MiB", "100 MiB"]
        );
        assert_eq!(
            labels(Quantity::Amount(Unit::Percent), 0.0, 93.0),
            ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]
        );
        assert_eq!(
            labels(Quantity::Latency, 90.0, 2_000_000.0),
            ["10 us", "100 us", "1 ms", "10 ms", "100 ms", "1 s", "10 s"]
        );
        assert_eq!(labels(Quantity::Latency, 300.0, 700.0), ["200 us", "500 us", "1 ms"]);
        assert_eq!(
            labels(Quantity::Quantile, 0.0, 0.9999),
            ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]
        );
    }

    #[test]
    fn an_axis_has_a_length_and_ticks_whatever_it_is_given() {
        let quantities = [
            Quantity::Moment,
            Quantity::Latency,
            Quantity::Amount(Unit::Bytes),
            Quantity::Rate,
            Quantity::Quantile,
        ];
        let values: [&[f64]; 9] = [
            &[],
            &[f64::NAN],
            &[0.0],
            &[5.0],
            &[-1.0],
            &[1e-9],
            &[1e15],
            &[f64::INFINITY, 3.0],
            &[0.0, 1.0, 1e12],
        ];
        for quantity in quantities {
            for values in values {
                for ticks_max in [0, 1, 5, 9] {
                    let axis = Axis::new(quantity, values.iter().copied(), ticks_max);
                    assert!(axis.begin < axis.end && axis.end.is_finite(), "{quantity:?} {values:?}");
                    assert!((1..100).contains(&axis.ticks.len()), "{quantity:?} {values:?} {:?}", axis.ticks);
                }
            }
        }
    }
}
