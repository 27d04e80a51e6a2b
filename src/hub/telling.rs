//! Telling of users and rooms that come and go.
//!
//! Shards only note that something has changed; one task of the control thread looks at what is due and tells it, so that
//! no shard has to wait with it when a room is full.

use std::sync::Arc;
use std::time::Duration;

use super::room::RoomLook;
use super::{Hub, Item, PresenceMode, Room, Said};
use crate::id::{ShardIndex, UserId};
use crate::presence::Look;

/// Something that has happened in a room.
#[derive(Debug)]
pub struct Tidings {
    /// Where.
    pub room: Arc<Room>,
    /// What.
    pub told: Told,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A user has come into the room.
    Joined(UserId),
    /// The user has left it, with all connections.
    Left(UserId),
    /// The room has its first member.
    Occupied,
    /// It has lost its last.
    Vacated,
}

/// What a look has found.
#[derive(Debug)]
pub enum Found {
    /// Nothing that has to be told.
    Nothing,
    /// Something that may be told to others as well.
    Tidings(Tidings),
}

/// What could not be told because too much was on its way to a shard is tried again after so long.
const AGAIN_AFTER: u64 = 10_000_000;

impl Hub {
    /// A connection of a user is a member of a room.
    pub fn arrive(&self, room: &Arc<Room>, user: &UserId, shard: ShardIndex) {
        let at = room.arrive(user, shard, self.clock.now());
        self.look_at_user_at(room, user, at);
    }

    /// A connection of a user is not a member any more; `is_over` when the connection is, and may come back.
    pub fn depart(&self, room: &Arc<Room>, user: &UserId, shard: ShardIndex, is_over: bool) {
        let leaves_at = self.clock.now() + if is_over { self.damping() } else { 0 };
        let at = room.depart(user, shard, leaves_at);
        self.look_at_user_at(room, user, at);
    }

    pub(super) fn forget_present(&self, room: &Arc<Room>, shard: ShardIndex) {
        for (user, at) in room.forget(shard, self.clock.now() + self.damping()) {
            self.look_at_user_at(room, &user, Some(at));
        }
    }

    fn look_at_user_at(&self, room: &Arc<Room>, user: &UserId, at: Option<u64>) {
        if let Some(at) = at {
            self.agenda.push(at, Item::User(Arc::clone(room), user.clone()));
        }
    }

    pub(super) fn look_at_room(&self, room: &Arc<Room>, after: Duration) {
        let at = self.clock.now() + nanoseconds(after);
        if self.options.presence.tells_of_rooms && room.call_for_look(at) {
            self.agenda.push(at, Item::Room(Arc::clone(room)));
        }
    }

    /// Looks at the next thing that is due; `None` when nothing is. Where the members of a room are to hear of a user, they have
    /// been told by what `say` makes of the room, the user, and whether that has come in.
    pub fn look(&self, say: impl Fn(&Room, &UserId, bool) -> Said) -> Option<Found> {
        let tidings = match self.agenda.pop(self.clock.now())? {
            Item::User(room, user) => self.look_at_user(room, &user, &say),
            Item::Room(room) => self.look_at_members(room),
        };
        Some(tidings.map_or(Found::Nothing, Found::Tidings))
    }

    fn look_at_members(&self, room: Arc<Room>) -> Option<Tidings> {
        let told = match room.look_at_members(self.clock.now(), self.damping()) {
            RoomLook::Occupied => Told::Occupied,
            RoomLook::Vacated => Told::Vacated,
            RoomLook::Later(at) => {
                self.agenda.push(at, Item::Room(room));
                return None;
            }
            RoomLook::Settled => return None,
        };
        Some(Tidings { room, told })
    }

    fn look_at_user(
        &self,
        room: Arc<Room>,
        user: &UserId,
        say: impl Fn(&Room, &UserId, bool) -> Said,
    ) -> Option<Tidings> {
        let now = self.clock.now();
        let look = room.look(user, now, self.options.presence.told_max);
        let told = match look {
            Look::Joined => Told::Joined(user.clone()),
            Look::Left => Told::Left(user.clone()),
            Look::Later(at) => {
                self.agenda.push(at, Item::User(room, user.clone()));
                return None;
            }
            Look::Settled => return None,
        };
        let is_said = room.options().presence == PresenceMode::Events;
        let tidings = Tidings { room, told };
        if is_said && self.publish(&tidings.room, say(&tidings.room, user, look == Look::Joined)).is_err() {
            tidings.room.take_back(user, look, now + AGAIN_AFTER);
            self.agenda.push(now + AGAIN_AFTER, Item::User(tidings.room, user.clone()));
            return None;
        }
        Some(tidings)
    }

    /// Waits until something may be due earlier than [`Hub::next_tidings_at`] said. Safe to cancel.
    pub async fn tidings(&self) {
        self.agenda.changed().await;
    }

    /// When something is due to be told next, in nanoseconds of the gateway's clock.
    pub fn next_tidings_at(&self) -> Option<u64> {
        self.agenda.next_at()
    }

    fn damping(&self) -> u64 {
        nanoseconds(self.options.presence.damping)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
