//! Keeps the keys of tokens fresh: reads them from a file or an address, again and again, while the gateway runs.
//!
//! The keys belong to the [`Verifier`], which is given each set as a whole; what cannot be read leaves it the one that it
//! has. `schedule` decides when, `source` reads.

mod schedule;
mod source;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::auth::{self, JwksSource, KeySet, SetError, SetRules, Verifier};
use crate::clock::Clock;
use crate::log::Repeats;
use crate::metrics::{JwksMetrics, Refresh};
use crate::readiness::{Cause, Readiness};

use schedule::Schedule;
pub use source::{ReadError, SourceError, is_open_to_others, locate};
use source::{Source, read_file};

/// How often is looked whether it is time to read, or whether a token came with an unknown key.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often a file is read.
const FILE_EVERY: Duration = Duration::from_secs(2);
/// The least `refresh`.
pub const REFRESH_MIN: Duration = Duration::from_secs(1);

/// How the keys are read.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often an address is asked; at least [`REFRESH_MIN`].
    pub refresh: Duration,
    /// PEM text of certificates that are trusted beside the system's.
    pub ca: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { refresh: Duration::from_secs(5 * 60), ca: None }
    }
}

/// Everything that the refreshing works with.
pub struct Parts {
    /// Whose keys they are.
    pub verifier: Arc<Verifier>,
    /// What it counts.
    pub metrics: JwksMetrics,
    /// Where it says that there are no keys yet.
    pub ready: Readiness,
    /// The process's monotonic time.
    pub clock: Clock,
}

/// Whether the keys can be read as configured: a file is read, an address is not asked.
///
/// # Errors
///
/// [`SourceError`].
pub fn check(auth: &auth::Options, options: &Options) -> Result<(), SourceError> {
    let Some(given) = &auth.jwks else { return Ok(()) };
    if let Source::File(path) = Source::new(given, options.ca.as_deref())? {
        KeySet::parse(&read_file(&path)?, &SetRules::of(auth))?;
    }
    Ok(())
}

/// Reads the keys and hands them on.
pub struct Refresher {
    source: Source,
    schedule: Schedule,
    /// The set in force as it was read, to tell whether another one is the same.
    text: Vec<u8>,
    parts: Parts,
    repeats: Repeats,
}

impl Refresher {
    /// Reads a file at once. An address is asked by [`Refresher::run`]; until it has answered, the gateway is not ready.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    pub fn new(given: &JwksSource, options: &Options, parts: Parts) -> Result<Self, SourceError> {
        let source = Source::new(given, options.ca.as_deref())?;
        let every = if matches!(source, Source::File(_)) { FILE_EVERY } else { options.refresh };
        let schedule = Schedule::new(every);
        let mut refresher = Self { source, schedule, text: Vec::new(), parts, repeats: Repeats::default() };
        if let Source::File(path) = &refresher.source {
            let text = read_file(path)?;
            refresher.take(text)?;
        } else {
            let now = refresher.parts.clock.now();
            refresher.parts.ready.block(Cause::KeysMissing, "`auth.jwks` has not been read yet", now);
        }
        Ok(refresher)
    }

    /// Refreshes until it is dropped.
    pub async fn run(mut self) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let now = self.parts.clock.now();
            if self.parts.verifier.take_missed_key() {
                self.schedule.bring_forward(now);
            }
            if self.schedule.is_due(now) {
                self.refresh().await;
            }
        }
    }

    async fn refresh(&mut self) {
        let outcome = match self.source.read().await {
            Ok(text) => self.take(text).map_err(|error| format!("what was read {error}")),
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = outcome {
            self.fail(&reason);
        }
    }

    /// Puts what was read in force.
    fn take(&mut self, text: Vec<u8>) -> Result<(), SetError> {
        if text != self.text {
            let set = self.parts.verifier.replace_set(&text)?;
            tracing::info!(keys = set.len(), skipped = %set.skipped(), "the keys of tokens are taken from `auth.jwks`");
            self.text = text;
        }
        // Whatever was missed up to here may be in this set; who missed it comes back and says so if not.
        self.parts.verifier.take_missed_key();
        let now = self.parts.clock.now();
        self.schedule.succeeded(now);
        self.parts.metrics.refreshes[Refresh::Ok].increment(1);
        self.parts.metrics.last_success.set(Clock::since_epoch().as_secs_f64());
        self.parts.ready.clear(Cause::KeysMissing);
        Ok(())
    }

    fn fail(&mut self, reason: &str) {
        let now = self.parts.clock.now();
        self.schedule.failed(now);
        self.parts.metrics.refreshes[Refresh::Error].increment(1);
        if self.text.is_empty() {
            let detail = format!("`auth.jwks` could not be read: {reason}");
            self.parts.ready.block(Cause::KeysMissing, detail, now);
        }
        if let Some(left_out) = self.repeats.admit(now) {
            tracing::warn!(
                reason,
                left_out,
                "`auth.jwks` could not be read; what was read before stays in force"
            );
        }
    }
}
