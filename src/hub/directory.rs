//! Who is where: the rooms that have members, and the connections of each user.
//!
//! No guard of a map leaves this file, none is held while a room's lock is taken, and never two at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use foldhash::quality::RandomState;
use smallvec::SmallVec;

use super::room::{Entered, Room, StreamPosition};
use crate::history::Budget;
use crate::id::{ClientKey, RoomId, RoomKey, ShardIndex, UserId};

/// Where a connection lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Its shard.
    pub shard: ShardIndex,
    /// Its place there.
    pub client: ClientKey,
}

/// A user's connections, in no order. One needs no memory of its own, and most users have one.
pub(super) type Addresses = SmallVec<[Address; 1]>;

/// Invariant: a user in it has at least one address; a room that is over leaves it soon after.
#[derive(Debug)]
pub(super) struct Directory {
    rooms: DashMap<RoomId, Arc<Room>, RandomState>,
    /// Rooms with members.
    occupied: AtomicUsize,
    users: DashMap<UserId, Addresses, RandomState>,
    /// What the rooms' histories take.
    budget: Budget,
}

impl Directory {
    /// Nothing and nobody; what rooms keep is counted in `budget`.
    pub(super) fn new(budget: Budget) -> Self {
        Self { rooms: DashMap::default(), occupied: AtomicUsize::new(0), users: DashMap::default(), budget }
    }

    /// Lets a shard into a room, which `begin` makes when its life begins here; also whether nobody was there before.
    pub(super) fn enter(
        &self,
        id: &RoomId,
        (shard, key): (ShardIndex, RoomKey),
        begin: impl Fn() -> Room,
    ) -> (Arc<Room>, StreamPosition, bool) {
        loop {
            let room = self.open(id, &begin);
            if let Some(Entered { position, is_first }) = room.enter(shard, key) {
                self.occupied.fetch_add(usize::from(is_first), Ordering::Relaxed);
                return (room, position, is_first);
            }
            // Whoever closed it is about to do the same, but may not have come to it yet.
            self.forget(id, &room);
        }
    }

    /// Lets a shard out of a room, and forgets the room after the last if nothing of it is to be kept. Whether a room that has a
    /// name has lost its last members.
    pub(super) fn exit(&self, room: &Arc<Room>, shard: ShardIndex, now: u64) -> bool {
        let Some(evicted) = room.evict(shard, &self.budget, now) else { return false };
        if let Some(id) = room.id() {
            self.occupied.fetch_sub(usize::from(evicted.is_last), Ordering::Relaxed);
            if evicted.is_over {
                self.forget(id, room);
            }
        }
        evicted.is_last && room.id().is_some()
    }

    /// Takes all connections of a shard from their users'.
    pub(super) fn forget_connections(&self, shard: ShardIndex) {
        self.users.retain(|_, addresses| {
            addresses.retain(|address| address.shard != shard);
            !addresses.is_empty()
        });
    }

    /// Drops what is too old in any room, and the rooms that were kept only for that. When all histories together take more
    /// than they may, the rooms that have been quiet longest lose theirs.
    pub(super) fn sweep(&self, now: u64) {
        let mut quiet = Vec::new();
        for room in self.all() {
            if room.sweep(&self.budget, now)
                && let Some(id) = room.id()
            {
                self.forget(id, &room);
            } else if let Some((since, bytes)) = room.quiet_history() {
                quiet.push((since, bytes, room));
            }
        }
        let (bytes, limit) = (self.budget.bytes(), self.budget.limit());
        if bytes < limit / SWEEP_FROM.1 * SWEEP_FROM.0 {
            return;
        }
        let mut excess = bytes.saturating_sub(limit / SWEEP_TO.1 * SWEEP_TO.0);
        quiet.sort_unstable_by_key(|(since, ..)| *since);
        for (_, bytes, room) in quiet {
            if excess == 0 {
                break;
            }
            room.forget_history();
            excess = excess.saturating_sub(bytes);
        }
    }

    /// All rooms, with members and without.
    pub(super) fn all(&self) -> Vec<Arc<Room>> {
        self.rooms.iter().map(|entry| Arc::clone(&entry)).collect()
    }

    /// The room of this name, if there is one.
    pub(super) fn find(&self, id: &RoomId) -> Option<Arc<Room>> {
        self.rooms.get(id).map(|room| Arc::clone(&room))
    }

    /// Shows the names of all rooms, in no order. Who looks must not come back here.
    pub(super) fn for_each_room(&self, mut look: impl FnMut(&RoomId)) {
        self.rooms.iter().for_each(|room| look(room.key()));
    }

    /// Adds a connection of a user; false when it has as many as `most`.
    pub(super) fn connect(&self, user: &UserId, address: Address, most: usize) -> bool {
        let mut addresses = self.users.entry(user.clone()).or_default();
        let may_connect = addresses.len() < most;
        if may_connect {
            addresses.push(address);
        }
        may_connect
    }

    pub(super) fn disconnect(&self, user: &UserId, address: Address) {
        self.users.remove_if_mut(user, |_, addresses| {
            if let Some(index) = addresses.iter().position(|other| *other == address) {
                addresses.swap_remove(index);
                // A user who once had many connections should not go on paying for them.
                if addresses.len() <= addresses.inline_size() {
                    addresses.shrink_to_fit();
                }
            }
            addresses.is_empty()
        });
    }

    /// A copy of the user's addresses; empty when the user has no connection.
    pub(super) fn addresses(&self, user: &UserId) -> Addresses {
        self.users.get(user).map(|addresses| addresses.clone()).unwrap_or_default()
    }

    /// How many rooms have members.
    pub(super) fn occupied(&self) -> usize {
        self.occupied.load(Ordering::Relaxed)
    }

    /// How many rooms there are, with those that are kept without members.
    #[cfg(test)]
    pub(super) fn rooms(&self) -> usize {
        self.rooms.len()
    }

    pub(super) fn users(&self) -> usize {
        self.users.len()
    }

    /// The room of this name, which `begin` makes when there is none. Its life may be over.
    pub(super) fn open(&self, id: &RoomId, begin: impl FnOnce() -> Room) -> Arc<Room> {
        if let Some(room) = self.rooms.get(id) {
            return Arc::clone(&room);
        }
        Arc::clone(&self.rooms.entry(id.clone()).or_insert_with(|| Arc::new(begin())))
    }

    /// Takes out this life of a room, and not the next one if that has begun already.
    pub(super) fn forget(&self, id: &RoomId, room: &Arc<Room>) {
        self.rooms.remove_if(id, |_, present| Arc::ptr_eq(present, room));
    }
}

/// Above this part of what all histories may take, some are forgotten,
const SWEEP_FROM: (usize, usize) = (15, 16);

/// down to this part.
const SWEEP_TO: (usize, usize) = (14, 16);

#[cfg(test)]
mod tests {
    use slotmap::KeyData;

    use super::super::RoomOptions;
    use super::*;

    #[test]
    fn a_user_takes_less_than_a_hundred_bytes_even_just_after_the_table_grew() {
        let entry = size_of::<(UserId, Addresses)>() + 1;

        // A hash table is between 7/16 and 7/8 full.
        assert!(entry * 16 / 7 < 100, "{entry} bytes per entry");
    }

    #[test]
    fn finds_all_connections_of_a_user_and_forgets_the_user_with_the_last() {
        let directory = Directory::new(Budget::new(1 << 20));
        let user = UserId::parse("ada").unwrap();
        let addresses = [address(0, 1), address(1, 1), address(0, 2)];
        for address in addresses {
            assert!(directory.connect(&user, address, 3));
        }

        assert!(!directory.connect(&user, address(0, 9), 3), "as many as a user may have");
        let mut found = directory.addresses(&user).to_vec();
        found.sort_by_key(|address| (address.client, address.shard));
        assert_eq!(found, [address(0, 1), address(1, 1), address(0, 2)]);

        directory.disconnect(&user, addresses[0]);
        directory.disconnect(&user, addresses[2]);
        assert_eq!(directory.addresses(&user).as_slice(), [addresses[1]]);
        assert!(!directory.addresses(&user).spilled());
        directory.disconnect(&user, addresses[1]);
        assert_eq!(directory.users(), 0);
    }

    #[test]
    fn an_unknown_user_has_no_connections_and_may_be_disconnected_in_vain() {
        let directory = Directory::new(Budget::new(1 << 20));
        let user = UserId::from_u64(7);

        directory.disconnect(&user, address(0, 1));

        assert!(directory.addresses(&user).is_empty());
        assert_eq!(directory.users(), 0);
    }

    #[test]
    fn a_room_that_is_over_but_still_listed_is_replaced() {
        let directory = Directory::new(Budget::new(1 << 20));
        let id = RoomId::from_u64(5);
        let budget = Budget::new(1 << 20);
        let room = |epoch| Room::new(Some(id.clone()), epoch, RoomOptions::default(), (&budget, false, 0));
        let (first, ..) = directory.enter(&id, (ShardIndex(0), RoomKey::default()), || room(1));
        assert!(first.evict(ShardIndex(0), &budget, 0).unwrap().is_over, "and not yet forgotten");

        let (second, position, _) = directory.enter(&id, (ShardIndex(1), RoomKey::default()), || room(2));
        directory.forget(&id, &first);

        assert_eq!(position, StreamPosition { epoch: 2, offset: 0 });
        assert_eq!(directory.rooms(), 1, "forgetting the first spares the second");
        directory.exit(&second, ShardIndex(1), 0);
        assert_eq!(directory.rooms(), 0);
    }

    fn address(shard: u16, client: u64) -> Address {
        Address { shard: ShardIndex(shard), client: ClientKey::from(KeyData::from_ffi(1 << 32 | client)) }
    }
}
