//! The places of connections, and whose place a newcomer gets when all are taken.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{AbortHandle, Id, JoinSet};

use crate::clock::Clock;

use super::activity::Activity;

/// Connections served at once.
pub const CONNECTIONS_MAX: usize = 64;

/// The connections that are served. A newcomer always gets a place: that of the connection whose peer has been waited
/// for longest, be it to ask or to read. Only while an answer is under way on every one, the newcomer has to wait for
/// the first of them to end.
///
/// Dropping it closes all.
pub(super) struct Places {
    clock: Clock,
    tasks: JoinSet<()>,
    taken: HashMap<Id, Place>,
    waits: Arc<Notify>,
}

struct Place {
    task: AbortHandle,
    activity: Arc<Activity>,
}

impl Places {
    pub(super) fn new(clock: Clock) -> Self {
        let (tasks, taken, waits) = Default::default();
        Self { clock, tasks, taken, waits }
    }

    /// Whether there is a place for a newcomer; who has to make room for it is closed.
    pub(super) fn make_room(&mut self) -> bool {
        if self.taken.len() < CONNECTIONS_MAX {
            return true;
        }
        let waited_for =
            self.taken.iter().filter_map(|(id, place)| Some((place.activity.waits_since()?, *id)));
        let Some((_, longest)) = waited_for.min_by_key(|(since, _)| *since) else { return false };
        if let Some(place) = self.taken.remove(&longest) {
            place.task.abort();
        }
        true
    }

    /// Gives a place, which there must be, to the connection that this begins.
    pub(super) fn give<F>(&mut self, converse: impl FnOnce(Arc<Activity>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        debug_assert!(self.taken.len() < CONNECTIONS_MAX);
        let activity = Activity::new(self.clock, Arc::clone(&self.waits));
        let task = self.tasks.spawn(converse(Arc::clone(&activity)));
        self.taken.insert(task.id(), Place { task, activity });
    }

    /// Closes those whose peers have been waited for so long.
    pub(super) fn close_after(&mut self, patience: Duration) {
        let now = self.clock.now();
        self.taken.retain(|_, place| {
            let since = place.activity.waits_since();
            let is_over =
                since.is_some_and(|since| Duration::from_nanos(now.saturating_sub(since)) >= patience);
            if is_over {
                place.task.abort();
            }
            !is_over
        });
    }

    /// Waits until a place may have become free. Safe to cancel.
    pub(super) async fn changed(&mut self) {
        tokio::select! {
            Some(ended) = self.tasks.join_next_with_id() => {
                // A panic there was reported by the panic hook.
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                self.taken.remove(&id);
            }
            () = self.waits.notified() => {}
        }
    }

    /// Waits until all have ended.
    pub(super) async fn ended(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}
