//! The gateway's own counters beside what the clients saw: two accounts of the same traffic, which must agree.

#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;

use super::page::Page;
use crate::clock::Clock;
use crate::outcome::{Audit, Check};
use crate::tally::{Tally, Text};

/// What the clients saw since the page before was fetched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// Differences since then.
    pub(crate) tally: Tally,
    /// Connections that are open.
    pub(crate) open: u64,
    /// From the moment a message was really sent to its arrival, for the first and for the last receiver of each, in
    /// nanoseconds: one value where there is one receiver, else two.
    pub(crate) latency: &'a Histogram<u64>,
    /// Messages went out by the clock, below saturation, and the client was not the bottleneck: what the clients
    /// waited, they waited for the gateway.
    pub(crate) paced: bool,
}

/// Compares; `None` when the page after is not Fanfare's.
///
/// The clients have nothing under way: each counter is to be equal, or within a bound where a connection was cut, as
/// the rule of its check says.
pub(crate) fn audit(before: &Page, after: &Page, seen: &Seen<'_>) -> Option<Audit> {
    if !after.has_prefix("fanfare_") {
        return None;
    }
    let mut auditor = Auditor { before, after, seen, checks: Vec::new() };
    auditor.whose();
    auditor.messages();
    auditor.bytes();
    auditor.connections();
    auditor.drops();
    auditor.latencies();
    let checks = auditor.checks;
    Some(Audit { ok: checks.iter().all(|check| check.ok), checks })
}

/// Repeats an attempt to audit until the accounts agree, or three seconds have passed; returns the last result.
///
/// The gateway publishes what it counts a little late, and a connection that has ended may linger there. The attempt is
/// told how long to serve the connections before it fetches the page: what comes meanwhile, such as pings, is to
/// be read and counted.
///
/// # Errors
///
/// When an attempt fails.
pub(crate) fn settle(
    clock: Clock,
    mut attempt: impl FnMut(Duration) -> Result<Option<Audit>>,
) -> Result<Option<Audit>> {
    let until = clock.elapsed() + PATIENCE;
    let mut pause = Duration::ZERO;
    loop {
        let result = attempt(pause)?;
        if result.as_ref().is_none_or(|audit| audit.ok) || clock.elapsed() >= until {
            return Ok(result);
        }
        pause = PAUSE;
    }
}

struct Auditor<'a> {
    before: &'a Page,
    after: &'a Page,
    seen: &'a Seen<'a>,
    checks: Vec<Check>,
}

/// How the gateway's count stands to the clients'.
#[derive(Debug, Clone, Copy)]
enum Demand {
    /// Equal, whatever happened.
    Equal,
    /// Of what the gateway sent: equal, or more when connections were cut.
    Sent,
    /// Of what the gateway received: equal, or less when connections were cut.
    Received,
}

impl Auditor<'_> {
    /// Whether the counters tell of our clients alone, and of one process.
    fn whose(&mut self) {
        let others = self.before.sum("fanfare_connections", &[]).unwrap_or(0.0);
        self.check("connections of others", others, 0.0, others < 0.5, || {
            "none was open before our first: the gateway serves others too, and counts their traffic as well"
                .into()
        });
        let start = |page: &Page| page.value("process_start_time_seconds", &[]);
        if let (Some(first), Some(last)) = (start(self.before), start(self.after)) {
            let restarts = if first.total_cmp(&last).is_eq() { 0.0 } else { 1.0 };
            self.check("restarts of the gateway", restarts, 0.0, restarts < 0.5, || {
                "none: its counters begin anew with each process".into()
            });
        }
    }

    fn messages(&mut self) {
        let Tally { texts_received, texts_sent, .. } = self.seen.tally;
        for (verb, counter, texts, demand) in [
            ("received", "fanfare_messages_received_total", texts_sent, Demand::Received),
            ("sent", SENT, texts_received, Demand::Sent),
        ] {
            for text in Text::ALL {
                let (server, clients) = (self.since_by_type(counter, text), texts.of(text));
                // Most types are no part of most runs.
                if server != 0.0 || clients != 0 || text == Text::Message {
                    self.compare(&format!("messages {verb}: {}", text.as_str()), server, clients, demand);
                }
            }
        }
    }

    fn bytes(&mut self) {
        let tally = self.seen.tally;
        let (received, sent) = ("fanfare_received_bytes_total", "fanfare_sent_bytes_total");
        for (what, counter, layer, clients, demand) in [
            ("payload bytes received", received, "payload", tally.payload_sent, Demand::Received),
            ("payload bytes sent", sent, "payload", tally.payload_received, Demand::Sent),
            ("wire bytes received", received, "wire", tally.wire_sent, Demand::Received),
            ("wire bytes sent", sent, "wire", tally.wire_received, Demand::Sent),
        ] {
            let server = self.since(counter, &[("layer", layer)]);
            self.compare(what, server, clients, demand);
        }
    }

    fn connections(&mut self) {
        let Tally { opened, rejected, .. } = self.seen.tally;
        let server = self.since("fanfare_connections_opened_total", &[]);
        self.compare("connections opened", server, opened, Demand::Equal);
        let server = self.since("fanfare_connections_closed_total", &[]);
        self.compare("connections ended", server, self.ended(), Demand::Equal);
        let server = self.after.sum("fanfare_connections", &[]).unwrap_or(0.0);
        self.compare("connections open", server, self.seen.open, Demand::Equal);

        let failures = |reason: &str| self.since("fanfare_handshake_failures_total", &[("reason", reason)]);
        let all = self.since("fanfare_handshake_failures_total", &[]);
        // Those that broke were the clients' doing.
        let late = failures("timeout");
        let refused = all - failures("io_error") - late;
        let clients = count(rejected);
        let is_ok = refused - 0.5 < clients && clients < refused + late + 0.5;
        self.check("upgrades refused", refused, clients, is_ok, || {
            format!("equal; {late} more that came to no end in time may have been told so or not")
        });
    }

    /// Who was not given a message was told so by a `gap`, or lost the connection.
    fn drops(&mut self) {
        let dropped = self.since("fanfare_messages_dropped_total", &[]);
        let named = count(self.seen.tally.gap_messages);
        let ended = self.ended();
        let is_ok = dropped > -0.5 && (ended > 0 || dropped < named + 0.5);
        self.check("messages dropped", dropped, named, is_ok, || {
            format!("not more than `gap` messages named, unless connections ended ({ended} did)")
        });
    }

    /// The gateway measures from having read a message to its acceptance by a receiver's socket: a part of the way
    /// that the clients measure. It does so for the first and the last receiver of each batch of messages, and for
    /// some between.
    ///
    /// The clients' values are half first and half last receivers, so that their own median may be either. Less than
    /// 1-q of all last receivers are above the quantile (1+q)/2 of both together, and less than q of all first ones
    /// below the quantile q/2. Between these two the gateway's quantile q has to be, for whatever it took in between.
    fn latencies(&mut self) {
        if self.since(SENT, &[("type", "message")]) < 0.5 {
            // Echoes pass no room, and are not measured.
            return;
        }
        let family = "fanfare_delivery_duration_seconds";
        let Some(after) = self.after.buckets(family).filter(|_| !self.seen.latency.is_empty()) else {
            return;
        };
        let buckets =
            self.before.buckets(family).map_or_else(|| after.clone(), |before| after.since(&before));
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            let Some(server) = buckets.index_of_quantile(quantile) else {
                return self.check("deliveries measured", 0.0, 1.0, false, || {
                    "the gateway measures those that the clients do".into()
                });
            };
            let bound = buckets.bound(server);
            let late = self.latency(f64::midpoint(1.0, quantile));
            let is_ok = server <= buckets.index_of(late) + 1;
            self.check(&format!("delivery {name}, us"), bound * 1e6, late * 1e6, is_ok, || {
                "not later than the last receivers by more than a bucket: the gateway measures a part of the way".into()
            });
            if self.seen.paced && quantile < 0.9 {
                let early = self.latency(quantile / 2.0);
                let is_ok = buckets.index_of(early) <= server + 1 || early - bound < LOOPBACK.as_secs_f64();
                self.check(&format!("first delivery {name}, us"), bound * 1e6, early * 1e6, is_ok, || {
                    format!("first receivers are not later than the gateway by more than a bucket and {LOOPBACK:?}")
                });
            }
        }
    }

    /// The clients' latency at a quantile, in seconds.
    fn latency(&self, quantile: f64) -> f64 {
        Duration::from_nanos(self.seen.latency.value_at_quantile(quantile)).as_secs_f64()
    }

    /// How many of our connections are no more.
    fn ended(&self) -> u64 {
        self.seen.tally.opened.saturating_sub(self.seen.open)
    }

    /// What a counter grew by, over all series with these labels.
    fn since(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let [before, after] = [self.before, self.after].map(|page| page.sum(name, labels).unwrap_or(0.0));
        after - before
    }

    /// What a counter of messages grew by for a type; for [`Text::Other`], for all types that we have no name for.
    fn since_by_type(&self, name: &str, text: Text) -> f64 {
        if text != Text::Other {
            return self.since(name, &[("type", text.as_str())]);
        }
        let is_named =
            |kind: &str| Text::ALL.iter().any(|text| *text != Text::Other && text.as_str() == kind);
        let [before, after] = [self.before, self.after].map(|page| {
            let others = page.by_label(name, "type").filter(|(kind, _)| !is_named(kind));
            others.map(|(_, value)| value).sum::<f64>()
        });
        after - before
    }

    fn compare(&mut self, what: &str, server: f64, clients: u64, demand: Demand) {
        let cut = self.seen.tally.cut;
        let difference = server - count(clients);
        let is_more = difference > 0.5;
        let is_less = difference < -0.5;
        let (is_ok, bound) = match demand {
            Demand::Sent if cut > 0 => (!is_less, "not less"),
            Demand::Received if cut > 0 => (!is_more, "not more"),
            _ => (!is_less && !is_more, "equal"),
        };
        self.check(what, server, count(clients), is_ok, || {
            if bound == "equal" {
                return bound.into();
            }
            format!("{bound} than the clients', as {cut} connections ended before all that was sent was read")
        });
    }

    fn check(&mut self, what: &str, server: f64, clients: f64, ok: bool, rule: impl FnOnce() -> String) {
        self.checks.push(Check { what: what.to_owned(), server, clients, ok, rule: rule() });
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn count(number: u64) -> f64 {
    number as f64
}

const SENT: &str = "fanfare_messages_sent_total";

/// What the clients wait for that the gateway cannot see: the loopback interface, and a thread that is woken on either
/// side. The smaller buckets are narrower than that.
const LOOPBACK: Duration = Duration::from_micros(250);

/// How long the accounts may take to agree: more than the 50 ms that the gateway may be behind and the two
/// seconds that it lingers on a connection.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(50);
