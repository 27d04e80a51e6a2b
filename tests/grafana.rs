//! The dashboards show only metrics that exist, and follow the rules that make them work when provisioned.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fanfare::metrics::{Kind, METRICS};
use serde_json::Value;

#[test]
fn every_metric_in_a_query_exists() {
    for (file, dashboard) in dashboards() {
        let mut named = BTreeSet::new();
        for query in queries(&dashboard) {
            for name in metric_names(&query) {
                assert!(exists(name), "{file}: {name} is not in the table; query: {query}");
                named.insert(name.to_owned());
            }
        }
        assert!(!named.is_empty(), "{file} has queries");
    }
}

#[test]
fn counters_stand_inside_a_rate_and_gauges_do_not() {
    for (file, dashboard) in dashboards() {
        for query in queries(&dashboard) {
            for name in metric_names(&query) {
                let rated = query.contains(&format!("rate({name}{{"))
                    || query.contains(&format!("increase({name}{{"));
                let counts = METRICS.iter().all(|metric| metric.name != name || metric.kind == Kind::Counter);
                let meta = query.starts_with("label_values(");
                assert!(meta || rated == counts, "{file}: {query}");
            }
        }
    }
}

#[test]
fn every_query_of_a_panel_can_be_narrowed_to_job_and_instance() {
    for (file, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = target["expr"].as_str().unwrap_or_default();
                let selectors = query.matches('{').count();
                let narrowed = query.matches(r#"{job=~"$job", instance=~"$instance""#).count();
                assert!(selectors > 0 && selectors == narrowed, "{file}: {query}");
                let ranges = query.matches('[').count();
                assert_eq!(ranges, query.matches("[$__rate_interval]").count(), "{file}: {query}");
            }
        }
    }
}

#[test]
fn every_panel_says_what_it_shows_in_which_unit_and_takes_the_chosen_data_source() {
    for (file, dashboard) in dashboards() {
        assert!(dashboard.get("__inputs").is_none(), "{file}: provisioning does not resolve __inputs");
        assert_eq!(dashboard["editable"], false, "{file}");
        let mut ids = BTreeSet::new();
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap_or_default();
            assert!(!title.is_empty(), "{file}: a panel has no title");
            assert!(ids.insert(panel["id"].as_u64()), "{file}: the id of {title:?} is not its own");
            if panel["type"] == "row" {
                continue;
            }
            assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{file}: {title}");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{file}: {title}");
            assert!(
                panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()),
                "{file}: {title}"
            );
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{file}: {title}");
        }
    }
}

fn dashboards() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana/dashboards");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the dashboards' folder is there") {
        let path = entry.expect("its entries can be read").path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = fs::read_to_string(&path).expect("a dashboard can be read");
            found.push((
                path.display().to_string(),
                serde_json::from_str(&text).expect("a dashboard is JSON"),
            ));
        }
    }
    assert!(!found.is_empty(), "there is a dashboard");
    found
}

/// All panels, those in collapsed rows included.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let top = dashboard["panels"].as_array().into_iter().flatten();
    top.flat_map(|panel| std::iter::once(panel).chain(panel["panels"].as_array().into_iter().flatten()))
        .collect()
}

/// The queries of panels and variables.
fn queries(dashboard: &Value) -> Vec<String> {
    let shown =
        panels(dashboard).into_iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let variables = dashboard["templating"]["list"].as_array().into_iter().flatten();
    let of_panels = shown.map(|target| &target["expr"]);
    let of_variables = variables.map(|variable| &variable["query"]["query"]);
    of_panels.chain(of_variables).filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The words of a query that look like names of metrics.
fn metric_names(query: &str) -> Vec<&str> {
    query
        .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("fanfare_") || word.starts_with("process_"))
        .collect()
}

fn exists(name: &str) -> bool {
    METRICS.iter().any(|metric| match metric.kind {
        Kind::Histogram(_) => name
            .strip_prefix(metric.name)
            .is_some_and(|suffix| matches!(suffix, "_bucket" | "_sum" | "_count")),
        Kind::Counter | Kind::Gauge => name == metric.name,
    })
}
