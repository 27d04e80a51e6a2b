//! `/api/v1/rooms/{room}/presence` and `/history`: who is in a room, and what was said there.

use hyper::{Response, StatusCode};
use serde::Serialize;
use serde::ser::SerializeSeq as _;

use crate::hub::{HistoryPage, Portion, Start};
use crate::id::{RoomId, UserId, write_decimal, write_json_string};
use crate::inspect::LIST_MAX;
use crate::ws::PreparedMessage;

use super::super::State;
use super::super::answer::{self, Body, Refusal};
use super::super::query::{self, Query};

/// Messages in an answer, in bytes.
const ANSWER_BYTES: usize = 256 << 10;

/// `GET /api/v1/rooms/{room}/presence?limit=&after=`: users in the order of their names.
pub(in super::super) fn presence(
    state: &State,
    segment: &str,
    query: &Query<'_>,
) -> Result<Response<Body>, Refusal> {
    #[derive(Serialize)]
    struct Answer {
        room_id: RoomId,
        users: usize,
        connections: usize,
        members: Members,
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<UserId>,
    }
    let room_id = query::room("room", segment)?;
    let (limit, after) = (query.number("limit", 100, 1..=LIST_MAX)?, query.user("after")?);
    let Some(page) = state.hub.present(&room_id, after.as_ref(), limit) else {
        let message =
            format!("it is not known who is in the room {room_id}: set `presence` for it in `[[rooms]]`");
        return Err(Refusal::not_found(message));
    };
    let next = page.members.last().filter(|_| page.has_more).map(|(user, _)| user.clone());
    let (users, connections, members) = (page.users, page.connections, Members(page.members));
    let answer = Answer { room_id, users, connections, members, next };
    Ok(answer::json(StatusCode::OK, &answer))
}

/// Users with their connections.
struct Members(Vec<(UserId, u32)>);

impl Serialize for Members {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Member<'a> {
            user: &'a UserId,
            connections: u32,
        }
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for (user, connections) in &self.0 {
            list.serialize_element(&Member { user, connections: *connections })?;
        }
        list.end()
    }
}

/// `GET /api/v1/rooms/{room}/history?epoch=&offset=&limit=`: the last messages, or the first behind a position.
pub(in super::super) fn history(
    state: &State,
    segment: &str,
    query: &Query<'_>,
) -> Result<Response<Body>, Refusal> {
    let room_id = query::room("room", segment)?;
    let limit = query.number("limit", 100, 1..=LIST_MAX)?;
    let start = match (query.value("epoch"), query.value("offset")) {
        (None, None) => Start::Last(limit),
        (Some(epoch), Some(_)) => {
            let offset = query.number("offset", 0, 0..=usize::MAX)?;
            Start::behind(epoch, offset as u64)
        }
        _ => {
            let message = "`epoch` and `offset` belong together: give both, or none for the last messages";
            return Err(Refusal::bad_request(message.to_owned()));
        }
    };
    let Some(page) = state.hub.look_back(&room_id, start, Portion { messages: limit, bytes: ANSWER_BYTES })
    else {
        let message = format!("the room {room_id} keeps no history: set `history` for it in `[[rooms]]`");
        return Err(Refusal::not_found(message));
    };
    Ok(answer::of_json(StatusCode::OK, written(&room_id, &page)))
}

/// By hand, since the messages are JSON already.
fn written(room: &RoomId, page: &HistoryPage) -> Vec<u8> {
    let mut out = b"{\"room_id\":".to_vec();
    room.write_json(&mut out);
    out.extend_from_slice(b",\"epoch\":");
    write_json_string(&format!("{:016x}", page.position.epoch), &mut out);
    out.extend_from_slice(b",\"offset\":");
    write_decimal(page.position.offset, &mut out);
    let complete: &[u8] = if page.is_complete { b",\"complete\":true" } else { b",\"complete\":false" };
    out.extend_from_slice(complete);
    out.extend_from_slice(b",\"messages\":[");
    for (index, message) in page.messages.iter().map(PreparedMessage::payload).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(message);
    }
    out.extend_from_slice(b"]}\n");
    out
}
