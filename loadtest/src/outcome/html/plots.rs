//! Which plots an outcome gives.

use super::super::figure::Unit;
use super::super::{Outcome, Sample, SpectrumPoint};
use super::axis::Quantity;
use super::draw::{Band, Line, Plot};
use super::ink::Ink;
use super::series::Merge;

/// A plot with what is written about it.
pub(super) struct Picture {
    pub(super) title: &'static str,
    pub(super) about: &'static str,
    pub(super) plot: Plot,
    /// Takes the whole width of the page.
    pub(super) wide: bool,
}

/// All plots that have something to show.
pub(super) fn pictures(outcome: &Outcome) -> Vec<Picture> {
    let all = [latency, deliveries, published, connections, processors, memory];
    let mut pictures: Vec<_> = all.into_iter().map(|picture| picture(outcome)).collect();
    pictures.push(spectrum(outcome));
    pictures.retain(|picture| !picture.plot.is_empty());
    let halves = pictures.iter().filter(|picture| !picture.wide).count();
    if let Some(last) = pictures.last_mut()
        && halves % 2 == 1
    {
        last.wide = true;
    }
    pictures
}

fn latency(outcome: &Outcome) -> Picture {
    let lines = vec![
        line(outcome, "p50", 0, Merge::Max, |sample| sample.p50_us),
        line(outcome, "p99", 1, Merge::Max, |sample| sample.p99_us),
        line(outcome, "max", 2, Merge::Max, |sample| sample.max_us),
    ];
    let about = "From the moment a message was due until a receiver had it. Measured phases are shaded.";
    Picture { wide: true, ..over_time(outcome, "Delivery latency", about, Quantity::Latency, lines) }
}

fn deliveries(outcome: &Outcome) -> Picture {
    let line = line(outcome, "deliveries", 0, Merge::Mean, |sample| Some(sample.deliveries_per_second));
    let about = "Messages that arrived at a receiver, per second.";
    over_time(outcome, "Deliveries", about, Quantity::Rate, vec![filled(line)])
}

fn published(outcome: &Outcome) -> Picture {
    let line = line(outcome, "published", 3, Merge::Mean, |sample| Some(sample.published_per_second));
    let about = "Messages that were sent to the server, per second.";
    over_time(outcome, "Published", about, Quantity::Rate, vec![filled(line)])
}

fn connections(outcome: &Outcome) -> Picture {
    #[expect(clippy::cast_precision_loss, reason = "no machine has 2^53 connections")]
    let line = line(outcome, "open", 4, Merge::Mean, |sample| Some(sample.connections as f64));
    let about = "Connections that were open.";
    over_time(outcome, "Connections", about, Quantity::Amount(Unit::Count), vec![filled(line)])
}

fn processors(outcome: &Outcome) -> Picture {
    let server = line(outcome, "server", 0, Merge::Mean, |sample| sample.server_cpu_percent);
    let client = line(outcome, "client", 1, Merge::Mean, |sample| Some(sample.client_cpu_percent));
    let about = "100 % is one core.";
    over_time(outcome, "Processor", about, Quantity::Amount(Unit::Percent), vec![server, client])
}

fn memory(outcome: &Outcome) -> Picture {
    let line = line(outcome, "resident", 3, Merge::Max, |sample| sample.server_resident_bytes);
    let about = "What the server held resident.";
    over_time(outcome, "Server memory", about, Quantity::Amount(Unit::Bytes), vec![filled(line)])
}

fn spectrum(outcome: &Outcome) -> Picture {
    let kinds = outcome.spectra.iter().filter(|(_, points)| !points.is_empty());
    let mut kinds: Vec<_> = kinds.map(|(kind, points)| (kind.as_str(), points)).collect();
    kinds.sort_by_key(|(kind, _)| Outcome::kind_rank(kind));
    let lines = kinds.into_iter().enumerate().map(|(index, (kind, points))| Line {
        name: kind.to_owned(),
        ink: Ink::Line(index),
        points: spectrum_points(points),
        merge: Merge::Max,
        filled: false,
    });
    Picture {
        title: "Percentile spectrum",
        about: "So much of all took at most so long.",
        plot: Plot { x: Quantity::Quantile, y: Quantity::Latency, lines: lines.collect(), bands: Vec::new() },
        wide: false,
    }
}

/// The last point, the maximum, stands at infinity: it is drawn a little beyond the one before.
fn spectrum_points(points: &[SpectrumPoint]) -> Vec<(f64, Option<f64>)> {
    let below =
        points.iter().map(|point| point.quantile).filter(|quantile| *quantile < 1.0).fold(0.9, f64::max);
    let place = |quantile: f64| if quantile < 1.0 { quantile } else { 1.0 - (1.0 - below) / 1.5 };
    points.iter().map(|point| (place(point.quantile), Some(point.us))).collect()
}

fn over_time(
    outcome: &Outcome,
    title: &'static str,
    about: &'static str,
    y: Quantity,
    lines: Vec<Line>,
) -> Picture {
    let known = outcome.phases.iter().filter(|phase| phase.begin.is_finite() && phase.end > phase.begin);
    let bands = known.map(|phase| Band {
        name: phase.name.clone(),
        begin: phase.begin,
        end: phase.end,
        measured: phase.measured,
    });
    Picture {
        title,
        about,
        plot: Plot { x: Quantity::Moment, y, lines, bands: bands.collect() },
        wide: false,
    }
}

fn line(
    outcome: &Outcome,
    name: &str,
    ink: usize,
    merge: Merge,
    value: impl Fn(&Sample) -> Option<f64>,
) -> Line {
    let points = outcome.samples.iter().map(|sample| (sample.at, value(sample))).collect();
    Line { name: name.to_owned(), ink: Ink::Line(ink), points, merge, filled: false }
}

fn filled(line: Line) -> Line {
    Line { filled: true, ..line }
}

#[cfg(test)]
mod tests {
    use super::super::super::sample;
    use super::*;

    #[test]
    fn plots_without_anything_to_show_are_left_out() {
        let mut outcome = sample::sample();
        outcome.spectra.clear();
        for sample in &mut outcome.samples {
            sample.server_resident_bytes = None;
            sample.deliveries_per_second = 0.0;
        }
        let titles: Vec<_> = pictures(&outcome).iter().map(|picture| picture.title).collect();
        assert_eq!(titles, ["Delivery latency", "Published", "Connections", "Processor"]);
        assert!(pictures(&Outcome::default()).is_empty());
    }

    #[test]
    fn an_odd_half_at_the_end_takes_the_whole_width() {
        let mut outcome = sample::sample();
        assert_eq!(pictures(&outcome).iter().filter(|picture| picture.wide).count(), 1);
        outcome.spectra.clear();
        assert!(pictures(&outcome).last().unwrap().wide);
    }

    #[test]
    fn the_maximum_stands_a_little_beyond_the_last_quantile() {
        let points =
            [(0.5, 10.0), (0.99, 20.0), (1.0, 30.0)].map(|(quantile, us)| SpectrumPoint { quantile, us });
        let placed = spectrum_points(&points);
        assert!(placed[2].0 > 0.99 && placed[2].0 < 0.995 && placed[2].1 == Some(30.0));
    }
}
