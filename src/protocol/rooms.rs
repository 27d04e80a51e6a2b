//! From what the gateway knows of a room to JSON: what was said there, who is there, who comes and goes.

use super::Mark;
use super::print::{boolean, end, end_up_to_offset, name, number, text, write_mark};
use crate::id::{NameRef, UserId};

/// The answer to who looks back.
#[derive(Clone, Copy, Debug)]
pub struct History<'a, M> {
    /// In which room.
    pub room: NameRef<'a>,
    /// Which life of it.
    pub epoch: u64,
    /// Its last offset.
    pub offset: u64,
    /// Whether nothing is missing before the first message.
    pub complete: bool,
    /// The JSON of each message, oldest first.
    pub messages: M,
}

/// The answer to who asks who is in a room.
#[derive(Clone, Copy, Debug)]
pub struct Presence<'a> {
    /// In which room.
    pub room: NameRef<'a>,
    /// How many users are there.
    pub users: usize,
    /// How many connections they have there.
    pub connections: usize,
    /// Some of the users, with their connections.
    pub members: &'a [(UserId, u32)],
    /// Whether there are more behind the last of them.
    pub has_more: bool,
}

/// Appends what was said in a room. `timestamp` is in Unix seconds, here and below.
pub fn write_history<'m>(
    mark: Option<Mark<'_>>,
    history: History<'_, impl Iterator<Item = &'m [u8]>>,
    timestamp: u64,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(br#"{"type":"history""#);
    write_mark(mark, out);
    name(r#","room_id":"#, history.room, out);
    text(r#","epoch":"#, &format!("{:016x}", history.epoch), out);
    number(r#","offset":"#, history.offset, out);
    boolean(r#","complete":"#, history.complete, out);
    out.extend_from_slice(br#","messages":["#);
    for (index, message) in history.messages.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(message);
    }
    out.push(b']');
    end(timestamp, out);
}

/// Appends who is in a room.
pub fn write_presence(mark: Option<Mark<'_>>, presence: &Presence<'_>, timestamp: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"presence""#);
    write_mark(mark, out);
    name(r#","room_id":"#, presence.room, out);
    number(r#","users":"#, presence.users as u64, out);
    number(r#","connections":"#, presence.connections as u64, out);
    out.extend_from_slice(br#","members":["#);
    for (index, (user, connections)) in presence.members.iter().enumerate() {
        name(if index == 0 { r#"{"user":"# } else { r#",{"user":"# }, user.as_ref(), out);
        number(r#","connections":"#, u64::from(*connections), out);
        out.push(b'}');
    }
    out.push(b']');
    if let Some((last, _)) = presence.members.last().filter(|_| presence.has_more) {
        name(r#","next":"#, last.as_ref(), out);
    }
    end(timestamp, out);
}

/// Appends that a user has come into a room (`join`) or has left it.
pub fn write_movement(
    is_join: bool,
    user: NameRef<'_>,
    room: NameRef<'_>,
    timestamp: u64,
    out: &mut Vec<u8>,
) {
    begin_movement(is_join, user, room, out);
    end(timestamp, out);
}

/// As [`write_movement`], but for its offset, which is the last that it says, and a brace behind that.
pub fn write_movement_up_to_offset(
    is_join: bool,
    user: NameRef<'_>,
    room: NameRef<'_>,
    timestamp: u64,
    out: &mut Vec<u8>,
) {
    begin_movement(is_join, user, room, out);
    end_up_to_offset(timestamp, out);
}

fn begin_movement(is_join: bool, user: NameRef<'_>, room: NameRef<'_>, out: &mut Vec<u8>) {
    let kind = if is_join { r#"{"type":"join","from":"# } else { r#"{"type":"leave","from":"# };
    name(kind, user, out);
    name(r#","room_id":"#, room, out);
}

#[cfg(test)]
mod tests {
    use super::super::print::tests::printed;
    use super::*;

    #[test]
    fn prints_what_was_said() {
        fn history<'m>(messages: &'m [&'m [u8]]) -> History<'m, impl Iterator<Item = &'m [u8]>> {
            let messages = messages.iter().copied();
            History { room: NameRef::Number(5), epoch: 255, offset: 9, complete: true, messages }
        }
        let messages: &[&[u8]] = &[br#"{"a":1}"#, br#"{"b":2}"#];
        assert_eq!(
            printed(|out| write_history(Some(Mark::Unsigned(1)), history(messages), 7, out)),
            r#"{"type":"history","id":1,"room_id":5,"epoch":"00000000000000ff","offset":9,"complete":true,"messages":[{"a":1},{"b":2}],"timestamp":7}"#
        );
        assert!(printed(|out| write_history(None, history(&[]), 7, out)).contains(r#""messages":[],"#));
    }

    #[test]
    fn prints_who_is_there_and_where_to_go_on() {
        let members = [(UserId::from_u64(7), 2), (UserId::parse("ann").unwrap(), 1)];
        let mut presence = Presence {
            room: NameRef::Text("ä"),
            users: 3,
            connections: 4,
            members: &members,
            has_more: true,
        };
        assert_eq!(
            printed(|out| write_presence(None, &presence, 7, out)),
            r#"{"type":"presence","room_id":"ä","users":3,"connections":4,"members":[{"user":7,"connections":2},{"user":"ann","connections":1}],"next":"ann","timestamp":7}"#
        );
        presence.has_more = false;
        assert!(!printed(|out| write_presence(None, &presence, 7, out)).contains("next"));
    }

    #[test]
    fn prints_who_comes_and_goes() {
        let (user, room) = (NameRef::Number(7), NameRef::Text("a"));
        assert_eq!(
            printed(|out| write_movement(true, user, room, 9, out)),
            r#"{"type":"join","from":7,"room_id":"a","timestamp":9}"#
        );
        let numbered = printed(|out| {
            write_movement_up_to_offset(false, user, room, 9, out);
            out.extend_from_slice(b"3}");
        });
        assert_eq!(numbered, r#"{"type":"leave","from":7,"room_id":"a","timestamp":9,"offset":3}"#);
    }
}
