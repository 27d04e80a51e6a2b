//! Sessions that go on with another connection.
//!
//! When a connection ends, its shard keeps the names of the rooms that it was in for a while. Whoever comes back with the
//! session's token is a member of all of them again by one message. The new connection may be another shard's: that asks the
//! old one by its inbox, and goes on when the answer comes; neither waits.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;

use crate::auth::SessionPlace;
use crate::http::Endpoint;
use crate::hub::Start;
use crate::id::{ClientKey, NameRef, RoomId, ShardIndex, UserId};
use crate::inbox::{Command, Departing};
use crate::metrics::{CloseReason, Resumption, SentType};
use crate::protocol::{self, Ack, ErrorCode, Mark, OwnedMark, Refusal, Rejoin, Rejoined};
use crate::ws::{CloseCode, PreparedMessage};

use super::backlog::Lane;
use super::lookups;
use super::state::{Core, Notice};
use super::wheel::tick_at_or_after;

/// What is kept of sessions whose connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// How long; nothing when that is no time.
    pub keep: Duration,
    /// How much of it all shards together may keep, in bytes, each its part; when it is more, the oldest are forgotten.
    pub bytes: usize,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { keep: Duration::from_secs(60), bytes: 16 << 20 }
    }
}

/// How long another shard is waited for, which answers at its next turn unless it fails.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sessions without a connection, and connections that wait to hear of theirs.
#[derive(Debug, Default)]
pub(super) struct Lobby {
    departed: HashMap<ClientKey, Departed, foldhash::fast::RandomState>,
    /// By the tick when they are forgotten; some have gone already.
    order: VecDeque<(u32, ClientKey)>,
    bytes: usize,
    arriving: HashMap<ClientKey, Arriving, foldhash::fast::RandomState>,
}

#[derive(Debug)]
struct Departed {
    user: UserId,
    rooms: Vec<RoomId>,
}

impl Departed {
    fn bytes(&self) -> usize {
        // Names may be shared with the room's own, or be all that is left of them.
        let names = self.rooms.iter().map(|room| size_of::<RoomId>() + text_bytes(room.as_ref()));
        size_of::<Self>() + ENTRY_BYTES + text_bytes(self.user.as_ref()) + names.sum::<usize>()
    }
}

/// What a session takes in the map and in the list besides.
const ENTRY_BYTES: usize = 64;

/// What a name takes on the heap.
fn text_bytes(name: NameRef<'_>) -> usize {
    match name {
        NameRef::Number(_) => 0,
        // With the counts of a shared text.
        NameRef::Text(text) => text.len() + 16,
    }
}

/// What a client asked for that waits to hear of its session.
#[derive(Debug)]
struct Arriving {
    mark: Option<OwnedMark>,
    rooms: Vec<(RoomId, Option<Start>)>,
    /// When the answer of the other shard is not waited for any more, in ticks.
    until: u32,
}

impl Lobby {
    /// What the departed take, in bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn keep(&mut self, key: ClientKey, departed: Departed, until: u32, bytes_max: usize) {
        self.bytes += departed.bytes();
        self.departed.insert(key, departed);
        self.order.push_back((until, key));
        while self.bytes > bytes_max
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.take(oldest);
        }
        // Those that went on leave their place in the list behind.
        if self.order.len() > 64 + 2 * self.departed.len() {
            self.order.retain(|(_, key)| self.departed.contains_key(key));
        }
    }

    fn take(&mut self, key: ClientKey) -> Option<Departed> {
        let departed = self.departed.remove(&key)?;
        self.bytes -= departed.bytes();
        Some(departed)
    }

    /// Takes a user out of a room also where the connection has broken off.
    pub(super) fn unsubscribe(&mut self, room: &RoomId, user: &UserId) {
        for departed in self.departed.values_mut().filter(|departed| departed.user == *user) {
            let before = departed.bytes();
            departed.rooms.retain(|other| other != room);
            self.bytes -= before - departed.bytes();
        }
    }

    /// Who has waited for too long at tick `now` to hear of its session.
    pub(super) fn overdue(&self, now: u32) -> Vec<ClientKey> {
        let overdue = self.arriving.iter().filter(|(_, arriving)| arriving.until <= now);
        overdue.map(|(key, _)| *key).collect()
    }

    /// Forgets those whose time is over at tick `now`.
    pub(super) fn expire(&mut self, now: u32) {
        while let Some((_, key)) = self.order.front().copied().filter(|(until, _)| *until <= now) {
            self.order.pop_front();
            self.take(key);
        }
    }
}

impl Core {
    /// Keeps what is needed to go on with a session whose connection ends for this reason.
    pub(super) fn keep_session(&mut self, key: ClientKey, reason: CloseReason) {
        let client = &self.clients[key];
        let is_wanted = !matches!(reason, CloseReason::TakenOver | CloseReason::Kicked);
        let is_kept = is_wanted && !self.options.sessions.keep.is_zero();
        if client.endpoint != Endpoint::Ws || client.rooms_joined() == 0 || !is_kept {
            return;
        }
        let departed = Departed { user: client.session.user().clone(), rooms: self.rooms_of(key) };
        self.keep(key, departed);
    }

    fn rooms_of(&self, key: ClientKey) -> Vec<RoomId> {
        let rooms = self.clients[key].memberships.iter().map(|membership| &self.rooms[membership.room]);
        rooms.filter_map(|room| room.hub.id().cloned()).collect()
    }

    pub(super) fn resume(
        &mut self,
        key: ClientKey,
        session: &str,
        rooms: &[Rejoin<'_>],
        mark: Option<Mark<'_>>,
        replies: &mut Vec<u8>,
    ) {
        let most = self.options.session.rooms;
        if rooms.len() > most {
            let text = format!("`rooms` lists more than the {most} rooms that a connection may be in");
            return self.refuse(mark, ErrorCode::TooManyRooms, &text, replies);
        }
        if self.lobby.arriving.contains_key(&key) {
            let text = "a `resume` of this connection is under way";
            return self.refuse(mark, ErrorCode::RateLimited, text, replies);
        }
        let listed = |rejoin: &Rejoin<'_>| (RoomId::from(rejoin.room), rejoin.recover.map(lookups::start));
        let until = self.now().saturating_add(tick_at_or_after(PATIENCE));
        let arriving =
            Arriving { mark: mark.map(OwnedMark::from), rooms: rooms.iter().map(listed).collect(), until };
        self.lobby.arriving.insert(key, arriving);
        let own = SessionPlace { shard: self.index, client: key };
        match self.verifier.sessions().read(session).filter(|place| *place != own) {
            Some(SessionPlace { shard, client }) => {
                let session = Departing { client, user: self.clients[key].session.user().clone() };
                self.hub.command(shard, Command::Depart { session, to: (self.index, key) });
            }
            None => self.restore(key, None),
        }
    }

    /// Gives the rooms of a session of this shard to whoever goes on with it, and ends its connection if that has not ended.
    pub(super) fn hand_over(&mut self, session: &Departing, to: (ShardIndex, ClientKey)) {
        let (shard, client) = to;
        let rooms = self.depart(session);
        self.hub.command(shard, Command::Arrive { client, user: session.user.clone(), rooms });
    }

    /// Another shard tells of a session that a client here wants to go on with. When that has ended meanwhile, its own session
    /// is what remains of the other.
    pub(super) fn arrive(&mut self, key: ClientKey, user: UserId, rooms: Option<Vec<RoomId>>) {
        if self.lobby.arriving.contains_key(&key) {
            self.restore(key, rooms);
        } else if let Some(rooms) = rooms.filter(|_| !self.options.sessions.keep.is_zero()) {
            self.keep(key, Departed { user, rooms });
        }
    }

    fn keep(&mut self, key: ClientKey, departed: Departed) {
        let SessionOptions { keep, bytes } = self.options.sessions;
        let until = self.now().saturating_add(tick_at_or_after(keep));
        self.lobby.keep(key, departed, until, bytes / self.hub.shards());
    }

    fn depart(&mut self, session: &Departing) -> Option<Vec<RoomId>> {
        let Departing { client: key, user } = session;
        let is_theirs = |departed: &Departed| departed.user == *user;
        if self.lobby.departed.get(key).is_some_and(is_theirs) {
            return self.lobby.take(*key).map(|departed| departed.rooms);
        }
        let client = self.clients.get(*key).filter(|client| client.is_open())?;
        if client.endpoint != Endpoint::Ws || client.session.user() != user {
            return None;
        }
        let rooms = self.rooms_of(*key);
        let text = "a newer connection goes on with this session";
        self.close(*key, CloseCode::Normal, text, CloseReason::TakenOver);
        Some(rooms)
    }

    /// Makes a client a member of all rooms that it asked for, and of those of its session, if that is known.
    pub(super) fn restore(&mut self, key: ClientKey, session: Option<Vec<RoomId>>) {
        let Some(Arriving { mark, mut rooms, .. }) = self.lobby.arriving.remove(&key) else { return };
        let resumed = session.is_some();
        self.counts.resumes.add(if resumed { Resumption::Known } else { Resumption::Unknown }, 1);
        for room in session.into_iter().flatten() {
            if !rooms.iter().any(|(listed, _)| *listed == room) {
                rooms.push((room, None));
            }
        }
        let mut entrances = Vec::new();
        let mut rejoined = Vec::new();
        for (room, start) in &rooms {
            let entrance = self.come_back(key, room.as_ref(), *start);
            let outcome = entrance
                .as_ref()
                .map_err(Clone::clone)
                .map(|entrance| (entrance.position.epoch, entrance.position.offset, entrance.is_recovered));
            rejoined.push(Rejoined { room: room.as_ref(), outcome });
            entrances.extend(entrance);
        }
        if let Some(mark) = mark {
            self.json.clear();
            let ack = Ack::Resumed { resumed, rooms: &rejoined };
            protocol::write_ack(mark.as_ref(), &ack, self.timestamp, &mut self.json);
            let message = PreparedMessage::text(&self.json);
            self.notices.push_back(Notice::message(key, Lane::Bulk, SentType::Ack, &message));
        }
        for entrance in &entrances {
            self.catch_up_with(key, entrance);
        }
    }

    fn come_back(
        &mut self,
        key: ClientKey,
        room: NameRef<'_>,
        start: Option<Start>,
    ) -> Result<super::membership::Entrance, Refusal> {
        let client = &self.clients[key];
        if self.membership(key, room).is_none() {
            client.session.permit_join(room, &self.options.session, client.rooms_joined())?;
        }
        self.come_in(key, room, start)
    }

    /// A client that waited to hear of its session is closed.
    pub(super) fn forget_arrival(&mut self, key: ClientKey) {
        if !self.lobby.arriving.is_empty() {
            self.lobby.arriving.remove(&key);
        }
    }
}
