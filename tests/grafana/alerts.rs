//! Every alert can be understood by who is woken by it: it says what is wrong, and where to read on.

use std::collections::BTreeSet;
use std::fs;

use crate::promql::Query;
use crate::rules::{alerts, recording};
use crate::{catalogue, folder};

#[test]
fn every_metric_in_a_rule_exists_with_its_labels_and_their_values() {
    for rule in recording().iter().chain(&alerts()) {
        catalogue::check(rule.field("expr"), &rule.name);
    }
}

#[test]
fn counters_in_rules_stand_inside_a_rate() {
    for rule in recording().iter().chain(&alerts()) {
        for selector in Query::parse(rule.field("expr")).selectors {
            let rated = matches!(selector.function.as_deref(), Some("rate" | "increase"));
            assert_eq!(rated, catalogue::grows(&selector.name), "{}: {}", rule.name, selector.name);
        }
    }
}

#[test]
fn metrics_that_every_process_has_are_narrowed_to_the_gateway() {
    for rule in recording().iter().chain(&alerts()) {
        for selector in Query::parse(rule.field("expr")).selectors {
            let common = selector.name == "up" || selector.name.starts_with("process_");
            let narrowed = selector.matchers.iter().any(|one| one.label == "job" && one.value == "fanfare");
            assert_eq!(common, narrowed, "{}: {}", rule.name, selector.name);
        }
    }
}

#[test]
fn every_recorded_series_is_recorded_once() {
    let mut names = BTreeSet::new();
    for rule in recording() {
        assert!(names.insert(rule.name.clone()), "{}", rule.name);
    }
}

#[test]
fn every_alert_says_what_it_means_how_bad_it_is_and_where_to_read_on() {
    for alert in alerts() {
        let name = &alert.name;
        let rest = name.strip_prefix("Fanfare").unwrap_or_default();
        let camel = rest.starts_with(char::is_uppercase) && rest.chars().all(char::is_alphanumeric);
        assert!(camel, "{name} is not in camel case");
        assert!(matches!(alert.field("labels.severity"), "critical" | "warning"), "{name}");
        assert!(alert.field("annotations.summary").contains("$labels.instance"), "{name}");
        assert!(alert.field("annotations.description").ends_with('.'), "{name}");
        let runbook = format!("{RUNBOOK}#{}", name.to_lowercase());
        assert_eq!(alert.field("annotations.runbook_url"), runbook, "{name}");
    }
}

#[test]
fn every_alert_has_a_section_in_the_runbook_and_every_section_an_alert() {
    let runbook = fs::read_to_string(folder().join("RUNBOOK.md")).expect("the runbook can be read");
    let sections: Vec<_> = runbook.lines().filter_map(|line| line.strip_prefix("## Fanfare")).collect();

    let alerts = alerts();
    let names: Vec<_> = alerts.iter().filter_map(|alert| alert.name.strip_prefix("Fanfare")).collect();

    assert_eq!(sections, names, "in the same order");
}

/// A test of the rules against a running gateway divides all times by the same number.
#[test]
fn durations_are_whole_minutes_and_stand_only_where_they_are_durations() {
    for rule in recording().iter().chain(&alerts()) {
        let expr = rule.field("expr");
        let ranges = Query::parse(expr).selectors.into_iter().filter_map(|selector| selector.range);
        let offsets = expr.split("offset ").skip(1).map(|rest| {
            rest.split(|letter: char| !letter.is_ascii_alphanumeric()).next().unwrap_or_default().to_owned()
        });
        let waits = rule.fields.get("for").cloned();
        for duration in ranges.chain(offsets).chain(waits) {
            assert!(is_duration(&duration) && !duration.ends_with('s'), "{}: {duration}", rule.name);
        }
        for (key, text) in &rule.fields {
            let is_text = key.starts_with("annotations.");
            let mut words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
            assert!(!is_text || !words.any(is_duration), "{}: {text}", rule.name);
        }
    }
}

#[test]
fn every_alert_is_tested_to_fire() {
    let tests =
        fs::read_to_string(folder().join("prometheus/alerts_test.yml")).expect("the tests can be read");
    for alert in alerts() {
        assert!(tests.contains(&format!("alertname=\"{}\"", alert.name)), "{}", alert.name);
    }
}

fn is_duration(word: &str) -> bool {
    let number = word.trim_end_matches(['s', 'm', 'h']);
    number.len() + 1 == word.len()
        && number.chars().all(|letter| letter.is_ascii_digit())
        && !number.is_empty()
}

const RUNBOOK: &str = "https://github.com/fanfare-gateway/fanfare/blob/main/grafana/RUNBOOK.md";
