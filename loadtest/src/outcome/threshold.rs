//! What a run must reach: `delivery_p99<50ms`, `lost==0`, `storm.deliveries_per_second > 1M`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail};
use serde::{Deserialize, Serialize};

use super::figure::{self, Unit};
use super::{Figures, Outcome};

/// One demand on one figure, over all measured phases or over the phase that it names.
///
/// The figure may be named without its unit, and the value may have another unit of the same kind; a value without
/// a unit is in the figure's own. Which figures there are is known only after the run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Threshold {
    /// As it was written.
    text: String,
    phase: Option<String>,
    name: String,
    operator: Operator,
    value: Value,
}

/// What became of a [`Threshold`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// The threshold as it was written.
    pub(crate) text: String,
    /// What the figure was, in the unit of its name; absent when there is no such figure.
    pub(crate) figure: Option<f64>,
    pub(crate) ok: bool,
    /// For people: what the figure was, or why there is none.
    pub(crate) message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
    Equal,
    Unequal,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Value {
    /// In the base of its unit ([`Unit::scale`]), or in the figure's own unit if it has none.
    number: f64,
    unit: Option<Unit>,
}

impl Threshold {
    /// Holds this threshold against what the run has shown.
    pub(crate) fn judge(&self, outcome: &Outcome) -> Verdict {
        let all = outcome.all_figures();
        let Some(wanted) = &self.phase else {
            return self.judge_figures(&all, "");
        };
        let mut last = None;
        for phase in outcome.phases.iter().filter(|phase| &phase.name == wanted) {
            let mut verdict = self.judge_figures(&phase.figures, &format!("{wanted}: "));
            if verdict.figure.is_none() && find(&all, &self.name, self.value.unit).is_some() {
                verdict.message = format!("{} is known only for the run as a whole", self.name);
            }
            if !verdict.ok {
                return verdict;
            }
            last = Some(verdict);
        }
        last.unwrap_or_else(|| {
            let near = nearest(wanted, outcome.phases.iter().map(|phase| phase.name.as_str()));
            self.miss(None, format!("there is no phase {wanted}{near}"))
        })
    }

    fn judge_figures(&self, figures: &Figures, place: &str) -> Verdict {
        let Some((name, figure)) = find(figures, &self.name, self.value.unit) else {
            let near = nearest(&self.name, figures.keys().map(String::as_str));
            return self.miss(None, format!("{place}there is no figure {}{near}", self.name));
        };
        let own = Unit::of(name);
        let wanted = match self.value.unit {
            Some(unit) if !unit.is_of_a_kind_with(own) => {
                let message = format!("{place}{name} is {}, not {}", own.noun(), unit.noun());
                return self.miss(Some(figure), message);
            }
            Some(_) => self.value.number / own.scale(),
            None => self.value.number,
        };
        let ok = self.operator.holds(figure, wanted);
        let shown = if figure.is_finite() { figure::show(name, figure) } else { "not a number".to_owned() };
        let missed = if ok {
            String::new()
        } else {
            format!(", not {} {}", self.operator, figure::show(name, wanted))
        };
        Verdict {
            text: self.text.clone(),
            figure: figure.is_finite().then_some(figure),
            ok,
            message: format!("{place}{name} is {shown}{missed}"),
        }
    }

    fn miss(&self, figure: Option<f64>, message: String) -> Verdict {
        Verdict { text: self.text.clone(), figure, ok: false, message }
    }
}

impl FromStr for Threshold {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let trimmed = text.trim();
        let Some(at) = trimmed.find(['<', '>', '=', '!']) else {
            bail!("`{trimmed}` compares nothing: write a figure, one of {OPERATORS} and a value ({EXAMPLE})");
        };
        let (left, right) = trimmed.split_at(at);
        let (operator, right) = Operator::take(right)
            .with_context(|| format!("`{trimmed}`: after `{left}` must come one of {OPERATORS}"))?;
        let left = left.trim();
        let (phase, name) =
            left.rsplit_once('.').map_or((None, left), |(phase, name)| (Some(phase.to_owned()), name));
        if name.is_empty() || phase.as_deref() == Some("") {
            bail!("`{trimmed}`: before `{operator}` must stand the name of a figure ({EXAMPLE})");
        }
        if let Some(odd) = name.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '_') {
            bail!("`{trimmed}`: `{odd}` cannot be part of a figure's name, `{name}` ({EXAMPLE})");
        }
        let value = Value::parse(right.trim()).map_err(|error| {
            Error::msg(format!("`{trimmed}`: the value after `{operator}` {error} ({EXAMPLE})"))
        })?;
        Ok(Self { text: trimmed.to_owned(), phase, name: name.to_owned(), operator, value })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Operator {
    /// The two-letter ones first: `<` begins `<=` too.
    const ALL: [(&'static str, Self); 6] = [
        ("<=", Self::LessOrEqual),
        (">=", Self::MoreOrEqual),
        ("==", Self::Equal),
        ("!=", Self::Unequal),
        ("<", Self::Less),
        (">", Self::More),
    ];

    fn take(text: &str) -> Option<(Self, &str)> {
        Self::ALL.iter().find_map(|(sign, operator)| text.strip_prefix(sign).map(|rest| (*operator, rest)))
    }

    /// False whenever one of them is no number.
    fn holds(self, figure: f64, wanted: f64) -> bool {
        let Some(order) = figure.partial_cmp(&wanted) else { return false };
        match self {
            Self::Less => order == Ordering::Less,
            Self::LessOrEqual => order != Ordering::Greater,
            Self::More => order == Ordering::Greater,
            Self::MoreOrEqual => order != Ordering::Less,
            Self::Equal => order == Ordering::Equal,
            Self::Unequal => order != Ordering::Equal,
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::ALL.iter().find(|(_, operator)| operator == self).map_or(Ok(()), |(sign, _)| f.write_str(sign))
    }
}

impl Value {
    fn parse(text: &str) -> Result<Self> {
        let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '-' | '_')).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        if number.is_empty() {
            bail!("must begin with a number");
        }
        let Ok(number) = number.replace('_', "").parse::<f64>() else { bail!("is no number: `{number}`") };
        let unit = unit.trim();
        if unit.is_empty() {
            return Ok(Self { number, unit: None });
        }
        let Some((_, unit, factor)) = UNITS.iter().find(|(name, ..)| *name == unit) else {
            let known: Vec<_> = UNITS.iter().map(|(name, ..)| *name).collect();
            bail!("has an unknown unit, `{unit}`: use one of {}", known.join(" "));
        };
        Ok(Self { number: number * factor, unit: *unit })
    }
}

/// The figure of this name, or else the one whose name it is without the unit; of several, one of the wanted kind.
fn find<'a>(figures: &'a Figures, name: &str, wanted: Option<Unit>) -> Option<(&'a str, f64)> {
    let found = |(name, figure): (&'a String, &f64)| (name.as_str(), *figure);
    if let Some(exact) = figures.get_key_value(name) {
        return Some(found(exact));
    }
    let mut same_stem: Vec<_> =
        figures.iter().map(found).filter(|(figure, _)| figure::stem(figure) == name).collect();
    same_stem.sort_by_key(|(figure, _)| !wanted.is_none_or(|unit| unit.is_of_a_kind_with(Unit::of(figure))));
    same_stem.first().copied()
}

/// Up to three known names that are written alike, as the end of a sentence.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let likeness =
        |known: &str| strsim::jaro_winkler(name, known).max(strsim::jaro_winkler(name, &figure::stem(known)));
    let mut near: Vec<_> =
        known.map(|known| (likeness(known), known)).filter(|(likeness, _)| *likeness > 0.7).collect();
    near.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    near.truncate(3);
    if near.is_empty() {
        return String::new();
    }
    let near: Vec<_> = near.into_iter().map(|(_, known)| known).collect();
    format!("; the nearest: {}", near.join(", "))
}

const OPERATORS: &str = "< <= > >= == !=";
const EXAMPLE: &str = "such as delivery_p99<50ms";

/// A unit's name, what it measures, and how much of that unit's base it is; the last ones only multiply.
const UNITS: [(&str, Option<Unit>, f64); 14] = [
    ("us", Some(Unit::Micros), 1.0),
    ("ms", Some(Unit::Micros), 1e3),
    ("s", Some(Unit::Micros), 1e6),
    ("B", Some(Unit::Bytes), 1.0),
    ("kB", Some(Unit::Bytes), 1e3),
    ("MB", Some(Unit::Bytes), 1e6),
    ("GB", Some(Unit::Bytes), 1e9),
    ("KiB", Some(Unit::Bytes), 1024.0),
    ("MiB", Some(Unit::Bytes), 1_048_576.0),
    ("GiB", Some(Unit::Bytes), 1_073_741_824.0),
    ("%", Some(Unit::Percent), 1.0),
    ("k", None, 1e3),
    ("M", None, 1e6),
    ("G", None, 1e9),
];

#[cfg(test)]
mod tests {
    use super::super::{Faults, Phase};
    use super::*;

    #[test]
    fn a_figure_is_found_without_its_unit_and_the_value_converted() {
        assert!(judge("delivery_p99<50ms").ok);
        assert!(judge("delivery_p99 <= 0.0042s").ok);
        assert!(judge("delivery_p99_us <= 5000").ok && judge("delivery_p99<=5k").ok);
        assert!(judge("back < 3s").ok && judge("back_seconds>=2").ok && !judge("back>2500ms").ok);
        assert!(judge("deliveries_per_second>1M").ok && judge("deliveries>=1.2M").ok);
        assert!(judge("server_cpu<=62%").ok);
        assert!(judge("server_per_connection<10KiB").ok);
        let missed = judge("delivery_p99<4ms");
        assert_eq!(missed.figure, Some(4_100.0));
        assert_eq!(missed.message, "delivery_p99_us is 4.10 ms, not < 4 ms");
    }

    #[test]
    fn faults_are_figures_too() {
        assert!(judge("lost==0").ok);
        assert!(!judge("duplicates != 2").ok && judge("duplicates==2").ok);
    }

    #[test]
    fn a_phase_can_be_named() {
        assert_eq!(judge("storm.delivery_p99>50ms").message, "storm: delivery_p99_us is 90 ms");
        assert!(!judge("storm.delivery_p99<50ms").ok);
        assert_eq!(judge("strom.delivery_p99<50ms").message, "there is no phase strom; the nearest: storm");
        assert_eq!(judge("storm.lost==0").message, "lost is known only for the run as a whole");
    }

    #[test]
    fn of_several_phases_with_one_name_every_one_must_hold() {
        assert_eq!(judge("twice.delivery_p99<50ms").figure, Some(60_000.0));
        assert_eq!(judge("twice.delivery_p99<=60ms").figure, Some(10_000.0));
    }

    #[test]
    fn an_unknown_figure_is_a_miss_that_names_the_nearest() {
        let verdict = judge("delivry_p99<50ms");
        assert!(!verdict.ok && verdict.figure.is_none());
        assert!(verdict.message.starts_with("there is no figure delivry_p99; the nearest: delivery_p99_us"));
        assert_eq!(judge("xyzzy==1").message, "there is no figure xyzzy");
    }

    #[test]
    fn a_value_of_another_kind_is_a_miss() {
        assert_eq!(judge("lost<5ms").message, "lost is a plain number, not a time");
        assert_eq!(judge("delivery_p99<5KiB").message, "delivery_p99_us is a time, not a number of bytes");
    }

    #[test]
    fn what_is_no_number_holds_for_no_operator() {
        for operator in ["<", "<=", ">", ">=", "==", "!="] {
            let verdict = judge(&format!("kept{operator}50%"));
            assert!(!verdict.ok && verdict.figure.is_none(), "{operator}");
        }
    }

    #[test]
    fn mistakes_are_told_with_place_and_remedy() {
        let mistakes = [
            ("delivery_p99", "compares nothing"),
            ("", "compares nothing"),
            ("<50ms", "before `<` must stand the name"),
            (".p99<50ms", "before `<` must stand the name"),
            ("delivery p99<50ms", "` ` cannot be part"),
            ("delivery_p99<", "must begin with a number"),
            ("delivery_p99<ms", "must begin with a number"),
            ("delivery_p99<1.2.3ms", "is no number: `1.2.3`"),
            ("delivery_p99<50m", "unknown unit, `m`: use one of us ms s"),
            ("delivery_p99=50ms", "must come one of < <= > >= == !="),
            ("delivery_p99<>50ms", "must begin with a number"),
            ("delivery_p99<NaN", "must begin with a number"),
        ];
        for (text, part) in mistakes {
            let error = text.parse::<Threshold>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused_without_panic() {
        let alphabet: Vec<char> = "az_.09-<>=!%kMus B\u{b5}\u{0}".chars().collect();
        let mut seed = 7_u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..seed % 12 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push(alphabet[usize::try_from(seed >> 33).unwrap() % alphabet.len()]);
            }
            seed = seed.wrapping_add(1);
            let _ = text.parse::<Threshold>();
        }
    }

    fn judge(text: &str) -> Verdict {
        text.parse::<Threshold>().unwrap().judge(&outcome())
    }

    fn outcome() -> Outcome {
        let figures = [
            ("delivery_p99_us", 4_100.0),
            ("delivery_p50_us", 800.0),
            ("back_seconds", 2.0),
            ("deliveries", 1e9),
            ("deliveries_per_second", 1.2e6),
            ("server_cpu_percent", 62.0),
            ("server_bytes_per_connection", 10_000.0),
            ("kept_percent", f64::NAN),
        ];
        let figures = figures.map(|(name, figure)| (name.to_owned(), figure)).into();
        let phase = |name: &str, p99: f64| Phase {
            name: name.to_owned(),
            figures: [("delivery_p99_us".to_owned(), p99)].into(),
            ..Phase::default()
        };
        let phases = vec![phase("storm", 90_000.0), phase("twice", 60_000.0), phase("twice", 10_000.0)];
        let faults = Faults { duplicates: 2, ..Faults::default() };
        Outcome { figures, faults, phases, ..Outcome::default() }
    }
}
