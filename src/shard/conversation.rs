//! From a client's bytes to what is done about them: decode, parse, ask the session, act, answer.

use crate::http::Endpoint;
use crate::hub::{Excluded, OnOverflow, RoomOptions, Said, Start, Text};
use crate::id::{ClientKey, MessageKey, NameRef, RoomKey};
use crate::metrics::{CloseReason, ReceivedType, RejectReason, SentType, Source};
use crate::protocol::{self, Ack, ErrorCode, Mark, Message, Request};
use crate::session::Action;
use crate::ws::{
    self, CloseCode, Compression, DecodeError, Draft, Event, MessageKind, PreparedMessage, Rules,
};

use super::backlog::Lane;
use super::client::Held;
use super::lookups;
use super::state::{Core, Notice, Shard};

/// Whether a message was dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// The next one can come.
    Done,
    /// A room took no more: the message is to be tried again.
    Held,
}

/// It still has to wait.
pub(super) struct StillHeld;

/// What one client's input may become in one turn when it is decompressed, in bytes: a read of the shard's buffer could become a
/// thousand times as much, and be answered with that. The rest waits for the next turn.
const INFLATED_PER_TURN: usize = 256 << 10;

/// Replies to what one read of a client brought, in bytes, before it has to take them: a short question can have a long answer.
const REPLIES_PER_TURN: usize = 256 << 10;

/// What each compressed message counts for besides its bytes.
const INFLATE_COST: usize = 512;

/// A whole message of a client.
#[derive(Clone, Copy)]
struct Heard<'a> {
    kind: MessageKind,
    payload: &'a [u8],
    /// When it was read, in nanoseconds of the gateway's clock.
    read_at: u64,
}

/// What goes with a request besides what it asks.
struct Asked<'a> {
    mark: Option<Mark<'a>>,
    /// When the request was read, in nanoseconds of the gateway's clock.
    read_at: u64,
}

impl Shard {
    /// Takes what a client's socket gave, at `read_at` nanoseconds. Replies are appended to `replies` as frames.
    pub(super) fn receive(&mut self, key: ClientKey, input: &mut [u8], read_at: u64, replies: &mut Vec<u8>) {
        let now = self.core.now();
        let Some(client) = self.core.clients.get_mut(key) else { return };
        client.heard_at = now;
        let mut input = input;
        let mut inflated = 0;
        loop {
            let Some(client) = self.core.clients.get_mut(key).filter(|client| client.is_open()) else {
                return;
            };
            if replies.len() >= REPLIES_PER_TURN && !input.is_empty() {
                return self.core.hold(key, Held { read_at, message: None, rest: input.to_vec() });
            }
            let limit = self.core.options.message_bytes;
            let rules = Rules::new(limit, client.compression != Compression::Off);
            match client.decoder.decode(&mut input, rules) {
                Ok(None) => return self.core.count_input(key),
                Ok(Some(Event::Message { kind, payload })) => {
                    let heard = Heard { kind, payload: &payload, read_at };
                    if self.hear(key, heard, replies) == Flow::Held {
                        let message = Some(payload.into_vec());
                        return self.core.hold(key, Held { read_at, message, rest: input.to_vec() });
                    }
                }
                Ok(Some(Event::Compressed { kind, payload })) => {
                    let message = match self.inflate(kind, &payload) {
                        Ok(message) => message,
                        Err(error) => return self.core.close_for(key, error),
                    };
                    let cost = message.len() + INFLATE_COST;
                    inflated += cost;
                    self.core.compression_work += cost;
                    let heard = Heard { kind, payload: &message, read_at };
                    if self.hear(key, heard, replies) == Flow::Held {
                        let (message, rest) = (Some(message), input.to_vec());
                        return self.core.hold(key, Held { read_at, message, rest });
                    }
                    self.inflater.give_back(message);
                    if inflated >= INFLATED_PER_TURN && !input.is_empty() {
                        return self.core.hold(key, Held { read_at, message: None, rest: input.to_vec() });
                    }
                }
                Ok(Some(Event::Ping(payload))) => ws::encode_pong(replies, &payload),
                Ok(Some(Event::Pong(payload))) => {
                    if let Some(nanoseconds) = self.core.round_trip(key, &payload, read_at) {
                        self.core.counts.samples.ping_rtt.record(nanoseconds);
                    }
                }
                Ok(Some(Event::Close(close))) => return self.core.answer_close(key, close.as_ref()),
                Err(error) => return self.core.close_for(key, error),
            }
        }
    }

    fn inflate(&mut self, kind: MessageKind, payload: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let message = self.inflater.inflate(payload, self.core.options.message_bytes)?;
        match kind {
            MessageKind::Text => ws::check_text(&message).map(|()| message),
            MessageKind::Binary => Ok(message),
        }
    }

    /// As [`Shard::message`], for one that is heard for the first time.
    fn hear(&mut self, key: ClientKey, heard: Heard<'_>, replies: &mut Vec<u8>) -> Flow {
        self.core.tap_received(key, heard.payload);
        if let Err(in_a_row) = self.core.take_from_buckets(key, heard.payload.len()) {
            self.refuse_for_rate(key, heard.payload, in_a_row, replies);
            return Flow::Done;
        }
        let flow = self.message(key, heard, replies);
        self.core.counts.held += u64::from(flow == Flow::Held);
        flow
    }

    /// Says to a client that it says too much, and closes it when it does not listen.
    fn refuse_for_rate(&mut self, key: ClientKey, payload: &[u8], in_a_row: u16, replies: &mut Vec<u8>) {
        let mark = self.parser.parse(payload).mark;
        let text = "too many messages or bytes in too short a time: wait a second";
        self.core.refuse(mark, ErrorCode::RateLimited, text, replies);
        if in_a_row >= self.core.options.session.bad_messages {
            let text = "more was said than the rates allow";
            self.core.close(key, CloseCode::RateLimited, text, CloseReason::RateLimited);
        }
    }

    fn message(&mut self, key: ClientKey, heard: Heard<'_>, replies: &mut Vec<u8>) -> Flow {
        let Heard { kind, payload, read_at } = heard;
        match (self.core.clients[key].endpoint, kind) {
            (Endpoint::Echo, kind) => self.core.echo(key, kind, payload, replies),
            (Endpoint::Ws, MessageKind::Binary) => {
                self.core.counts.heard(ReceivedType::Invalid, payload.len());
                let text = "binary messages are not understood: send JSON in text";
                self.core.close(key, CloseCode::Unsupported, text, CloseReason::InvalidPayload);
            }
            (Endpoint::Ws, MessageKind::Text) => return self.request(key, payload, read_at, replies),
        }
        Flow::Done
    }

    fn request(&mut self, key: ClientKey, payload: &[u8], read_at: u64, replies: &mut Vec<u8>) -> Flow {
        let Self { parser, core, .. } = self;
        let parsed = parser.parse(payload);
        let mut joined = core.clients[key].rooms_joined();
        if let Ok(Request::Join { room, .. }) = parsed.request
            && core.membership(key, room).is_some()
        {
            // To join again takes no further place.
            joined -= 1;
        }
        let client = &mut core.clients[key];
        core.json.clear();
        let limits = &core.options.session;
        let (mark, kind) = (parsed.mark, received_type(&parsed.request));
        let action = client.session.handle(parsed, limits, joined, core.timestamp, &mut core.json);
        let flow = core.perform(key, action, &Asked { mark, read_at }, replies);
        if flow == Flow::Done {
            core.counts.heard(kind, payload.len());
        }
        flow
    }

    /// Tries again what a room has refused to the client that waits longest, or goes on with its input. `Err` when it has
    /// to wait on behind the others; `Ok` with the client that can be read from again, if it is still there.
    pub(super) fn retry_held(&mut self, replies: &mut Vec<u8>) -> Result<Option<ClientKey>, StillHeld> {
        let Some(key) = self.core.held.pop_front() else { return Ok(None) };
        let Some(held) = self.core.clients.get_mut(key).and_then(|client| client.held.take()) else {
            return Ok(None);
        };
        let Held { read_at, message, mut rest } = *held;
        let has_to_wait = match &message {
            Some(message) => {
                let heard = Heard { kind: MessageKind::Text, payload: message, read_at };
                self.message(key, heard, replies) == Flow::Held
            }
            None => self.core.has_many_replies_waiting(key),
        };
        if has_to_wait {
            self.core.hold(key, Held { read_at, message, rest });
            return Err(StillHeld);
        }
        self.receive(key, &mut rest, read_at, replies);
        Ok(Some(key))
    }
}

impl Core {
    /// Counts a message against what a client may say; `Err` as [`Buckets::take`](super::rate::Buckets::take).
    fn take_from_buckets(&mut self, key: ClientKey, bytes: usize) -> Result<(), u16> {
        let Some(client) = self.clients.get_mut(key).filter(|client| client.endpoint == Endpoint::Ws) else {
            return Ok(());
        };
        match &mut client.buckets {
            Some(buckets) => buckets.take(&self.options.rates, bytes, self.time),
            None => Ok(()),
        }
    }

    /// Closes a client that broke a rule of the wire.
    fn close_for(&mut self, key: ClientKey, error: DecodeError) {
        self.close(key, error.close_code(), error.to_string(), close_reason(error));
    }

    fn hold(&mut self, key: ClientKey, held: Held) {
        if let Some(client) = self.clients.get_mut(key).filter(|client| client.is_open()) {
            client.held = Some(Box::new(held));
            self.held.push_back(key);
            self.count_input(key);
        }
    }

    fn perform(
        &mut self,
        key: ClientKey,
        action: Action<'_>,
        asked: &Asked<'_>,
        replies: &mut Vec<u8>,
    ) -> Flow {
        match action {
            Action::None => {}
            Action::Pong => self.reply(SentType::Pong, replies),
            Action::Refuse(code) => self.reply_error(code, replies),
            Action::Join { mark, room, recover, history } => {
                let last = |count| Start::Last(usize::try_from(count).unwrap_or(usize::MAX));
                let start = recover.map(lookups::start).or(history.map(last));
                self.join(key, (room, start), mark, replies);
            }
            Action::Resume { mark, session, rooms } => self.resume(key, session, &rooms, mark, replies),
            Action::History { mark, room, since, limit } => {
                self.answer_history(key, (room, since), limit, mark, replies);
            }
            Action::Presence { mark, room, after, limit } => {
                self.answer_presence(key, (room, after), limit, mark, replies);
            }
            Action::Leave { mark, room } => self.leave(key, room, mark, replies),
            Action::PublishRoom { mark, room, message, echo } => {
                let Some(joined) = self.membership(key, room) else {
                    let text =
                        "`room_id` names a room that this connection has not joined: send a join first";
                    self.refuse(mark, ErrorCode::NotAMember, text, replies);
                    return Flow::Done;
                };
                let options = self.rooms[joined].hub.options();
                let session = &self.clients[key].session;
                if options.publish.allows(|| session.token_allows_to_publish(room)) {
                    return self.publish(key, (joined, options), (&message, echo), asked, replies);
                }
                let text = "`room_id` names a room in which this connection may not say anything";
                self.refuse(mark, ErrorCode::Forbidden, text, replies);
            }
            Action::PublishEveryone { message, echo, .. } => {
                let everyone = (self.everyone, RoomOptions::default());
                return self.publish(key, everyone, (&message, echo), asked, replies);
            }
            Action::PublishUser { to, message, .. } => {
                return self.direct(key, to, &message, asked, replies);
            }
            Action::Authenticate { mark, token } => self.renew(key, token, mark, replies),
            Action::Close { code, reason, error } => {
                self.reply_error(error, replies);
                self.close(key, code, reason, CloseReason::Policy);
            }
        }
        Flow::Done
    }

    fn publish(
        &mut self,
        key: ClientKey,
        (room, options): (RoomKey, RoomOptions),
        (message, echo): (&Message<'_>, bool),
        asked: &Asked<'_>,
        replies: &mut Vec<u8>,
    ) -> Flow {
        let text = if options.is_numbered() {
            Text::Numbered(self.draft(key, message))
        } else {
            Text::Whole(self.prepare(key, message))
        };
        let about = message.key.filter(|_| options.overflow == OnOverflow::Latest).map(MessageKey::from);
        let exclude = (!echo).then_some((self.index, Excluded::Key(key)));
        if exclude.is_some() {
            let membership = self.clients[key].memberships.iter().find(|membership| membership.room == room);
            let index = membership.expect("the sender is a member").index;
            self.rooms[room].room.set_personal(index);
        }
        let (source, read_at) = (Source::Client, asked.read_at);
        let said = Said { text, key: about, exclude, source, read_at };
        let Ok(offset) = self.hub.publish(&self.rooms[room].hub, said) else { return Flow::Held };
        self.counts.broadcasts += 1;
        if let Some(mark) = asked.mark {
            let ack = if room == self.everyone { Ack::Broadcast } else { Ack::Published { offset } };
            self.acknowledge(mark, &ack, replies);
        }
        Flow::Done
    }

    fn direct(
        &mut self,
        key: ClientKey,
        user: NameRef<'_>,
        message: &Message<'_>,
        asked: &Asked<'_>,
        replies: &mut Vec<u8>,
    ) -> Flow {
        let prepared = self.prepare(key, message);
        let Ok(delivered) = self.hub.direct(user, &prepared, Source::Client, asked.read_at) else {
            return Flow::Held;
        };
        self.counts.direct += 1;
        if let Some(mark) = asked.mark {
            self.acknowledge(mark, &Ack::Direct { delivered }, replies);
        }
        Flow::Done
    }

    /// Encodes a message once, for whoever it is for.
    fn prepare(&mut self, key: ClientKey, message: &Message<'_>) -> PreparedMessage {
        self.json.clear();
        let from = self.clients[key].session.user().as_ref();
        protocol::write_message(message, from, self.timestamp, &mut self.json);
        PreparedMessage::text(&self.json)
    }

    /// As [`Core::prepare`], for a room whose messages say their offset.
    fn draft(&mut self, key: ClientKey, message: &Message<'_>) -> Draft {
        self.json.clear();
        let from = self.clients[key].session.user().as_ref();
        protocol::write_message_up_to_offset(message, from, self.timestamp, &mut self.json);
        Draft::new(&self.json, b"}")
    }

    pub(super) fn acknowledge(&mut self, mark: Mark<'_>, ack: &Ack<'_>, replies: &mut Vec<u8>) {
        self.json.clear();
        protocol::write_ack(mark, ack, self.timestamp, &mut self.json);
        self.reply(SentType::Ack, replies);
    }

    pub(super) fn refuse(
        &mut self,
        mark: Option<Mark<'_>>,
        code: ErrorCode,
        text: &str,
        replies: &mut Vec<u8>,
    ) {
        self.json.clear();
        protocol::write_error(mark, code, text, self.timestamp, &mut self.json);
        self.reply_error(code, replies);
    }

    fn reply_error(&mut self, code: ErrorCode, replies: &mut Vec<u8>) {
        self.counts.rejected.add(reject_reason(code), 1);
        self.reply(SentType::Error, replies);
    }

    pub(super) fn reply(&mut self, kind: SentType, replies: &mut Vec<u8>) {
        self.counts.replies.add(kind, 1, self.json.len());
        ws::encode_text(replies, &self.json);
    }

    fn echo(&mut self, key: ClientKey, kind: MessageKind, payload: &[u8], replies: &mut Vec<u8>) {
        self.counts.heard(ReceivedType::Echo, payload.len());
        self.counts.replies.add(SentType::Echo, 1, payload.len());
        let may_compress = self.clients[key].compression == Compression::Both;
        self.compression_work += if may_compress { payload.len() } else { 0 };
        if may_compress && self.deflater.encode(replies, kind == MessageKind::Text, payload) {
            return;
        }
        match kind {
            MessageKind::Text => ws::encode_text(replies, payload),
            MessageKind::Binary => ws::encode_binary(replies, payload),
        }
    }

    /// Answers behind what waits for the client: nothing of a room may come after the answer to `leave`, and
    /// nothing from before a `join` after the answer to it.
    pub(super) fn reply_in_order(&mut self, key: ClientKey, replies: &mut Vec<u8>) {
        if self.has_backlog(key) {
            let message = PreparedMessage::text(&self.json);
            self.notices.push_back(Notice::message(key, Lane::Bulk, SentType::Ack, &message));
        } else {
            self.reply(SentType::Ack, replies);
        }
    }
}

fn close_reason(error: DecodeError) -> CloseReason {
    match error.close_code() {
        CloseCode::MessageTooBig => CloseReason::TooLarge,
        CloseCode::InvalidPayload => CloseReason::InvalidPayload,
        _ => CloseReason::ProtocolError,
    }
}

fn reject_reason(code: ErrorCode) -> RejectReason {
    match code {
        ErrorCode::BadMessage => RejectReason::BadMessage,
        ErrorCode::UnknownType => RejectReason::UnknownType,
        ErrorCode::MissingField => RejectReason::MissingField,
        ErrorCode::NotAMember => RejectReason::NotAMember,
        ErrorCode::Forbidden => RejectReason::Forbidden,
        ErrorCode::TooManyRooms => RejectReason::TooManyRooms,
        ErrorCode::RateLimited => RejectReason::RateLimited,
        ErrorCode::MessageTooBig => RejectReason::MessageTooBig,
        ErrorCode::Unavailable => RejectReason::Unavailable,
        ErrorCode::Internal => RejectReason::Internal,
    }
}

fn received_type<E>(request: &Result<Request<'_>, E>) -> ReceivedType {
    match request {
        Ok(Request::Ping { .. }) => ReceivedType::Ping,
        Ok(Request::Pong) => ReceivedType::Pong,
        Ok(Request::Join { .. }) => ReceivedType::Join,
        Ok(Request::Leave { .. }) => ReceivedType::Leave,
        Ok(Request::Message { .. }) => ReceivedType::Message,
        Ok(Request::Presence { .. }) => ReceivedType::Presence,
        Ok(Request::History { .. }) => ReceivedType::History,
        Ok(Request::Auth { .. }) => ReceivedType::Auth,
        Ok(Request::Resume { .. }) => ReceivedType::Resume,
        Err(_) => ReceivedType::Invalid,
    }
}
