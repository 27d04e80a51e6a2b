//! The names of things: rooms and users as clients call them, and the gateway's own numbers for the rest.
//!
//! Room and user names are compared by their text: `5` and `"5"` are one room. A name that is the canonical
//! decimal of an integer up to 2^53-1 (what every JSON reader can hold exactly) is kept and printed as a number,
//! any other as text.

mod pattern;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashbrown::Equivalent;
use serde::{Serialize, Serializer};

pub use pattern::matches_pattern;

/// The largest integer that is printed as a JSON number: 2^53-1.
pub const NUMBER_MAX: u64 = (1 << 53) - 1;

/// The longest name of a room or user, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 128;

const NODE_BYTES_MAX: usize = 64;
const DECIMAL_BYTES_MAX: usize = 20;

/// The name of a room.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomId(Name);

/// The name of a user, who may have many connections.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Name);

/// What a message is about, in rooms that keep only the newest about each for who is slow.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageKey(Name);

/// A room's or user's name or a message's key, borrowed from where it was read.
///
/// `Number` may hold any integer; above [`NUMBER_MAX`] it is equal to (and hashed and printed as) the text of its
/// decimal. Invariant: `Text` is 1 to 128 bytes and not itself the decimal of a smaller number, which
/// [`NameRef::parse`] sees to.
#[derive(Clone, Copy, Debug)]
pub enum NameRef<'a> {
    /// The name is this integer's decimal.
    Number(u64),
    /// Any other name.
    Text(&'a str),
}

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing in it.
    #[error("is empty")]
    Empty,
    /// Longer than the bound for its kind.
    #[error("is longer than {max} bytes")]
    TooLong {
        /// The bound.
        max: usize,
    },
    /// A node's name has a character besides letters, digits, `.`, `_` and `-`.
    #[error("has a character besides letters, digits, '.', '_' and '-'")]
    Character,
}

/// The number of one connection, unique among the nodes' connections; printed as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ClientId(pub u64);

/// The name of one gateway process among its peers: 1 to 64 letters, digits, `.`, `_` and `-`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId(Arc<str>);

/// Which shard of this process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ShardIndex(pub u16);

slotmap::new_key_type! {
    /// A client's place in the slab of its shard; of no meaning on another.
    pub struct ClientKey;
    /// A room's place in the slab of one shard; of no meaning on another.
    pub struct RoomKey;
}

/// Owned form of [`NameRef`] in canonical form: a number is at most [`NUMBER_MAX`].
#[derive(Clone, PartialEq, Eq)]
enum Name {
    Number(u64),
    Text(Arc<str>),
}

const _: () = assert!(size_of::<Name>() == 16, "two words in each member's and client's entry");

/// What [`RoomId`], [`UserId`] and [`MessageKey`] have in common.
macro_rules! named {
    ($type:ident) => {
        impl $type {
            /// Reads a name as a client wrote it.
            ///
            /// # Errors
            ///
            /// [`NameError`] when the text is empty or longer than 128 bytes.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                NameRef::parse(text).map(Self::from)
            }

            /// The name that is this integer's decimal.
            pub fn from_u64(number: u64) -> Self {
                Self::from(NameRef::Number(number))
            }

            /// The same name, borrowed.
            pub fn as_ref(&self) -> NameRef<'_> {
                self.0.as_ref()
            }

            /// Appends the name as JSON: a number up to 2^53-1, or a string.
            pub fn write_json(&self, out: &mut Vec<u8>) {
                self.as_ref().write_json(out);
            }
        }

        impl From<NameRef<'_>> for $type {
            fn from(name: NameRef<'_>) -> Self {
                Self(Name::from(name))
            }
        }

        impl Equivalent<$type> for NameRef<'_> {
            fn equivalent(&self, key: &$type) -> bool {
                *self == key.as_ref()
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.as_ref().serialize(serializer)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.as_ref().fmt(f)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.as_ref() {
                    NameRef::Number(number) => write!(f, concat!(stringify!($type), "({})"), number),
                    NameRef::Text(text) => write!(f, concat!(stringify!($type), "({:?})"), text),
                }
            }
        }
    };
}

named!(RoomId);
named!(UserId);
named!(MessageKey);

impl<'a> NameRef<'a> {
    /// Reads a name as a client wrote it.
    ///
    /// # Errors
    ///
    /// [`NameError`] when the text is empty or longer than 128 bytes.
    pub fn parse(text: &'a str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong { max: NAME_BYTES_MAX });
        }
        Ok(canonical_decimal(text).map_or(Self::Text(text), Self::Number))
    }

    /// Appends the name as JSON: a number up to 2^53-1, or a string.
    pub fn write_json(self, out: &mut Vec<u8>) {
        match self {
            Self::Number(number) => {
                let decimal = Decimal::of(number);
                if number <= NUMBER_MAX {
                    out.extend_from_slice(decimal.as_str().as_bytes());
                } else {
                    write_json_string(decimal.as_str(), out);
                }
            }
            Self::Text(text) => write_json_string(text, out),
        }
    }

    /// Calls `then` with the name in the one form in which it is compared and hashed.
    fn with_canonical<T>(self, then: impl FnOnce(NameRef<'_>) -> T) -> T {
        match self {
            Self::Number(number) if number > NUMBER_MAX => then(NameRef::Text(Decimal::of(number).as_str())),
            name => then(name),
        }
    }
}

/// As [`NameRef::write_json`] does.
impl Serialize for NameRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.with_canonical(|name| match name {
            NameRef::Number(number) => serializer.serialize_u64(number),
            NameRef::Text(text) => serializer.serialize_str(text),
        })
    }
}

impl PartialEq for NameRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number(one), Self::Number(another)) => one == another,
            (Self::Text(one), Self::Text(another)) => one == another,
            (Self::Number(number), Self::Text(text)) | (Self::Text(text), Self::Number(number)) => {
                *number > NUMBER_MAX && Decimal::of(*number).as_str() == *text
            }
        }
    }
}

impl Eq for NameRef<'_> {}

impl Hash for NameRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.with_canonical(|name| match name {
            NameRef::Number(number) => number.hash(state),
            NameRef::Text(text) => text.hash(state),
        });
    }
}

impl PartialOrd for NameRef<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Numbers in their order, then texts in theirs.
impl Ord for NameRef<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.with_canonical(|one| {
            other.with_canonical(|another| match (one, another) {
                (NameRef::Number(one), NameRef::Number(another)) => one.cmp(&another),
                (NameRef::Text(one), NameRef::Text(another)) => one.cmp(another),
                (NameRef::Number(_), NameRef::Text(_)) => Ordering::Less,
                (NameRef::Text(_), NameRef::Number(_)) => Ordering::Greater,
            })
        })
    }
}

impl fmt::Display for NameRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Name {
    fn as_ref(&self) -> NameRef<'_> {
        match self {
            Self::Number(number) => NameRef::Number(*number),
            Self::Text(text) => NameRef::Text(text),
        }
    }
}

impl From<NameRef<'_>> for Name {
    fn from(name: NameRef<'_>) -> Self {
        debug_assert!(
            !matches!(name, NameRef::Text(text) if canonical_decimal(text).is_some()),
            "a text name made without NameRef::parse"
        );
        name.with_canonical(|name| match name {
            NameRef::Number(number) => Self::Number(number),
            NameRef::Text(text) => Self::Text(text.into()),
        })
    }
}

// By hand, so that a borrowed name finds the owned one in a table.
impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_ref().hash(state);
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_ref().cmp(&other.as_ref())
    }
}

impl ClientId {
    /// Reads what [`fmt::Display`] prints: 1 to 16 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() <= 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(text, 16).ok().filter(|_| is_hex).map(Self)
    }

    /// The shard that owns the connection, of so many.
    pub fn shard(self, shards: usize) -> ShardIndex {
        let index = self.0 % shards.max(1) as u64;
        ShardIndex(u16::try_from(index).unwrap_or(u16::MAX))
    }
}

impl Serialize for ClientId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl NodeId {
    /// Reads the name of a node.
    ///
    /// # Errors
    ///
    /// [`NameError`] when the text is empty, longer than 64 bytes, or has another character than letters, digits,
    /// `.`, `_` and `-` (it becomes part of subjects and metric labels).
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NODE_BYTES_MAX {
            return Err(NameError::TooLong { max: NODE_BYTES_MAX });
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
            return Err(NameError::Character);
        }
        Ok(Self(text.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Appends `text` as a JSON string, quotes included, escaping only what RFC 8259 section 7 demands.
pub fn write_json_string(text: &str, out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain_from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[plain_from..at]);
        plain_from = at + 1;
        write_escape(byte, out);
    }
    out.extend_from_slice(&bytes[plain_from..]);
    out.push(b'"');
}

/// Appends `number` in decimal.
pub fn write_decimal(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(Decimal::of(number).as_str().as_bytes());
}

fn write_escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        // Not longer than a client can have written them, so that no content grows on its way.
        0x08 => out.extend_from_slice(b"\\b"),
        0x0c => out.extend_from_slice(b"\\f"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

/// The number whose decimal `text` is, when it is written without sign or leading zero and at most [`NUMBER_MAX`].
fn canonical_decimal(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let short = (1..=16).contains(&bytes.len());
    if !short || !bytes.iter().all(u8::is_ascii_digit) || (bytes[0] == b'0' && bytes.len() > 1) {
        return None;
    }
    let number = bytes.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    (number <= NUMBER_MAX).then_some(number)
}

/// A number's decimal digits, without the heap.
struct Decimal {
    digits: [u8; DECIMAL_BYTES_MAX],
    from: usize,
}

impl Decimal {
    fn of(mut number: u64) -> Self {
        let mut decimal = Self { digits: [b'0'; DECIMAL_BYTES_MAX], from: DECIMAL_BYTES_MAX - 1 };
        loop {
            decimal.digits[decimal.from] = b'0' + u8::try_from(number % 10).unwrap_or_default();
            number /= 10;
            if number == 0 {
                return decimal;
            }
            decimal.from -= 1;
        }
    }

    fn as_str(&self) -> &str {
        // Only digits are written above, so the empty fallback is never taken.
        str::from_utf8(&self.digits[self.from..]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
