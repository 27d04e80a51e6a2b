//! Every dashboard can be provisioned, narrowed and read.

use std::collections::BTreeSet;
use std::fs;

use fanfare::metrics::METRICS;
use serde_json::Value;

use crate::promql::{Query, Selector};
use crate::{catalogue, folder};

/// Units of Grafana that the dashboards use; with an unknown one it shows bare numbers.
const UNITS: [&str; 9] = ["none", "short", "percentunit", "s", "bytes", "Bps", "cps", "reqps", "bool_yes_no"];

#[test]
fn there_is_a_dashboard_for_every_question() {
    let names: Vec<_> = dashboards().into_iter().map(|(name, _)| name).collect();

    assert_eq!(names, ["backpressure", "engine", "latency", "overview", "process", "security", "shards"]);
}

#[test]
fn every_dashboard_can_be_provisioned_and_leads_to_the_others() {
    for (name, dashboard) in dashboards() {
        assert_eq!(dashboard["uid"], format!("fanfare-{name}"));
        assert!(dashboard["title"].as_str().unwrap().starts_with("Fanfare / "), "{name}");
        assert!(!dashboard["description"].as_str().unwrap().is_empty(), "{name}");
        assert!(dashboard.get("__inputs").is_none(), "{name}: provisioning does not resolve them");
        assert!(dashboard.get("id").is_none(), "{name}: ids belong to one database");
        assert_eq!(dashboard["schemaVersion"], 41, "{name}");
        assert_eq!(dashboard["editable"], false, "{name}: changes would be lost");
        assert_eq!(dashboard["refresh"], "30s", "{name}");
        assert_eq!(dashboard["graphTooltip"], 1, "{name}");
        assert!(dashboard["tags"].as_array().unwrap().contains(&"fanfare".into()), "{name}");
        let link = &dashboard["links"][0];
        assert_eq!(link["type"], "dashboards", "{name}");
        assert_eq!(link["tags"][0], "fanfare", "{name}");
        assert!(link["includeVars"] == true && link["keepTime"] == true, "{name}");
    }
}

#[test]
fn data_source_job_and_instance_can_be_chosen() {
    for (name, dashboard) in dashboards() {
        let [source, job, instance] = dashboard["templating"]["list"].as_array().unwrap().as_slice() else {
            panic!("{name} has other variables");
        };
        assert_eq!(
            (&source["name"], &source["label"]),
            (&"datasource".into(), &"Data source".into()),
            "{name}"
        );
        assert_eq!(
            (&source["type"], &source["query"]),
            (&"datasource".into(), &"prometheus".into()),
            "{name}"
        );
        for (variable, label) in [(job, "Job"), (instance, "Instance")] {
            assert_eq!((&variable["type"], &variable["label"]), (&"query".into(), &label.into()), "{name}");
            assert_eq!(variable["name"], label.to_lowercase(), "{name}");
            assert_eq!(variable["datasource"]["uid"], "${datasource}", "{name}");
            assert_eq!(variable["allValue"], ".+", "{name}");
            assert_eq!(variable["refresh"], 2, "{name}: when the time range changes");
            assert!(variable["multi"] == true && variable["includeAll"] == true, "{name}");
            let query = variable["query"]["query"].as_str().unwrap();
            assert!(query.starts_with("label_values(fanfare_build_info"), "{name}: {query}");
        }
    }
}

#[test]
fn every_panel_says_what_it_shows_in_which_unit_and_takes_the_chosen_data_source() {
    for (name, dashboard) in dashboards() {
        let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap_or_default();
            assert!(!title.is_empty(), "{name}: a panel has no title");
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: the id of {title:?} is not its own");
            if panel["type"] == "row" {
                continue;
            }
            let kind = panel["type"].as_str().unwrap();
            assert!(titles.insert((kind, title)), "{name}: two panels are called {title:?}");
            assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{name}: {title}");
            let overrides = panel["fieldConfig"]["overrides"].as_array().unwrap();
            let properties = overrides.iter().flat_map(|rule| rule["properties"].as_array().unwrap());
            let units = properties.map(|property| &property["value"]);
            for unit in units.chain([&panel["fieldConfig"]["defaults"]["unit"]]) {
                assert!(UNITS.contains(&unit.as_str().unwrap_or_default()), "{name}: {title}: {unit}");
            }
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{name}: {title}");
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{name}: {title} asks for nothing");
            let references: BTreeSet<_> = targets.iter().map(|target| target["refId"].as_str()).collect();
            assert_eq!(references.len(), targets.len(), "{name}: {title}");
            for target in targets {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{name}: {title}");
            }
        }
    }
}

#[test]
fn panels_lie_beside_each_other() {
    for (name, dashboard) in dashboards() {
        let mut taken = BTreeSet::new();
        for panel in panels(&dashboard) {
            let [x, y, width, height] =
                ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
            assert!(width > 0 && height > 0 && x + width <= 24, "{name}: {}", panel["title"]);
            for cell in (x..x + width).flat_map(|column| (y..y + height).map(move |line| (column, line))) {
                assert!(taken.insert(cell), "{name}: {} lies on another panel", panel["title"]);
            }
        }
    }
}

#[test]
fn every_metric_in_a_query_exists_with_its_labels_and_their_values() {
    for (whose, query) in queries() {
        catalogue::check(&query, &whose);
    }
}

#[test]
fn every_query_is_narrowed_to_the_chosen_jobs_and_instances() {
    for (whose, selector) in selectors() {
        for (label, value) in [("job", "$job"), ("instance", "$instance")] {
            let narrowed = selector
                .matchers
                .iter()
                .any(|matcher| matcher.label == label && matcher.operator == "=~" && matcher.value == value);
            assert!(narrowed, "{whose}: {} has no {label}", selector.name);
        }
    }
}

#[test]
fn counters_stand_inside_a_rate_over_the_interval_of_the_graph_and_gauges_do_not() {
    for (whose, selector) in selectors() {
        let function = selector.function.as_deref();
        let rated = matches!(function, Some("rate" | "increase"));
        assert_eq!(rated, catalogue::grows(&selector.name), "{whose}: {}", selector.name);
        let wanted = match function {
            Some("rate" | "increase") => Some("$__rate_interval"),
            Some("last_over_time") => Some("$__range"),
            _ => None,
        };
        assert_eq!(selector.range.as_deref(), wanted, "{whose}: {}", selector.name);
    }
}

#[test]
fn every_metric_has_a_panel() {
    let shown: BTreeSet<_> = selectors().into_iter().map(|(_, selector)| selector.name).collect();
    let shown: BTreeSet<_> =
        shown.iter().filter_map(|name| catalogue::metric(name)).map(|one| one.name).collect();

    for metric in METRICS {
        assert!(shown.contains(metric.name), "{} is on no dashboard", metric.name);
    }
}

/// Each dashboard with the name of its file, in order.
fn dashboards() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder().join("dashboards")).expect("the dashboards' folder is there") {
        let path = entry.expect("its entries can be read").path();
        let text = fs::read_to_string(&path).expect("a dashboard can be read");
        let name = path.file_stem().expect("files have names").to_string_lossy().into_owned();
        found.push((name, serde_json::from_str(&text).expect("a dashboard is JSON")));
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

/// All panels, those in collapsed rows included.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let top = dashboard["panels"].as_array().into_iter().flatten();
    top.flat_map(|panel| std::iter::once(panel).chain(panel["panels"].as_array().into_iter().flatten()))
        .collect()
}

/// The queries of all panels, and whose they are.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for (name, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let whose = format!("{name}: {}", panel["title"]);
                queries.push((whose, target["expr"].as_str().unwrap_or_default().to_owned()));
            }
        }
    }
    assert!(!queries.is_empty());
    queries
}

fn selectors() -> Vec<(String, Selector)> {
    let selected = queries().into_iter().flat_map(|(whose, query)| {
        Query::parse(&query).selectors.into_iter().map(move |selector| (whose.clone(), selector))
    });
    selected.collect()
}
