//! A gateway and its clients that agree, put out of step in every way.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::*;

#[test]
fn agrees_when_all_counts_do() {
    let world = World::new();

    let audit = world.audit();

    assert_eq!(failed(&audit), Vec::<&str>::new(), "{audit:#?}");
    assert!(audit.ok);
    assert!(audit.checks.iter().filter(|check| check.rule == "equal").count() > 20, "{audit:#?}");
}

#[test]
fn says_nothing_about_another_servers_page() {
    let page = Page::parse("process_cpu_seconds_total 3\n").unwrap();
    let world = World::new();

    assert_eq!(audit(&page, &page, &world.seen()), None);
}

#[test]
fn fails_for_each_counter_that_is_one_off() {
    let exempt = ["fanfare_handshake_failures_total{reason=\"timeout\"}", DROPPED];
    for series in World::new().after.into_keys() {
        let is_judged = series.starts_with("fanfare_") && !series.contains("_bucket");
        if !is_judged || exempt.contains(&series.as_str()) {
            continue;
        }
        // What the clients broke off themselves is no refusal.
        let is_ignored = series.contains("io_error");
        for change in [-1.0, 1.0] {
            let mut world = World::new();
            *world.after.get_mut(&series).unwrap() += change;

            let audit = world.audit();

            assert_eq!(failed(&audit).len(), usize::from(!is_ignored), "{series} {change}: {audit:#?}");
            assert_eq!(audit.ok, is_ignored);
        }
    }
}

#[test]
fn counts_since_the_page_before() {
    let mut world = World::new();
    for (series, value) in &mut world.after {
        if series.contains("_total") || series.contains("_bucket") {
            *value += 1000.0;
            world.before.insert(series.clone(), 1000.0);
        }
    }

    assert_eq!(failed(&world.audit()), Vec::<&str>::new());
}

#[test]
fn types_without_a_name_of_ours_are_compared_together() {
    let mut world = World::new();
    world.after.insert("fanfare_messages_sent_total{type=\"echo\"}".into(), 2.0);
    world.after.insert("fanfare_messages_sent_total{type=\"history\"}".into(), 1.0);
    assert_eq!(failed(&world.audit()), ["messages sent: other"]);

    (0..3).for_each(|_| world.tally.texts_received.add(Text::Other));

    assert_eq!(failed(&world.audit()), Vec::<&str>::new());
}

#[test]
fn a_type_that_only_the_clients_know_of_is_a_disagreement() {
    let mut world = World::new();
    world.tally.texts_received.add(Text::Gap);

    assert_eq!(failed(&world.audit()), ["messages sent: gap"]);
}

#[test]
fn echoes_are_compared_but_their_delay_is_not() {
    let mut world = World::new();
    world.deliveries("+Inf", 100.0);
    assert_eq!(failed(&world.audit()), ["delivery p50, us", "delivery p99, us"]);

    for text in [Text::Message, Text::Other] {
        (world.tally.texts_sent, world.tally.texts_received) = Default::default();
        world.after.retain(|series, _| !series.contains("messages_"));
        let label = if text == Text::Other { "echo" } else { "message" };
        for way in ["received", "sent"] {
            world.after.insert(format!("fanfare_messages_{way}_total{{type=\"{label}\"}}"), 1.0);
        }
        world.tally.texts_sent.add(text);
        world.tally.texts_received.add(text);

        assert_eq!(world.audit().ok, text == Text::Other);
    }
}

#[test]
fn after_a_cut_the_gateway_may_have_sent_more_and_received_less() {
    let mut world = World::new();
    world.tally.cut = 2;
    world.add(MESSAGES_SENT, 5.0);
    world.add(WIRE_SENT, 500.0);
    world.add(MESSAGES_RECEIVED, -5.0);
    world.add(WIRE_RECEIVED, -500.0);

    let audit = world.audit();

    assert_eq!(failed(&audit), Vec::<&str>::new());
    let sent = audit.checks.iter().find(|check| check.what == "messages sent: message").unwrap();
    assert!(sent.rule.starts_with("not less than the clients', as 2 connections"), "{}", sent.rule);
}

#[test]
fn after_a_cut_the_gateway_still_cannot_have_sent_less_or_received_more() {
    let mut world = World::new();
    world.tally.cut = 2;
    world.add(MESSAGES_SENT, -1.0);
    world.add(WIRE_SENT, -1.0);
    world.add(MESSAGES_RECEIVED, 1.0);
    world.add(WIRE_RECEIVED, 1.0);

    let audit = world.audit();

    let expected =
        ["messages received: message", "messages sent: message", "wire bytes received", "wire bytes sent"];
    assert_eq!(failed(&audit), expected);
}

#[test]
fn a_gateway_that_serves_others_as_well_is_told_so() {
    let mut world = World::new();
    world.before.insert(CONNECTIONS.into(), 3.0);

    let audit = world.audit();

    assert_eq!(failed(&audit), ["connections of others"]);
    assert!(audit.checks[0].rule.contains("serves others too"));
}

#[test]
fn a_gateway_that_began_anew_is_told_so() {
    let mut world = World::new();
    world.after.insert("process_start_time_seconds".into(), 1_700_000_099.0);

    assert_eq!(failed(&world.audit()), ["restarts of the gateway"]);
}

#[test]
fn handshakes_that_took_too_long_may_be_counted_as_refused_or_not() {
    for (rejected, is_ok) in [(5, false), (6, true), (8, true), (9, false)] {
        let mut world = World::new();
        world.after.insert("fanfare_handshake_failures_total{reason=\"timeout\"}".into(), 2.0);
        world.tally.rejected = rejected;

        assert_eq!(world.audit().ok, is_ok, "{rejected}");
    }
}

#[test]
fn drops_need_gaps_or_connections_that_ended() {
    let mut world = World::new();
    // All that were opened are still there.
    world.open = world.tally.opened;
    world.after.insert(CONNECTIONS.into(), 10.0);
    world.after.retain(|series, _| !series.contains("closed_total"));
    world.add(DROPPED, 2.0);
    assert_eq!(failed(&world.audit()), ["messages dropped"]);

    world.tally.gap_messages = 2;
    assert_eq!(failed(&world.audit()), Vec::<&str>::new());

    world = World::new();
    world.add(DROPPED, 2.0);
    assert_eq!(failed(&world.audit()), Vec::<&str>::new(), "four connections ended");
}

#[test]
fn the_gateway_may_be_one_bucket_later_than_the_clients_and_no_more() {
    // The clients' are all in the bucket up to 1 ms.
    for (bucket, is_ok) in [("0.0001", true), ("0.001", true), ("0.0025", true), ("0.005", false)] {
        let mut world = World::new();
        world.deliveries(bucket, 100.0);

        let audit = world.audit();

        assert_eq!(audit.ok, is_ok, "{bucket}: {audit:#?}");
        if !is_ok {
            assert_eq!(failed(&audit), ["delivery p50, us", "delivery p99, us"]);
        }
    }
}

#[test]
fn a_few_late_deliveries_of_the_gateway_show_at_the_far_end() {
    let mut world = World::new();
    world.deliveries("0.001", 90.0);
    world.deliveries("+Inf", 100.0);

    let audit = world.audit();

    assert_eq!(failed(&audit), ["delivery p99, us"]);
    assert!(audit.checks.iter().all(|check| check.server.is_finite()), "JSON has no infinity");
}

#[test]
fn only_a_paced_run_asks_the_clients_not_to_be_later() {
    for (nanos, paced, is_ok) in [
        (9_000_000, false, true),
        (9_000_000, true, false),
        (2_400_000, true, true),
        (2_600_000, true, false),
    ] {
        let mut world = World::new();
        world.deliveries("0.001", 100.0);
        world.latency.reset();
        world.latency.record_n(nanos, 100).unwrap();
        world.paced = paced;

        assert_eq!(world.audit().ok, is_ok, "{nanos} {paced}");
    }
}

#[test]
fn a_wake_up_is_no_disagreement_where_buckets_are_narrow() {
    for (nanos, is_ok) in [(240_000, true), (280_000, false)] {
        let mut world = World::new();
        world.deliveries("0.000025", 100.0);
        world.latency.reset();
        world.latency.record_n(nanos, 100).unwrap();
        world.paced = true;

        assert_eq!(world.audit().ok, is_ok, "{nanos}");
    }
}

#[test]
fn a_big_room_may_have_first_and_last_receivers_far_apart() {
    let mut world = World::new();
    world.paced = true;
    world.latency.reset();
    // Half are first and half are last receivers; the gateway's median is that of one in the middle.
    world.latency.record_n(100_000, 50).unwrap();
    world.latency.record_n(10_000_000, 50).unwrap();
    world.deliveries("0.005", 100.0);

    assert_eq!(failed(&world.audit()), Vec::<&str>::new());
}

#[test]
fn deliveries_that_the_gateway_did_not_measure_are_a_disagreement() {
    let mut world = World::new();
    world.after.retain(|series, _| !series.contains("_bucket"));
    assert!(world.audit().ok, "a gateway may have no histogram");

    world.after.insert(bucket_series("+Inf"), 0.0);
    assert_eq!(failed(&world.audit()), ["deliveries measured"]);

    world.latency.reset();
    assert!(world.audit().ok, "there was nothing to measure");
}

#[test]
fn settling_ends_with_the_first_agreement() {
    let mut pauses = Vec::new();

    let result = settle(Clock::start(), |pause| {
        pauses.push(pause);
        Ok(Some(Audit { ok: pauses.len() == 3, checks: Vec::new() }))
    });

    assert!(result.unwrap().unwrap().ok);
    assert_eq!(pauses, [Duration::ZERO, PAUSE, PAUSE]);
}

#[test]
fn settling_gives_up_on_a_page_that_is_not_fanfares_and_on_errors() {
    assert_eq!(settle(Clock::start(), |_| Ok(None)).unwrap(), None);
    assert!(settle(Clock::start(), |_| anyhow::bail!("gone")).is_err());
}

/// A gateway and its clients that agree in everything, to be put out of step.
struct World {
    before: BTreeMap<String, f64>,
    after: BTreeMap<String, f64>,
    tally: Tally,
    open: u64,
    latency: Histogram<u64>,
    paced: bool,
}

impl World {
    fn new() -> Self {
        let mut tally = Tally { opened: 10, rejected: 6, cut: 0, ..Tally::default() };
        (tally.payload_sent, tally.payload_received) = (1000, 2000);
        (tally.wire_sent, tally.wire_received) = (1100, 2200);
        let mut after = BTreeMap::new();
        let mut add = |series: String, value: u64| after.insert(series, count(value));
        for (number, text) in (20..).zip(Text::ALL) {
            let is_sent = !matches!(text, Text::Join | Text::Leave | Text::Ping | Text::Presence);
            for _ in 0..number {
                tally.texts_sent.add(text);
                if is_sent {
                    tally.texts_received.add(text);
                }
            }
            // The gateway has no type of this name.
            let label = if text == Text::Other { "invalid" } else { text.as_str() };
            add(format!("fanfare_messages_received_total{{type=\"{label}\"}}"), number);
            if is_sent {
                add(format!("fanfare_messages_sent_total{{type=\"{label}\"}}"), number);
            }
        }
        for (series, value) in [
            ("fanfare_received_bytes_total{layer=\"payload\"}", tally.payload_sent),
            (WIRE_RECEIVED, tally.wire_sent),
            ("fanfare_sent_bytes_total{layer=\"payload\"}", tally.payload_received),
            (WIRE_SENT, tally.wire_received),
            ("fanfare_connections_opened_total{transport=\"ws\",compression=\"none\"}", 10),
            ("fanfare_connections_closed_total{reason=\"client\"}", 3),
            ("fanfare_connections_closed_total{reason=\"slow_consumer\"}", 1),
            (CONNECTIONS, 6),
            ("fanfare_handshake_failures_total{reason=\"capacity\"}", 4),
            ("fanfare_handshake_failures_total{reason=\"auth\"}", 2),
            ("fanfare_handshake_failures_total{reason=\"io_error\"}", 7),
            ("fanfare_handshake_failures_total{reason=\"timeout\"}", 0),
            (DROPPED, 0),
            ("process_start_time_seconds", 1_700_000_000),
        ] {
            add(series.to_owned(), value);
        }
        let before = BTreeMap::from([
            ("process_start_time_seconds".to_owned(), 1_700_000_000.0),
            (CONNECTIONS.into(), 0.0),
        ]);
        let mut latency = Histogram::new_with_bounds(1_000, 600_000_000_000, 3).unwrap();
        latency.record_n(800_000, 100).unwrap();
        let mut world = Self { before, after, tally, open: 6, latency, paced: false };
        world.deliveries("0.0005", 100.0);
        world
    }

    fn add(&mut self, series: &str, value: f64) {
        *self.after.get_mut(series).unwrap() += value;
    }

    /// Has the gateway's histogram so many deliveries from this bucket on.
    fn deliveries(&mut self, from: &str, total: f64) {
        let from = UPPERS.iter().position(|upper| *upper == from).unwrap();
        for (index, upper) in UPPERS.iter().enumerate() {
            let count = self.after.entry(bucket_series(upper)).or_default();
            if index >= from {
                *count = total;
            } else if total > 99.0 && *count > 99.0 {
                *count = 0.0;
            }
        }
    }

    fn seen(&self) -> Seen<'_> {
        Seen { tally: self.tally, open: self.open, latency: &self.latency, paced: self.paced }
    }

    fn audit(&self) -> Audit {
        audit(&page(&self.before), &page(&self.after), &self.seen()).unwrap()
    }
}

fn page(samples: &BTreeMap<String, f64>) -> Page {
    let mut text = String::new();
    for (series, value) in samples {
        writeln!(text, "{series} {value}").unwrap();
    }
    Page::parse(&text).unwrap()
}

fn failed(audit: &Audit) -> Vec<&str> {
    audit.checks.iter().filter(|check| !check.ok).map(|check| check.what.as_str()).collect()
}

fn bucket_series(upper: &str) -> String {
    format!("fanfare_delivery_duration_seconds_bucket{{source=\"client\",le=\"{upper}\"}}")
}

const UPPERS: [&str; 8] = ["0.000025", "0.00005", "0.0001", "0.0005", "0.001", "0.0025", "0.005", "+Inf"];
const CONNECTIONS: &str = "fanfare_connections{transport=\"ws\"}";
const DROPPED: &str = "fanfare_messages_dropped_total{reason=\"bytes_limit\"}";
const MESSAGES_RECEIVED: &str = "fanfare_messages_received_total{type=\"message\"}";
const MESSAGES_SENT: &str = "fanfare_messages_sent_total{type=\"message\"}";
const WIRE_RECEIVED: &str = "fanfare_received_bytes_total{layer=\"wire\"}";
const WIRE_SENT: &str = "fanfare_sent_bytes_total{layer=\"wire\"}";
