//! What a run has shown: one document, from which the summary, the HTML report, thresholds and comparisons are made.
//!
//! Its JSON is `result.json`. Fields are only added within one schema version; a reader refuses a version that it
//! does not know.

mod compare;
mod document;
mod figure;
mod hdrlog;
mod html;
#[cfg(test)]
mod sample;
mod summary;
mod threshold;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) use compare::compare;
pub(crate) use hdrlog::HdrLog;
pub(crate) use html::html;
pub(crate) use summary::summary;
pub(crate) use threshold::{Threshold, Verdict};

/// The version of the JSON document.
pub(crate) const SCHEMA: &str = "fanfare-loadtest/2";

/// Numbers by name. The name ends with the unit: `_us`, `_seconds`, `_bytes`, `_percent`, `_per_second`; a plain
/// count has none.
pub(crate) type Figures = BTreeMap<String, f64>;

/// The whole outcome of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// [`SCHEMA`].
    pub(crate) schema: String,
    /// The preset's or scenario's name.
    pub(crate) name: String,
    pub(crate) targets: Vec<String>,
    pub(crate) seed: u64,
    /// Seconds since the Unix epoch.
    pub(crate) started: u64,
    pub(crate) environment: Environment,
    /// No fault, no counter that disagrees; thresholds are judged apart.
    pub(crate) ok: bool,
    /// Why the run stopped before its end, if it did.
    pub(crate) stopped: Option<String>,
    /// What the reader should know beside the figures.
    #[serde(default)]
    pub(crate) notes: Vec<String>,
    /// The client used up its core or was late with its own schedule: the server can do more than these figures say.
    pub(crate) client_was_bottleneck: bool,
    /// Over the measured phases together.
    pub(crate) figures: Figures,
    /// Percentile spectra over the measured phases, by kind of latency.
    pub(crate) spectra: BTreeMap<String, Vec<SpectrumPoint>>,
    pub(crate) faults: Faults,
    pub(crate) phases: Vec<Phase>,
    /// About one a second, over all phases.
    pub(crate) samples: Vec<Sample>,
    pub(crate) audit: Option<Audit>,
    pub(crate) thresholds: Vec<Verdict>,
}

/// Where the run took place: without it a figure means little.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Environment {
    /// Of the load test.
    pub(crate) version: String,
    pub(crate) command: Vec<String>,
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    /// The limit of open files, after it was raised.
    pub(crate) descriptors: u64,
    /// The server was reached over the loopback interface, so both share the machine.
    pub(crate) same_machine: bool,
}

/// One value of a latency distribution: so much of all was at most this long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SpectrumPoint {
    /// 0 to 1.
    pub(crate) quantile: f64,
    pub(crate) us: f64,
}

/// What must not happen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Faults {
    /// Messages owed to a receiver that never came, and that no `gap` named.
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    /// Came after a later one, or in another order than at other members.
    pub(crate) reordered: u64,
    /// For a room that the receiver is not in, or never sent by this run.
    pub(crate) foreign: u64,
    /// `gap` messages that named what was not missing.
    pub(crate) false_gaps: u64,
    /// Requests that were answered with an error.
    pub(crate) refused: u64,
    /// Connections that the server ended, or that could not be opened, though the scenario did not expect it.
    pub(crate) ended: u64,
    /// Messages that could not be understood.
    pub(crate) surprises: u64,
    /// Requests to connect, to enter, to leave, to close, or others, that had no answer at the end.
    #[serde(default)]
    pub(crate) unanswered: u64,
    /// Examples in words.
    pub(crate) remarks: Vec<String>,
}

/// One phase of the scenario.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Phase {
    pub(crate) name: String,
    pub(crate) measured: bool,
    /// Seconds since the start of the run.
    pub(crate) begin: f64,
    pub(crate) end: f64,
    pub(crate) figures: Figures,
}

/// The state of things at one moment, and what happened since the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Seconds since the start of the run.
    pub(crate) at: f64,
    /// Index into the phases.
    pub(crate) phase: usize,
    pub(crate) connections: u64,
    pub(crate) published_per_second: f64,
    pub(crate) deliveries_per_second: f64,
    /// Of deliveries; absent when there were none.
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) max_us: Option<f64>,
    pub(crate) client_cpu_percent: f64,
    pub(crate) server_cpu_percent: Option<f64>,
    pub(crate) server_resident_bytes: Option<f64>,
}

/// The gateway's own counters beside what the clients saw.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Audit {
    pub(crate) ok: bool,
    pub(crate) checks: Vec<Check>,
}

/// One counter of the gateway and the clients' count of the same thing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Check {
    /// Such as `messages sent: message`.
    pub(crate) what: String,
    pub(crate) server: f64,
    pub(crate) clients: f64,
    pub(crate) ok: bool,
    /// What was demanded, and why where it is not equality.
    pub(crate) rule: String,
}

/// How good a piece of news is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Warning,
    Bad,
}

impl Outcome {
    /// The figures over all measured phases and the counts of faults.
    pub(crate) fn all_figures(&self) -> Figures {
        let mut figures = self.figures.clone();
        #[expect(clippy::cast_precision_loss, reason = "a run does not count 2^53 faults")]
        figures.extend(self.faults.counts().map(|(name, count)| (name.to_owned(), count as f64)));
        figures
    }

    /// What to say first, the most important before the rest.
    pub(crate) fn headlines(&self) -> Vec<(Tone, &'static str)> {
        let audit_failed = self.audit.as_ref().is_some_and(|audit| !audit.ok);
        let faulty = !self.faults.none();
        let missed = self.thresholds.iter().any(|verdict| !verdict.ok);
        let all = [
            (self.stopped.is_some(), Tone::Bad, "stopped early"),
            (faulty, Tone::Bad, "faults"),
            (audit_failed, Tone::Bad, "audit disagrees"),
            (!self.ok && !faulty && !audit_failed && self.stopped.is_none(), Tone::Bad, "failed"),
            (missed, Tone::Bad, "threshold missed"),
            (self.client_was_bottleneck, Tone::Warning, "client was the bottleneck"),
        ];
        let mut headlines: Vec<_> =
            all.into_iter().filter(|(said, ..)| *said).map(|(_, tone, text)| (tone, text)).collect();
        if headlines.iter().all(|(tone, _)| *tone != Tone::Bad) {
            headlines.insert(0, (Tone::Good, "passed"));
        }
        headlines
    }

    /// The kinds of latency that there are figures of, the telling ones first.
    fn kinds(figures: &Figures) -> Vec<&str> {
        let mut kinds: Vec<_> = figures.keys().filter_map(|name| name.strip_suffix("_p99_us")).collect();
        kinds.sort_by_key(|kind| Self::kind_rank(kind));
        kinds
    }

    fn kind_rank(kind: &str) -> usize {
        KINDS.iter().position(|known| *known == kind).unwrap_or(KINDS.len())
    }
}

impl Environment {
    /// In one line, without the command.
    fn line(&self) -> String {
        let mut parts = Vec::new();
        if !self.version.is_empty() {
            parts.push(format!("fanfare-loadtest {}", self.version));
        }
        parts.extend([&self.kernel, &self.cpu].into_iter().filter(|part| !part.is_empty()).cloned());
        parts.push(if self.cores == 1 { "1 core".to_owned() } else { format!("{} cores", self.cores) });
        parts.push(format!("{} descriptors", figure::grouped(&self.descriptors.to_string())));
        if self.same_machine {
            parts.push("client and server share the machine".to_owned());
        }
        parts.join(", ")
    }
}

impl Faults {
    pub(crate) fn none(&self) -> bool {
        self.counts().iter().all(|(_, count)| *count == 0)
    }

    /// The counts by name, in the order in which they are told.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 9] {
        [
            ("lost", self.lost),
            ("duplicates", self.duplicates),
            ("reordered", self.reordered),
            ("foreign", self.foreign),
            ("false_gaps", self.false_gaps),
            ("refused", self.refused),
            ("ended", self.ended),
            ("surprises", self.surprises),
            ("unanswered", self.unanswered),
        ]
    }
}

/// In the order in which they are shown.
const KINDS: [&str; 8] = ["delivery", "first", "last", "service", "connect", "join", "request", "ends"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_said_first_and_a_busy_client_always() {
        let headlines =
            |outcome: &Outcome| outcome.headlines().into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        let mut outcome = Outcome { ok: true, ..Outcome::default() };
        assert_eq!(headlines(&outcome), ["passed"]);
        outcome.client_was_bottleneck = true;
        assert_eq!(headlines(&outcome), ["passed", "client was the bottleneck"]);
        outcome.thresholds.push(Verdict::default());
        assert_eq!(headlines(&outcome), ["threshold missed", "client was the bottleneck"]);
        outcome.faults.lost = 1;
        outcome.ok = false;
        assert_eq!(headlines(&outcome)[0], "faults");
    }
}
