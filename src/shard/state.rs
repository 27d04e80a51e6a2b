//! What a shard knows: its clients, its rooms, and what is to be written next.
//!
//! Pure: the driver feeds it bytes, commands and the time, takes deliveries and [`Notice`]s out, and tells
//! how much of each the socket took.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use slotmap::SlotMap;
use smallvec::SmallVec;

use crate::auth::{SessionPlace, Verifier};
use crate::http::Endpoint;
use crate::hub::{self, Address, Cooling, Hub, Served};
use crate::id::{ClientKey, RoomId, RoomKey, ShardIndex};
use crate::inbox::{Command, Permit, Publication};
use crate::memory::Meter;
use crate::metrics::{CloseReason, Compressed, Direction, DropReason, SentType};
use crate::protocol::{self, Parser, Welcome};
use crate::session::Session;
use crate::ws::{CloseCode, Compression, Decoder, Deflater, Inflater, PreparedMessage};

use super::Options;
use super::backlog::Lane;
use super::client::{Client, Membership, NO_PING, Stage};
use super::counts::Counts;
use super::deadline::{Pings, first_ping};
use super::draining::{Drain, SHUTTING_DOWN};
use super::farewell::Farewells;
use super::membership::CatchUps;
use super::rate::Buckets;
use super::resume::Lobby;
use super::room::{Completed, Flags, Member, Room, Step, Trace};
use super::taps::Taps;
use super::wheel::{Wheel, tick_at_or_after};

/// A frame for one client alone.
pub(super) struct Notice {
    pub(super) client: ClientKey,
    pub(super) frame: Bytes,
    pub(super) lane: Lane,
    /// A Close, after which nothing is written.
    pub(super) is_close: bool,
    /// What the frame says; none for a control frame.
    pub(super) content: Option<Content>,
    /// The way of a message that somebody else said.
    pub(super) trace: Option<Trace>,
    /// Whether its delay is to be recorded.
    pub(super) is_sample: bool,
}

/// What frames for one client say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) kind: SentType,
    /// How many messages they are.
    pub(super) messages: usize,
    /// Their bytes without the frame headers.
    pub(super) payload: usize,
}

impl Notice {
    /// A control frame.
    pub(super) fn control(client: ClientKey, frame: Bytes) -> Self {
        let lane = Lane::Control;
        Self { client, frame, lane, is_close: false, content: None, trace: None, is_sample: false }
    }

    pub(super) fn message(client: ClientKey, lane: Lane, kind: SentType, message: &PreparedMessage) -> Self {
        let frame = message.frame().clone();
        let content = Some(Content { kind, messages: 1, payload: message.payload().len() });
        Self { client, frame, lane, is_close: false, content, trace: None, is_sample: false }
    }

    /// Several messages as published, in frames of their own, with the bytes of their payloads.
    pub(super) fn messages(client: ClientKey, frames: Bytes, (messages, payload): (usize, usize)) -> Self {
        let content = Some(Content { kind: SentType::Message, messages, payload });
        let (frame, lane) = (frames, Lane::Bulk);
        Self { client, frame, lane, is_close: false, content, trace: None, is_sample: false }
    }
}

/// A client that a handshake has let in.
pub(super) struct Newcomer {
    pub(super) session: Session,
    pub(super) endpoint: Endpoint,
    pub(super) compression: Compression,
    /// Seconds until the token runs out.
    pub(super) expires_in: Option<u64>,
    pub(super) permit: Permit,
}

/// The state of one shard.
pub(super) struct Shard {
    pub(super) parser: Parser,
    pub(super) inflater: Inflater,
    pub(super) core: Core,
}

/// Everything but the parser, whose messages are borrowed while they are acted upon.
pub(super) struct Core {
    pub(super) index: ShardIndex,
    pub(super) options: Arc<Options>,
    pub(super) hub: Arc<Hub>,
    pub(super) verifier: Arc<Verifier>,
    pub(super) clients: SlotMap<ClientKey, Client>,
    pub(super) rooms: SlotMap<RoomKey, LocalRoom>,
    pub(super) names: HashMap<RoomId, RoomKey, foldhash::fast::RandomState>,
    pub(super) counts: Counts,
    /// The buffers that wait for clients.
    pub(super) meter: Meter,
    pub(super) notices: VecDeque<Notice>,
    /// Clients whose input waits for a room to take more.
    pub(super) held: VecDeque<ClientKey>,
    pub(super) json: Vec<u8>,
    pub(super) deflater: Deflater,
    /// Bytes compressed and decompressed in this turn, with something for each message.
    pub(super) compression_work: usize,
    /// Seconds since the Unix epoch.
    pub(super) timestamp: u64,
    /// Nanoseconds of the gateway's clock, as the driver last read it: at most one turn ago.
    pub(super) time: u64,
    pub(super) everyone: RoomKey,
    pub(super) ready: VecDeque<RoomKey>,
    pub(super) served: u32,
    /// Clients for which something waits, in no order.
    pub(super) backlogged: Vec<ClientKey>,
    /// Rooms, in no order.
    pub(super) listed: Vec<RoomKey>,
    pub(super) farewells: Farewells,
    pub(super) taps: Taps,
    pub(super) pings: Pings,
    pub(super) wheel: Wheel,
    pub(super) due: Vec<(ClientKey, u32)>,
    pub(super) closed: VecDeque<ClientKey>,
    pub(super) gone: VecDeque<ClientKey>,
    pub(super) drain: Option<Drain>,
    pub(super) catch_ups: CatchUps,
    pub(super) lobby: Lobby,
}

/// A room with members on this shard.
pub(super) struct LocalRoom {
    pub(super) room: Room,
    pub(super) hub: Arc<hub::Room>,
    /// Whether it is known who is in the room, which does not change in its life.
    keeps_presence: bool,
    /// In the queue of rooms with something to deliver.
    pub(super) queued: bool,
    /// The greatest age that a batch lately had when all had been given it, in nanoseconds.
    pub(super) age: Cooling<u64>,
    /// Index into the shard's list of rooms.
    pub(super) place: u32,
}

impl LocalRoom {
    fn new(hub: Arc<hub::Room>, batch_bytes: usize, place: usize) -> Self {
        let place = u32::try_from(place).expect("there are fewer rooms than that");
        let options = hub.options();
        let room = Room::new(batch_bytes, options.overflow);
        let keeps_presence = options.presence.is_kept();
        Self { room, hub, keeps_presence, queued: false, age: Cooling::default(), place }
    }
}

impl Shard {
    pub(super) fn new(
        index: ShardIndex,
        options: Arc<Options>,
        hub: Arc<Hub>,
        verifier: Arc<Verifier>,
    ) -> Self {
        Self::with_keys(index, options, hub, verifier, SlotMap::with_key())
    }

    /// A shard whose rooms get keys of this map, which is empty.
    pub(super) fn with_keys(
        index: ShardIndex,
        options: Arc<Options>,
        hub: Arc<Hub>,
        verifier: Arc<Verifier>,
        mut rooms: SlotMap<RoomKey, LocalRoom>,
    ) -> Self {
        let everyone = rooms.insert_with_key(|key| {
            let (everyone, _) = hub.join_everyone(index, key);
            LocalRoom::new(everyone, options.batch_bytes, 0)
        });
        let core = Core {
            index,
            deflater: Deflater::new(options.compression),
            compression_work: 0,
            options,
            hub,
            verifier,
            clients: SlotMap::with_key(),
            rooms,
            names: HashMap::default(),
            counts: Counts::default(),
            meter: Meter::default(),
            notices: VecDeque::new(),
            held: VecDeque::new(),
            json: Vec::new(),
            timestamp: 0,
            everyone,
            ready: VecDeque::new(),
            served: 0,
            time: 0,
            backlogged: Vec::new(),
            listed: vec![everyone],
            farewells: Farewells::default(),
            taps: Taps::default(),
            pings: Pings::default(),
            wheel: Wheel::new(),
            due: Vec::new(),
            closed: VecDeque::new(),
            gone: VecDeque::new(),
            drain: None,
            catch_ups: CatchUps::default(),
            lobby: Lobby::default(),
        };
        Self { parser: Parser::default(), inflater: Inflater::default(), core }
    }
}

impl Core {
    /// Takes a client in and queues its `welcome`.
    pub(super) fn admit(&mut self, newcomer: Newcomer) -> ClientKey {
        let Newcomer { session, endpoint, compression, expires_in, permit } = newcomer;
        let now = self.wheel.now();
        let heartbeat = &self.options.heartbeat;
        let expires_at = self.expiry(expires_in);
        let first_ping = first_ping(session.client(), tick_at_or_after(heartbeat.ping));
        let ping_at = self.ping_together(now.saturating_add(first_ping));
        let user = session.user().clone();
        let rates = &self.options.rates;
        let buckets = rates.is_any().then(|| Box::new(Buckets::full(rates, self.time)));
        let key = self.clients.insert(Client {
            ping_at,
            pinged_at: NO_PING,
            session,
            decoder: Decoder::default(),
            queue: None,
            held: None,
            buckets,
            memberships: SmallVec::new(),
            stage: Stage::Open,
            endpoint,
            compression,
            opened_at: now,
            heard_at: now,
            blocked_at: 0,
            expires_at,
            wheel_at: u32::MAX,
            input_bytes: 0,
            _permit: permit,
        });
        let compressed = match compression {
            Compression::Off => Compressed::None,
            Compression::FromClient | Compression::Both => Compressed::Deflate,
        };
        self.counts.opened.add(compressed, 1);
        let may_connect =
            endpoint != Endpoint::Ws || self.hub.connect(&user, Address { shard: self.index, client: key });
        if !may_connect {
            let text = "the user has as many connections as a user may have";
            self.close(key, CloseCode::TooManyConnections, text, CloseReason::UserLimit);
        } else if endpoint == Endpoint::Ws {
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
            session: &self.verifier.sessions().issue(SessionPlace { shard: self.index, client: key }),
        };
        protocol::write_welcome(&welcome, self.timestamp, &mut self.json);
        let message = PreparedMessage::text(&self.json);
        self.notices.push_back(Notice::message(key, Lane::Control, SentType::Welcome, &message));
    }

    /// Makes a client a member of a room of this shard, for publications after `offset`.
    pub(super) fn enter(&mut self, key: ClientKey, room: RoomKey, offset: u64) {
        let client = &mut self.clients[key];
        let flags = match client.compression {
            _ if client.session.is_ndjson() => Flags::NDJSON,
            Compression::Both => Flags::COMPRESSED,
            Compression::Off | Compression::FromClient => Flags::PLAIN,
        };
        let slot = u32::try_from(client.memberships.len()).expect("there are fewer rooms than that");
        let index = self.rooms[room].room.join(Member { client: key, after: offset, flags, slot });
        client.memberships.push(Membership { room, index });
        self.counts.memberships += usize::from(room != self.everyone);
        let local = &self.rooms[room];
        if local.keeps_presence {
            self.hub.arrive(&local.hub, self.clients[key].session.user(), self.index);
        }
        self.tap_joined(key, room);
    }

    /// A room of this shard, made for its first member: `enter` lets the shard into the hub's.
    pub(super) fn open_room<T>(
        &mut self,
        id: RoomId,
        enter: impl FnOnce(&Hub, &RoomId, RoomKey) -> (Arc<hub::Room>, T),
    ) -> (RoomKey, T) {
        let (hub, batch_bytes, place) = (&self.hub, self.options.batch_bytes, self.listed.len());
        let mut entered = None;
        let key = self.rooms.insert_with_key(|key| {
            let (shared, at) = enter(hub, &id, key);
            entered = Some(at);
            LocalRoom::new(shared, batch_bytes, place)
        });
        self.listed.push(key);
        self.taps.room_opened(&id, key);
        self.names.insert(id, key);
        (key, entered.expect("set by the closure above"))
    }

    /// Ends a client's membership; the shard's last member lets go of the room.
    pub(super) fn exit(&mut self, key: ClientKey, room: RoomKey) {
        let client = &mut self.clients[key];
        // From the end, where a client that is closed leaves one room after the other.
        let Some(at) = client.memberships.iter().rposition(|membership| membership.room == room) else {
            return;
        };
        let is_open = client.is_open();
        let membership = client.memberships.swap_remove(at);
        if let Some(moved) = client.memberships.get(at) {
            let slot = u32::try_from(at).expect("it was less before");
            self.rooms[moved.room].room.set_slot(moved.index, slot);
        }
        self.tap_left(key, room);
        self.forget_parked(key, room);
        self.catch_ups.leave(key, room);
        self.counts.memberships -= usize::from(room != self.everyone);
        let local = &mut self.rooms[room];
        if local.keeps_presence {
            self.hub.depart(&local.hub, self.clients[key].session.user(), self.index, !is_open);
        }
        let left = local.room.leave(membership.index);
        for moved in left.moved {
            let membership = &mut self.clients[moved.client].memberships[moved.slot as usize];
            debug_assert_eq!(membership.room, room, "a member knows its client's place for it");
            membership.index = moved.index;
        }
        if !is_open {
            // Who asked to leave is not owed what was on its way; who was closed is.
            self.counts.dropped.add(DropReason::Closing, left.missed as u64);
        }
        if room != self.everyone && local.room.is_empty() {
            self.close_room(room);
        }
    }

    /// Counts a batch that was given to all members here, or to nobody any more, and makes place for others.
    pub(super) fn complete(&mut self, key: RoomKey, batch: &Completed) {
        let local = &mut self.rooms[key];
        let served = Served { bytes: batch.bytes, deliveries: batch.deliveries };
        local.hub.release(self.index, key, served, self.time);
        let age = local.age.at_mut(self.time);
        *age = (*age).max(self.time.saturating_sub(batch.read_at));
        self.counts.complete(batch);
        self.tap_delivered(key, batch);
    }

    fn close_room(&mut self, key: RoomKey) {
        // What some of its members were given counts, although they have all gone.
        while let Step::Complete(batch) = self.rooms[key].room.next_step() {
            self.complete(key, &batch);
        }
        let local = self.rooms.remove(key).expect("the room was there");
        self.listed.swap_remove(local.place as usize);
        if let Some(moved) = self.listed.get(local.place as usize) {
            self.rooms[*moved].place = local.place;
        }
        let id = local.hub.id().expect("only the room of everyone has no name");
        self.names.remove(id);
        self.taps.room_closed(key);
        self.hub.leave(&local.hub, self.index);
    }

    /// Does what another thread asked for.
    pub(super) fn apply(&mut self, command: Command) {
        match command {
            Command::Publish { room, publication } => self.publish_locally(room, &publication),
            Command::PublishBut { room, publication, except } => {
                let exclude = self.exclude(room, except);
                self.publish_locally(room, &Publication { exclude, ..*publication });
            }
            Command::Unsubscribe { room, whom, answer } => {
                let _ = answer.send(self.unsubscribe(&room, &whom));
            }
            Command::Direct { clients, message, origin } => {
                let trace = Trace { origin, taken_at: self.time };
                let count = clients.len();
                for (index, client) in clients.into_iter().enumerate() {
                    if !self.clients.get(client).is_some_and(Client::is_open) {
                        self.counts.dropped.add(DropReason::Closing, 1);
                        continue;
                    }
                    let notice = Notice::message(client, Lane::Bulk, SentType::Message, &message);
                    let is_sample = index == 0 || index + 1 == count;
                    self.notices.push_back(Notice { trace: Some(trace), is_sample, ..notice });
                }
                let payload = message.payload().len() as u64;
                self.counts.samples.message_size[Direction::Sent].record_many(payload, count as u64);
            }
            Command::Close { whom, why, answer } => {
                // Who asked may be gone by now.
                let _ = answer.send(self.close_all(&whom, &why));
            }
            Command::Depart { session, to } => self.hand_over(&session, to),
            Command::Arrive { client, user, rooms } => self.arrive(client, user, rooms),
            Command::Drain { window } => self.start_drain(window),
            Command::AbortDrain => self.abort_drain(),
            Command::Accept { .. } | Command::Ask(_) | Command::Stop => {
                debug_assert!(false, "the driver does these itself");
            }
        }
    }

    /// A publication as a compressed frame, if the room has members here that can take one and it is any shorter.
    fn compressed(&mut self, room: RoomKey, publication: &Publication) -> Option<Bytes> {
        let members = self.rooms.get(room)?.room.compressed_members();
        if members == 0 {
            return None;
        }
        let excluded = publication.exclude.and_then(|client| self.clients.get(client));
        if members == 1 && excluded.is_some_and(|client| client.compression == Compression::Both) {
            return None;
        }
        let payload = publication.message.payload();
        self.compression_work += payload.len();
        let mut frame = Vec::new();
        if !self.deflater.encode(&mut frame, true, payload) {
            return None;
        }
        self.counts.compression_input += payload.len() as u64;
        self.counts.compression_output += frame.len() as u64;
        Some(frame.into())
    }

    fn publish_locally(&mut self, room: RoomKey, publication: &Publication) {
        let compressed = self.compressed(room, publication);
        let Some(local) = self.rooms.get_mut(room) else { return };
        local.room.append(publication, compressed, self.time);
        let (payload, members) = (publication.message.payload().len(), local.room.members().len());
        let recipients = members.saturating_sub(usize::from(publication.exclude.is_some()));
        self.counts.samples.message_size[Direction::Sent].record_many(payload as u64, recipients as u64);
        if !mem::replace(&mut local.queued, true) {
            self.ready.push_back(room);
        }
        self.tap_message(room, publication, members);
    }
}
