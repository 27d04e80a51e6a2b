//! The sequencer of one room: its offsets, its history, who is in it, and the shards it has members on.

mod life;
mod reading;
mod said;

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use smallvec::SmallVec;

use super::RoomOptions;
use super::heat::Heat;
use crate::history::{Budget, History};
use crate::id::{RoomId, RoomKey, ShardIndex};
use crate::inbox::Outlet;
use crate::presence::Presence;
use crate::ws::PreparedMessage;

pub(super) use life::{Entered, RoomLook};
pub use reading::{HistoryPage, Passage, Portion, Start};
pub use said::{Excluded, Said, Text};

/// One life of a room, as the shards with members share it: from its first member to its last, and beyond that for as long as
/// its history or somebody's return is waited for.
///
/// Invariant: publications enter the inbox of each of those shards in the order of their offsets,
/// because offsets are taken and inboxes filled under one lock.
#[derive(Debug)]
pub struct Room {
    id: Option<RoomId>,
    epoch: u64,
    options: RwLock<RoomOptions>,
    sequencer: Mutex<Sequencer>,
}

/// Where a reader stands in what was said in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamPosition {
    /// Which life of the room: offsets of another one mean nothing here.
    pub epoch: u64,
    /// The last publication before the reader; 0 when there was none.
    pub offset: u64,
}

/// What a shard has done with publications, whose bytes are sealed into a batch that all members were given, or dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// The sum of their frames' lengths.
    pub bytes: usize,
    /// How many were given to members, once for each.
    pub deliveries: usize,
}

/// Something on the way is full. Nobody was given the message, and it has no place in any order:
/// the sender is held back, not read from, until there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much is on its way already")]
pub struct Busy;

impl Room {
    /// A room that begins at `now` nanoseconds; what it keeps is counted in `budget`. Whether anybody `tells` of users that come
    /// and go, if it is known who is there.
    pub(super) fn new(
        id: Option<RoomId>,
        epoch: u64,
        options: RoomOptions,
        (budget, tells, now): (&Budget, bool, u64),
    ) -> Self {
        let history = options.history.map(|limits| {
            let mut history = Box::new(History::new(0, limits, budget.clone()));
            // Until the first shard comes in.
            history.set_alone(true);
            history
        });
        let presence = options.presence.is_kept();
        let presence = presence.then(|| Box::new(Presence::new(tells)));
        let sequencer = Sequencer { history, presence, quiet_since: now, ..Sequencer::default() };
        Self { id, epoch, options: RwLock::new(options), sequencer: Mutex::new(sequencer) }
    }

    /// Its name; the room of everyone has none.
    pub fn id(&self) -> Option<&RoomId> {
        self.id.as_ref()
    }

    /// Which life of the room this is; unique in the process.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How it is run.
    pub fn options(&self) -> RoomOptions {
        *self.options.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the room stands.
    ///
    /// A shard that has members in it receives every later publication, and may still have earlier
    /// ones in its inbox: a new member is to get only offsets above this one.
    pub fn position(&self) -> StreamPosition {
        self.position_of(&self.lock())
    }

    /// Everything that has happened in this life of the room.
    pub fn heat(&self) -> Heat {
        self.lock().heat
    }

    /// Counts at `now` nanoseconds what a shard's members were given, and gives back what it occupied on its way to them.
    ///
    /// There is nothing to give back for a shard that has left: leaving gave everything back.
    pub fn release(&self, shard: ShardIndex, key: RoomKey, served: Served, now: u64) {
        let Served { bytes, deliveries } = served;
        let mut sequencer = self.lock();
        sequencer.heat.add_deliveries(deliveries, now);
        let target = sequencer.targets.iter_mut().find(|target| target.shard == shard && target.key == key);
        if let Some(target) = target {
            debug_assert!(bytes <= target.pending_bytes, "released more than was published");
            target.pending_bytes = target.pending_bytes.saturating_sub(bytes);
        }
    }

    /// Gives a message its offset and to each shard with members, or does neither; `now` is in nanoseconds.
    ///
    /// `pending_bytes_max` bounds what may be on its way to one shard; a single message larger than
    /// that passes when nothing else is.
    pub(super) fn publish(
        &self,
        outlets: &[Outlet],
        said: Said,
        now: u64,
        pending_bytes_max: usize,
    ) -> Result<u64, Busy> {
        Self::publish_under(self.lock(), outlets, said, (now, pending_bytes_max))
    }

    /// As [`Room::publish`], of somebody whom the room does not wait for; `None` when its life is over.
    pub(super) fn publish_unless_over(
        &self,
        outlets: &[Outlet],
        said: Said,
        now: u64,
        pending_bytes_max: usize,
    ) -> Result<Option<u64>, Busy> {
        let sequencer = self.lock();
        if sequencer.closed {
            return Ok(None);
        }
        Self::publish_under(sequencer, outlets, said, (now, pending_bytes_max)).map(Some)
    }

    fn publish_under(
        mut sequencer: MutexGuard<'_, Sequencer>,
        outlets: &[Outlet],
        said: Said,
        (now, pending_bytes_max): (u64, usize),
    ) -> Result<u64, Busy> {
        let mut wakes = SmallVec::<[_; SHARDS_INLINE]>::new();
        let offset = sequencer.offset + 1;
        let said = said.at(offset, now);
        let bytes = said.message.frame().len();
        let mut reservations = SmallVec::<[_; SHARDS_INLINE]>::new();
        for target in &sequencer.targets {
            if target.pending_bytes > 0 && target.pending_bytes + bytes > pending_bytes_max {
                return Err(Busy);
            }
            let outlet = &outlets[usize::from(target.shard.0)];
            reservations.push(outlet.reserve(bytes).map_err(|_| Busy)?);
        }
        sequencer.offset = offset;
        sequencer.quiet_since = now;
        sequencer.heat.add_message(bytes, said.origin.dispatched_at);
        if let Some(history) = &mut sequencer.history {
            if said.is_numbered {
                history.push(said.message.clone(), bytes, now);
            } else {
                // Said before the room had a history: who comes back could not tell its place.
                history.skip();
            }
        }
        for (target, reservation) in sequencer.targets.iter_mut().zip(reservations) {
            target.pending_bytes += bytes;
            wakes.push(reservation.push(said.command(target.shard, target.key)));
        }
        // Waking a thread is a system call, which nobody should wait for.
        drop(sequencer);
        drop(wakes);
        Ok(offset)
    }

    fn position_of(&self, sequencer: &Sequencer) -> StreamPosition {
        StreamPosition { epoch: self.epoch, offset: sequencer.offset }
    }

    /// No code panics between two changes that belong together, so a poisoned sequencer is still whole.
    fn lock(&self) -> MutexGuard<'_, Sequencer> {
        self.sequencer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Invariant: at most one target per shard; none when closed.
#[derive(Debug, Default)]
struct Sequencer {
    /// Of the last publication.
    offset: u64,
    heat: Heat,
    /// Closed for good: the last shard left, and nobody may enter.
    closed: bool,
    targets: SmallVec<[Target; 1]>,
    /// Since when nobody has said anything or left for good, in nanoseconds.
    quiet_since: u64,
    history: Option<Box<History<PreparedMessage>>>,
    /// Whether somebody was told that the room has members, and not since that it has none.
    is_told_of: bool,
    /// When somebody is going to look whether it has, in nanoseconds; none when nobody is.
    looked_at: Option<u64>,
    /// Who is here, where that is kept.
    presence: Option<Box<Presence>>,
}

/// A shard with members.
#[derive(Debug)]
struct Target {
    shard: ShardIndex,
    key: RoomKey,
    /// Published to the shard and not released by it.
    pending_bytes: usize,
}

/// A room on more shards than this costs an allocation per publication.
const SHARDS_INLINE: usize = 16;

#[cfg(test)]
mod tests;
