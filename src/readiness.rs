//! Whether new connections are welcome, and if not, why.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;

/// The reasons why the gateway should get no new connections; ready when there are none.
///
/// Cheap to clone; all clones share the reasons.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<RwLock<BTreeMap<Cause, Since>>>);

/// Why the gateway is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The parts are being put together.
    Starting,
    /// The gateway is shutting down.
    Draining,
    /// There are no keys yet to verify tokens by.
    KeysMissing,
    /// As many connections are open as may be.
    Full,
    /// The connections take more memory than they should.
    MemoryShort,
    /// A shard does not come round.
    ShardStalled,
}

/// One cause as an operator reads it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reason {
    /// For programs.
    pub reason: Cause,
    /// For people: what it is, with figures.
    pub detail: String,
    /// For how long.
    pub for_seconds: f64,
}

#[derive(Clone, Debug)]
struct Since {
    detail: String,
    /// In nanoseconds of the gateway's clock.
    at: u64,
}

impl Readiness {
    /// Adds a cause that has been there since `at`, in nanoseconds of the gateway's clock, or gives it another detail; not
    /// ready from here on.
    pub fn block(&self, cause: Cause, detail: impl Into<String>, at: u64) {
        let mut causes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let detail = detail.into();
        match causes.get_mut(&cause) {
            Some(since) => since.detail = detail,
            None => drop(causes.insert(cause, Since { detail, at })),
        }
    }

    /// Takes a cause away, if it is there.
    pub fn clear(&self, cause: Cause) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&cause);
    }

    /// Whether there is no cause against it.
    pub fn is_ready(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// All causes, the most fundamental first. `now` is in nanoseconds of the gateway's clock.
    pub fn reasons(&self, now: u64) -> Vec<Reason> {
        let causes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let reason = |(cause, since): (&Cause, &Since)| Reason {
            reason: *cause,
            detail: since.detail.clone(),
            for_seconds: std::time::Duration::from_nanos(now.saturating_sub(since.at)).as_secs_f64(),
        };
        causes.iter().map(reason).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn is_ready_when_every_cause_was_taken_away() {
        let ready = Readiness::default();
        ready.block(Cause::ShardStalled, "shard 1", 0);
        ready.clone().block(Cause::Draining, "stopping", 0);
        ready.clear(Cause::ShardStalled);

        assert!(!ready.is_ready());
        ready.clear(Cause::Draining);

        assert!(ready.is_ready());
        assert_eq!(ready.reasons(0), []);
    }

    #[test]
    fn a_cause_keeps_its_beginning_when_its_detail_changes() {
        let ready = Readiness::default();
        ready.block(Cause::ShardStalled, "shard 1 for 1 s", SECOND);
        ready.block(Cause::ShardStalled, "shard 1 for 2 s", 2 * SECOND);

        let reasons = ready.reasons(4 * SECOND);

        let detail = "shard 1 for 2 s".to_owned();
        assert_eq!(reasons, [Reason { reason: Cause::ShardStalled, detail, for_seconds: 3.0 }]);
        let json = serde_json::to_string(&reasons).unwrap();
        assert_eq!(json, r#"[{"reason":"shard_stalled","detail":"shard 1 for 2 s","for_seconds":3.0}]"#);
    }
}
