//! Histograms and seconds that each writer keeps for itself, and that are put together when they are read.
//!
//! The recorder's histograms collect samples behind a lock-free queue, which costs 80 ns each, and its counters are
//! whole. Here a sample is two plain loads and stores, since a cell has one writer: the shard.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::Unit;

use super::table::{Kind, METRICS, Metric};

/// A histogram with one writer, who sees no other. Not `Clone`: a second writer would lose samples.
///
/// Observations are whole numbers: nanoseconds where the metric's unit is seconds, else what the unit says.
#[derive(Debug)]
pub struct Histogram {
    cells: Arc<Cells>,
}

impl Histogram {
    /// Counts an observation.
    #[inline]
    pub fn record(&self, value: u64) {
        let Cells { bounds, counts, sum } = &*self.cells;
        add(&counts[bucket(bounds, value)], 1);
        add(sum, value);
    }

    /// Counts what was sampled, which is then empty.
    pub fn absorb(&self, samples: &mut Samples) {
        if !mem::take(&mut samples.is_fresh) {
            return;
        }
        debug_assert_eq!(self.cells.bounds, samples.bounds, "samples for another histogram");
        for (cell, count) in self.cells.counts.iter().zip(&mut samples.counts) {
            add(cell, mem::take(count));
        }
        add(&self.cells.sum, mem::take(&mut samples.sum));
    }
}

/// Observations as plain numbers, on their way to a [`Histogram`]: what the pure parts of a shard have.
#[derive(Debug)]
pub struct Samples {
    bounds: Box<[u64]>,
    counts: Box<[u64]>,
    sum: u64,
    is_fresh: bool,
}

impl Samples {
    pub(super) fn new(metric: &Metric) -> Self {
        let bounds = bounds(metric);
        let counts = vec![0; bounds.len() + 1].into_boxed_slice();
        Self { bounds, counts, sum: 0, is_fresh: false }
    }

    /// Counts an observation.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.record_many(value, 1);
    }

    /// Counts the same observation so many times.
    #[inline]
    pub fn record_many(&mut self, value: u64, times: u64) {
        self.counts[bucket(&self.bounds, value)] += times;
        self.sum += value * times;
        self.is_fresh = true;
    }

    /// How many observations there are.
    #[cfg(test)]
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum.
    #[cfg(test)]
    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }
}

#[inline]
fn bucket(bounds: &[u64], value: u64) -> usize {
    bounds.partition_point(|bound| *bound < value)
}

/// The bounds of a histogram of shards, in its cells' units.
fn bounds(metric: &Metric) -> Box<[u64]> {
    let Kind::ShardHistogram(bounds) = metric.kind else {
        unreachable!("{} is no histogram of shards", metric.name);
    };
    let scale = scale(metric);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounds are in range")]
    bounds.iter().map(|bound| (bound * scale).round() as u64).collect()
}

/// Seconds with one writer, who sees no other. Not `Clone`, as [`Histogram`].
#[derive(Debug)]
pub struct Seconds {
    nanoseconds: Arc<AtomicU64>,
}

impl Seconds {
    /// Adds to them.
    pub fn add(&self, nanoseconds: u64) {
        add(&self.nanoseconds, nanoseconds);
    }
}

/// All that was registered.
#[derive(Clone, Debug, Default)]
pub(super) struct Registry(Arc<Mutex<Families>>);

/// By name and then by labels, as they stand in a series; each with its writers.
type Families = BTreeMap<&'static str, BTreeMap<String, Vec<Instrument>>>;

#[derive(Debug)]
enum Instrument {
    Histogram(Arc<Cells>),
    Seconds(Arc<AtomicU64>),
}

#[derive(Debug)]
struct Cells {
    /// Upper bounds, inclusive, ascending.
    bounds: Box<[u64]>,
    /// One more than there are bounds.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Registry {
    pub(super) fn histogram(&self, metric: &Metric, labels: &[(&'static str, &str)]) -> Histogram {
        let bounds = bounds(metric);
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        let cells = Arc::new(Cells { bounds, counts, sum: AtomicU64::new(0) });
        self.insert(metric, labels, Instrument::Histogram(Arc::clone(&cells)));
        Histogram { cells }
    }

    pub(super) fn seconds(&self, metric: &Metric, labels: &[(&'static str, &str)]) -> Seconds {
        debug_assert_eq!(metric.kind, Kind::Seconds, "{}", metric.name);
        let nanoseconds = Arc::new(AtomicU64::new(0));
        self.insert(metric, labels, Instrument::Seconds(Arc::clone(&nanoseconds)));
        Seconds { nanoseconds }
    }

    fn insert(&self, metric: &Metric, labels: &[(&'static str, &str)], instrument: Instrument) {
        debug_assert!(super::has_labels(metric, labels), "labels of {}", metric.name);
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        families.entry(metric.name).or_default().entry(labels.join(",")).or_default().push(instrument);
    }

    /// Appends everything in the text format; what has the same labels is added up.
    pub(super) fn render(&self, out: &mut String) {
        let families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for metric in METRICS {
            let Some(family) = families.get(metric.name) else { continue };
            write_head(out, metric);
            for (labels, instruments) in family {
                render_series(out, metric, labels, instruments);
            }
            out.push('\n');
        }
    }
}

/// Appends the two lines that come before a metric's samples.
pub fn write_head(out: &mut String, metric: &Metric) {
    let Metric { name, help, kind, .. } = metric;
    // Writing to a `String` cannot fail.
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {}\n", kind.as_str());
}

fn render_series(out: &mut String, metric: &Metric, labels: &str, instruments: &[Instrument]) {
    let (name, scale) = (metric.name, scale(metric));
    let mut counts = Vec::new();
    let mut sum = 0_u64;
    let mut bounds: &[f64] = &[];
    for instrument in instruments {
        match instrument {
            Instrument::Seconds(nanoseconds) => sum = sum.wrapping_add(nanoseconds.load(Ordering::Relaxed)),
            Instrument::Histogram(cells) => {
                counts.resize(cells.counts.len(), 0_u64);
                for (count, cell) in counts.iter_mut().zip(&cells.counts) {
                    *count += cell.load(Ordering::Relaxed);
                }
                sum = sum.wrapping_add(cells.sum.load(Ordering::Relaxed));
            }
        }
    }
    if let Kind::ShardHistogram(of_table) = metric.kind {
        bounds = of_table;
    }
    #[expect(clippy::cast_precision_loss, reason = "nobody needs more than 53 bits of a sum")]
    let sum = sum as f64 / scale;
    if counts.is_empty() {
        let _ = match labels {
            "" => writeln!(out, "{name} {sum}"),
            labels => writeln!(out, "{name}{{{labels}}} {sum}"),
        };
        return;
    }
    let comma = if labels.is_empty() { "" } else { "," };
    let mut total = 0;
    for (index, count) in counts.iter().enumerate() {
        total += count;
        let _ = match bounds.get(index) {
            Some(bound) => writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}"),
            None => writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {total}"),
        };
    }
    let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let _ = writeln!(out, "{name}_sum{labels} {sum}\n{name}_count{labels} {total}");
}

/// How many of a cell's units are one of the metric's.
fn scale(metric: &Metric) -> f64 {
    if metric.unit == Some(Unit::Seconds) { 1e9 } else { 1.0 }
}

/// Adds to a cell that only this thread writes to.
#[inline]
fn add(cell: &AtomicU64, more: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}
