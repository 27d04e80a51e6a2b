//! Two outcomes beside each other.

use std::collections::BTreeSet;
use std::fmt;

use super::figure::{self, Better};
use super::summary::table;
use super::{Environment, Faults, Outcome};

/// What became better and what became worse; its `Display` is a table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Comparison {
    /// Why the two cannot be compared, if so.
    warnings: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq)]
struct Row {
    name: String,
    base: Option<f64>,
    new: Option<f64>,
    change: Change,
    /// Worse by more than is allowed.
    fails: bool,
}

/// In the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Worse,
    Better,
    Same,
    /// In one of the two only, or neither direction is the better one.
    Unjudged,
}

/// Holds a new outcome against an older one.
///
/// By more than `fail_over_percent` of its base no figure may become worse; without it nothing fails. A maximum,
/// which one message decides, never fails; one fault more than before always does.
pub(crate) fn compare(base: &Outcome, new: &Outcome, fail_over_percent: Option<f64>) -> Comparison {
    let (old_figures, new_figures) = (base.all_figures(), new.all_figures());
    let names: BTreeSet<_> = old_figures.keys().chain(new_figures.keys()).collect();
    let rows = names.into_iter().map(|name| {
        row(name, old_figures.get(name).copied(), new_figures.get(name).copied(), fail_over_percent)
    });
    let mut rows: Vec<_> = rows.filter(|row| !row.is_an_absent_fault()).collect();
    rows.sort_by_key(|row| (!row.fails, row.change));
    Comparison { warnings: warnings(base, new), rows }
}

fn row(name: &str, base: Option<f64>, new: Option<f64>, fail_over_percent: Option<f64>) -> Row {
    let mut row = Row { name: name.to_owned(), base, new, change: Change::Unjudged, fails: false };
    let (Some(base), Some(new)) = (base, new) else { return row };
    let worse_by = match figure::better(name) {
        Better::Less => growth(base, new),
        Better::More => -growth(base, new),
        Better::Neutral => return row,
    };
    if worse_by.is_nan() {
        return row;
    }
    row.change = if worse_by > SAME {
        Change::Worse
    } else if worse_by < -SAME {
        Change::Better
    } else {
        Change::Same
    };
    let judged = !name.ends_with("_max_us");
    row.fails = judged
        && fail_over_percent
            .is_some_and(|most| if is_fault(name) { new > base } else { worse_by * 100.0 > most });
    row
}

/// By which part of the base the new is more; infinite from nothing to something.
fn growth(base: f64, new: f64) -> f64 {
    if base.total_cmp(&new).is_eq() { 0.0 } else { new / base - 1.0 }
}

fn is_fault(name: &str) -> bool {
    Faults::default().counts().iter().any(|(fault, _)| *fault == name)
}

fn warnings(base: &Outcome, new: &Outcome) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut differ = |what: &str, base: &str, new: &str| {
        if base != new {
            warnings.push(format!("the {what} differs: {base}, then {new}"));
        }
    };
    differ("name", &base.name, &new.name);
    let shown = |outcome: &Outcome, name: &str| {
        outcome.figures.get(name).map_or_else(|| "unknown".to_owned(), |value| figure::show(name, *value))
    };
    differ("number of connections", &shown(base, "connections"), &shown(new, "connections"));
    differ("rate that was asked for", &shown(base, "asked_per_second"), &shown(new, "asked_per_second"));
    let place =
        |environment: &Environment| if environment.same_machine { "one machine" } else { "two machines" };
    let (before, after) = (&base.environment, &new.environment);
    differ("load test's version", &before.version, &after.version);
    differ("kernel", &before.kernel, &after.kernel);
    differ("processor", &before.cpu, &after.cpu);
    differ("number of cores", &before.cores.to_string(), &after.cores.to_string());
    differ("place", place(before), place(after));
    for (which, outcome) in [("base", base), ("new", new)] {
        if outcome.client_was_bottleneck {
            warnings.push(format!("the client was the bottleneck in {which}: the server could do more"));
        }
        if let Some(why) = &outcome.stopped {
            warnings.push(format!("{which} was stopped early: {why}"));
        }
    }
    warnings
}

impl Comparison {
    /// No figure became worse by more than was allowed.
    pub(crate) fn ok(&self) -> bool {
        !self.rows.iter().any(|row| row.fails)
    }
}

impl Row {
    fn is_an_absent_fault(&self) -> bool {
        is_fault(&self.name) && self.base == Some(0.0) && self.new == Some(0.0)
    }

    fn cells(&self) -> Vec<String> {
        let shown = |value: Option<f64>| {
            value.map_or_else(|| "-".to_owned(), |value| figure::show(&self.name, value))
        };
        let ratio = match (self.base, self.new) {
            (Some(base), Some(new)) if base.total_cmp(&new).is_eq() => "1.00".to_owned(),
            (Some(base), Some(new)) if (new / base).is_finite() => format!("{:.2}", new / base),
            _ => "-".to_owned(),
        };
        let verdict = match self.change {
            _ if self.fails => "TOO MUCH WORSE",
            Change::Better => "better",
            Change::Same => "same",
            Change::Worse => "worse",
            Change::Unjudged => "",
        };
        vec![self.name.clone(), shown(self.base), shown(self.new), ratio, verdict.to_owned()]
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for warning in &self.warnings {
            writeln!(f, "WARNING  {warning}")?;
        }
        let rows = self.rows.iter().map(Row::cells).collect();
        f.write_str(&table(Some(&["figure", "base", "new", "ratio", "verdict"]), rows, &[1, 2, 3]))?;
        let count = |change| self.rows.iter().filter(|row| row.change == change).count();
        write!(
            f,
            "  {} better, {} the same within {} %, {} worse",
            count(Change::Better),
            count(Change::Same),
            SAME * 100.0,
            count(Change::Worse)
        )?;
        match self.rows.iter().filter(|row| row.fails).count() {
            0 => writeln!(f),
            fail => writeln!(f, ", {fail} by more than allowed"),
        }
    }
}

/// Two figures that differ by less than this part are called the same.
const SAME: f64 = 0.02;

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_run_is_the_same_as_itself() {
        let outcome = sample::sample();
        let comparison = compare(&outcome, &outcome, Some(0.0));
        assert!(comparison.ok() && comparison.warnings.is_empty());
        assert!(comparison.rows.iter().all(|row| matches!(row.change, Change::Same | Change::Unjudged)));
    }

    #[test]
    fn less_latency_and_more_deliveries_are_better() {
        let [base, new] = changed(&[("delivery_p99_us", 2_000.0), ("deliveries_per_second", 2e6)]);
        let comparison = compare(&base, &new, Some(0.0));
        assert!(comparison.ok());
        assert_eq!(change(&comparison, "delivery_p99_us"), Change::Better);
        assert_eq!(change(&comparison, "deliveries_per_second"), Change::Better);
    }

    #[test]
    fn what_becomes_worse_fails_only_beyond_the_limit() {
        let [base, new] = changed(&[("delivery_p99_us", 4_510.0)]);
        assert_eq!(change(&compare(&base, &new, None), "delivery_p99_us"), Change::Worse);
        assert!(compare(&base, &new, None).ok() && compare(&base, &new, Some(20.0)).ok());
        assert!(!compare(&base, &new, Some(5.0)).ok());
        let [base, new] = changed(&[("deliveries_per_second", 0.0)]);
        assert!(!compare(&base, &new, Some(5.0)).ok());
    }

    #[test]
    fn the_limit_is_a_part_of_the_base_in_both_directions() {
        let [base, new] = changed(&[("deliveries_per_second", 994_000.0 * 0.91)]);
        assert!(compare(&base, &new, Some(10.0)).ok() && !compare(&base, &new, Some(8.0)).ok());
        let [base, new] = changed(&[("delivery_p50_us", 800.0 * 1.09)]);
        assert!(compare(&base, &new, Some(10.0)).ok() && !compare(&base, &new, Some(8.0)).ok());
    }

    #[test]
    fn a_maximum_and_what_has_no_better_side_never_fail() {
        let [base, new] =
            changed(&[("delivery_max_us", 1e9), ("client_cpu_percent", 99.0), ("connections", 9e9)]);
        assert!(compare(&base, &new, Some(0.0)).ok());
    }

    #[test]
    fn one_fault_more_fails_and_is_shown() {
        let base = sample::sample();
        let mut new = sample::sample();
        new.faults.lost = 1;
        let comparison = compare(&base, &new, Some(50.0));
        assert!(!comparison.ok() && comparison.to_string().contains("TOO MUCH WORSE"));
        assert!(!comparison.to_string().contains("duplicates"));
        assert!(compare(&new, &base, Some(0.0)).ok());
    }

    #[test]
    fn figures_of_one_side_are_shown_but_not_judged() {
        let base = sample::sample();
        let mut new = sample::sample();
        new.figures.remove("delivery_p99_us");
        new.figures.insert("join_p50_us".into(), f64::NAN);
        let comparison = compare(&base, &new, Some(0.0));
        assert!(comparison.ok());
        assert_eq!(change(&comparison, "delivery_p99_us"), Change::Unjudged);
    }

    #[test]
    fn what_cannot_be_compared_is_said() {
        let base = sample::sample();
        let mut new = sample::sample();
        new.name = "idle".into();
        new.environment.cores = 2;
        new.figures.insert("connections".into(), 100.0);
        new.client_was_bottleneck = true;
        new.stopped = Some("interrupted".into());
        let text = compare(&base, &new, None).to_string();
        for part in [
            "the name differs: broadcast, then idle",
            "the number of cores differs: 16, then 2",
            "the number of connections differs: 10,000, then 100",
            "the client was the bottleneck in new",
            "new was stopped early: interrupted",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn empty_outcomes_can_be_compared() {
        let comparison = compare(&Outcome::default(), &Outcome::default(), Some(10.0));
        assert!(comparison.ok() && !comparison.to_string().is_empty());
    }

    fn changed(figures: &[(&str, f64)]) -> [Outcome; 2] {
        let base = sample::sample();
        let mut new = base.clone();
        new.figures.extend(figures.iter().map(|(name, value)| ((*name).to_owned(), *value)));
        [base, new]
    }

    fn change(comparison: &Comparison, name: &str) -> Change {
        comparison.rows.iter().find(|row| row.name == name).unwrap().change
    }
}
