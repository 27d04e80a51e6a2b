//! One client's conversation: what it asks, in; what the shard is to do, out.
//!
//! Pure: the session decides what needs no knowledge of others (is the request sound, may this user do it, does it
//! stop making sense) and leaves the rest (is the client a member, is there room for the message) to the shard, which
//! answers with the `mark` of the action: one `ack` or `error` when there is one, else only an `error`.

use crate::id::{ClientId, NameRef, UserId, matches_pattern};
use crate::protocol::{
    ErrorCode, Mark, Message, Parsed, Refusal, Rejoin, Request, Room, StreamPosition, Target, write_error,
    write_pong,
};
use crate::ws::CloseCode;

/// What one client may do, and how it has behaved.
#[derive(Debug)]
pub struct Session {
    client: ClientId,
    user: UserId,
    /// `None`: no token.
    permissions: Option<Box<Permissions>>,
    /// Refused messages since the last sound one.
    bad_messages: u16,
    /// Tokens refused on the open connection since the last good one.
    refused_tokens: u16,
    ndjson: bool,
}

const _: () = assert!(size_of::<Session>() <= 48, "each connection has one");

/// What a token allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Patterns of the rooms that may be entered, `*` for any text; `None` for all rooms.
    pub rooms: Option<Vec<String>>,
    /// Patterns of the rooms in which something may be said; `None` for all that may be entered.
    pub publish: Option<Vec<String>>,
    /// Whether messages to every connection are allowed, under [`Broadcast::Token`].
    pub may_broadcast: bool,
    /// The token's own name, by which it can be revoked.
    pub token_id: Option<Box<str>>,
}

impl Permissions {
    /// As a session keeps them: nothing where a token restricts and allows nothing and has no name, as without one.
    pub fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

/// Who may send to every connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Broadcast {
    /// Any client.
    #[default]
    Everyone,
    /// Clients whose token says so.
    Token,
    /// Nobody.
    Nobody,
}

/// The bounds of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many rooms a client may be in.
    pub rooms: usize,
    /// With so many refused messages in a row the client is disconnected.
    pub bad_messages: u16,
    /// Who may send to every connection.
    pub broadcast: Broadcast,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rooms: 128, bad_messages: 32, broadcast: Broadcast::Everyone }
    }
}

/// What the session wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Nothing.
    None,
    /// Send the `pong` that was appended to the replies.
    Pong,
    /// Send the `error` with this code that was appended to the replies.
    Refuse(ErrorCode),
    /// Make the client a member.
    Join {
        /// What the answer must carry.
        mark: Option<Mark<'a>>,
        /// Of this room.
        room: Room<'a>,
        /// What the client already knows of it.
        recover: Option<StreamPosition<'a>>,
        /// How many of the last messages to send first.
        history: Option<u32>,
    },
    /// End the membership.
    Leave {
        /// What the answer must carry.
        mark: Option<Mark<'a>>,
        /// Of this room.
        room: Room<'a>,
    },
    /// Publish in a room, if the client is a member.
    PublishRoom {
        /// What the answer must carry.
        mark: Option<Mark<'a>>,
        /// The room, which is also the message's target.
        room: Room<'a>,
        /// What.
        message: Message<'a>,
        /// Whether this connection gets it too.
        echo: bool,
    },
    /// Send to the connections of a user.
    PublishUser {
        /// What the answer must carry.
        mark: Option<Mark<'a>>,
        /// The user, who is also the message's target.
        to: NameRef<'a>,
        /// What.
        message: Message<'a>,
    },
    /// Send to every connection.
    PublishEveryone {
        /// What the answer must carry.
        mark: Option<Mark<'a>>,
        /// What.
        message: Message<'a>,
        /// Whether this connection gets it too.
        echo: bool,
    },
    /// Say who is in a room.
    Presence {
        /// What the answer must carry.
        mark: Option<Mark<'a>>,
        /// Which room.
        room: Room<'a>,
        /// The user behind whom to begin.
        after: Option<NameRef<'a>>,
        /// How many users at most.
        limit: Option<u32>,
    },
    /// Say what was said in a room.
    History {
        /// What the answer must carry.
        mark: Option<Mark<'a>>,
        /// Which room.
        room: Room<'a>,
        /// Behind this, if anywhere, to begin.
        since: Option<StreamPosition<'a>>,
        /// How many messages at most.
        limit: Option<u32>,
    },
    /// Make the client a member of all rooms that an earlier session was in, and of those it names.
    Resume {
        /// What the answer must carry.
        mark: Option<Mark<'a>>,
        /// The earlier session, as the client names it.
        session: &'a str,
        /// Rooms that may not be the client's to enter.
        rooms: Vec<Rejoin<'a>>,
    },
    /// Check another token, and go on with what it allows.
    Authenticate {
        /// What the answer must carry.
        mark: Option<Mark<'a>>,
        /// As the client gave it.
        token: &'a str,
    },
    /// Send the error that was appended to the replies, then close.
    Close {
        /// With this code.
        code: CloseCode,
        /// And this text.
        reason: &'static str,
        /// The code of the error.
        error: ErrorCode,
    },
}

impl Session {
    /// The conversation of a client that has just come in. Without a token there are no `permissions`: every room
    /// is allowed.
    pub fn new(client: ClientId, user: UserId, permissions: Option<Box<Permissions>>, ndjson: bool) -> Self {
        Self { client, user, permissions, bad_messages: 0, refused_tokens: 0, ndjson }
    }

    /// The name of the token that it came in by, or was renewed with, if that has one.
    pub fn token_id(&self) -> Option<&str> {
        self.permissions.as_ref()?.token_id.as_deref()
    }

    /// Goes on with what another token allows.
    pub fn permit_as(&mut self, permissions: Permissions) {
        self.permissions = permissions.boxed();
        self.refused_tokens = 0;
    }

    /// Counts a token that was refused on the open connection.
    ///
    /// # Errors
    ///
    /// The code and reason to close the connection with, when it is one of too many in a row.
    pub fn count_refused_token(&mut self, most: u16) -> Result<(), (CloseCode, &'static str)> {
        self.refused_tokens = self.refused_tokens.saturating_add(1);
        if self.refused_tokens < most {
            return Ok(());
        }
        Err((CloseCode::PolicyViolation, "too many tokens were refused in a row"))
    }

    /// The connection's number.
    pub fn client(&self) -> ClientId {
        self.client
    }

    /// Whether several messages may stand in one frame to this client, separated by line breaks.
    pub fn is_ndjson(&self) -> bool {
        self.ndjson
    }

    /// Who the client acts for.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// Decides what a message of the client leads to.
    ///
    /// `rooms_joined` is in how many rooms the client is, `timestamp` is in Unix seconds. With [`Action::Pong`],
    /// [`Action::Refuse`] and [`Action::Close`] exactly one JSON message has been appended to `replies`, otherwise nothing.
    pub fn handle<'a>(
        &mut self,
        parsed: Parsed<'a>,
        limits: &Limits,
        rooms_joined: usize,
        timestamp: u64,
        replies: &mut Vec<u8>,
    ) -> Action<'a> {
        let mark = parsed.mark;
        let request = match parsed.request {
            Ok(request) => request,
            Err(refusal) => {
                write_error(mark, refusal.code, &refusal.content, timestamp, replies);
                return self.count_bad_message(refusal.code, limits);
            }
        };
        self.bad_messages = 0;
        if let Request::Ping { data } = request {
            write_pong(mark, data, timestamp, replies);
            return Action::Pong;
        }
        self.permit(mark, request, limits, rooms_joined).unwrap_or_else(|refusal| {
            write_error(mark, refusal.code, &refusal.content, timestamp, replies);
            Action::Refuse(refusal.code)
        })
    }

    fn permit<'a>(
        &self,
        mark: Option<Mark<'a>>,
        request: Request<'a>,
        limits: &Limits,
        rooms_joined: usize,
    ) -> Result<Action<'a>, Refusal> {
        match request {
            Request::Ping { .. } | Request::Pong => Ok(Action::None),
            Request::Join { room, recover, history } => {
                self.permit_join(room, limits, rooms_joined)?;
                Ok(Action::Join { mark, room, recover, history })
            }
            Request::Leave { room } => Ok(Action::Leave { mark, room }),
            Request::Message { message, echo } => match message.target {
                Target::Room(room) => Ok(Action::PublishRoom { mark, room, message, echo }),
                Target::User(to) => Ok(Action::PublishUser { mark, to, message }),
                Target::Everyone => {
                    self.permit_broadcast(limits)?;
                    Ok(Action::PublishEveryone { mark, message, echo })
                }
            },
            Request::Presence { room, after, limit } => Ok(Action::Presence { mark, room, after, limit }),
            Request::History { room, since, limit } => Ok(Action::History { mark, room, since, limit }),
            Request::Resume { session, rooms } => Ok(Action::Resume { mark, session, rooms }),
            Request::Auth { token } => Ok(Action::Authenticate { mark, token }),
        }
    }

    /// Whether the client may enter one more room, besides the `rooms_joined` that it is in.
    ///
    /// # Errors
    ///
    /// What to answer when it may not.
    pub fn permit_join(&self, room: Room<'_>, limits: &Limits, rooms_joined: usize) -> Result<(), Refusal> {
        if self.names(|permissions| &permissions.rooms, room) == Some(false) {
            let content = "`room_id` names a room that the token does not allow";
            return Err(Refusal::new(ErrorCode::Forbidden, content));
        }
        if rooms_joined >= limits.rooms {
            let content = format!("already in {rooms_joined} rooms, which is the limit: leave one first");
            return Err(Refusal::new(ErrorCode::TooManyRooms, content));
        }
        Ok(())
    }

    /// Whether the token allows the room by its name; `None` when it names no rooms.
    pub fn token_allows(&self, room: Room<'_>) -> Option<bool> {
        self.names(|permissions| &permissions.rooms, room)
    }

    /// Whether the token allows to say something in the room; `None` when it does not name rooms for that.
    pub fn token_allows_to_publish(&self, room: Room<'_>) -> Option<bool> {
        self.names(|permissions| &permissions.publish, room)
    }

    fn names(&self, of: impl Fn(&Permissions) -> &Option<Vec<String>>, room: Room<'_>) -> Option<bool> {
        let patterns = of(self.permissions.as_ref()?).as_ref()?;
        let name = room.to_string();
        Some(patterns.iter().any(|pattern| matches_pattern(pattern, &name)))
    }

    fn permit_broadcast(&self, limits: &Limits) -> Result<(), Refusal> {
        let allowed = match limits.broadcast {
            Broadcast::Everyone => true,
            Broadcast::Token => {
                self.permissions.as_ref().is_some_and(|permissions| permissions.may_broadcast)
            }
            Broadcast::Nobody => false,
        };
        if allowed {
            return Ok(());
        }
        let content = "a message to everyone is not allowed here: send it with `room_id` or `to`";
        Err(Refusal::new(ErrorCode::Forbidden, content))
    }

    fn count_bad_message<'a>(&mut self, error: ErrorCode, limits: &Limits) -> Action<'a> {
        self.bad_messages = self.bad_messages.saturating_add(1);
        if self.bad_messages < limits.bad_messages {
            return Action::Refuse(error);
        }
        let reason = "too many bad messages in a row";
        Action::Close { code: CloseCode::PolicyViolation, reason, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Parser;

    const NOW: u64 = 1_700_000_000;

    fn session(permissions: Option<Permissions>) -> Session {
        Session::new(ClientId(1), UserId::from_u64(7), permissions.map(Box::new), false)
    }

    fn only_rooms(patterns: &[&str]) -> Permissions {
        let rooms = patterns.iter().map(|pattern| String::from(*pattern)).collect();
        Permissions { rooms: Some(rooms), ..Permissions::default() }
    }

    /// Says one message, when in `rooms` rooms, and gives what was replied, and the action as text.
    fn say_in(session: &mut Session, limits: &Limits, rooms: usize, text: &str) -> (String, String) {
        let mut parser = Parser::new();
        let mut replies = Vec::new();
        let parsed = parser.parse(text.as_bytes());
        let action = session.handle(parsed, limits, rooms, NOW, &mut replies);
        let answered = matches!(action, Action::Pong | Action::Refuse(_) | Action::Close { .. });
        assert_eq!(answered, !replies.is_empty(), "{action:?}");
        (String::from_utf8(replies).unwrap(), format!("{action:?}"))
    }

    fn say(session: &mut Session, text: &str) -> (String, String) {
        say_in(session, &Limits::default(), 0, text)
    }

    #[test]
    fn answers_a_ping_with_its_mark_and_data() {
        let (reply, _) = say(&mut session(None), r#"{"type":"ping","id":"a","data":{"n":1}}"#);
        assert_eq!(reply, r#"{"type":"pong","id":"a","data":{"n":1},"timestamp":1700000000}"#);
    }

    #[test]
    fn says_nothing_to_a_pong() {
        assert_eq!(say(&mut session(None), r#"{"type":"pong"}"#), (String::new(), "None".into()));
    }

    #[test]
    fn passes_a_message_on_to_its_target() {
        let mut session = session(None);
        let mut parser = Parser::new();
        let mut replies = Vec::new();
        let parsed = parser.parse(br#"{"type":"message","room_id":"5","content":"hi","echo":false,"id":3}"#);
        let action = session.handle(parsed, &Limits::default(), 1, NOW, &mut replies);
        let room = NameRef::Number(5);
        let message = Message { target: Target::Room(room), key: None, content: Some("hi"), data: None };
        let mark = Some(Mark::Unsigned(3));
        assert_eq!(action, Action::PublishRoom { mark, room, message, echo: false });
        assert!(say(&mut session, r#"{"type":"message","to":9,"content":"x"}"#).1.starts_with("PublishUser"));
        assert!(say(&mut session, r#"{"type":"message","content":"x"}"#).1.starts_with("PublishEveryone"));
    }

    #[test]
    fn refuses_a_room_beyond_the_limit() {
        let join = r#"{"type":"join","room_id":5,"id":1}"#;
        let (_, action) = say_in(&mut session(None), &Limits::default(), 127, join);
        assert!(action.starts_with("Join"), "{action}");
        let (reply, _) = say_in(&mut session(None), &Limits::default(), 128, join);
        assert!(reply.starts_with(r#"{"type":"error","id":1,"code":"too_many_rooms""#), "{reply}");
    }

    #[test]
    fn refuses_rooms_that_the_token_does_not_allow() {
        let mut session = session(Some(only_rooms(&["5", "team-*"])));
        assert!(say(&mut session, r#"{"type":"join","room_id":5}"#).1.starts_with("Join"));
        assert!(say(&mut session, r#"{"type":"join","room_id":"team-a"}"#).1.starts_with("Join"));
        let (reply, _) = say(&mut session, r#"{"type":"join","room_id":"lobby"}"#);
        assert!(reply.contains(r#""code":"forbidden""#) && reply.contains("`room_id`"), "{reply}");
    }

    #[test]
    fn lets_only_those_broadcast_who_may() {
        let may = |broadcast, permissions| {
            let limits = Limits { broadcast, ..Limits::default() };
            let everyone = r#"{"type":"message","content":"x"}"#;
            let (reply, action) = say_in(&mut session(permissions), &limits, 0, everyone);
            assert!(
                action.starts_with("PublishEveryone") || reply.contains(r#""code":"forbidden""#),
                "{reply}"
            );
            action.starts_with("PublishEveryone")
        };
        let allowed = || Some(Permissions { may_broadcast: true, ..Permissions::default() });
        assert!(may(Broadcast::Everyone, None));
        assert!(may(Broadcast::Everyone, Some(Permissions::default())));
        assert!(may(Broadcast::Token, allowed()));
        assert!(!may(Broadcast::Token, None));
        assert!(!may(Broadcast::Token, Some(Permissions::default())));
        assert!(!may(Broadcast::Nobody, allowed()));
    }

    #[test]
    fn closes_a_client_that_sends_nothing_but_bad_messages() {
        let mut session = session(None);
        for _ in 1..32 {
            assert_eq!(say(&mut session, "nonsense").1, "Refuse(BadMessage)");
        }
        let (reply, action) = say(&mut session, "nonsense");
        assert!(reply.contains("bad_message"));
        assert!(action.starts_with("Close { code: PolicyViolation"), "{action}");
    }

    #[test]
    fn one_sound_message_forgives_the_bad_ones_before_it() {
        let mut session = session(None);
        for _ in 0..3 {
            for _ in 1..32 {
                assert_eq!(say(&mut session, "[]").1, "Refuse(BadMessage)");
            }
            say(&mut session, r#"{"type":"ping"}"#);
        }
    }
}
