//! Answers to who looks back at what was said in a room, and to who asks who is there.

use crate::hub::{self, Portion, Start};
use crate::id::{ClientKey, NameRef, RoomId, UserId};
use crate::metrics::SentType;
use crate::protocol::{self, ErrorCode, History, Mark, Presence, Refusal, StreamPosition};
use crate::ws::PreparedMessage;

use super::state::Core;

/// Messages or members in an answer when nothing else is asked for, and at most.
const ANSWERED: usize = 100;
const ANSWERED_MAX: usize = 1000;

/// Messages in an answer, in bytes; less where less may wait for the client.
const ANSWER_BYTES: usize = 256 << 10;

/// Where a position that a client gives is.
pub(super) fn start(position: StreamPosition<'_>) -> Start {
    Start::behind(position.epoch, position.offset)
}

impl Core {
    pub(super) fn answer_history(
        &mut self,
        key: ClientKey,
        (room, since): (NameRef<'_>, Option<StreamPosition<'_>>),
        limit: Option<u32>,
        mark: Option<Mark<'_>>,
        replies: &mut Vec<u8>,
    ) {
        let limit = bounded(limit);
        let start = since.map_or(Start::Last(limit), start);
        let most = Portion { messages: limit, bytes: ANSWER_BYTES.min(self.options.outbound_bytes / 4) };
        let page = self.permit_reading(key, room).and_then(|()| {
            let page = self.hub.look_back(&RoomId::from(room), start, most);
            page.ok_or_else(|| unavailable("`room_id` names a room that keeps no history"))
        });
        match page {
            Ok(page) => {
                self.json.clear();
                let hub::StreamPosition { epoch, offset } = page.position;
                let messages = page.messages.iter().map(PreparedMessage::payload);
                let history = History { room, epoch, offset, complete: page.is_complete, messages };
                protocol::write_history(mark, history, self.timestamp, &mut self.json);
                self.reply(SentType::History, replies);
            }
            Err(refusal) => self.refuse(mark, refusal.code, &refusal.content, replies),
        }
    }

    pub(super) fn answer_presence(
        &mut self,
        key: ClientKey,
        (room, after): (NameRef<'_>, Option<NameRef<'_>>),
        limit: Option<u32>,
        mark: Option<Mark<'_>>,
        replies: &mut Vec<u8>,
    ) {
        let after = after.map(UserId::from);
        let page = self.permit_looking(key, room).and_then(|()| {
            let page = self.hub.present(&RoomId::from(room), after.as_ref(), bounded(limit));
            page.ok_or_else(|| unavailable("`room_id` names a room where it is not known who is there"))
        });
        match page {
            Ok(page) => {
                self.json.clear();
                let crate::presence::Page { users, connections, members, has_more } = page;
                let presence = Presence { room, users, connections, members: &members, has_more };
                protocol::write_presence(mark, &presence, self.timestamp, &mut self.json);
                self.reply(SentType::Presence, replies);
            }
            Err(refusal) => self.refuse(mark, refusal.code, &refusal.content, replies),
        }
    }

    /// Whoever is in a room or may enter it may look at it.
    fn permit_looking(&self, key: ClientKey, room: NameRef<'_>) -> Result<(), Refusal> {
        if self.membership(key, room).is_some() {
            return Ok(());
        }
        let (session, limits) = (&self.clients[key].session, &self.options.session);
        session.permit_join(room, limits, 0)?;
        self.permit_entry(key, room)
    }

    fn permit_reading(&self, key: ClientKey, room: NameRef<'_>) -> Result<(), Refusal> {
        self.permit_looking(key, room)?;
        let session = &self.clients[key].session;
        let may = self.options_of(room).read.allows(|| session.token_allows(room));
        let content =
            "`room_id` names a room in which nobody may look back, or only with a token that names it";
        if may { Ok(()) } else { Err(Refusal::new(ErrorCode::Forbidden, content)) }
    }
}

fn bounded(limit: Option<u32>) -> usize {
    limit.map_or(ANSWERED, |limit| usize::try_from(limit).unwrap_or(usize::MAX).min(ANSWERED_MAX))
}

fn unavailable(content: &str) -> Refusal {
    Refusal::new(ErrorCode::Unavailable, content)
}
