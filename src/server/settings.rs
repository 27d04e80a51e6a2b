//! Reads the configuration again on SIGHUP, and takes from it what can change while the gateway runs: the rules for
//! rooms, and the keys of the API.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;

use crate::admin::KeyRing;
use crate::clock::Clock;
use crate::config::{Config, Loaded, Mistakes, Sources};
use crate::hub::Hub;
use crate::metrics::{ConfigMetrics, Recorder};

use super::Error;

/// What can change while the gateway runs.
const TAKEN: [&str; 2] = ["rooms", "api.keys"];

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
        self.hub.set_rules(loaded.config.hub.rooms.clone());
        self.config.hub.rooms = loaded.config.hub.rooms;
        self.keys.set(loaded.config.admin.keys.clone());
        self.config.admin.keys = loaded.config.admin.keys;
        self.metrics.is_successful.set(1.0);
        self.metrics.succeeded_at.set(Clock::since_epoch().as_secs_f64());
        tracing::info!(taken = taken.join(", "), "SIGHUP: the configuration was read again");
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
