//! What can be asked for: the metrics of the gateway, what Prometheus adds, and what the rules record.

use std::collections::BTreeSet;

use fanfare::metrics::{Kind, METRICS, Metric, Values};

use crate::promql::{Query, Selector};
use crate::rules;

/// Labels that Prometheus gives to every series that it scrapes.
const TARGET: [&str; 2] = ["job", "instance"];

/// Fails unless all metrics in a query exist, with the labels and values that the query names.
pub(crate) fn check(text: &str, whose: &str) {
    let query = Query::parse(text);
    assert!(!query.selectors.is_empty(), "{whose} selects nothing: {text}");
    for selector in &query.selectors {
        let labels = labels(&selector.name);
        let labels = labels.unwrap_or_else(|| panic!("{whose}: {} does not exist: {text}", selector.name));
        for matcher in selector.matchers.iter().filter(|matcher| !TARGET.contains(&matcher.label.as_str())) {
            assert!(labels.contains(&matcher.label), "{whose}: {} has no {}", selector.name, matcher.label);
            let known = metric(&selector.name).and_then(|metric| values(metric, &matcher.label));
            for value in matcher.value.split('|') {
                let exists = known.as_ref().is_none_or(|known| known.contains(&value));
                assert!(exists, "{whose}: {} of {} is never {value}", matcher.label, selector.name);
            }
        }
    }
    for grouping in &query.groupings {
        for label in &grouping.labels {
            let has =
                |selector: &Selector| labels(&selector.name).is_some_and(|labels| labels.contains(label));
            assert!(query.grouped(grouping).any(has), "{whose}: nothing has {label}: {text}");
        }
    }
}

/// The metric of the table behind a name, which may be a part of a histogram.
pub(crate) fn metric(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| match metric.kind {
        Kind::Histogram(_) | Kind::ShardHistogram(_) => {
            let part = name.strip_prefix(metric.name);
            part.is_some_and(|part| matches!(part, "_bucket" | "_sum" | "_count"))
        }
        Kind::Counter | Kind::Seconds | Kind::Gauge => name == metric.name,
    })
}

/// Whether a metric only grows, so that only its rate says something.
pub(crate) fn grows(name: &str) -> bool {
    metric(name).is_some_and(|metric| metric.kind != Kind::Gauge)
}

/// The labels of a series; `None` when there is no such series.
fn labels(name: &str) -> Option<BTreeSet<String>> {
    let own: Vec<&str> = if let Some(metric) = metric(name) {
        let bucket = name.ends_with("_bucket").then_some("le");
        metric.labels.iter().map(|label| label.name).chain(bucket).collect()
    } else if name == "up" {
        Vec::new()
    } else {
        let recorded = rules::recording().into_iter().any(|rule| rule.name == name);
        recorded.then(|| level(name))?
    };
    Some(own.into_iter().chain(TARGET).map(str::to_owned).collect())
}

/// The labels that the first part of a recorded name promises, besides job and instance.
fn level(name: &str) -> Vec<&'static str> {
    match name.split_once(':') {
        Some(("instance", _)) => Vec::new(),
        Some(("instance_shard", _)) => vec!["shard"],
        Some(("instance_stage", _)) => vec!["stage"],
        _ => panic!("{name} does not begin with its level"),
    }
}

/// All values of a label, where they are listed.
fn values(metric: &Metric, label: &str) -> Option<Vec<&'static str>> {
    let label = metric.labels.iter().find(|info| info.name == label)?;
    match label.values {
        Values::Listed(values) => Some(values()),
        Values::Described(_) => None,
    }
}
