//! How a room begins and ends: shards that come and go, users that are told of, and what is kept without members.

use std::sync::PoisonError;
use std::time::Duration;

use super::{Room, Sequencer, StreamPosition, Target};
use crate::history::{Budget, History};
use crate::hub::RoomOptions;
use crate::id::{RoomKey, ShardIndex, UserId};
use crate::presence::{Look, Page};
use crate::ws::PreparedMessage;

/// A history that is not in a room any more.
type Kept = Option<Box<History<PreparedMessage>>>;

/// A shard has come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::hub) struct Entered {
    pub(in crate::hub) position: StreamPosition,
    /// Whether no shard was in the room before.
    pub(in crate::hub) is_first: bool,
}

/// A shard has gone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::hub) struct Evicted {
    /// Whether no shard is left.
    pub(in crate::hub) is_last: bool,
    /// Whether the room's life has ended just here; the caller then takes it out of the directory.
    pub(in crate::hub) is_over: bool,
}

/// What a look at a room finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::hub) enum RoomLook {
    /// It is to be told that the room has members.
    Occupied,
    /// It is to be told that it has none.
    Vacated,
    /// To be looked at again at this time, in nanoseconds.
    Later(u64),
    /// Nothing has to be told.
    Settled,
}

impl Room {
    /// Lets a shard with its first member in.
    ///
    /// `None` when the room's life is over; the caller then looks for the next one.
    pub(in crate::hub) fn enter(&self, shard: ShardIndex, key: RoomKey) -> Option<Entered> {
        let mut sequencer = self.lock();
        if sequencer.closed {
            return None;
        }
        debug_assert!(sequencer.targets.iter().all(|target| target.shard != shard), "a shard enters once");
        let is_first = sequencer.targets.is_empty();
        if let Some(history) = sequencer.history.as_mut().filter(|_| is_first) {
            history.set_alone(false);
        }
        sequencer.targets.push(Target { shard, key, pending_bytes: 0 });
        Some(Entered { position: self.position_of(&sequencer), is_first })
    }

    /// Lets a shard without members out at `now`. The last one ends the life of a room that has a name and nothing to keep.
    ///
    /// `None` when the shard is not in the room.
    pub(in crate::hub) fn evict(&self, shard: ShardIndex, budget: &Budget, now: u64) -> Option<Evicted> {
        let mut sequencer = self.lock();
        let index = sequencer.targets.iter().position(|target| target.shard == shard)?;
        sequencer.targets.swap_remove(index);
        if !sequencer.targets.is_empty() {
            return Some(Evicted::default());
        }
        sequencer.quiet_since = now;
        let (is_over, history) = self.end_unless_kept(&mut sequencer, budget, now);
        // Freeing much takes a while, for which nobody should wait.
        drop(sequencer);
        drop(history);
        Some(Evicted { is_last: true, is_over })
    }

    /// Drops what is too old, and ends a room that nobody is in and that is kept for nothing; true when it ended just here.
    pub(in crate::hub) fn sweep(&self, budget: &Budget, now: u64) -> bool {
        let mut sequencer = self.lock();
        if let Some(history) = &mut sequencer.history {
            history.drop_aged(now);
        }
        if sequencer.closed || !sequencer.targets.is_empty() {
            return false;
        }
        let (is_over, history) = self.end_unless_kept(&mut sequencer, budget, now);
        drop(sequencer);
        drop(history);
        is_over
    }

    /// Whether a room without members is over, and then its history.
    fn end_unless_kept(&self, sequencer: &mut Sequencer, budget: &Budget, now: u64) -> (bool, Kept) {
        sequencer.closed = self.id.is_some() && !sequencer.is_kept(budget, now);
        if sequencer.closed {
            return (true, sequencer.history.take());
        }
        if let Some(history) = &mut sequencer.history {
            history.set_alone(true);
        }
        (false, None)
    }

    /// Since when the room has been quiet, and what its history takes, if it has any of it.
    pub(in crate::hub) fn quiet_history(&self) -> Option<(u64, usize)> {
        let sequencer = self.lock();
        let history = sequencer.history.as_ref().filter(|history| !history.is_empty())?;
        Some((sequencer.quiet_since, history.bytes()))
    }

    /// Forgets what was said.
    pub(in crate::hub) fn forget_history(&self) {
        let forgotten = self.lock().history.as_mut().map(|history| history.clear());
        drop(forgotten);
    }

    /// Is run by these options from here on, but for what slow members are owed and for presence, which stay as they were when
    /// the room began.
    pub(in crate::hub) fn set_options(&self, options: RoomOptions, budget: &Budget) {
        let mut sequencer = self.lock();
        let RoomOptions { overflow, presence, .. } = self.options();
        let options = RoomOptions { overflow, presence, ..options };
        let (offset, is_closed) = (sequencer.offset, sequencer.closed);
        let is_alone = sequencer.targets.is_empty();
        let mut freed = None;
        match (&mut sequencer.history, options.history) {
            (Some(history), Some(limits)) => history.set_limits(limits),
            (kept @ None, Some(limits)) if !is_closed => {
                let mut history = Box::new(History::new(offset, limits, budget.clone()));
                history.set_alone(is_alone);
                *kept = Some(history);
            }
            (kept, _) => freed = kept.take(),
        }
        *self.options.write().unwrap_or_else(PoisonError::into_inner) = options;
        drop(sequencer);
        drop(freed);
    }

    /// A connection of a user is in the room from `now` on. The time to look at the user, if the others are to be told.
    pub(in crate::hub) fn arrive(&self, user: &UserId, shard: ShardIndex, now: u64) -> Option<u64> {
        self.lock().presence.as_mut()?.arrive(user, shard, now)
    }

    /// A connection of a user is not in the room any more; as [`Presence::depart`](crate::presence::Presence::depart).
    pub(in crate::hub) fn depart(&self, user: &UserId, shard: ShardIndex, leaves_at: u64) -> Option<u64> {
        self.lock().presence.as_mut()?.depart(user, shard, leaves_at)
    }

    /// None of a shard's connections is in the room any more. The users to look at, and when.
    pub(in crate::hub) fn forget(&self, shard: ShardIndex, leaves_at: u64) -> Vec<(UserId, u64)> {
        let mut sequencer = self.lock();
        sequencer.presence.as_mut().map(|presence| presence.forget(shard, leaves_at)).unwrap_or_default()
    }

    /// As [`Presence::look`](crate::presence::Presence::look).
    pub(in crate::hub) fn look(&self, user: &UserId, now: u64, told_max: usize) -> Look {
        let mut sequencer = self.lock();
        sequencer.presence.as_mut().map_or(Look::Settled, |presence| presence.look(user, now, told_max))
    }

    /// As [`Presence::take_back`](crate::presence::Presence::take_back).
    pub(in crate::hub) fn take_back(&self, user: &UserId, look: Look, again_at: u64) {
        if let Some(presence) = &mut self.lock().presence {
            presence.take_back(user, look, again_at);
        }
    }

    /// Asks for a look at whether the room has members at `at`; false when one comes earlier anyway.
    pub(in crate::hub) fn call_for_look(&self, at: u64) -> bool {
        let mut sequencer = self.lock();
        let is_earlier = sequencer.looked_at.is_none_or(|other| at < other);
        if is_earlier {
            sequencer.looked_at = Some(at);
        }
        is_earlier
    }

    /// What is to be told at `now` of whether the room has members, if that has changed; it counts as told. That it has none is
    /// told when that has been so for long enough.
    pub(in crate::hub) fn look_at_members(&self, now: u64, damping: u64) -> RoomLook {
        let mut sequencer = self.lock();
        sequencer.looked_at = None;
        let has_members = !sequencer.targets.is_empty();
        if sequencer.is_told_of == has_members {
            return RoomLook::Settled;
        }
        let vacated_until = sequencer.quiet_since.saturating_add(damping);
        if !has_members && vacated_until > now {
            sequencer.looked_at = Some(vacated_until);
            return RoomLook::Later(vacated_until);
        }
        sequencer.is_told_of = has_members;
        if has_members { RoomLook::Occupied } else { RoomLook::Vacated }
    }

    /// Some of those who are in the room; `None` where that is not kept.
    pub fn present(&self, after: Option<&UserId>, limit: usize) -> Option<Page> {
        Some(self.lock().presence.as_ref()?.page(after, limit))
    }

    /// How many messages are kept, and what they take in bytes; `None` where there is no history.
    pub fn kept(&self) -> Option<(usize, usize)> {
        let sequencer = self.lock();
        sequencer.history.as_ref().map(|history| (history.len(), history.bytes()))
    }
}

impl Sequencer {
    /// Whether the room is to be there although nobody is in it.
    fn is_kept(&self, budget: &Budget, now: u64) -> bool {
        let is_waited_for = self.presence.as_ref().is_some_and(|presence| !presence.is_empty());
        let has_history = self.history.as_ref().is_some_and(|history| {
            let quiet_for = Duration::from_nanos(now.saturating_sub(self.quiet_since));
            // A room where nothing was said only keeps its epoch, for which nobody else is to lose something.
            quiet_for <= history.age() && (!history.is_empty() || budget.has_plenty())
        });
        is_waited_for || self.is_told_of || has_history
    }
}
