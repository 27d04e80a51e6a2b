//! The labels: enums, so that the number of series is known.

use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

use serde::{Serialize, Serializer};

/// One handle for each value of a label; indexed by the value.
#[derive(Clone, Debug)]
pub struct Family<L, H> {
    handles: Box<[H]>,
    label: PhantomData<fn(L)>,
}

impl<L: LabelValue, H> Family<L, H> {
    pub(super) fn new(register: impl Fn(&'static str, &'static str) -> H) -> Self {
        Self {
            handles: L::ALL.iter().map(|value| register(L::KEY, value.as_str())).collect(),
            label: PhantomData,
        }
    }
}

impl<L: LabelValue, H> Index<L> for Family<L, H> {
    type Output = H;

    fn index(&self, value: L) -> &H {
        &self.handles[value.index()]
    }
}

impl<L: LabelValue, H> IndexMut<L> for Family<L, H> {
    fn index_mut(&mut self, value: L) -> &mut H {
        &mut self.handles[value.index()]
    }
}

/// Values of one label, as an enum that can index a [`Family`].
pub trait LabelValue: Copy + 'static {
    /// The label's name.
    const KEY: &'static str;
    /// All values, in the order of [`LabelValue::index`].
    const ALL: &'static [Self];
    /// The value as it stands in a series.
    fn as_str(self) -> &'static str;
    /// Its place in [`LabelValue::ALL`].
    fn index(self) -> usize;
}

macro_rules! label {
    ($(#[$meta:meta])* $name:ident, $key:literal { $($(#[$doc:meta])+ $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])+ $variant),+ }

        impl LabelValue for $name {
            const KEY: &'static str = $key;
            const ALL: &'static [Self] = &[$(Self::$variant),+];
            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
            fn index(self) -> usize {
                self as usize
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}
pub(super) use label;

label! {
    /// Whether compression was negotiated.
    Compressed, "compression" {
        /// Messages are as they are.
        None = "none",
        /// permessage-deflate (RFC 7692).
        Deflate = "deflate",
    }
}

label! {
    /// Why a WebSocket connection ended.
    CloseReason, "reason" {
        /// The client closed it or went away in good order.
        Client = "client",
        /// Reading or writing failed.
        IoError = "io_error",
        /// Its outbound queue was full, or a write was blocked for too long.
        SlowConsumer = "slow_consumer",
        /// Nothing came from it for too long.
        PingTimeout = "ping_timeout",
        /// It broke RFC 6455.
        ProtocolError = "protocol_error",
        /// It sent what is not UTF-8, or a binary message.
        InvalidPayload = "invalid_payload",
        /// It sent a message over the limit.
        TooLarge = "too_large",
        /// It kept sending messages that could not be understood.
        Policy = "policy",
        /// Its token expired.
        TokenExpired = "token_expired",
        /// The application disconnected it.
        Kicked = "kicked",
        /// The gateway shut down.
        Shutdown = "shutdown",
        /// The gateway failed.
        Internal = "internal",
        /// It said more than the rates allow.
        RateLimited = "rate_limited",
        /// Its token was revoked.
        TokenRevoked = "token_revoked",
        /// Its user has as many connections as a user may have.
        UserLimit = "user_limit",
        /// Memory was short, and it held much of it.
        Memory = "memory",
        /// Another connection goes on with its session.
        TakenOver = "taken_over",
    }
}

label! {
    /// Why a connection did not become a WebSocket.
    HandshakeFailure, "reason" {
        /// The request was not complete in time.
        Timeout = "timeout",
        /// The request was malformed or over a limit.
        BadRequest = "bad_request",
        /// A well-formed request that asks for no upgrade, or another version.
        NotUpgrade = "not_upgrade",
        /// No such path.
        NotFound = "not_found",
        /// An origin that is not allowed.
        Origin = "origin",
        /// No token, or one that was refused.
        Auth = "auth",
        /// The connection limit was reached.
        Capacity = "capacity",
        /// The gateway was shutting down.
        Draining = "draining",
        /// A crowd came, and this connection waited too long for its turn.
        Overload = "overload",
        /// Its address has as many connections as it may have.
        AddressLimit = "address_limit",
        /// Its address begins connections too fast.
        AddressRate = "address_rate",
        /// All together begin connections too fast.
        Rate = "rate",
        /// What a proxy should have said first was not there.
        Proxy = "proxy",
        /// No TLS where it is spoken, TLS where it is not, or a TLS handshake that failed.
        Tls = "tls",
        /// The connection broke.
        IoError = "io_error",
    }
}

label! {
    /// How reading the certificate again ended.
    ReloadResult, "result" {
        /// The new one is in force.
        Ok = "ok",
        /// It is no good, and the old one stays.
        Error = "error",
    }
}

label! {
    /// Whose limit was passed, of those that bound how many or how fast.
    LimitScope, "scope" {
        /// That of an address: its connections, or how fast it begins them.
        Ip = "ip",
        /// That of a user: its connections.
        User = "user",
        /// That of a connection: what it says in a second.
        Connection = "connection",
        /// That of all together: how fast connections begin.
        Global = "global",
    }
}

impl HandshakeFailure {
    /// Whose limit it was that was passed, if it was one of those.
    pub(super) fn scope(self) -> Option<LimitScope> {
        match self {
            Self::AddressLimit | Self::AddressRate => Some(LimitScope::Ip),
            Self::Rate => Some(LimitScope::Global),
            _ => None,
        }
    }
}

label! {
    /// Why accepting a connection failed.
    AcceptError, "reason" {
        /// No file descriptor was left.
        Descriptors = "descriptors",
        /// Anything else.
        Other = "other",
    }
}

label! {
    /// What a client sent.
    ReceivedType, "type" {
        /// A message to a room, a user or everyone.
        Message = "message",
        /// Enter a room.
        Join = "join",
        /// Leave a room.
        Leave = "leave",
        /// Application heartbeat.
        Ping = "ping",
        /// Answer to a heartbeat.
        Pong = "pong",
        /// Who is there.
        Presence = "presence",
        /// Read back.
        History = "history",
        /// A new token.
        Auth = "auth",
        /// Be in all rooms of an earlier session.
        Resume = "resume",
        /// Something that is none of these.
        Invalid = "invalid",
        /// Anything, at `/echo`.
        Echo = "echo",
    }
}

label! {
    /// What was sent to a client. All but echoes say so themselves, in their JSON's `type`.
    SentType, "type" {
        /// The first frame.
        Welcome = "welcome",
        /// A message as published.
        Message = "message",
        /// A request succeeded.
        Ack = "ack",
        /// A request failed.
        Error = "error",
        /// Answer to an application heartbeat.
        Pong = "pong",
        /// Advice to come back later.
        Reconnect = "reconnect",
        /// Messages that the client was not given.
        Gap = "gap",
        /// A user came into a room.
        Join = "join",
        /// A user left a room.
        Leave = "leave",
        /// Who is there.
        Presence = "presence",
        /// What was said.
        History = "history",
        /// What the client said, at `/echo`.
        Echo = "echo",
    }
}

label! {
    /// Where bytes are counted.
    Layer, "layer" {
        /// What applications see: messages, without frame headers.
        Payload = "payload",
        /// What goes over the wire behind the handshake, frame headers and control frames included.
        Wire = "wire",
    }
}

label! {
    /// Who published.
    Source, "source" {
        /// A connected client, by what it said or by coming and going.
        Client = "client",
        /// An application, by the HTTP API.
        Api = "api",
    }
}

label! {
    /// What became of a request's key for the API.
    ApiAuth, "result" {
        /// It may do that.
        Ok = "ok",
        /// There was none.
        Missing = "missing",
        /// Nobody has that key.
        Unknown = "unknown",
        /// It is for other things.
        Forbidden = "forbidden",
    }
}

label! {
    /// What became of a message that an application wanted to publish.
    PublishResult, "result" {
        /// It was published.
        Ok = "ok",
        /// It had been published before, by the same idempotency key.
        Repeated = "repeated",
        /// It was not what it should be.
        Refused = "refused",
        /// Too much was on its way.
        Busy = "busy",
    }
}

label! {
    /// What has become of a client's wish to be given what it missed in a room.
    Recovery, "result" {
        /// All of it follows.
        Complete = "complete",
        /// It is not kept any more, or never was.
        Impossible = "impossible",
    }
}

label! {
    /// What has become of a client's wish to go on with an earlier session.
    Resumption, "result" {
        /// It is in that session's rooms again.
        Known = "known",
        /// The session is not known any more; the client is in the rooms that it named itself.
        Unknown = "unknown",
    }
}

label! {
    /// What a delivered message spent its time on, in this order; the last only where a client is slow.
    Stage, "stage" {
        /// From reading the socket to the inboxes of the shards with recipients: parsing, the room's order.
        Ingress = "ingress",
        /// In the inbox of the recipient's shard.
        Inbox = "inbox",
        /// From there to the recipient's socket: behind the room's earlier batches, and the other members' turns.
        FanOut = "fan_out",
        /// In the queue of a client whose socket was full, until that took it.
        ClientQueue = "client_queue",
    }
}

label! {
    /// Which way a message went.
    Direction, "direction" {
        /// From a client.
        Received = "received",
        /// To a client.
        Sent = "sent",
    }
}

label! {
    /// Why a request was answered with an error: the contract's codes.
    RejectReason, "reason" {
        /// The message is not what it should be.
        BadMessage = "bad_message",
        /// There is no such type of message.
        UnknownType = "unknown_type",
        /// A field that the type needs is not there.
        MissingField = "missing_field",
        /// Only members may do this.
        NotAMember = "not_a_member",
        /// The user may not do this.
        Forbidden = "forbidden",
        /// The connection is in as many rooms as it may be.
        TooManyRooms = "too_many_rooms",
        /// Too fast.
        RateLimited = "rate_limited",
        /// Too long.
        MessageTooBig = "message_too_big",
        /// Not at this time, or not by this gateway.
        Unavailable = "unavailable",
        /// The gateway failed.
        Internal = "internal",
    }
}

label! {
    /// The code of a Close frame that the gateway chose.
    CloseSent, "code" {
        /// Another connection goes on with the session.
        Normal = "1000",
        /// Going away.
        GoingAway = "1001",
        /// The peer broke RFC 6455.
        ProtocolError = "1002",
        /// A binary message.
        Unsupported = "1003",
        /// Not UTF-8.
        InvalidPayload = "1007",
        /// Nothing but bad messages.
        PolicyViolation = "1008",
        /// A message over the limit.
        MessageTooBig = "1009",
        /// The gateway failed.
        Internal = "1011",
        /// Memory was short.
        TryLater = "1013",
        /// Said more than the rates allow.
        RateLimited = "4029",
        /// Slow consumer.
        SlowConsumer = "4008",
        /// No heartbeat.
        NoHeartbeat = "4009",
        /// The token expired.
        TokenExpired = "4500",
        /// The application's wish.
        Disconnected = "4501",
        /// Too many connections of one user.
        TooManyConnections = "4503",
        /// The answer to a client's Close, which repeats its code.
        Reply = "reply",
        /// Any other.
        Other = "other",
    }
}

label! {
    /// What kind of code a client's Close frame had; the code itself is the client's choice, and no label.
    ReceivedClose, "class" {
        /// 1000.
        Normal = "normal",
        /// 1001.
        GoingAway = "going_away",
        /// 1002 to 1015.
        Protocol = "protocol",
        /// 3000 to 4999.
        Application = "application",
        /// A Close without a code.
        None = "none",
    }
}

label! {
    /// How the check of a token ended.
    AuthResult, "result" {
        /// The client may come in.
        Ok = "ok",
        /// There was no token.
        Missing = "missing",
        /// It is no JSON Web Token.
        Malformed = "malformed",
        /// A claim is missing or has a value that cannot be.
        BadClaim = "bad_claim",
        /// Signed with an algorithm that is not accepted.
        WrongAlgorithm = "wrong_algorithm",
        /// Signed by a key that is in no set, or not yet.
        UnknownKey = "unknown_key",
        /// The signature does not fit the key.
        BadSignature = "bad_signature",
        /// Its time is over.
        Expired = "expired",
        /// Its time has not come.
        NotYetValid = "not_yet_valid",
        /// From another issuer.
        WrongIssuer = "wrong_issuer",
        /// For another service.
        WrongAudience = "wrong_audience",
        /// The application has revoked it.
        Revoked = "revoked",
    }
}

label! {
    /// How it ended to read the keys anew.
    Refresh, "result" {
        /// They are in force, the same or others.
        Ok = "ok",
        /// Those before stay.
        Error = "error",
    }
}

label! {
    /// How a write to a socket ended.
    WriteResult, "result" {
        /// All was taken.
        Ok = "ok",
        /// A part was taken.
        Partial = "partial",
        /// Nothing was taken.
        WouldBlock = "would_block",
        /// The connection is broken.
        Error = "error",
    }
}

label! {
    /// Why a recipient was not given a message.
    DropReason, "reason" {
        /// Its outbound queue was full.
        BytesLimit = "bytes_limit",
        /// It was being closed, or was gone.
        Closing = "closing",
        /// It was slow, and its room leaves out the oldest messages for such.
        DropOldest = "drop_oldest",
        /// It was slow, and a newer message with the same key came, in a room that keeps only those.
        Conflated = "conflated",
    }
}
