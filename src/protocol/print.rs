//! From what the gateway has to say to JSON.

use super::{Data, ErrorCode, Mark, Message, Refusal, Target};
use crate::id::{ClientId, NameRef, NodeId, UserId, write_decimal, write_json_string};

/// The first message on a connection.
#[derive(Clone, Copy, Debug)]
pub struct Welcome<'a> {
    /// The connection.
    pub client_id: ClientId,
    /// Who it belongs to.
    pub user: &'a UserId,
    /// Seconds between two pings of the gateway.
    pub heartbeat_seconds: u64,
    /// The gateway process that answers.
    pub node: &'a NodeId,
    /// What to give to come back as the same.
    pub session: &'a str,
}

/// What a request that was carried out has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack<'a> {
    /// In the room.
    Joined {
        /// The room.
        room: NameRef<'a>,
        /// Which life of its history.
        epoch: &'a str,
        /// Its last offset.
        offset: u64,
        /// Whether all that was missed follows.
        recovered: bool,
    },
    /// In the rooms again.
    Resumed {
        /// Whether the session was still known.
        resumed: bool,
        /// Each room that was listed, and those that the session was in.
        rooms: &'a [Rejoined<'a>],
    },
    /// Out of the room.
    Left {
        /// The room.
        room: NameRef<'a>,
    },
    /// The message has its place in the room's order.
    Published {
        /// That place.
        offset: u64,
    },
    /// The message was given to a user's connections.
    Direct {
        /// How many they are.
        delivered: usize,
    },
    /// The message was given to all connections.
    Broadcast,
    /// The token was taken.
    Authenticated {
        /// Seconds until it expires; none when it does not.
        expires_in: Option<u64>,
    },
}

/// What has become of a room that a client came back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejoined<'a> {
    /// The room.
    pub room: NameRef<'a>,
    /// The life of its history, its last offset, and whether all that was missed follows; or why it cannot be entered.
    pub outcome: Result<(u64, u64, bool), Refusal>,
}

/// What a client was not given.
#[derive(Clone, Copy, Debug)]
pub struct Gap<'a> {
    /// In which room.
    pub room: NameRef<'a>,
    /// The first missing offset.
    pub from_offset: u64,
    /// The last missing offset.
    pub to_offset: u64,
    /// Why, as a short word.
    pub reason: &'a str,
}

/// Appends the first message on a connection. `timestamp` is in Unix seconds, here and below.
pub fn write_welcome(welcome: &Welcome<'_>, timestamp: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"welcome","client_id":""#);
    out.extend_from_slice(welcome.client_id.to_string().as_bytes());
    out.extend_from_slice(br#"","user":"#);
    welcome.user.write_json(out);
    number(r#","heartbeat_seconds":"#, welcome.heartbeat_seconds, out);
    text(r#","node":"#, welcome.node.as_str(), out);
    text(r#","session":"#, welcome.session, out);
    end(timestamp, out);
}

/// Appends the answer to a `ping`.
pub fn write_pong(mark: Option<Mark<'_>>, data: Option<Data<'_>>, timestamp: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"pong""#);
    write_mark(mark, out);
    write_data(data, out);
    end(timestamp, out);
}

/// Appends the answer to a request that was carried out.
pub fn write_ack(mark: Mark<'_>, ack: &Ack<'_>, timestamp: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"ack""#);
    write_mark(Some(mark), out);
    match *ack {
        Ack::Joined { room, epoch, offset, recovered } => {
            name(r#","room_id":"#, room, out);
            text(r#","epoch":"#, epoch, out);
            number(r#","offset":"#, offset, out);
            boolean(r#","recovered":"#, recovered, out);
        }
        Ack::Resumed { resumed, rooms } => write_rejoined(resumed, rooms, out),
        Ack::Left { room } => name(r#","room_id":"#, room, out),
        Ack::Published { offset } => number(r#","offset":"#, offset, out),
        Ack::Direct { delivered } => {
            number(r#","delivered":"#, u64::try_from(delivered).unwrap_or(u64::MAX), out);
        }
        Ack::Broadcast | Ack::Authenticated { expires_in: None } => {}
        Ack::Authenticated { expires_in: Some(seconds) } => number(r#","expires_in":"#, seconds, out),
    }
    end(timestamp, out);
}

fn write_rejoined(resumed: bool, rooms: &[Rejoined<'_>], out: &mut Vec<u8>) {
    boolean(r#","resumed":"#, resumed, out);
    out.extend_from_slice(br#","rooms":["#);
    for (index, rejoined) in rooms.iter().enumerate() {
        name(if index == 0 { r#"{"room_id":"# } else { r#",{"room_id":"# }, rejoined.room, out);
        match &rejoined.outcome {
            Ok((epoch, offset, recovered)) => {
                text(r#","epoch":"#, &format!("{epoch:016x}"), out);
                number(r#","offset":"#, *offset, out);
                boolean(r#","recovered":"#, *recovered, out);
            }
            Err(refusal) => {
                text(r#","code":"#, refusal.code.as_str(), out);
                text(r#","content":"#, &refusal.content, out);
            }
        }
        out.push(b'}');
    }
    out.push(b']');
}

/// Appends the answer to a request that was not carried out.
pub fn write_error(
    mark: Option<Mark<'_>>,
    code: ErrorCode,
    content: &str,
    timestamp: u64,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(br#"{"type":"error""#);
    write_mark(mark, out);
    text(r#","code":"#, code.as_str(), out);
    text(r#","content":"#, content, out);
    end(timestamp, out);
}

/// Appends a message for those it is for. `from` is the authenticated user, or none where an application says it for nobody.
pub fn write_message<'a>(
    message: &Message<'_>,
    from: impl Into<Option<NameRef<'a>>>,
    timestamp: u64,
    out: &mut Vec<u8>,
) {
    write_said(message, from.into(), out);
    end(timestamp, out);
}

/// Appends a message as [`write_message`] does, but for its offset, which is the last that it says, and a brace behind that.
pub fn write_message_up_to_offset<'a>(
    message: &Message<'_>,
    from: impl Into<Option<NameRef<'a>>>,
    timestamp: u64,
    out: &mut Vec<u8>,
) {
    write_said(message, from.into(), out);
    end_up_to_offset(timestamp, out);
}

fn write_said(message: &Message<'_>, from: Option<NameRef<'_>>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"message""#);
    if let Some(from) = from {
        name(r#","from":"#, from, out);
    }
    match message.target {
        Target::Room(room) => name(r#","room_id":"#, room, out),
        Target::User(user) => name(r#","to":"#, user, out),
        Target::Everyone => {}
    }
    if let Some(key) = message.key {
        name(r#","key":"#, key, out);
    }
    if let Some(content) = message.content {
        text(r#","content":"#, content, out);
    }
    write_data(message.data, out);
}

/// Appends the advice to come back after `after_ms` milliseconds, because this connection is going to be closed.
pub fn write_reconnect(after_ms: u64, reason: &str, timestamp: u64, out: &mut Vec<u8>) {
    number(r#"{"type":"reconnect","after_ms":"#, after_ms, out);
    text(r#","reason":"#, reason, out);
    end(timestamp, out);
}

/// Appends the notice that the client was taken out of a room.
pub fn write_unsubscribed(room: NameRef<'_>, timestamp: u64, out: &mut Vec<u8>) {
    name(r#"{"type":"leave","room_id":"#, room, out);
    text(r#","reason":"#, "unsubscribed", out);
    end(timestamp, out);
}

/// Appends the notice of messages that the client was not given.
pub fn write_gap(gap: &Gap<'_>, timestamp: u64, out: &mut Vec<u8>) {
    name(r#"{"type":"gap","room_id":"#, gap.room, out);
    number(r#","from_offset":"#, gap.from_offset, out);
    number(r#","to_offset":"#, gap.to_offset, out);
    text(r#","reason":"#, gap.reason, out);
    end(timestamp, out);
}

pub(super) fn write_mark(mark: Option<Mark<'_>>, out: &mut Vec<u8>) {
    match mark {
        None => {}
        Some(Mark::Unsigned(id)) => number(r#","id":"#, id, out),
        Some(Mark::Signed(id)) => {
            out.extend_from_slice(if id < 0 { br#","id":-"# } else { br#","id":"# });
            write_decimal(id.unsigned_abs(), out);
        }
        Some(Mark::Text(id)) => text(r#","id":"#, id, out),
    }
}

fn write_data(data: Option<Data<'_>>, out: &mut Vec<u8>) {
    if let Some(data) = data {
        out.extend_from_slice(br#","data":"#);
        out.extend_from_slice(data.as_bytes());
    }
}

pub(super) fn name(before: &str, name: NameRef<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(before.as_bytes());
    name.write_json(out);
}

pub(super) fn text(before: &str, text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(before.as_bytes());
    write_json_string(text, out);
}

pub(super) fn number(before: &str, number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(before.as_bytes());
    write_decimal(number, out);
}

pub(super) fn boolean(before: &str, value: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// As [`end`], where an offset and a brace are to follow.
pub(super) fn end_up_to_offset(timestamp: u64, out: &mut Vec<u8>) {
    number(r#","timestamp":"#, timestamp, out);
    out.extend_from_slice(br#","offset":"#);
}

pub(super) fn end(timestamp: u64, out: &mut Vec<u8>) {
    number(r#","timestamp":"#, timestamp, out);
    out.push(b'}');
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What is appended, which must be JSON.
    pub(in super::super) fn printed(print: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        print(&mut out);
        serde_json::from_slice::<serde_json::Value>(&out).expect("what is printed is JSON");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn prints_a_welcome() {
        let (user, node) = (UserId::from_u64(7), NodeId::parse("n1").unwrap());
        let welcome = Welcome {
            client_id: ClientId(255),
            user: &user,
            heartbeat_seconds: 60,
            node: &node,
            session: "s",
        };
        assert_eq!(
            printed(|out| write_welcome(&welcome, 9, out)),
            r#"{"type":"welcome","client_id":"00000000000000ff","user":7,"heartbeat_seconds":60,"node":"n1","session":"s","timestamp":9}"#
        );
    }

    #[test]
    fn prints_each_kind_of_mark() {
        let ack = |mark| printed(|out| write_ack(mark, &Ack::Broadcast, 9, out));
        assert_eq!(ack(Mark::Text("a\"")), r#"{"type":"ack","id":"a\"","timestamp":9}"#);
        assert_eq!(
            ack(Mark::Unsigned(u64::MAX)),
            r#"{"type":"ack","id":18446744073709551615,"timestamp":9}"#
        );
        assert_eq!(ack(Mark::Signed(i64::MIN)), r#"{"type":"ack","id":-9223372036854775808,"timestamp":9}"#);
    }

    #[test]
    fn prints_each_ack() {
        let ack = |ack| printed(|out| write_ack(Mark::Unsigned(1), &ack, 9, out));
        let room = NameRef::Text("ä");
        assert_eq!(
            ack(Ack::Joined { room, epoch: "e", offset: 3, recovered: false }),
            r#"{"type":"ack","id":1,"room_id":"ä","epoch":"e","offset":3,"recovered":false,"timestamp":9}"#
        );
        assert_eq!(
            ack(Ack::Left { room: NameRef::Number(5) }),
            r#"{"type":"ack","id":1,"room_id":5,"timestamp":9}"#
        );
        assert_eq!(ack(Ack::Published { offset: 4 }), r#"{"type":"ack","id":1,"offset":4,"timestamp":9}"#);
        assert_eq!(ack(Ack::Direct { delivered: 0 }), r#"{"type":"ack","id":1,"delivered":0,"timestamp":9}"#);
    }

    #[test]
    fn prints_errors_with_and_without_a_mark() {
        let error =
            |mark| printed(|out| write_error(mark, ErrorCode::NotAMember, "join `a\nb` first", 9, out));
        let rest = r#""code":"not_a_member","content":"join `a\nb` first","timestamp":9}"#;
        assert_eq!(error(None), format!(r#"{{"type":"error",{rest}"#));
        assert_eq!(error(Some(Mark::Unsigned(2))), format!(r#"{{"type":"error","id":2,{rest}"#));
    }

    #[test]
    fn prints_messages_for_rooms_users_and_everyone() {
        let message = |target| {
            let message = Message { target, key: None, content: Some("hi"), data: Some(Data(b"[1]")) };
            printed(|out| write_message(&message, NameRef::Number(7), 9, out))
        };
        let rest = r#""content":"hi","data":[1],"timestamp":9}"#;
        let head = r#"{"type":"message","from":7,"#;
        assert_eq!(message(Target::Everyone), format!("{head}{rest}"));
        assert_eq!(message(Target::Room(NameRef::Number(5))), format!(r#"{head}"room_id":5,{rest}"#));
        assert_eq!(message(Target::User(NameRef::Text("bo"))), format!(r#"{head}"to":"bo",{rest}"#));
    }

    #[test]
    fn prints_a_message_of_nobody_without_from() {
        let target = Target::Room(NameRef::Number(5));
        let message = Message { target, key: None, content: Some("hi"), data: None };
        assert_eq!(
            printed(|out| write_message(&message, None, 9, out)),
            r#"{"type":"message","room_id":5,"content":"hi","timestamp":9}"#
        );
    }

    #[test]
    fn prints_a_message_with_its_key_up_to_its_offset() {
        let target = Target::Room(NameRef::Number(5));
        let message = Message { target, key: Some(NameRef::Text("EUR")), content: Some("1.1"), data: None };
        let mut out = Vec::new();
        write_message_up_to_offset(&message, NameRef::Number(7), 9, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"type":"message","from":7,"room_id":5,"key":"EUR","content":"1.1","timestamp":9,"offset":"#
        );
    }

    #[test]
    fn prints_pong_reconnect_and_gap() {
        assert_eq!(printed(|out| write_pong(None, None, 9, out)), r#"{"type":"pong","timestamp":9}"#);
        assert_eq!(
            printed(|out| write_reconnect(250, "restart", 9, out)),
            r#"{"type":"reconnect","after_ms":250,"reason":"restart","timestamp":9}"#
        );
        assert_eq!(
            printed(|out| write_unsubscribed(NameRef::Number(5), 9, out)),
            r#"{"type":"leave","room_id":5,"reason":"unsubscribed","timestamp":9}"#
        );
        let gap = Gap { room: NameRef::Number(5), from_offset: 2, to_offset: 4, reason: "slow" };
        assert_eq!(
            printed(|out| write_gap(&gap, 9, out)),
            r#"{"type":"gap","room_id":5,"from_offset":2,"to_offset":4,"reason":"slow","timestamp":9}"#
        );
    }
}
