//! What somebody is to be told about rooms, and when that has to be looked at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Room;
use crate::id::UserId;

/// What to look at.
#[derive(Debug)]
pub(super) enum Item {
    /// Whether a user is in a room.
    User(Arc<Room>, UserId),
    /// Whether anybody is.
    Room(Arc<Room>),
}

/// Items by the time when they are due: of each room and each user in a room one, and another only for an earlier time, so that
/// they are bounded by what there is and was a moment ago.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    items: Mutex<Items>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Items {
    /// By time in nanoseconds, then by order.
    by_time: BTreeMap<(u64, u64), Item>,
    next: u64,
}

impl Agenda {
    pub(super) fn push(&self, at: u64, item: Item) {
        let is_first = {
            let mut items = self.lock();
            let key = (at, items.next);
            items.next += 1;
            items.by_time.insert(key, item);
            items.by_time.first_key_value().is_some_and(|(first, _)| *first == key)
        };
        if is_first {
            self.changed.notify_one();
        }
    }

    /// The next item that is due at `now`.
    pub(super) fn pop(&self, now: u64) -> Option<Item> {
        let mut items = self.lock();
        let due = items.by_time.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(due.remove())
    }

    /// When the next one is due.
    pub(super) fn next_at(&self) -> Option<u64> {
        self.lock().by_time.first_key_value().map(|((at, _), _)| *at)
    }

    /// Waits until an item has come that is due before all others. Safe to cancel.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Items> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
