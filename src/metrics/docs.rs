//! The table as a page for people.

use std::fmt::Write as _;

use metrics::Unit;

use super::table::{Kind, METRICS, Metric, Values, is_of_rooms};

/// `docs/metrics.md`, which a test holds to the table.
pub fn docs() -> String {
    let mut page = String::from(HEAD);
    let mut section = "";
    for metric in METRICS {
        if metric.section != section {
            section = metric.section;
            let _ = write!(page, "\n## {section}\n\n");
            if is_of_rooms(metric) {
                page.push_str(ROOMS);
            }
            page.push_str("| Name | Type | Unit | Labels | Meaning |\n| --- | --- | --- | --- | --- |\n");
        }
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} |",
            metric.name,
            metric.kind.as_str(),
            unit(metric),
            labels(metric),
            metric.help
        );
    }
    page.push_str("\n## Buckets\n\n");
    for metric in METRICS {
        if let Kind::Histogram(bounds) | Kind::ShardHistogram(bounds) = metric.kind {
            let bounds: Vec<_> = bounds.iter().map(ToString::to_string).collect();
            let _ = writeln!(page, "- `{}`: {}", metric.name, bounds.join(", "));
        }
    }
    page
}

const HEAD: &str = "\
# Metrics

Everything that `GET /metrics` on the admin listener says, in the Prometheus text format; written from the table in
`src/metrics/table.rs`. Units are base units. All series are there from the first scrape on, at zero. Labels have the
values listed here and no others: no room, user, address or code that a client chose becomes a series of `/metrics`.
Counts are at most 50 ms behind while a shard is busy, and exact when it is not; the oldest that waits and the largest
queue are looked for ten times a second, or once when more than 1000 clients of a shard are behind.
";

const ROOMS: &str = "\
Served at `GET /metrics/rooms?k=10`, an endpoint of its own, since here the label comes from clients. It lists the rooms
that are the hottest lately by messages, by bytes, by fan-out and by queue age, the first `k` (at most 100) of each, so
that there are at most 4 k rooms with 5 series each, however many rooms there are. *Lately* halves
every 30 seconds.

The lists are exact, and so are the counts, over all shards: they are the room's own, from its first member to its last.
When the last one leaves, the room is forgotten; one of the same name begins again at 0.

";

fn unit(metric: &Metric) -> &'static str {
    match metric.unit {
        Some(Unit::Seconds) => "seconds",
        Some(Unit::Bytes) => "bytes",
        Some(_) => "count",
        None => "",
    }
}

fn labels(metric: &Metric) -> String {
    let labels = metric.labels.iter().map(|label| {
        let values = match label.values {
            Values::Listed(values) => {
                values().iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ")
            }
            Values::Described(what) => what.to_owned(),
        };
        format!("`{}`: {values}", label.name)
    });
    labels.collect::<Vec<_>>().join("; ")
}
