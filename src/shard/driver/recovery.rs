//! What happens when a turn of the loop panics: the shard's clients are told, and it begins anew.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::{Driver, Next};

/// Panics within [`PANICS_TIME`] that a shard survives. With more, whatever causes them will not go away by itself, and the
/// process ends, so that it can be started anew.
const PANICS_MAX: u32 = 5;

/// In nanoseconds.
const PANICS_TIME: u64 = 60_000_000_000;

/// The panics of a shard that were not long ago.
#[derive(Default)]
pub(super) struct Panics {
    /// When the first of them was, in nanoseconds of the clock.
    since: u64,
    count: u32,
}

impl Panics {
    /// Counts one at `now`; false when there were too many.
    fn admit(&mut self, now: u64) -> bool {
        if now.saturating_sub(self.since) > PANICS_TIME {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count <= PANICS_MAX
    }
}

impl Driver {
    /// One turn. When it panics, the shard has begun anew before the next.
    pub(super) fn guarded_turn(&mut self) -> Next {
        // What a panic leaves half done is not looked at any more, see `Shard::restart`.
        match catch_unwind(AssertUnwindSafe(|| self.turn())) {
            Ok(next) => next,
            Err(panic) => {
                self.recover(panic);
                Next::Go
            }
        }
    }

    fn recover(&mut self, panic: Box<dyn Any + Send>) {
        if !self.panics.admit(self.clock.now()) {
            resume_unwind(panic);
        }
        let (shard, connections) = (self.shard.core.index.0, self.sockets.len());
        tracing::error!(
            shard,
            connections,
            "the shard panicked: its connections are closed, and it begins anew"
        );
        self.report.panicked();
        self.scans.clear();
        self.replies.clear();
        self.shard.restart();
        let clients = &self.shard.core.clients;
        self.sockets.retain(|key, _| clients.contains_key(key));
        self.readable.clear();
        // A socket whose reading was interrupted is not told of again.
        for (key, socket) in &mut self.sockets {
            socket.queued = true;
            self.readable.push_back(key);
        }
        self.more_events = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_five_panics_in_a_minute_and_not_six() {
        let mut panics = Panics::default();
        let second = 1_000_000_000;

        assert!((0..5).all(|at| panics.admit(100 * second + at * second)));
        assert!(panics.admit(161 * second), "the first ones are long ago");
        assert!((0..4).all(|_| panics.admit(162 * second)));
        assert!(!panics.admit(163 * second));
    }
}
