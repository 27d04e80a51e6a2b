//! Joins, leaves and publishes: where the shards of this node meet.
//!
//! The hub knows which shards have members in a room and where each user's connections are; it does
//! not know a room's members, which are their shards' own. What it is given, it puts into the
//! inboxes of the shards concerned and returns: it waits for nobody, and when an inbox is full it
//! says [`Busy`] and has done nothing.

mod directory;
mod heat;
mod outside;
mod room;
mod rules;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use self::directory::Address;
use self::directory::Directory;
pub use self::heat::{Cooling, Halve, Heat};
pub use self::room::{Busy, Excluded, Room, Said, Served, StreamPosition, Text};
pub use self::rules::{OnOverflow, RoomOptions, Rule, Rules};
use crate::clock::Clock;
use crate::id::{NameRef, RoomId, RoomKey, ShardIndex, UserId};
use crate::inbox::Outlet;
use crate::metrics::Source;
use crate::ws::PreparedMessage;

/// What the hub is given.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes that may wait in the inbox of one shard.
    pub inbox_bytes: usize,
    /// Bytes of one room that may be on their way to one shard: in its inbox, or in the room's open
    /// batch. Keeps one loud room from taking the whole inbox.
    pub room_pending_bytes: usize,
    /// The most connections of one user.
    pub connections_per_user: usize,
    /// How rooms are run.
    pub rooms: Rules,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            inbox_bytes: 16 << 20,
            room_pending_bytes: 4 << 20,
            connections_per_user: usize::MAX,
            rooms: Rules::default(),
        }
    }
}

/// The directories of rooms and users, and the way to every shard.
#[derive(Debug)]
pub struct Hub {
    shards: Vec<Outlet>,
    directory: Directory,
    everyone: Arc<Room>,
    epochs: Epochs,
    options: Options,
    clock: Clock,
}

impl Hub {
    /// Makes a hub over these shards: the outlet at index `n` leads to `ShardIndex(n)`.
    pub fn new(shards: Vec<Outlet>, options: Options, clock: Clock) -> Arc<Self> {
        let epochs = Epochs::random();
        let everyone = Arc::new(Room::new(None, epochs.next(), RoomOptions::default()));
        Arc::new(Self { shards, directory: Directory::default(), everyone, epochs, options, clock })
    }

    /// Adds a connection to its user's; false when that has as many as a user may have.
    pub fn connect(&self, user: &UserId, address: Address) -> bool {
        self.directory.connect(user, address, self.options.connections_per_user)
    }

    /// Takes a connection from its user's, and forgets the user with the last one.
    pub fn disconnect(&self, user: &UserId, address: Address) {
        self.directory.disconnect(user, address);
    }

    /// Lets a shard into a room, for the first member that the room has there.
    ///
    /// From here until [`leave`](Self::leave) the shard's inbox gets every publication with an
    /// offset above the position's, addressed to `key`. `key` must not have been used for this room
    /// before.
    pub fn join(&self, room: &RoomId, shard: ShardIndex, key: RoomKey) -> (Arc<Room>, StreamPosition) {
        let begin = || Room::new(Some(room.clone()), self.epochs.next(), self.options.rooms.of(room));
        self.directory.enter(room, (shard, key), begin)
    }

    /// Lets a shard into the room of everyone, which has no name and is never over.
    pub fn join_everyone(&self, shard: ShardIndex, key: RoomKey) -> (Arc<Room>, StreamPosition) {
        let position = self.everyone.enter(shard, key).expect("a room without a name is never over");
        (Arc::clone(&self.everyone), position)
    }

    /// Lets a shard out of a room, after its last member there. The last shard ends the room.
    ///
    /// The shard's inbox may still have publications of it.
    pub fn leave(&self, room: &Arc<Room>, shard: ShardIndex) {
        self.directory.exit(room, shard);
    }

    /// Takes a shard that failed out of every room, and its connections from their users'.
    ///
    /// Looks at all rooms and users. The shard may enter rooms again, by keys that it has not used.
    pub fn forget(&self, shard: ShardIndex) {
        self.everyone.evict(shard);
        self.directory.forget_shard(shard);
    }

    /// The room that every client is to be a member of.
    pub fn everyone(&self) -> &Arc<Room> {
        &self.everyone
    }

    /// Publishes to a room: gives the message the next offset, and to each shard with members.
    ///
    /// # Errors
    ///
    /// [`Busy`] when one of the inboxes is full, or too much of the room is on its way to one shard.
    pub fn publish(&self, room: &Room, said: Said) -> Result<u64, Busy> {
        room.publish(&self.shards, said, self.clock.now(), self.options.room_pending_bytes)
    }

    /// Sends to every connection of a user. Returns to how many; 0 when the user is not here.
    ///
    /// # Errors
    ///
    /// [`Busy`] when one of the inboxes is full.
    pub fn direct(
        &self,
        user: NameRef<'_>,
        message: &PreparedMessage,
        source: Source,
        read_at: u64,
    ) -> Result<usize, Busy> {
        self.direct_but(user, None, message, (source, read_at))
    }

    /// Where the connections of a user are.
    pub fn connections(&self, user: &UserId) -> Vec<Address> {
        self.directory.addresses(user).into_vec()
    }

    /// How many rooms have members.
    pub fn rooms(&self) -> usize {
        self.directory.rooms()
    }

    /// How many users have connections.
    pub fn users(&self) -> usize {
        self.directory.users()
    }
}

/// Numbers for the lives of rooms: never the same in one process, unlikely the same in two.
#[derive(Debug)]
struct Epochs(AtomicU64);

impl Epochs {
    fn random() -> Self {
        // The standard library seeds its hashers from the system's random source.
        Self(AtomicU64::new(RandomState::new().hash_one(0)))
    }

    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
