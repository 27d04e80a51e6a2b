//! Has the keys of tokens refreshed, where they can change.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::auth::{Mode, Verifier};
use crate::clock::Clock;
use crate::config::Config;
use crate::jwks::{Parts, Refresher, SourceError};
use crate::metrics::{JwksMetrics, Recorder};
use crate::readiness::Readiness;

/// Starts the refreshing, which ends when the set is dropped. A file is read before this returns.
pub(super) fn start(
    config: &Config,
    verifier: &Arc<Verifier>,
    recorder: &Recorder,
    ready: &Readiness,
    clock: Clock,
) -> Result<JoinSet<()>, SourceError> {
    let mut tasks = JoinSet::new();
    let (verifier, metrics, ready) = (Arc::clone(verifier), JwksMetrics::new(recorder), ready.clone());
    if let Some(given) = config.auth.jwks.as_ref().filter(|_| config.auth.mode == Mode::Jwt) {
        let parts = Parts { verifier, metrics, ready, clock };
        tasks.spawn(Refresher::new(given, &config.jwks, parts)?.run());
    }
    Ok(tasks)
}
