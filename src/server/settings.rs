//! Reads the configuration again on SIGHUP, and takes from it what can change while the gateway runs: the rules for
//! rooms, and the keys of the API.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;

use crate::admin::KeyRing;
use crate::clock::Clock;
use crate::config::{Config, Loaded, Mistake, Mistakes, Sources};
use crate::hub::Hub;
use crate::metrics::{ConfigMetrics, Recorder};

use super::Error;

/// What can change while the gateway runs.
const TAKEN: [&str; 2] = ["rooms", "api.keys"];

/// What is said when there are other rules for rooms.
const OF_ROOMS: &str = "; `overflow` and `presence` hold for rooms that begin from now on, all else of `rooms` for those that there are too";

/// The configuration in force, and where it is read from.
pub(super) struct Settings {
    hangup: Signal,
    sources: Sources,
    config: Config,
    hub: Arc<Hub>,
    keys: KeyRing,
    metrics: ConfigMetrics,
}

impl Settings {
    /// Takes SIGHUP from here on.
    pub(super) fn begin(
        config: Config,
        sources: Sources,
        (hub, keys): (Arc<Hub>, KeyRing),
        recorder: &Recorder,
    ) -> Result<Self, Error> {
        let hangup = signal(SignalKind::hangup()).map_err(Error::Start)?;
        let metrics = ConfigMetrics::new(recorder);
        metrics.is_successful.set(1.0);
        metrics.succeeded_at.set(Clock::since_epoch().as_secs_f64());
        Ok(Self { hangup, sources, config, hub, keys, metrics })
    }

    /// Goes on until it is dropped.
    pub(super) async fn run(mut self) {
        while self.hangup.recv().await.is_some() {
            let sources = self.sources.clone();
            // A disk may be slow, and keys are checked as well.
            match spawn_blocking(move || Config::load(&sources)).await.expect("it does not panic") {
                Ok(loaded) => self.take(loaded),
                Err(mistakes) => self.refuse(&mistakes),
            }
        }
    }

    fn take(&mut self, loaded: Loaded) {
        let changed = loaded.config.changed_from(&self.config);
        let (taken, left): (Vec<_>, Vec<_>) = changed.into_iter().partition(|key| TAKEN.contains(key));
        let was_guarded = !self.config.admin.keys.0.is_empty();
        self.hub.set_rules(loaded.config.hub.rooms.clone());
        self.config.hub.rooms = loaded.config.hub.rooms;
        self.keys.set(loaded.config.admin.keys.clone());
        self.config.admin.keys = loaded.config.admin.keys;
        self.metrics.is_successful.set(1.0);
        self.metrics.succeeded_at.set(Clock::since_epoch().as_secs_f64());
        let rooms = if taken.contains(&"rooms") { OF_ROOMS } else { "" };
        tracing::info!(taken = taken.join(", "), "SIGHUP: the configuration was read again{rooms}");
        // Of the others nothing is taken, so that these lines would tell nothing new.
        let is_taken = |told: &&Mistake| told.key().is_some_and(|key| TAKEN.contains(&key));
        for told in loaded.overridden.iter().chain(&loaded.warnings).filter(is_taken) {
            tracing::warn!(key = told.key(), "SIGHUP: {told}");
        }
        if was_guarded && self.config.admin.keys.0.is_empty() {
            tracing::warn!(
                "SIGHUP: the last of `api.keys` was taken away: /api/v1 is open to whoever reaches `admin_listen`"
            );
        }
        if !left.is_empty() {
            tracing::warn!(keys = left.join(", "), "these have changed as well, and need a restart");
        }
    }

    fn refuse(&self, mistakes: &Mistakes) {
        self.metrics.is_successful.set(0.0);
        for mistake in &mistakes.0 {
            tracing::error!(key = mistake.key(), "SIGHUP: {mistake}");
        }
        tracing::error!("SIGHUP: the configuration has mistakes, so that the old one stays in force");
    }
}
