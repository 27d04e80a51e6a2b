//! The JSON messages: what a client may ask, and what the gateway says.
//!
//! [`Parser`] turns the text of one frame into a [`Request`] that borrows from it; the `write_*` functions append
//! one JSON object each, without a newline inside, so that several can be joined by newlines.
//! After parsing nobody checks again: a [`Request`] has all its fields, within their bounds.

mod data;
mod parse;
mod posting;
mod print;
mod rooms;
#[cfg(test)]
mod tests;

pub use parse::Parser;
pub use posting::{ONCE_BYTES_MAX, Posting};
pub use print::{
    Ack, Gap, Rejoined, Welcome, write_ack, write_error, write_gap, write_message,
    write_message_up_to_offset, write_pong, write_reconnect, write_unsubscribed, write_welcome,
};
pub use rooms::{
    History, Presence, write_history, write_movement, write_movement_up_to_offset, write_presence,
};

use crate::id::NameRef;

/// A room's name as the client wrote it.
pub type Room<'a> = NameRef<'a>;

/// One frame, understood or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// The client's own mark on its request, also kept when the request itself is refused.
    pub mark: Option<Mark<'a>>,
    /// What it wants.
    pub request: Result<Request<'a>, Refusal>,
}

/// The `id` of a request, given back in its `ack`, `error` or `pong`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark<'a> {
    /// A negative integer.
    Signed(i64),
    /// Any other integer.
    Unsigned(u64),
    /// At most 128 bytes of text.
    Text(&'a str),
}

/// A [`Mark`] that is kept for an answer to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedMark {
    /// A negative integer.
    Signed(i64),
    /// Any other integer.
    Unsigned(u64),
    /// At most 128 bytes of text.
    Text(Box<str>),
}

impl OwnedMark {
    /// The same mark, borrowed.
    pub fn as_ref(&self) -> Mark<'_> {
        match self {
            Self::Signed(id) => Mark::Signed(*id),
            Self::Unsigned(id) => Mark::Unsigned(*id),
            Self::Text(id) => Mark::Text(id),
        }
    }
}

impl From<Mark<'_>> for OwnedMark {
    fn from(mark: Mark<'_>) -> Self {
        match mark {
            Mark::Signed(id) => Self::Signed(id),
            Mark::Unsigned(id) => Self::Unsigned(id),
            Mark::Text(id) => Self::Text(id.into()),
        }
    }
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Say `pong`.
    Ping {
        /// To be given back.
        data: Option<Data<'a>>,
    },
    /// An answer to nothing; heard as a sign of life.
    Pong,
    /// Enter a room.
    Join {
        /// Which.
        room: Room<'a>,
        /// Where the client's knowledge of it ended.
        recover: Option<StreamPosition<'a>>,
        /// How many of the last messages to send first.
        history: Option<u32>,
    },
    /// Leave a room.
    Leave {
        /// Which.
        room: Room<'a>,
    },
    /// Say something.
    Message {
        /// What, and to whom.
        message: Message<'a>,
        /// Whether the connection that says it hears it as well.
        echo: bool,
    },
    /// Who is in a room?
    Presence {
        /// Which.
        room: Room<'a>,
        /// The user behind whom the answer is to begin.
        after: Option<NameRef<'a>>,
        /// How many users it may have.
        limit: Option<u32>,
    },
    /// What was said in a room?
    History {
        /// Which.
        room: Room<'a>,
        /// Behind this the answer is to begin.
        since: Option<StreamPosition<'a>>,
        /// How many messages it may have.
        limit: Option<u32>,
    },
    /// Be in all rooms again that an earlier connection was in.
    Resume {
        /// What that connection was given in its `welcome`.
        session: &'a str,
        /// Rooms to be in, and what the client knows of them.
        rooms: Vec<Rejoin<'a>>,
    },
    /// Go on with a newer token.
    Auth {
        /// The token.
        token: &'a str,
    },
}

/// Something said: `content` or `data` or both, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// For whom.
    pub target: Target<'a>,
    /// What it is about.
    pub key: Option<NameRef<'a>>,
    /// The text.
    pub content: Option<&'a str>,
    /// The JSON value.
    pub data: Option<Data<'a>>,
}

/// For whom a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// The members of a room.
    Room(Room<'a>),
    /// The connections of a user.
    User(NameRef<'a>),
    /// Every connection.
    Everyone,
}

/// A valid JSON value as the client wrote it, byte for byte, but for line breaks between its tokens.
///
/// Keeping the bytes keeps what a parser would lose: integers of 64 bits, the order of keys, the digits of floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data<'a>(&'a [u8]);

impl<'a> Data<'a> {
    /// The JSON, without line breaks.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

/// Where a reader stands in a room's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPosition<'a> {
    /// Which life of the history: offsets of different epochs cannot be compared.
    pub epoch: &'a str,
    /// The last offset the reader knows.
    pub offset: u64,
}

/// A room that a client comes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejoin<'a> {
    /// Which.
    pub room: Room<'a>,
    /// Where the client's knowledge of it ended.
    pub recover: Option<StreamPosition<'a>>,
}

/// Why a request was refused, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The message is not what it should be.
    BadMessage,
    /// There is no such type of message.
    UnknownType,
    /// A field that the type needs is not there.
    MissingField,
    /// Only members may do this.
    NotAMember,
    /// The user may not do this.
    Forbidden,
    /// The connection is in as many rooms as it may be.
    TooManyRooms,
    /// Too fast.
    RateLimited,
    /// Too long.
    MessageTooBig,
    /// Not at this time, or not by this gateway.
    Unavailable,
    /// The gateway failed.
    Internal,
}

impl ErrorCode {
    /// The code on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadMessage => "bad_message",
            Self::UnknownType => "unknown_type",
            Self::MissingField => "missing_field",
            Self::NotAMember => "not_a_member",
            Self::Forbidden => "forbidden",
            Self::TooManyRooms => "too_many_rooms",
            Self::RateLimited => "rate_limited",
            Self::MessageTooBig => "message_too_big",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

/// A request that is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why, for programs.
    pub code: ErrorCode,
    /// Why, for people: names the field and what to write instead.
    pub content: String,
}

impl Refusal {
    /// A refusal with its explanation.
    pub fn new(code: ErrorCode, content: impl Into<String>) -> Self {
        Self { code, content: content.into() }
    }

    fn bad(content: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadMessage, content)
    }

    fn missing(field: &str, kind: &str) -> Self {
        Self::new(ErrorCode::MissingField, format!("`{field}` is missing: a `{kind}` needs it"))
    }
}
