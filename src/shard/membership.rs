//! Clients that enter rooms and leave them, and what they missed there.
//!
//! A client that comes back is a member at once, but is given nothing live until it has what it missed. That is read from the
//! room's history part by part, as fast as the client takes it, so that nothing of it waits in memory for a slow one. With the
//! last part the client's membership begins behind it: offsets are given and the history is filled under one lock, so that
//! no publication is in both or in neither.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::hub::{Passage, Portion, RoomOptions, Start, StreamPosition};
use crate::id::{ClientKey, NameRef, RoomId, RoomKey};
use crate::metrics::{Recovery, SentType};
use crate::protocol::{self, Ack, ErrorCode, Gap, Mark, Refusal};
use crate::ws::PreparedMessage;

use super::backlog::Lane;
use super::state::{Core, Notice};

/// What is read from a history at once for one client, in bytes; less where less may wait for it.
const PASSAGE_BYTES: usize = 64 << 10;

/// Passages that are read in one turn, before others have theirs.
const PASSAGES_PER_TURN: usize = 16;

/// A member that is not live yet gets nothing of the room's batches.
const NOT_YET: u64 = u64::MAX;

/// Clients that are being given what they missed.
#[derive(Debug, Default)]
pub(super) struct CatchUps {
    clients: HashMap<ClientKey, Reader, foldhash::fast::RandomState>,
    /// Clients that can be given more, each once. One with a backlog comes back here when that is written.
    ready: VecDeque<ClientKey>,
}

/// What one client still has to be given, room by room.
#[derive(Debug, Default)]
struct Reader {
    rooms: VecDeque<CatchUp>,
    is_ready: bool,
}

#[derive(Clone, Copy, Debug)]
struct CatchUp {
    room: RoomKey,
    /// The offset behind which to go on.
    behind: u64,
    /// How many messages the client was given.
    given: u64,
}

impl CatchUps {
    /// Whether somebody can be given more.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// A client's backlog is written.
    pub(super) fn drained(&mut self, key: ClientKey) {
        if !self.clients.is_empty() {
            self.make_ready(key);
        }
    }

    /// A client is closed.
    pub(super) fn forget(&mut self, key: ClientKey) {
        if !self.clients.is_empty() {
            self.clients.remove(&key);
        }
    }

    /// A client is out of a room: it gets nothing more of it, also if it comes in again.
    pub(super) fn leave(&mut self, key: ClientKey, room: RoomKey) {
        if self.clients.is_empty() {
            return;
        }
        // One that has nothing left goes when it is its turn, since it may be among those that are ready.
        if let Some(reader) = self.clients.get_mut(&key) {
            reader.rooms.retain(|catch_up| catch_up.room != room);
        }
    }

    fn begin(&mut self, key: ClientKey, catch_up: CatchUp) {
        self.clients.entry(key).or_default().rooms.push_back(catch_up);
        self.make_ready(key);
    }

    fn make_ready(&mut self, key: ClientKey) {
        if let Some(reader) = self.clients.get_mut(&key)
            && !reader.is_ready
        {
            reader.is_ready = true;
            self.ready.push_back(key);
        }
    }

    /// The next client that can be given more, and what.
    fn next(&mut self) -> Option<(ClientKey, Option<CatchUp>)> {
        let key = self.ready.pop_front()?;
        let reader = self.clients.get_mut(&key);
        let catch_up = reader.and_then(|reader| {
            reader.is_ready = false;
            reader.rooms.pop_front()
        });
        Some((key, catch_up))
    }

    /// Has what is left to be done of a client's first room come next, if anything is.
    fn put_back(&mut self, key: ClientKey, rest: Option<CatchUp>) {
        let Some(reader) = self.clients.get_mut(&key) else { return };
        if let Some(rest) = rest {
            reader.rooms.push_front(rest);
        }
        if reader.rooms.is_empty() {
            self.clients.remove(&key);
        }
    }
}

/// What has become of a request to enter.
pub(super) struct Entrance {
    pub(super) position: StreamPosition,
    /// Whether all that was missed follows.
    pub(super) is_recovered: bool,
    /// What follows, if anything does.
    follows: Option<(RoomKey, u64)>,
}

impl Core {
    /// The room of this name on this shard, if the client is in it.
    pub(super) fn membership(&self, key: ClientKey, room: NameRef<'_>) -> Option<RoomKey> {
        let room = *self.names.get(&room)?;
        self.clients[key].memberships.iter().any(|membership| membership.room == room).then_some(room)
    }

    pub(super) fn join(
        &mut self,
        key: ClientKey,
        (room, start): (NameRef<'_>, Option<Start>),
        mark: Option<Mark<'_>>,
        replies: &mut Vec<u8>,
    ) {
        let entrance = match self.come_in(key, room, start) {
            Ok(entrance) => entrance,
            Err(refusal) => return self.refuse(mark, refusal.code, &refusal.content, replies),
        };
        if let Some(mark) = mark {
            let StreamPosition { epoch, offset } = entrance.position;
            let epoch = format!("{epoch:016x}");
            let ack = Ack::Joined { room, epoch: &epoch, offset, recovered: entrance.is_recovered };
            self.json.clear();
            protocol::write_ack(mark, &ack, self.timestamp, &mut self.json);
            self.reply_in_order(key, replies);
        }
        self.catch_up_with(key, &entrance);
    }

    /// Makes a client a member; what it missed is to follow by [`Core::catch_up_with`].
    pub(super) fn come_in(
        &mut self,
        key: ClientKey,
        room: NameRef<'_>,
        start: Option<Start>,
    ) -> Result<Entrance, Refusal> {
        if let Some(joined) = self.membership(key, room) {
            // Joining again changes nothing: the answer is where the room stands.
            let position = self.rooms[joined].hub.position();
            return Ok(Entrance { position, is_recovered: false, follows: None });
        }
        self.permit_entry(key, room)?;
        let (joined, mut position) = self.open(room);
        let mut behind = None;
        if let Some(start) = start {
            (position, behind) = self.rooms[joined].hub.begin_reading(start);
        }
        let is_recovered = matches!(start, Some(Start::Behind(..))) && behind.is_some();
        if matches!(start, Some(Start::Behind(..))) {
            let outcome = if is_recovered { Recovery::Complete } else { Recovery::Impossible };
            self.counts.recoveries.add(outcome, 1);
        }
        let behind = behind.filter(|behind| *behind < position.offset);
        self.enter(key, joined, if behind.is_some() { NOT_YET } else { position.offset });
        Ok(Entrance { position, is_recovered, follows: behind.map(|behind| (joined, behind)) })
    }

    /// Has what a client missed follow.
    pub(super) fn catch_up_with(&mut self, key: ClientKey, entrance: &Entrance) {
        if let Some((room, behind)) = entrance.follows {
            self.catch_ups.begin(key, CatchUp { room, behind, given: 0 });
        }
    }

    pub(super) fn permit_entry(&self, key: ClientKey, room: NameRef<'_>) -> Result<(), Refusal> {
        let session = &self.clients[key].session;
        if self.options_of(room).join.allows(|| session.token_allows(room)) {
            return Ok(());
        }
        let content = "`room_id` names a room that may not be entered without a token that names it";
        Err(Refusal::new(ErrorCode::Forbidden, content))
    }

    /// How the room of this name is run, or would be.
    pub(super) fn options_of(&self, room: NameRef<'_>) -> RoomOptions {
        match self.names.get(&room) {
            Some(known) => self.rooms[*known].hub.options(),
            None => self.hub.rules_of(&RoomId::from(room)),
        }
    }

    /// The room of this name on this shard, made when there is none, and its position.
    fn open(&mut self, room: NameRef<'_>) -> (RoomKey, StreamPosition) {
        if let Some(known) = self.names.get(&room) {
            return (*known, self.rooms[*known].hub.position());
        }
        let index = self.index;
        self.open_room(RoomId::from(room), |hub, id, key| hub.join(id, index, key))
    }

    pub(super) fn leave(
        &mut self,
        key: ClientKey,
        room: NameRef<'_>,
        mark: Option<Mark<'_>>,
        replies: &mut Vec<u8>,
    ) {
        let Some(joined) = self.membership(key, room) else {
            let text = "`room_id` names a room that this connection has not joined";
            return self.refuse(mark, ErrorCode::NotAMember, text, replies);
        };
        self.exit(key, joined);
        if let Some(mark) = mark {
            self.json.clear();
            protocol::write_ack(mark, &Ack::Left { room }, self.timestamp, &mut self.json);
            self.reply_in_order(key, replies);
        }
    }

    /// Queues the next passages for those who catch up and have nothing else waiting.
    pub(super) fn catch_up(&mut self) {
        // Each client once: whether it takes one passage is seen before there is another.
        for _ in 0..PASSAGES_PER_TURN.min(self.catch_ups.ready.len()) {
            let Some((key, catch_up)) = self.catch_ups.next() else { return };
            if self.has_backlog(key) {
                // It is ready again when that is written.
                self.catch_ups.put_back(key, catch_up);
                continue;
            }
            let rest = catch_up.and_then(|catch_up| self.go_on(key, catch_up));
            self.catch_ups.put_back(key, rest);
            self.catch_ups.make_ready(key);
        }
    }

    /// Gives a client the next passage; what is left to do after that.
    fn go_on(&mut self, key: ClientKey, catch_up: CatchUp) -> Option<CatchUp> {
        let CatchUp { room, behind, given } = catch_up;
        let client = self.clients.get(key).filter(|client| client.is_open())?;
        let membership = client.memberships.iter().find(|membership| membership.room == room)?;
        let index = membership.index;
        let hub = &self.rooms.get(room)?.hub;
        let bytes = PASSAGE_BYTES.min(self.options.outbound_bytes / 4);
        let passage = hub.read(behind, Portion { messages: usize::MAX, bytes });
        if let Some((from, to)) = passage.missing {
            let reason = "history";
            let name = hub.id().expect("only the room of everyone has no name").as_ref();
            let gap = Gap { room: name, from_offset: from, to_offset: to, reason };
            self.json.clear();
            protocol::write_gap(&gap, self.timestamp, &mut self.json);
            let message = PreparedMessage::text(&self.json);
            self.notices.push_back(Notice::message(key, Lane::Bulk, SentType::Gap, &message));
        }
        let given = given + passage.messages.len() as u64;
        self.give(key, &passage);
        if !passage.is_end {
            return Some(CatchUp { room, behind: passage.until, given });
        }
        self.rooms[room].room.set_after(index, passage.until);
        self.counts.samples.replayed.record(given);
        None
    }

    fn give(&mut self, key: ClientKey, passage: &Passage) {
        match &passage.messages[..] {
            [] => {}
            [message] => {
                self.notices.push_back(Notice::message(key, Lane::Bulk, SentType::Message, message));
            }
            messages => {
                let frames: Vec<_> = messages.iter().map(|message| &message.frame()[..]).collect();
                let payload = messages.iter().map(|message| message.payload().len()).sum();
                let frames = frames.concat().into();
                self.notices.push_back(Notice::messages(key, frames, (messages.len(), payload)));
            }
        }
    }
}
