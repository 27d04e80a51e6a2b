//! From the text of a frame to a request.

use std::mem;

use simd_json::{Buffers, ErrorType, Node, StaticNode, Tape};

use super::data::{MARK_BYTES_MAX, member_value, on_one_line, remains};
use super::{Data, ErrorCode, Mark, Message, Parsed, Refusal, Rejoin, Request, StreamPosition, Target};
use crate::id::{NAME_BYTES_MAX, NameError, NameRef};

/// How deep objects and arrays may be nested, the message itself included. Receivers' parsers stop near 128.
const DEPTH_MAX: usize = 100;

/// Longest text of an epoch, in bytes.
const EPOCH_BYTES_MAX: usize = 64;

/// Above this a buffer is given back after the message that needed it, so that one giant is not paid for ever.
const KEPT_BYTES_MAX: usize = 4 << 20;

const NAME_RULE: &str = "must be an unsigned integer or a string of 1 to 128 bytes";

/// Parses frames, one after the other, in buffers that it keeps. A shard needs one.
pub struct Parser {
    /// The frame's text, in which strings are unescaped in place.
    pub(super) scratch: Vec<u8>,
    /// A `data` that had to lose its line breaks.
    pub(super) compact: Vec<u8>,
    pub(super) buffers: Buffers,
    /// Empty between two calls.
    pub(super) tape: Tape<'static>,
}

impl Parser {
    /// A parser with small buffers, which grow to the largest message.
    pub fn new() -> Self {
        Self { scratch: Vec::new(), compact: Vec::new(), buffers: new_buffers(), tape: Tape(Vec::new()) }
    }

    /// Reads one message.
    ///
    /// A fault does not end the conversation: it is in [`Parsed::request`], with the message's mark beside it.
    pub fn parse<'a>(&'a mut self, text: &'a [u8]) -> Parsed<'a> {
        self.give_back();
        let Self { scratch, compact, buffers, tape } = self;
        scratch.clear();
        scratch.extend_from_slice(text);
        let mut nodes = mem::replace(tape, Tape(Vec::new())).reset();
        let parsed = match simd_json::fill_tape(scratch, buffers, &mut nodes) {
            Ok(()) => understand(&nodes.0, text, buffers.structural_indexes(), compact),
            Err(error) => {
                Parsed { mark: remains(text, fault(text, &error)).mark, request: Err(broken(text, &error)) }
            }
        };
        *tape = nodes.reset();
        parsed
    }

    /// The memory of the buffers whose size can be asked.
    pub(super) fn retained_bytes(&self) -> usize {
        let nodes = self.tape.0.capacity() * size_of::<Node<'_>>();
        self.scratch.capacity() + self.compact.capacity() + nodes
    }

    /// Frees what an unusually large message has left.
    pub(super) fn give_back(&mut self) {
        if self.retained_bytes() > KEPT_BYTES_MAX {
            *self = Self::new();
        }
    }
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

fn new_buffers() -> Buffers {
    Buffers::with_max_depth(1024, DEPTH_MAX)
}

/// The place of the first fault of a text that is no JSON.
fn fault(text: &[u8], error: &simd_json::Error) -> usize {
    // Of a string's fault the parser tells its place in that string only.
    let is_escape = matches!(
        error.error(),
        ErrorType::InvalidUtf8
            | ErrorType::InvalidUnicodeCodepoint
            | ErrorType::InvalidUnicodeEscape
            | ErrorType::InvalidEscape
    );
    if is_escape { escape_fault(text) } else { None }.unwrap_or(error.index())
}

/// The answer to a text that is no JSON.
pub(super) fn broken(text: &[u8], error: &simd_json::Error) -> Refusal {
    let fault = fault(text, error);
    let place = remains(text, fault).field.map_or(String::from("the message"), |field| format!("`{field}`"));
    let content = match error.error() {
        ErrorType::DepthLimitExceeded => {
            format!("{place} is nested too deep: at most {DEPTH_MAX} levels are allowed")
        }
        ErrorType::InvalidUtf8 | ErrorType::InvalidUnicodeCodepoint | ErrorType::InvalidUnicodeEscape => {
            format!("{place} has text that is not Unicode: surrogates must be in pairs")
        }
        ErrorType::InvalidNumber | ErrorType::InvalidExponent => {
            format!("{place} has a number that is malformed or out of range: send such numbers as strings")
        }
        _ => format!("{place} is not valid JSON near byte {fault}: send one JSON object"),
    };
    Refusal::bad(content)
}

/// The place of the first escape that is none or stands for half a character.
fn escape_fault(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += text.get(at..)?.iter().position(|byte| *byte == b'\\')?;
        let Some(length) = escape_length(&text[at..]) else { return Some(at) };
        at += length;
    }
}

/// How long the sound escape is that `text` begins with.
fn escape_length(text: &[u8]) -> Option<usize> {
    if text.get(1)? != &b'u' {
        return b"\"\\/bfnrt".contains(&text[1]).then_some(2);
    }
    match utf16_unit(text)? {
        0xd800..=0xdbff => matches!(utf16_unit(&text[6..])?, 0xdc00..=0xdfff).then_some(12),
        0xdc00..=0xdfff => None,
        _ => Some(6),
    }
}

/// The number of the `\uXXXX` that `text` begins with.
fn utf16_unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(br"\u")?.get(..4)?;
    let digits = str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u16::from_str_radix(digits, 16).ok()
}

fn understand<'a>(
    nodes: &[Node<'a>],
    text: &'a [u8],
    structurals: &[u32],
    compact: &'a mut Vec<u8>,
) -> Parsed<'a> {
    let (mut fields, fault) = match Fields::read(nodes) {
        Ok(read) => read,
        Err(refusal) => return Parsed { mark: None, request: Err(refusal) },
    };
    let (mark, mark_fault) = match fields.mark() {
        Ok(mark) => (mark, None),
        Err(refusal) => (None, Some(refusal)),
    };
    if let Some(refusal) = fault.or(mark_fault) {
        return Parsed { mark, request: Err(refusal) };
    }
    if let Some(member) = fields.data_member {
        let Some(json) = member_value(text, structurals, member) else {
            let refusal = Refusal::new(ErrorCode::Internal, "`data` was not found again");
            return Parsed { mark, request: Err(refusal) };
        };
        fields.data = Some(on_one_line(json, compact));
    }
    Parsed { mark, request: fields.request() }
}

/// The top-level keys with a meaning. `From` and `Timestamp` are only known so that they cannot come twice.
#[derive(Clone, Copy)]
enum Field {
    Type,
    Id,
    RoomId,
    To,
    Content,
    Data,
    Echo,
    Recover,
    History,
    Token,
    Key,
    Since,
    Limit,
    After,
    Session,
    Rooms,
    From,
    Timestamp,
}

const FIELDS: usize = Field::Timestamp as usize + 1;

impl Field {
    fn named(key: &str) -> Option<Self> {
        Some(match key {
            "type" => Self::Type,
            "id" => Self::Id,
            "room_id" => Self::RoomId,
            "to" => Self::To,
            "content" => Self::Content,
            "data" => Self::Data,
            "echo" => Self::Echo,
            "recover" => Self::Recover,
            "history" => Self::History,
            "token" => Self::Token,
            "key" => Self::Key,
            "since" => Self::Since,
            "limit" => Self::Limit,
            "after" => Self::After,
            "session" => Self::Session,
            "rooms" => Self::Rooms,
            "from" => Self::From,
            "timestamp" => Self::Timestamp,
            _ => return None,
        })
    }
}

/// One message's top-level members.
struct Fields<'t, 'a> {
    /// The whole message.
    nodes: &'t [Node<'a>],
    /// Where each field's value is in `nodes`; 0, where the message itself begins, for a field that is not there.
    at: [usize; FIELDS],
    /// Which member `data` is, counted from 0.
    data_member: Option<usize>,
    data: Option<Data<'a>>,
}

impl<'t, 'a> Fields<'t, 'a> {
    /// Finds the fields. The second value is a fault that leaves the first one usable, to find the mark.
    fn read(nodes: &'t [Node<'a>]) -> Result<(Self, Option<Refusal>), Refusal> {
        if !matches!(nodes.first(), Some(Node::Object { .. })) {
            return Err(Refusal::bad("the message must be a JSON object"));
        }
        let mut fields = Self { nodes, at: [0; FIELDS], data_member: None, data: None };
        let mut twice = None;
        let mut unknown = 0;
        for (member, (key, at)) in Members::of(nodes, 0).enumerate() {
            let Some(field) = Field::named(key) else {
                unknown += 1;
                continue;
            };
            let place = &mut fields.at[field as usize];
            if *place != 0 {
                twice = Some(key);
                continue;
            }
            *place = at;
            if matches!(field, Field::Data) {
                fields.data_member = Some(member);
            }
        }
        if unknown > 1 && twice.is_none() {
            twice = repeated_key(nodes);
        }
        Ok((fields, twice.map(|key| Refusal::bad(format!("`{key}` is there twice: send each field once")))))
    }

    /// A field's value; one that is `null` counts as not there.
    fn value(&self, field: Field) -> Option<(usize, Node<'a>)> {
        let at = self.at[field as usize];
        match self.nodes.get(at)? {
            _ if at == 0 => None,
            Node::Static(StaticNode::Null) => None,
            node => Some((at, *node)),
        }
    }

    fn mark(&self) -> Result<Option<Mark<'a>>, Refusal> {
        match self.value(Field::Id).map(|(_, node)| node) {
            None => Ok(None),
            Some(Node::String(text)) if text.len() <= MARK_BYTES_MAX => Ok(Some(Mark::Text(text))),
            Some(Node::Static(StaticNode::U64(number))) => Ok(Some(Mark::Unsigned(number))),
            Some(Node::Static(StaticNode::I64(number))) => {
                Ok(Some(u64::try_from(number).map_or(Mark::Signed(number), Mark::Unsigned)))
            }
            Some(_) => Err(Refusal::bad("`id` must be an integer or a string of at most 128 bytes")),
        }
    }

    fn request(&self) -> Result<Request<'a>, Refusal> {
        let kind = match self.value(Field::Type).map(|(_, node)| node) {
            None => {
                return Err(Refusal::new(
                    ErrorCode::MissingField,
                    "`type` is missing: every message needs it",
                ));
            }
            Some(Node::String(kind)) => kind,
            Some(_) => return Err(Refusal::bad("`type` must be a string")),
        };
        match kind {
            "message" => self.message(),
            "ping" => Ok(Request::Ping { data: self.data }),
            "pong" => Ok(Request::Pong),
            "join" => Ok(Request::Join {
                room: self.room(kind)?,
                recover: self.position(Field::Recover, "recover")?,
                history: self.count(Field::History, "history")?,
            }),
            "leave" => Ok(Request::Leave { room: self.room(kind)? }),
            "presence" => Ok(Request::Presence {
                room: self.room(kind)?,
                after: self.name(Field::After, "after")?,
                limit: self.count(Field::Limit, "limit")?,
            }),
            "history" => Ok(Request::History {
                room: self.room(kind)?,
                since: self.position(Field::Since, "since")?,
                limit: self.count(Field::Limit, "limit")?,
            }),
            "resume" => match self.text(Field::Session, "session")? {
                Some(session) => Ok(Request::Resume { session, rooms: self.rooms()? }),
                None => Err(Refusal::missing("session", kind)),
            },
            "auth" => match self.text(Field::Token, "token")? {
                Some(token) => Ok(Request::Auth { token }),
                None => Err(Refusal::missing("token", kind)),
            },
            _ => Err(unknown_type(kind)),
        }
    }

    fn message(&self) -> Result<Request<'a>, Refusal> {
        let room = self.name(Field::RoomId, "room_id")?;
        let to = self.name(Field::To, "to")?;
        let target = match (room, to) {
            (Some(room), None) => Target::Room(room),
            (None, Some(user)) => Target::User(user),
            (None, None) => Target::Everyone,
            (Some(_), Some(_)) => {
                return Err(Refusal::bad("`room_id` and `to` are both there: send only one of them"));
            }
        };
        let key = self.name(Field::Key, "key")?;
        let content = self.text(Field::Content, "content")?;
        if content.is_none() && self.data.is_none() {
            let content = "`content` is missing: a `message` needs it, or `data`";
            return Err(Refusal::new(ErrorCode::MissingField, content));
        }
        let echo = match self.value(Field::Echo).map(|(_, node)| node) {
            None => true,
            Some(Node::Static(StaticNode::Bool(echo))) => echo,
            Some(_) => return Err(Refusal::bad("`echo` must be true or false")),
        };
        Ok(Request::Message { message: Message { target, key, content, data: self.data }, echo })
    }

    fn room(&self, kind: &str) -> Result<NameRef<'a>, Refusal> {
        self.name(Field::RoomId, "room_id")?.ok_or_else(|| Refusal::missing("room_id", kind))
    }

    fn name(&self, field: Field, called: &str) -> Result<Option<NameRef<'a>>, Refusal> {
        self.value(field).map(|(_, node)| name_in(node, called)).transpose()
    }

    fn text(&self, field: Field, called: &str) -> Result<Option<&'a str>, Refusal> {
        match self.value(field).map(|(_, node)| node) {
            None => Ok(None),
            Some(Node::String(text)) => Ok(Some(text)),
            Some(_) => Err(Refusal::bad(format!("`{called}` must be a string"))),
        }
    }

    fn count(&self, field: Field, called: &str) -> Result<Option<u32>, Refusal> {
        let Some((_, node)) = self.value(field) else { return Ok(None) };
        let count = unsigned(node).and_then(|count| u32::try_from(count).ok());
        let rule = || Refusal::bad(format!("`{called}` must be an integer from 0 to 4294967295"));
        count.map(Some).ok_or_else(rule)
    }

    fn position(&self, field: Field, called: &str) -> Result<Option<StreamPosition<'a>>, Refusal> {
        let Some((at, _)) = self.value(field) else { return Ok(None) };
        let position = Place::read(self.nodes, at).and_then(|place| place.position().ok().flatten());
        let rule = || {
            let rule = "must be an object with `epoch` (a string) and `offset` (an integer)";
            Refusal::bad(format!("`{called}` {rule}"))
        };
        position.map(Some).ok_or_else(rule)
    }

    fn rooms(&self) -> Result<Vec<Rejoin<'a>>, Refusal> {
        let Some((at, node)) = self.value(Field::Rooms) else { return Ok(Vec::new()) };
        let rule = "`rooms` must be an array of objects with `room_id`, and with `epoch` (a string) and `offset` (an \
                    integer) where the client has them";
        let Node::Array { len, .. } = node else { return Err(Refusal::bad(rule)) };
        let (mut rooms, mut next) = (Vec::new(), at + 1);
        for _ in 0..len {
            let rejoin = Place::read(self.nodes, next).and_then(|place| {
                let recover = place.position().ok()?;
                Some(Rejoin { room: place.room?, recover })
            });
            rooms.push(rejoin.ok_or_else(|| Refusal::bad(rule))?);
            next += 1 + inside(self.nodes.get(next));
        }
        Ok(rooms)
    }
}

/// What stands in a small object about a place in a room.
#[derive(Default)]
struct Place<'a> {
    room: Option<NameRef<'a>>,
    epoch: Option<&'a str>,
    offset: Option<u64>,
}

impl<'a> Place<'a> {
    /// `None` when this is no object, or has a field twice or with a value that it cannot have.
    fn read(nodes: &[Node<'a>], at: usize) -> Option<Self> {
        if !matches!(nodes.get(at), Some(Node::Object { .. })) {
            return None;
        }
        let mut place = Self::default();
        for (key, at) in Members::of(nodes, at) {
            match (key, nodes.get(at)?) {
                ("epoch", Node::String(text)) if place.epoch.is_none() && text.len() <= EPOCH_BYTES_MAX => {
                    place.epoch = Some(text);
                }
                ("offset", node) if place.offset.is_none() => place.offset = Some(unsigned(*node)?),
                ("room_id", node) if place.room.is_none() => place.room = Some(name_of(*node)?),
                ("epoch" | "offset" | "room_id", _) => return None,
                _ => {}
            }
        }
        Some(place)
    }

    /// The position, if it is there at all.
    fn position(&self) -> Result<Option<StreamPosition<'a>>, HalfAPosition> {
        match (self.epoch, self.offset) {
            (Some(epoch), Some(offset)) => Ok(Some(StreamPosition { epoch, offset })),
            (None, None) => Ok(None),
            _ => Err(HalfAPosition),
        }
    }
}

/// A name in the field that is called so.
pub(super) fn name_in<'a>(node: Node<'a>, called: &str) -> Result<NameRef<'a>, Refusal> {
    let name = match node {
        Node::String(text) => match NameRef::parse(text) {
            Ok(name) => Some(name),
            Err(NameError::TooLong { .. }) => {
                let length = text.len();
                let rule = format!("`{called}` has {length} bytes: at most {NAME_BYTES_MAX} are allowed");
                return Err(Refusal::bad(rule));
            }
            Err(_) => None,
        },
        node => unsigned(node).map(NameRef::Number),
    };
    name.ok_or_else(|| Refusal::bad(format!("`{called}` {NAME_RULE}")))
}

/// An epoch without an offset, or the other way round.
struct HalfAPosition;

fn name_of(node: Node<'_>) -> Option<NameRef<'_>> {
    match node {
        Node::String(text) => NameRef::parse(text).ok(),
        node => unsigned(node).map(NameRef::Number),
    }
}

/// How many nodes stand inside this one.
fn inside(node: Option<&Node<'_>>) -> usize {
    match node {
        Some(Node::Object { count, .. } | Node::Array { count, .. }) => *count,
        _ => 0,
    }
}

fn unsigned(node: Node<'_>) -> Option<u64> {
    match node {
        Node::Static(StaticNode::U64(number)) => Some(number),
        Node::Static(StaticNode::I64(number)) => u64::try_from(number).ok(),
        _ => None,
    }
}

fn unknown_type(kind: &str) -> Refusal {
    // A long one would be a way to have the gateway send what a client wrote, larger.
    let shown: String = kind.chars().take(32).collect();
    let known = "ping, pong, join, leave, message, presence, history, resume, auth";
    Refusal::new(ErrorCode::UnknownType, format!("`type` {shown:?} is not known: send one of {known}"))
}

/// A key that the message has more than once. Only for messages with unknown fields: it allocates.
pub(super) fn repeated_key<'a>(nodes: &[Node<'a>]) -> Option<&'a str> {
    let mut keys: Vec<&str> = Members::of(nodes, 0).map(|(key, _)| key).collect();
    keys.sort_unstable();
    keys.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

/// The members of one object on a tape: each key, and where its value is.
pub(super) struct Members<'t, 'a> {
    nodes: &'t [Node<'a>],
    left: usize,
    at: usize,
}

impl<'t, 'a> Members<'t, 'a> {
    pub(super) fn of(nodes: &'t [Node<'a>], object: usize) -> Self {
        let left = if let Some(Node::Object { len, .. }) = nodes.get(object) { *len } else { 0 };
        Self { nodes, left, at: object + 1 }
    }
}

impl<'a> Iterator for Members<'_, 'a> {
    type Item = (&'a str, usize);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let Some(Node::String(key)) = self.nodes.get(self.at) else { return None };
        let value = self.at + 1;
        self.at = value + 1 + inside(Some(self.nodes.get(value)?));
        Some((key, value))
    }
}
