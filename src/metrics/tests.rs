use std::collections::{BTreeMap, BTreeSet};

use metrics::Unit;

use super::*;

/// Every handle that there is.
fn everything(recorder: &Recorder) -> (Vec<ShardMetrics>, impl Sized) {
    let shards = (0..2).map(|shard| ShardMetrics::new(recorder, shard)).collect();
    let admin = AdminMetrics::new(recorder);
    admin.served("/metrics", "GET", 200, 0.001);
    let vitals: Vec<_> = (0..2).map(|shard| VitalsMetrics::new(recorder, shard)).collect();
    let rest = (
        ServerMetrics::new(recorder),
        HttpMetrics::new(recorder),
        ListenerMetrics::new(recorder),
        HubMetrics::new(recorder),
        ConfigMetrics::new(recorder),
        JwksMetrics::new(recorder),
        TlsMetrics::new(recorder),
        WebhookMetrics::new(recorder),
    );
    (shards, (admin, vitals, rest))
}

/// The type of each family in a text exposition, and its samples by full series name.
fn parse(text: &str) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let (mut types, mut helps, mut samples) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(helps.contains(name), "{name} has its HELP before its TYPE");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} comes once");
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty());
            helps.insert(name.to_owned());
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(samples.insert(series.to_owned(), value.to_owned()).is_none(), "{series} comes once");
        }
    }
    (types, samples)
}

#[test]
fn renders_help_and_type_of_every_metric_and_no_summary() {
    let recorder = Recorder::new();
    let _handles = everything(&recorder);

    let (types, samples) = parse(&recorder.render());

    let is_here = |metric: &&Metric| metric.name.starts_with("fanfare_") && !is_of_rooms(metric);
    for metric in METRICS.iter().filter(is_here) {
        let kind = Some(metric.kind.as_str());
        assert_eq!(types.get(metric.name).map(String::as_str), kind, "{}", metric.name);
    }
    for series in samples.keys() {
        let name = series.split('{').next().unwrap();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
            name.strip_suffix(suffix)
                .filter(|family| types.get(*family).is_some_and(|kind| kind == "histogram"))
        });
        assert!(types.contains_key(family.unwrap_or(name)), "{series} has a type");
    }
}

#[test]
fn names_follow_the_rules_of_prometheus() {
    for metric in METRICS {
        assert!(
            metric.name.starts_with("fanfare_") || metric.name.starts_with("process_"),
            "{}",
            metric.name
        );
        assert!(metric.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", metric.name);
        assert_eq!(metric.kind.as_str() == "counter", metric.name.ends_with("_total"), "{}", metric.name);
        assert!(metric.help.ends_with(['.', ';']), "{}", metric.name);
        let stem = metric.name.trim_end_matches("_total");
        match metric.unit {
            Some(Unit::Seconds) => assert!(stem.ends_with("_seconds"), "{}", metric.name),
            Some(Unit::Bytes) => assert!(stem.ends_with("_bytes"), "{}", metric.name),
            _ => {}
        }
        if let Kind::Histogram(buckets) | Kind::ShardHistogram(buckets) = metric.kind {
            assert!(buckets.is_sorted_by(|low, high| low < high), "{}", metric.name);
        }
        for label in metric.labels.iter().filter(|_| !is_of_rooms(metric)) {
            assert!(!["room", "user", "path", "address"].contains(&label.name), "{}", metric.name);
        }
    }
    let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), METRICS.len());
}

#[test]
fn every_series_is_there_at_zero_before_anything_happened() {
    let recorder = Recorder::new();
    let _handles = everything(&recorder);

    let (_, samples) = parse(&recorder.render());

    for reason in CloseReason::ALL {
        let series = format!("fanfare_connections_closed_total{{reason=\"{}\"}}", reason.as_str());
        assert_eq!(samples.get(&series).map(String::as_str), Some("0"), "{series}");
    }
    assert_eq!(samples["fanfare_broadcast_recipients_count"], "0");
    let build = samples.iter().find(|(series, _)| series.starts_with("fanfare_build_info{")).unwrap();
    assert_eq!(build.1, "1");
}

#[test]
fn shards_share_the_gauges_of_the_gateway_and_own_those_with_their_label() {
    let recorder = Recorder::new();
    let (shards, _others) = everything(&recorder);

    for (index, shard) in shards.iter().enumerate() {
        shard.connections.increment(3.0);
        shard.shard_connections.set(f64::from(u8::try_from(index).unwrap()));
        shard.closed[CloseReason::SlowConsumer].increment(2);
        shard.delivery[Source::Client].record(300_000);
    }
    let (_, samples) = parse(&recorder.render());

    assert_eq!(samples["fanfare_connections{transport=\"ws\"}"], "6");
    assert_eq!(samples["fanfare_shard_connections{shard=\"0\"}"], "0");
    assert_eq!(samples["fanfare_shard_connections{shard=\"1\"}"], "1");
    assert_eq!(samples["fanfare_connections_closed_total{reason=\"slow_consumer\"}"], "4");
    let bucket = |bound: &str| {
        &*samples[&format!("fanfare_delivery_duration_seconds_bucket{{source=\"client\",le=\"{bound}\"}}")]
    };
    assert_eq!((bucket("0.00025"), bucket("0.0005"), bucket("+Inf")), ("0", "2", "2"));
}

#[test]
fn who_is_over_a_limit_is_counted_by_the_reason_and_by_whose_limit_it_was() {
    let recorder = Recorder::new();
    let (http, listener) = (HttpMetrics::new(&recorder), ListenerMetrics::new(&recorder));

    http.failures.count(HandshakeFailure::AddressRate);
    listener.refused.count(HandshakeFailure::AddressLimit);
    listener.refused.count(HandshakeFailure::Rate);
    http.failures.count(HandshakeFailure::Capacity);

    let (_, samples) = parse(&recorder.render());
    let limited = |scope| samples[&format!("fanfare_rate_limited_total{{scope=\"{scope}\"}}")].clone();
    assert_eq!(["ip", "global", "user", "connection"].map(limited), ["2", "1", "0", "0"]);
    assert_eq!(samples["fanfare_handshake_failures_total{reason=\"address_limit\"}"], "1");
    assert_eq!(samples["fanfare_handshake_failures_total{reason=\"capacity\"}"], "1");
}

#[test]
fn two_recorders_do_not_mix() {
    let (first, second) = (Recorder::new(), Recorder::new());
    let (listener, _other) = (ListenerMetrics::new(&first), ListenerMetrics::new(&second));

    listener.accepted.increment(1);

    let series = "fanfare_accepted_connections_total{listener=\"public\"}";
    let count = |recorder: &Recorder| parse(&recorder.render()).1[series].clone();
    assert_eq!((count(&first), count(&second)), ("1".to_owned(), "0".to_owned()));
}

#[test]
fn histograms_of_shards_are_added_up_with_inclusive_bounds_and_exact_sums() {
    let recorder = Recorder::new();
    let (shards, _others) = everything(&recorder);

    for nanoseconds in [0, 25_000, 25_001, 20_000_000_000] {
        shards[0].stages[Source::Client][Stage::Inbox].record(nanoseconds);
    }
    (0..3).for_each(|_| shards[1].stages[Source::Client][Stage::Inbox].record(50_000));
    let mut samples = ShardSamples::default();
    samples.recipients.record(10);
    samples.message_size[Direction::Sent].record_many(100, 7);
    shards[1].absorb(&mut samples);
    shards[1].absorb(&mut samples);

    let (_, samples) = parse(&recorder.render());
    let name = "fanfare_delivery_stage_duration_seconds";
    let labels = r#"source="client",stage="inbox""#;
    let bucket = |bound: &str| samples[&format!("{name}_bucket{{{labels},le=\"{bound}\"}}")].as_str();
    assert_eq!((bucket("0.000025"), bucket("0.00005"), bucket("10"), bucket("+Inf")), ("2", "6", "6", "7"));
    assert_eq!(samples[&format!("{name}_count{{{labels}}}")], "7");
    assert_eq!(samples[&format!("{name}_sum{{{labels}}}")], "20.000200001");
    assert_eq!(samples[r#"fanfare_broadcast_recipients_bucket{le="5"}"#], "0");
    assert_eq!(samples[r#"fanfare_broadcast_recipients_bucket{le="10"}"#], "1", "absorbed once");
    assert_eq!(samples[r#"fanfare_message_size_bytes_sum{direction="sent"}"#], "700");
}

#[test]
fn seconds_keep_their_fractions() {
    let recorder = Recorder::new();
    let (shards, _others) = everything(&recorder);

    shards[1].busy.add(1_500_000_000);
    shards[1].busy.add(250_000_000);

    let (_, samples) = parse(&recorder.render());
    assert_eq!(samples[r#"fanfare_shard_busy_seconds_total{shard="0"}"#], "0");
    assert_eq!(samples[r#"fanfare_shard_busy_seconds_total{shard="1"}"#], "1.75");
}

#[test]
fn eight_shards_have_a_bounded_number_of_series() {
    let recorder = Recorder::new();
    let _shards: Vec<_> = (0..8).map(|shard| ShardMetrics::new(&recorder, shard)).collect();
    let _vitals: Vec<_> = (0..8).map(|shard| VitalsMetrics::new(&recorder, shard)).collect();
    let _others =
        (ServerMetrics::new(&recorder), HttpMetrics::new(&recorder), ListenerMetrics::new(&recorder));

    let (_, samples) = parse(&recorder.render());

    assert!(samples.len() < 1050, "{} series", samples.len());
}

#[test]
fn the_page_of_metrics_is_written_from_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    if std::env::var_os("FANFARE_WRITE_DOCS").is_some() {
        std::fs::write(path, docs()).unwrap();
    }

    let page = std::fs::read_to_string(path).unwrap_or_default();

    assert!(page == docs(), "docs/metrics.md is behind the table: run this test with FANFARE_WRITE_DOCS=1");
}
