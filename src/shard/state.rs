//! What a shard knows: its clients, its rooms, and what is to be written next.
//!
//! Pure: the driver feeds it bytes, commands and the time, takes deliveries and [`Notice`]s out, and tells
//! how much of each the socket took.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use slotmap::SlotMap;
use smallvec::SmallVec;

use crate::http::Endpoint;
use crate::hub::{self, Address, Hub};
use crate::id::{ClientId, ClientKey, RoomId, RoomKey, ShardIndex};
use crate::inbox::{Command, Permit};
use crate::metrics::{CloseReason, DropReason, SentType};
use crate::protocol::{self, Parser, Welcome};
use crate::session::Session;
use crate::ws::{self, CloseCode, Decoder, PreparedMessage};

use super::Options;
use super::backlog::Lane;
use super::client::{Client, Due, Membership, Stage};
use super::counts::Counts;
use super::room::{Flags, Room};
use super::wheel::{TICK, Wheel, tick_at_or_after, ticks_passed};

/// Ticks whose pings go out together: a quarter of a second.
const PING_TICKS: u32 = 4;

/// Up to so many clients of a shard, that is at most fifty pings at once with the usual heartbeat.
const PINGED_TOGETHER_MAX: usize = 10_000;

/// How long a client that was sent Close may take to end the stream, in ticks of 64 ms.
const LINGER_TICKS: u32 = 32;

/// A frame for one client alone.
pub(super) struct Notice {
    pub(super) client: ClientKey,
    pub(super) frame: Bytes,
    pub(super) lane: Lane,
    /// A Close, after which nothing is written.
    pub(super) is_close: bool,
    /// What the frame says and the bytes of its payload; none for a control frame.
    pub(super) message: Option<(SentType, usize)>,
    /// When the message was read, where its delay is to be recorded.
    pub(super) sample: Option<u64>,
}

impl Notice {
    /// A control frame.
    fn control(client: ClientKey, frame: Bytes) -> Self {
        Self { client, frame, lane: Lane::Control, is_close: false, message: None, sample: None }
    }

    pub(super) fn message(client: ClientKey, lane: Lane, kind: SentType, message: &PreparedMessage) -> Self {
        let frame = message.frame().clone();
        let message = Some((kind, message.payload().len()));
        Self { client, frame, lane, is_close: false, message, sample: None }
    }
}

/// A client that a handshake has let in.
pub(super) struct Newcomer {
    pub(super) session: Session,
    pub(super) endpoint: Endpoint,
    /// Seconds until the token runs out.
    pub(super) expires_in: Option<u64>,
    pub(super) permit: Permit,
}

/// The state of one shard.
pub(super) struct Shard {
    pub(super) parser: Parser,
    pub(super) core: Core,
}

/// Everything but the parser, whose messages are borrowed while they are acted upon.
pub(super) struct Core {
    pub(super) index: ShardIndex,
    pub(super) options: Arc<Options>,
    pub(super) hub: Arc<Hub>,
    pub(super) clients: SlotMap<ClientKey, Client>,
    pub(super) rooms: SlotMap<RoomKey, LocalRoom>,
    pub(super) names: HashMap<RoomId, RoomKey, foldhash::fast::RandomState>,
    pub(super) counts: Counts,
    pub(super) notices: VecDeque<Notice>,
    /// Clients whose input waits for a room to take more.
    pub(super) held: VecDeque<ClientKey>,
    pub(super) json: Vec<u8>,
    /// Seconds since the Unix epoch.
    pub(super) timestamp: u64,
    pub(super) everyone: RoomKey,
    pub(super) ready: VecDeque<RoomKey>,
    pub(super) served: u32,
    wheel: Wheel,
    due: Vec<(ClientKey, u32)>,
    closed: VecDeque<ClientKey>,
    gone: VecDeque<ClientKey>,
    drain: Option<Drain>,
}

/// A room with members on this shard.
pub(super) struct LocalRoom {
    pub(super) room: Room,
    pub(super) hub: Arc<hub::Room>,
    /// In the queue of rooms with something to deliver.
    pub(super) queued: bool,
}

impl LocalRoom {
    pub(super) fn new(hub: Arc<hub::Room>, batch_bytes: usize) -> Self {
        Self { room: Room::new(batch_bytes), hub, queued: false }
    }
}

struct Drain {
    keys: Vec<ClientKey>,
    closed: usize,
    began: u32,
    window: u32,
}

impl Shard {
    pub(super) fn new(index: ShardIndex, options: Arc<Options>, hub: Arc<Hub>) -> Self {
        let mut rooms = SlotMap::with_key();
        let everyone = rooms.insert_with_key(|key| {
            let (everyone, _) = hub.join_everyone(index, key);
            LocalRoom::new(everyone, options.batch_bytes)
        });
        let core = Core {
            index,
            options,
            hub,
            clients: SlotMap::with_key(),
            rooms,
            names: HashMap::default(),
            counts: Counts::default(),
            notices: VecDeque::new(),
            held: VecDeque::new(),
            json: Vec::new(),
            timestamp: 0,
            everyone,
            ready: VecDeque::new(),
            served: 0,
            wheel: Wheel::new(),
            due: Vec::new(),
            closed: VecDeque::new(),
            gone: VecDeque::new(),
            drain: None,
        };
        Self { parser: Parser::default(), core }
    }
}

impl Core {
    /// Takes a client in and queues its `welcome`.
    pub(super) fn admit(&mut self, newcomer: Newcomer) -> ClientKey {
        let Newcomer { session, endpoint, expires_in, permit } = newcomer;
        let now = self.wheel.now();
        let heartbeat = &self.options.heartbeat;
        let expires_in =
            expires_in.map_or(u32::MAX, |seconds| tick_at_or_after(Duration::from_secs(seconds)));
        let first_ping = first_ping(session.client(), tick_at_or_after(heartbeat.ping));
        let ping_at = self.ping_together(now.saturating_add(first_ping));
        let user = session.user().clone();
        let key = self.clients.insert(Client {
            ping_at,
            session,
            decoder: Decoder::default(),
            backlog: None,
            held: None,
            memberships: SmallVec::new(),
            stage: Stage::Open,
            endpoint,
            heard_at: now,
            blocked_at: 0,
            expires_at: now.saturating_add(expires_in),
            wheel_at: u32::MAX,
            _permit: permit,
        });
        self.counts.opened += 1;
        if endpoint == Endpoint::Ws {
            self.hub.connect(&user, Address { shard: self.index, client: key });
            let position = self.rooms[self.everyone].hub.position();
            self.enter(key, self.everyone, position.offset);
            self.welcome(key);
        }
        self.reschedule(key);
        if self.drain.is_some() {
            self.close(key, CloseCode::GoingAway, SHUTTING_DOWN, CloseReason::Shutdown);
        }
        key
    }

    fn welcome(&mut self, key: ClientKey) {
        let client = &self.clients[key];
        self.json.clear();
        let welcome = Welcome {
            client_id: client.session.client(),
            user: client.session.user(),
            heartbeat_seconds: self.options.heartbeat.ping.as_secs(),
            node: &self.options.node,
            session: &client.session.client().to_string(),
        };
        protocol::write_welcome(&welcome, self.timestamp, &mut self.json);
        let message = PreparedMessage::text(&self.json);
        self.notices.push_back(Notice::message(key, Lane::Control, SentType::Welcome, &message));
    }

    /// Makes a client a member of a room of this shard, for publications after `offset`.
    pub(super) fn enter(&mut self, key: ClientKey, room: RoomKey, offset: u64) {
        let client = &mut self.clients[key];
        let flags = if client.session.is_ndjson() { Flags::NDJSON } else { Flags::PLAIN };
        let index = self.rooms[room].room.join(key, offset, flags);
        client.memberships.push(Membership { room, index });
        self.counts.memberships += usize::from(room != self.everyone);
    }

    /// Ends a client's membership; the shard's last member lets go of the room.
    pub(super) fn exit(&mut self, key: ClientKey, room: RoomKey) {
        let client = &mut self.clients[key];
        let Some(at) = client.memberships.iter().position(|membership| membership.room == room) else {
            return;
        };
        let membership = client.memberships.remove(at);
        self.counts.memberships -= usize::from(room != self.everyone);
        let local = &mut self.rooms[room];
        for (moved, index) in local.room.leave(membership.index) {
            let memberships = &mut self.clients[moved].memberships;
            let place = memberships.iter_mut().find(|membership| membership.room == room);
            place.expect("a member knows its rooms").index = index;
        }
        if room != self.everyone && local.room.is_empty() {
            let local = self.rooms.remove(room).expect("the room was there");
            let id = local.hub.id().expect("only the room of everyone has no name");
            self.names.remove(id);
            self.hub.leave(&local.hub, self.index);
        }
    }

    /// Does what another thread asked for.
    pub(super) fn apply(&mut self, command: Command) {
        match command {
            Command::Publish { room, publication } => {
                let Some(local) = self.rooms.get_mut(room) else { return };
                local.room.append(publication);
                if !mem::replace(&mut local.queued, true) {
                    self.ready.push_back(room);
                }
            }
            Command::Direct { clients, message, born } => {
                let count = clients.len();
                for (index, client) in clients.into_iter().enumerate() {
                    if !self.clients.get(client).is_some_and(Client::is_open) {
                        self.counts.dropped.add(DropReason::Closing, 1);
                        continue;
                    }
                    let notice = Notice::message(client, Lane::Bulk, SentType::Message, &message);
                    let sample = Some(born).filter(|_| index == 0 || index + 1 == count);
                    self.notices.push_back(Notice { sample, ..notice });
                }
            }
            Command::Disconnect { client, code, reason } => {
                self.close(client, code, &reason, CloseReason::Kicked);
            }
            Command::Drain { window } => self.start_drain(window),
            Command::Accept { .. } | Command::Ask(_) | Command::Stop => {
                debug_assert!(false, "the driver does these itself");
            }
        }
    }

    /// Says Close and lets go of everything but the socket, which waits for the peer to end the stream.
    pub(super) fn close(&mut self, key: ClientKey, code: CloseCode, text: &str, reason: CloseReason) {
        let mut frame = Vec::new();
        ws::encode_close(&mut frame, code, text);
        self.close_with(key, frame, reason);
    }

    /// As [`Core::close`], with a Close frame that is already made.
    pub(super) fn close_with(&mut self, key: ClientKey, frame: Vec<u8>, reason: CloseReason) {
        if !self.detach(key, reason) {
            return;
        }
        let notice = Notice::control(key, frame.into());
        self.notices.push_back(Notice { is_close: true, ..notice });
        self.closed.push_back(key);
        self.reschedule(key);
    }

    /// The connection is no more: nothing can be said on it.
    pub(super) fn lost(&mut self, key: ClientKey, reason: CloseReason) {
        self.detach(key, reason);
        self.forget_backlog(key);
        if self.clients.contains_key(key) {
            self.gone.push_back(key);
        }
    }

    /// Takes a client out of all directories, once.
    fn detach(&mut self, key: ClientKey, reason: CloseReason) -> bool {
        let Some(client) = self.clients.get_mut(key).filter(|client| client.is_open()) else { return false };
        // Who has a frame half written may need longer to take that and the Close behind it.
        let patience = match client.backlog {
            Some(_) => tick_at_or_after(self.options.heartbeat.write).max(LINGER_TICKS),
            None => LINGER_TICKS,
        };
        client.stage = Stage::Leaving { until: self.wheel.now().saturating_add(patience) };
        client.held = None;
        client.decoder = Decoder::default();
        let in_rooms = client.endpoint == Endpoint::Ws;
        while let Some(membership) = self.clients[key].memberships.last() {
            self.exit(key, membership.room);
        }
        if in_rooms {
            let address = Address { shard: self.index, client: key };
            self.hub.disconnect(self.clients[key].session.user(), address);
        }
        self.counts.closed.add(reason, 1);
        true
    }

    /// Frees the slot of a client whose socket is gone.
    pub(super) fn remove(&mut self, key: ClientKey) {
        self.clients.remove(key);
    }

    /// All was said: the sending side of this client's socket is to be ended.
    pub(super) fn end_sending(&mut self, key: ClientKey) {
        if let Some(client) = self.clients.get_mut(key) {
            client.stage = Stage::Leaving { until: self.wheel.now().saturating_add(LINGER_TICKS) };
            self.reschedule(key);
        }
        self.closed.push_back(key);
    }

    /// A client whose Close was queued for direct writing: its sending side can end.
    pub(super) fn next_closed(&mut self) -> Option<ClientKey> {
        self.closed.pop_front()
    }

    /// A client whose socket is to be dropped.
    pub(super) fn next_gone(&mut self) -> Option<ClientKey> {
        self.gone.pop_front()
    }

    /// Brings the wheel to `now` (nanoseconds) and acts on every deadline that has passed. `unix` are seconds since
    /// the Unix epoch, for the timestamps of messages.
    pub(super) fn tick(&mut self, now: u64, unix: u64) {
        self.timestamp = unix;
        let tick = ticks_passed(Duration::from_nanos(now));
        if tick == self.wheel.now() {
            return;
        }
        let mut due = mem::take(&mut self.due);
        self.wheel.advance(tick, &mut due);
        for (key, at) in due.drain(..) {
            let Some(client) = self.clients.get_mut(key) else { continue };
            if client.wheel_at == at {
                client.wheel_at = u32::MAX;
                self.meet_deadline(key, tick);
            }
        }
        self.due = due;
        self.drain_some(tick);
    }

    fn meet_deadline(&mut self, key: ClientKey, now: u32) {
        let client = &mut self.clients[key];
        match client.due(now, &self.options.heartbeat) {
            Due::Nothing => {}
            Due::Ping => {
                // Kept to the rhythm of the first, so that pings stay spread.
                let every = tick_at_or_after(self.options.heartbeat.ping).max(1);
                let at = client.ping_at.saturating_add(every).max(now + 1);
                self.clients[key].ping_at = self.ping_together(at);
                self.notices.push_back(Notice::control(key, Bytes::from_static(PING)));
            }
            Due::Silent => {
                self.counts.ping_timeouts += 1;
                self.close(
                    key,
                    CloseCode::NoHeartbeat,
                    "nothing came for too long",
                    CloseReason::PingTimeout,
                );
            }
            Due::Blocked => self.overflow(key, "a write was blocked for too long"),
            Due::Expired => {
                self.close(key, CloseCode::TokenExpired, "the token has expired", CloseReason::TokenExpired);
            }
            Due::Gone => return self.lost(key, CloseReason::Client),
        }
        self.reschedule(key);
    }

    /// The tick of a ping that is due at `at`: a few ticks share one, since each tick with pings wakes the shard for
    /// them and again for the answers. With very many clients a tick has enough of them by itself.
    fn ping_together(&self, at: u32) -> u32 {
        let ticks = if self.clients.len() <= PINGED_TOGETHER_MAX { PING_TICKS } else { 1 };
        at.checked_next_multiple_of(ticks).unwrap_or(at)
    }

    /// Makes sure that the wheel wakes this client in time.
    pub(super) fn reschedule(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let deadline = client.deadline(&self.options.heartbeat);
        if deadline < client.wheel_at {
            client.wheel_at = self.wheel.schedule(key, deadline);
        }
    }

    pub(super) fn next_tick(&self) -> Option<u32> {
        let draining = self.drain.as_ref().is_some_and(|drain| drain.closed < drain.keys.len());
        if draining { Some(self.wheel.now() + 1) } else { self.wheel.next_tick() }
    }

    pub(super) fn now(&self) -> u32 {
        self.wheel.now()
    }

    fn start_drain(&mut self, window: Duration) {
        if self.drain.is_none() {
            let (began, window) = (self.wheel.now(), tick_at_or_after(window));
            self.drain = Some(Drain { keys: self.clients.keys().collect(), closed: 0, began, window });
            self.drain_some(began);
        }
    }

    /// Closes as many clients as the part of the window that has passed asks for, and at least one.
    fn drain_some(&mut self, now: u32) {
        let Some(drain) = &mut self.drain else { return };
        let total = drain.keys.len();
        let passed = (now - drain.began) as usize + 1;
        let wanted = total.min((total * passed).div_ceil(drain.window as usize + 1));
        let wanted = wanted.max(drain.closed);
        let from = mem::replace(&mut drain.closed, wanted);
        let keys = drain.keys[from..wanted].to_vec();
        for key in keys {
            self.advise_to_reconnect(key);
            self.close(key, CloseCode::GoingAway, SHUTTING_DOWN, CloseReason::Shutdown);
        }
    }

    /// Tells a client how long to wait before it comes back: a time of its own, so that not all come at once.
    fn advise_to_reconnect(&mut self, key: ClientKey) {
        let (Some(client), Some(drain)) = (self.clients.get(key), &self.drain) else { return };
        if !client.is_open() || client.endpoint != Endpoint::Ws {
            return;
        }
        let spread = (TICK * drain.window).max(RECONNECT_SPREAD_MIN);
        let after = spread.mul_f64(share(client.session.client()));
        self.json.clear();
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        protocol::write_reconnect(after_ms, SHUTTING_DOWN, self.timestamp, &mut self.json);
        let message = PreparedMessage::text(&self.json);
        self.notices.push_back(Notice::message(key, Lane::Control, SentType::Reconnect, &message));
    }

    /// The process stood still for so many ticks: nobody is to blame for not having been heard meanwhile.
    pub(super) fn excuse(&mut self, lag: u32) {
        for client in self.clients.values_mut() {
            client.heard_at = client.heard_at.saturating_add(lag);
        }
    }
}

/// An empty WebSocket ping, shared by all clients.
const PING: &[u8] = &[0x89, 0];

const SHUTTING_DOWN: &str = "the gateway is shutting down";

/// At least over so long those come back who were sent away.
const RECONNECT_SPREAD_MIN: Duration = Duration::from_secs(2);

/// A number of a client's own in 0..1, evenly spread over all clients.
fn share(id: ClientId) -> f64 {
    let high = u32::try_from(foldhash::quality::FixedState::default().hash_one(id.0) >> 32).unwrap_or(0);
    f64::from(high) / (f64::from(u32::MAX) + 1.0)
}

/// Ticks until a client's first ping: anywhere in the interval, so that a crowd that came together is not
/// pinged together.
fn first_ping(id: ClientId, every: u32) -> u32 {
    let ticks = f64::from(every) * share(id);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and `every`")]
    let ticks = ticks as u32;
    ticks + 1
}
