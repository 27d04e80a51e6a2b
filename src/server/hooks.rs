//! Has the application told what happens in rooms, where it wants to be.

use std::hash::{BuildHasher as _, RandomState};

use crate::clock::Clock;
use crate::config::Config;
use crate::egress::TrustError;
use crate::metrics::{Recorder, WebhookMetrics};
use crate::webhooks::{Parts, Webhooks};

use super::Signals;

/// Starts it; whoever ends the gateway also finishes it.
pub(super) fn start(config: &Config, recorder: &Recorder, clock: Clock) -> Result<Webhooks, TrustError> {
    let (node, metrics) = (config.shard.node.clone(), WebhookMetrics::new(recorder));
    Webhooks::start(&config.webhooks, Parts { node, metrics, clock, random })
}

/// Tells what is left to be told, where that may take some seconds, and ends at once with a signal.
pub(super) async fn finish(hooks: Webhooks, signals: &mut Signals, may_wait: bool) {
    if !may_wait {
        return;
    }
    tokio::select! {
        () = hooks.finish() => {}
        () = signals.next() => {}
    }
}

/// The standard library seeds its hashers from the system's random source.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}
