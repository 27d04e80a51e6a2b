//! The dashboards and alerts ask only for what there is, and follow the rules that make them work where they are used.
//!
//! The rules for dashboards are those of Grafana's dashboard linter: a data source, a job and an instance to choose, on
//! every query; titles, descriptions and units; counters only as rates, over the interval of the graph.

mod alerts;
mod catalogue;
mod dashboards;
mod promql;
mod rules;

use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn the_dashboards_are_what_their_generator_writes() {
    let check = Command::new("python3").arg(folder().join("build.py")).arg("--check").output();

    let check = check.expect("python3 is there");
    let said =
        format!("{}{}", String::from_utf8_lossy(&check.stdout), String::from_utf8_lossy(&check.stderr));
    assert!(check.status.success(), "run `python3 grafana/build.py`: {said}");
}

/// Where dashboards and rules are.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana")
}
