//! Latencies by kind, in nanoseconds: of the last second, of the phase, and of all measured phases.

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::outcome::{Figures, SpectrumPoint};

/// Longer than any run waits for a message.
const LONGEST: u64 = 600_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// From the moment a message was due until a receiver had it, for every receiver.
    Delivery,
    /// The same for the first and for the last receiver of each message.
    First,
    Last,
    /// From the moment a message was really sent until a receiver had it.
    Service,
    /// From `connect` to the answer 101.
    Connect,
    /// From the request to enter a room to its answer.
    Join,
    /// From any other request to its answer.
    Request,
    /// How late a message was sent: the load test's own delay.
    Lag,
    /// As `Service`, for the first and the last receiver of each message: what the gateway measures as well.
    Ends,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Delivery,
        Self::First,
        Self::Last,
        Self::Service,
        Self::Connect,
        Self::Join,
        Self::Request,
        Self::Lag,
        Self::Ends,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Delivery => "delivery",
            Self::First => "first",
            Self::Last => "last",
            Self::Service => "service",
            Self::Connect => "connect",
            Self::Join => "join",
            Self::Request => "request",
            Self::Lag => "lag",
            Self::Ends => "ends",
        }
    }
}

/// All latencies of a run.
#[derive(Debug)]
pub(crate) struct Latencies {
    interval: Vec<Histogram<u64>>,
    phase: Vec<Histogram<u64>>,
    measured: Vec<Histogram<u64>>,
    /// [`Kind::Ends`] of all phases: the gateway counts those that are not measured as well.
    ends: Histogram<u64>,
}

impl Latencies {
    pub(crate) fn new() -> Result<Self> {
        let empty = || -> Result<Vec<_>> {
            Kind::ALL.iter().map(|_| Ok(Histogram::new_with_bounds(1_000, LONGEST, 3)?)).collect()
        };
        let ends = Histogram::new_with_bounds(1_000, LONGEST, 3)?;
        Ok(Self { interval: empty()?, phase: empty()?, measured: empty()?, ends })
    }

    #[inline]
    pub(crate) fn record(&mut self, kind: Kind, nanos: u64) {
        self.interval[kind as usize].saturating_record(nanos);
    }

    /// What was recorded since the last call of [`Self::end_interval`].
    pub(crate) fn of_interval(&self, kind: Kind) -> &Histogram<u64> {
        &self.interval[kind as usize]
    }

    /// [`Kind::Ends`] of all phases that have ended.
    pub(crate) fn ends(&self) -> &Histogram<u64> {
        &self.ends
    }

    /// Adds the interval to the phase.
    pub(crate) fn end_interval(&mut self) {
        for (interval, phase) in self.interval.iter_mut().zip(&mut self.phase) {
            if !interval.is_empty() {
                phase.add(&*interval).expect("all have the same bounds");
                interval.reset();
            }
        }
    }

    /// Ends a phase: returns its figures, and adds it to the whole if it is measured.
    pub(crate) fn end_phase(&mut self, is_measured: bool) -> Figures {
        self.end_interval();
        let figures = figures(&self.phase);
        self.ends.add(&self.phase[Kind::Ends as usize]).expect("all have the same bounds");
        for (phase, measured) in self.phase.iter_mut().zip(&mut self.measured) {
            if is_measured {
                measured.add(&*phase).expect("all have the same bounds");
            }
            phase.reset();
        }
        figures
    }

    /// The figures of all measured phases.
    pub(crate) fn figures(&self) -> Figures {
        figures(&self.measured)
    }

    /// The distribution of one kind over all measured phases; empty when nothing was recorded.
    pub(crate) fn spectrum(&self, kind: Kind) -> Vec<SpectrumPoint> {
        let points = self.measured[kind as usize].iter_quantiles(5).map(|step| SpectrumPoint {
            quantile: step.quantile_iterated_to(),
            us: micros(step.value_iterated_to()),
        });
        if self.measured[kind as usize].is_empty() { Vec::new() } else { points.collect() }
    }
}

#[expect(clippy::cast_precision_loss, reason = "latencies and counts stay far below 2^52")]
fn figures(histograms: &[Histogram<u64>]) -> Figures {
    const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];
    let mut figures = Figures::new();
    for (kind, histogram) in Kind::ALL.iter().zip(histograms).filter(|(_, histogram)| !histogram.is_empty()) {
        let kind = kind.as_str();
        figures.insert(format!("{kind}_count"), histogram.len() as f64);
        figures.insert(format!("{kind}_mean_us"), histogram.mean() / 1e3);
        figures.insert(format!("{kind}_max_us"), micros(histogram.max()));
        for (name, quantile) in QUANTILES {
            figures.insert(format!("{kind}_{name}_us"), micros(histogram.value_at_quantile(quantile)));
        }
    }
    figures
}

#[expect(clippy::cast_precision_loss, reason = "latencies stay far below 2^52 nanoseconds")]
pub(crate) fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_that_is_not_measured_does_not_reach_the_whole() {
        let mut latencies = Latencies::new().unwrap();
        latencies.record(Kind::Delivery, 5_000_000);
        let count = |figures: &Figures| format!("{}", figures["delivery_count"]);
        assert_eq!(count(&latencies.end_phase(false)), "1");
        latencies.record(Kind::Delivery, 2_000_000);
        latencies.end_interval();
        latencies.record(Kind::Delivery, 1_000_000);
        let phase = latencies.end_phase(true);
        assert_eq!((count(&phase), count(&latencies.figures())), ("2".to_owned(), "2".to_owned()));
        assert!((phase["delivery_max_us"] - 2_000.0).abs() < 2.0);
        assert!(!phase.contains_key("join_count"), "what was not seen has no figures");
        assert!(latencies.spectrum(Kind::Delivery).len() >= 2 && latencies.spectrum(Kind::Join).is_empty());
    }
}
