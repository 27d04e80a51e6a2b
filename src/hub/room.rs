//! The sequencer of one room: its offsets, and the shards it has members on.

use std::sync::{Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use super::RoomOptions;
use super::heat::Heat;
use crate::id::{ClientId, ClientKey, MessageKey, RoomId, RoomKey, ShardIndex};
use crate::inbox::{Command, Origin, Outlet, Publication};
use crate::metrics::Source;
use crate::ws::{Draft, PreparedMessage};

/// One life of a room, from its first member to its last, as the shards with members share it.
///
/// Invariant: publications enter the inbox of each of those shards in the order of their offsets,
/// because offsets are taken and inboxes filled under one lock.
#[derive(Debug)]
pub struct Room {
    id: Option<RoomId>,
    epoch: u64,
    options: RoomOptions,
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
    pub(super) fn new(id: Option<RoomId>, epoch: u64, options: RoomOptions) -> Self {
        Self { id, epoch, options, sequencer: Mutex::new(Sequencer::default()) }
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
        self.options
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

    /// Lets a shard with its first member in.
    ///
    /// `None` when the room's life is over; the caller then looks for the next one.
    pub(super) fn enter(&self, shard: ShardIndex, key: RoomKey) -> Option<StreamPosition> {
        let mut sequencer = self.lock();
        if sequencer.closed {
            return None;
        }
        debug_assert!(sequencer.targets.iter().all(|target| target.shard != shard), "a shard enters once");
        sequencer.targets.push(Target { shard, key, pending_bytes: 0 });
        Some(self.position_of(&sequencer))
    }

    /// Lets a shard without members out. The last one ends the life of a room that has a name.
    ///
    /// True when it ended just here; the caller then takes the room out of the directory.
    pub(super) fn exit(&self, shard: ShardIndex) -> bool {
        let has_left = self.evict(shard);
        debug_assert!(has_left.is_some(), "a shard leaves once");
        has_left.unwrap_or(false)
    }

    /// As [`Room::exit`], for a shard that may not be in the room; `None` when it is not.
    pub(super) fn evict(&self, shard: ShardIndex) -> Option<bool> {
        let mut sequencer = self.lock();
        let index = sequencer.targets.iter().position(|target| target.shard == shard)?;
        sequencer.targets.swap_remove(index);
        sequencer.closed = sequencer.targets.is_empty() && self.id.is_some();
        Some(sequencer.closed)
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
        let mut wakes = SmallVec::<[_; SHARDS_INLINE]>::new();
        let mut sequencer = self.lock();
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
        sequencer.heat.add_message(bytes, said.origin.dispatched_at);
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

/// What is to be published.
#[derive(Debug)]
pub struct Said {
    /// The message.
    pub text: Text,
    /// What it is about, where that matters.
    pub key: Option<MessageKey>,
    /// The client that does not get it, and its shard.
    pub exclude: Option<(ShardIndex, Excluded)>,
    /// What kind of publisher said it.
    pub source: Source,
    /// When the request was read, in nanoseconds of the gateway's clock.
    pub read_at: u64,
}

/// Who does not get a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excluded {
    /// The client in this place of its shard, which knows that this may come.
    Key(ClientKey),
    /// The one with this number, for its shard to find.
    Id(ClientId),
}

/// A message that is to be published.
#[derive(Debug)]
pub enum Text {
    /// As it is.
    Whole(PreparedMessage),
    /// It says its offset.
    Numbered(Draft),
}

impl Said {
    fn at(self, offset: u64, dispatched_at: u64) -> Placed {
        let Self { text, key, exclude, source, read_at } = self;
        let message = match text {
            Text::Whole(message) => message,
            Text::Numbered(draft) => draft.with_number(offset),
        };
        let origin = Origin { source, read_at, dispatched_at };
        Placed { message, offset, key, exclude, origin }
    }
}

/// What is published at its place in the room's order.
struct Placed {
    message: PreparedMessage,
    offset: u64,
    key: Option<MessageKey>,
    exclude: Option<(ShardIndex, Excluded)>,
    origin: Origin,
}

impl Placed {
    /// What a shard is told of it, where it knows the room as `room`.
    fn command(&self, to: ShardIndex, room: RoomKey) -> Command {
        let excluded = self.exclude.and_then(|(shard, excluded)| (shard == to).then_some(excluded));
        let exclude = match excluded {
            Some(Excluded::Key(key)) => Some(key),
            Some(Excluded::Id(_)) | None => None,
        };
        let (offset, origin) = (self.offset, self.origin);
        let publication =
            Publication { offset, message: self.message.clone(), key: self.key.clone(), exclude, origin };
        match excluded {
            Some(Excluded::Id(except)) => Command::PublishBut { room, publication, except },
            Some(Excluded::Key(_)) | None => Command::Publish { room, publication },
        }
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
mod tests {
    use std::collections::VecDeque;

    use slotmap::KeyData;

    use super::*;
    use crate::inbox::{Inbox, Limits};
    use crate::inspect::Recent;

    #[test]
    fn gives_offsets_from_one_and_to_each_shard_with_members_only() {
        let (outlets, inboxes) = shards(3, Limits::default());
        let room = room();
        room.enter(ShardIndex(0), key(7)).unwrap();
        room.enter(ShardIndex(2), key(9)).unwrap();

        assert_eq!(room.publish(&outlets, said(10), 0, 1 << 20), Ok(1));
        assert_eq!(room.publish(&outlets, said(10), 0, 1 << 20), Ok(2));

        assert_eq!(received(&inboxes[0]), [(key(7), 1, None), (key(7), 2, None)]);
        assert_eq!(received(&inboxes[1]), []);
        assert_eq!(received(&inboxes[2]), [(key(9), 1, None), (key(9), 2, None)]);
        assert_eq!(room.position(), StreamPosition { epoch: 77, offset: 2 });
    }

    #[test]
    fn a_numbered_message_says_the_offset_that_it_is_given() {
        let (outlets, inboxes) = shards(1, Limits::default());
        let room = room();
        room.enter(ShardIndex(0), key(7)).unwrap();
        for _ in 0..12 {
            let text = Text::Numbered(Draft::new(b"at ", b"!"));
            room.publish(&outlets, Said { text, ..said(0) }, 0, 1 << 20).unwrap();
        }

        let mut commands = VecDeque::new();
        inboxes[0].take_all(&mut commands);
        for (offset, command) in (1..).zip(commands) {
            let Command::Publish { publication, .. } = command else { panic!("{command:?}") };
            assert_eq!(publication.message.payload(), format!("at {offset}!").as_bytes());
        }
        assert_eq!(room.position().offset, 12);
    }

    #[test]
    fn names_the_excluded_client_to_its_own_shard_only() {
        let (outlets, inboxes) = shards(2, Limits::default());
        let room = room();
        room.enter(ShardIndex(0), key(1)).unwrap();
        room.enter(ShardIndex(1), key(2)).unwrap();
        let client = ClientKey::from(KeyData::from_ffi(5 << 32 | 3));
        let said = Said { exclude: Some((ShardIndex(1), Excluded::Key(client))), ..said(10) };

        room.publish(&outlets, said, 0, 1 << 20).unwrap();

        assert_eq!(received(&inboxes[0]), [(key(1), 1, None)]);
        assert_eq!(received(&inboxes[1]), [(key(2), 1, Some(client))]);
    }

    #[test]
    fn reaches_no_shard_when_one_inbox_is_full() {
        let (outlets, inboxes) = shards(2, Limits { bytes: 1 << 20, items: 1 });
        let room = room();
        room.enter(ShardIndex(0), key(1)).unwrap();
        room.enter(ShardIndex(1), key(2)).unwrap();
        let taken = outlets[1].reserve(1).unwrap();

        assert_eq!(room.publish(&outlets, said(10), 0, 1 << 20), Err(Busy));
        assert_eq!(received(&inboxes[0]), []);
        drop(taken);

        assert_eq!(room.publish(&outlets, said(10), 0, 1 << 20), Ok(1), "no offset was lost");
        assert_eq!(received(&inboxes[0]).len(), 1);
        assert_eq!(received(&inboxes[1]).len(), 1);
    }

    #[test]
    fn is_busy_until_each_shard_released_what_is_on_its_way() {
        let (outlets, inboxes) = shards(2, Limits::default());
        let room = room();
        room.enter(ShardIndex(0), key(1)).unwrap();
        room.enter(ShardIndex(1), key(2)).unwrap();
        let frame = frame_bytes(100);
        let max = frame * 3 / 2;

        assert_eq!(room.publish(&outlets, said(100), 0, max), Ok(1));
        assert_eq!(room.publish(&outlets, said(100), 0, max), Err(Busy));
        room.release(ShardIndex(0), key(1), served(frame), 0);
        assert_eq!(room.publish(&outlets, said(100), 0, max), Err(Busy), "shard 1 has not");
        room.release(ShardIndex(1), key(2), served(frame), 0);

        assert_eq!(room.publish(&outlets, said(100), 0, max), Ok(2));
        assert_eq!(received(&inboxes[0]).len(), 2);
    }

    #[test]
    fn a_message_over_the_bound_passes_when_nothing_is_on_its_way() {
        let (outlets, _inboxes) = shards(1, Limits::default());
        let room = room();
        room.enter(ShardIndex(0), key(1)).unwrap();

        assert_eq!(room.publish(&outlets, said(1000), 0, 10), Ok(1));
        assert_eq!(room.publish(&outlets, said(1), 0, 10), Err(Busy));
    }

    #[test]
    fn a_shard_that_leaves_gives_back_what_was_on_its_way_to_it() {
        let (outlets, _inboxes) = shards(2, Limits::default());
        let room = room();
        room.enter(ShardIndex(0), key(1)).unwrap();
        room.enter(ShardIndex(1), key(2)).unwrap();
        let frame = frame_bytes(100);
        room.publish(&outlets, said(100), 0, frame).unwrap();
        room.release(ShardIndex(0), key(1), served(frame), 0);

        room.exit(ShardIndex(1));
        room.enter(ShardIndex(1), key(3)).unwrap();
        room.release(ShardIndex(1), key(2), served(frame), 0);

        assert_eq!(room.publish(&outlets, said(100), 0, frame), Ok(2));
    }

    #[test]
    fn counts_what_happened_on_all_shards_also_on_those_that_have_left() {
        let (outlets, _inboxes) = shards(2, Limits::default());
        let room = room();
        room.enter(ShardIndex(1), key(2)).unwrap();
        let frame = frame_bytes(100);
        for _ in 0..50 {
            room.publish(&outlets, said(100), 0, 1 << 20).unwrap();
        }
        room.release(ShardIndex(1), key(2), Served { bytes: 50 * frame, deliveries: 50 }, 0);
        room.enter(ShardIndex(0), key(1)).unwrap();
        for _ in 0..10 {
            room.publish(&outlets, said(100), 0, 1 << 20).unwrap();
        }
        room.exit(ShardIndex(1));
        room.release(ShardIndex(0), key(1), Served { bytes: 10 * frame, deliveries: 20 }, 0);

        let heat = room.heat();
        assert_eq!((heat.messages, heat.bytes, heat.deliveries), (60, 60 * frame as u64, 70));
        assert_eq!(heat.recent(0), Recent { messages: 60, bytes: 60 * frame as u64, deliveries: 70 });
    }

    #[test]
    fn is_over_when_the_last_shard_left() {
        let room = room();
        room.enter(ShardIndex(0), key(1)).unwrap();
        room.enter(ShardIndex(1), key(2)).unwrap();

        assert!(!room.exit(ShardIndex(0)));
        assert!(room.exit(ShardIndex(1)));
        assert_eq!(room.enter(ShardIndex(0), key(3)), None);
    }

    #[test]
    fn the_room_without_a_name_is_never_over() {
        let (outlets, inboxes) = shards(1, Limits::default());
        let room = Room::new(None, 77, RoomOptions::default());
        room.enter(ShardIndex(0), key(1)).unwrap();

        assert!(!room.exit(ShardIndex(0)));
        assert_eq!(room.publish(&outlets, said(1), 0, 10), Ok(1), "to nobody");
        assert_eq!(room.enter(ShardIndex(0), key(2)), Some(StreamPosition { epoch: 77, offset: 1 }));
        assert_eq!(received(&inboxes[0]), []);
    }

    fn served(bytes: usize) -> Served {
        Served { bytes, deliveries: 0 }
    }

    fn room() -> Room {
        Room::new(Some(RoomId::parse("lobby").unwrap()), 77, RoomOptions::default())
    }

    fn said(payload_bytes: usize) -> Said {
        let text = Text::Whole(PreparedMessage::text(&vec![b'x'; payload_bytes]));
        Said { text, key: None, exclude: None, source: Source::Client, read_at: 0 }
    }

    fn frame_bytes(payload_bytes: usize) -> usize {
        PreparedMessage::text(&vec![b'x'; payload_bytes]).frame().len()
    }

    fn key(number: u64) -> RoomKey {
        RoomKey::from(KeyData::from_ffi(1 << 32 | number))
    }

    fn shards(count: usize, limits: Limits) -> (Vec<Outlet>, Vec<Inbox>) {
        (0..count).map(|_| Inbox::pair(limits)).unzip()
    }

    fn received(inbox: &Inbox) -> Vec<(RoomKey, u64, Option<ClientKey>)> {
        let mut commands = VecDeque::new();
        inbox.take_all(&mut commands);
        let row = |command| match command {
            Command::Publish { room, publication } => (room, publication.offset, publication.exclude),
            other => panic!("not a publication: {other:?}"),
        };
        commands.into_iter().map(row).collect()
    }
}
