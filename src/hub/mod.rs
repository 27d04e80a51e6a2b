//! Joins, leaves and publishes: where the shards of this node meet.
//!
//! The hub knows which shards have members in a room and where each user's connections are; it does
//! not know a room's members, which are their shards' own. What it is given, it puts into the
//! inboxes of the shards concerned and returns: it waits for nobody, and when an inbox is full it
//! says [`Busy`] and has done nothing.

mod agenda;
mod directory;
mod heat;
mod outside;
mod room;
mod rules;
mod telling;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use self::agenda::{Agenda, Item};

pub use self::directory::Address;
use self::directory::Directory;
pub use self::heat::{Cooling, Halve, Heat};
pub use self::room::{
    Busy, Excluded, HistoryPage, Passage, Portion, Room, Said, Served, Start, StreamPosition, Text,
};
pub use self::rules::{Access, OnOverflow, PresenceMode, RoomOptions, Rule, Rules};
pub use self::telling::{Found, Tidings, Told};
use crate::clock::Clock;
use crate::history::Budget;
use crate::id::{NameRef, RoomId, RoomKey, ShardIndex, UserId};
use crate::inbox::{Command, Outlet};
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
    /// What the histories of all rooms may take, in bytes.
    pub history_bytes: usize,
    /// How a change of who is there is told.
    pub presence: PresenceOptions,
}

/// How a change of who is there is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresenceOptions {
    /// How long after the last connection of a user broke off it has left, unless it comes back.
    pub damping: Duration,
    /// So many users of a room are told of; in larger rooms each change would go to too many.
    pub told_max: usize,
    /// Whether somebody outside wants to know of users that come and go.
    pub tells_of_members: bool,
    /// Whether somebody outside wants to know of rooms that get their first member or lose their last.
    pub tells_of_rooms: bool,
}

impl Default for PresenceOptions {
    fn default() -> Self {
        Self {
            damping: Duration::from_secs(5),
            told_max: 500,
            tells_of_members: false,
            tells_of_rooms: false,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            inbox_bytes: 16 << 20,
            room_pending_bytes: 4 << 20,
            connections_per_user: usize::MAX,
            rooms: Rules::default(),
            history_bytes: 64 << 20,
            presence: PresenceOptions::default(),
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
    rules: RwLock<Rules>,
    budget: Budget,
    agenda: Agenda,
    clock: Clock,
}

impl Hub {
    /// Makes a hub over these shards: the outlet at index `n` leads to `ShardIndex(n)`.
    pub fn new(shards: Vec<Outlet>, options: Options, clock: Clock) -> Arc<Self> {
        let epochs = Epochs::random();
        let budget = Budget::new(options.history_bytes);
        let everyone = Room::new(None, epochs.next(), RoomOptions::default(), (&budget, false, 0));
        Arc::new(Self {
            shards,
            directory: Directory::new(budget.clone()),
            everyone: Arc::new(everyone),
            epochs,
            rules: RwLock::new(options.rooms.clone()),
            options,
            budget,
            agenda: Agenda::default(),
            clock,
        })
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
        let (entered, position, is_first) = self.directory.enter(room, (shard, key), || self.begin(room));
        if is_first {
            self.look_at_room(&entered, Duration::ZERO);
        }
        (entered, position)
    }

    fn begin(&self, room: &RoomId) -> Room {
        let options = self.rules_of(room);
        let tells = self.options.presence.tells_of_members || options.presence == PresenceMode::Events;
        Room::new(Some(room.clone()), self.epochs.next(), options, (&self.budget, tells, self.clock.now()))
    }

    /// How the room of this name is run, or would be.
    pub fn rules_of(&self, room: &RoomId) -> RoomOptions {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).of(room)
    }

    /// Has all rooms run by other rules: those that begin from here on, and those that are there as far as a room's life allows,
    /// which keeps its overflow and its presence.
    pub fn set_rules(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        for room in self.directory.all() {
            if let Some(id) = room.id() {
                room.set_options(self.rules_of(id), &self.budget);
            }
        }
    }

    /// The room of this name, for who says something in it: one that has a history begins here, if it has not yet.
    pub fn room(&self, id: &RoomId) -> Option<Arc<Room>> {
        self.directory.find(id).or_else(|| {
            let has_history = self.rules_of(id).history.is_some();
            has_history.then(|| self.directory.open(id, || self.begin(id)))
        })
    }

    /// Lets a shard into the room of everyone, which has no name and is never over.
    pub fn join_everyone(&self, shard: ShardIndex, key: RoomKey) -> (Arc<Room>, StreamPosition) {
        let entered = self.everyone.enter(shard, key).expect("a room without a name is never over");
        (Arc::clone(&self.everyone), entered.position)
    }

    /// Lets a shard out of a room, after its last member there. The last shard ends the room, unless something of it is to be
    /// kept.
    ///
    /// The shard's inbox may still have publications of it.
    pub fn leave(&self, room: &Arc<Room>, shard: ShardIndex) {
        if self.directory.exit(room, shard, self.clock.now()) {
            self.look_at_room(room, self.options.presence.damping);
        }
    }

    /// Takes a shard that failed out of every room, and its connections from their users'.
    ///
    /// Looks at all rooms and users. The shard may enter rooms again, by keys that it has not used.
    pub fn forget(&self, shard: ShardIndex) {
        self.directory.exit(&self.everyone, shard, self.clock.now());
        for room in self.directory.all() {
            self.forget_present(&room, shard);
            self.leave(&room, shard);
        }
        self.directory.forget_connections(shard);
    }

    /// Drops what rooms need not keep any more; to be called every second. Looks at all rooms.
    pub fn sweep(&self) {
        // A room that is kept for nothing is over when its last member leaves.
        if !self.keeps_rooms() {
            return;
        }
        self.directory.sweep(self.clock.now());
    }

    fn keeps_rooms(&self) -> bool {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        let keeps = |rule: &Rule| rule.options.history.is_some() || rule.options.presence.is_kept();
        self.options.presence.tells_of_rooms || self.budget.bytes() > 0 || rules.0.iter().any(keeps)
    }

    /// What is kept of what was said in all rooms.
    pub fn budget(&self) -> &Budget {
        &self.budget
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

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Gives a shard a command that is never refused.
    pub fn command(&self, shard: ShardIndex, command: Command) {
        if let Some(outlet) = self.shards.get(usize::from(shard.0)) {
            let _ = outlet.push(command);
        }
    }

    /// Where the connections of a user are.
    pub fn connections(&self, user: &UserId) -> Vec<Address> {
        self.directory.addresses(user).into_vec()
    }

    /// How many rooms have members.
    pub fn rooms(&self) -> usize {
        self.directory.occupied()
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
