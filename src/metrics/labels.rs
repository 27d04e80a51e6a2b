//! The labels: enums, so that the number of series is known.

use std::marker::PhantomData;
use std::ops::Index;

/// One handle for each value of a label; indexed by the value.
#[derive(Clone)]
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
    };
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
        /// The connection broke.
        IoError = "io_error",
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
        /// A connected client.
        Client = "client",
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
    }
}
