//! What is told while a run goes on: a line that moves on a terminal, plain lines elsewhere.

use std::io::Write as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::outcome::Sample;

/// Plain lines come this many seconds apart.
const PLAIN_EVERY: u32 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Silent,
    /// Standard error is a terminal.
    Live,
    Plain,
}

#[derive(Debug)]
pub(crate) struct Progress {
    mode: Mode,
    bar: ProgressBar,
    phase: String,
    ticks: u32,
}

impl Progress {
    pub(crate) fn new(mode: Mode) -> Self {
        Self { mode, bar: ProgressBar::hidden(), phase: String::new(), ticks: 0 }
    }

    /// A phase begins.
    pub(crate) fn phase(&mut self, name: &str, duration: Option<Duration>) {
        name.clone_into(&mut self.phase);
        self.ticks = 0;
        match self.mode {
            Mode::Silent => {}
            Mode::Plain => say(&format!("phase {name}")),
            Mode::Live => {
                self.bar.finish_and_clear();
                self.bar = ProgressBar::new(duration.map_or(0, |duration| duration.as_secs().max(1)));
                let template = if duration.is_some() {
                    "{prefix:>14} {bar:20} {msg}"
                } else {
                    "{prefix:>14} {spinner} {msg}"
                };
                if let Ok(style) = ProgressStyle::with_template(template) {
                    self.bar.set_style(style);
                }
                self.bar.set_prefix(name.to_owned());
            }
        }
    }

    /// A second has passed.
    pub(crate) fn tick(&mut self, sample: &Sample) {
        self.ticks += 1;
        match self.mode {
            Mode::Plain if self.ticks.is_multiple_of(PLAIN_EVERY) => {
                say(&format!("{:>14}  {}", self.phase, line(sample)));
            }
            Mode::Silent | Mode::Plain => {}
            Mode::Live => {
                self.bar.set_message(line(sample));
                self.bar.set_position(u64::from(self.ticks));
            }
        }
    }

    pub(crate) fn end(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn line(sample: &Sample) -> String {
    let mut parts = vec![format!("{} connections", sample.connections)];
    if sample.published_per_second > 0.0 || sample.deliveries_per_second > 0.0 {
        parts.push(format!("{:.0} published/s", sample.published_per_second));
        parts.push(format!("{:.0} deliveries/s", sample.deliveries_per_second));
    }
    if let (Some(p50), Some(p99)) = (sample.p50_us, sample.p99_us) {
        parts.push(format!("p50 {:.2} ms  p99 {:.2} ms", p50 / 1e3, p99 / 1e3));
    }
    parts.push(format!("client {:.0} %", sample.client_cpu_percent));
    parts.join("  ")
}

/// Standard error that is gone is no reason to stop.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
