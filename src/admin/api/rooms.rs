//! `/api/v1/rooms`: which rooms there are, one of them, and taking somebody out of it.

use std::collections::HashMap;
use std::sync::Arc;

use hyper::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::hub::StreamPosition;
use crate::id::RoomId;
use crate::inbox::{Command, Whom};
use crate::inspect::{LIST_MAX, Recent, Room};

use super::super::State;
use super::super::answer::{self, Body, Refusal};
use super::super::query::{self, Query};
use super::super::{ask, rooms};
use super::clients::{Name, exactly_one};

/// What is told of a room.
#[derive(Debug, Serialize)]
struct Entry {
    room_id: RoomId,
    members: usize,
    messages: u64,
    bytes: u64,
    deliveries: u64,
    recent: Recent,
}

impl Entry {
    /// As the shards say, where they have members in it. What has happened is known of others as well, such as are kept for
    /// their history.
    fn of(state: &State, room_id: RoomId, told: &Told) -> Self {
        let members = told.get(&Some(room_id.clone())).map_or(0, |room| room.members);
        let heat = state.hub.existing(&room_id).map(|room| room.heat()).unwrap_or_default();
        let (messages, bytes, deliveries) = (heat.messages, heat.bytes, heat.deliveries);
        Self { room_id, members, messages, bytes, deliveries, recent: heat.recent(state.clock.now()) }
    }
}

/// Rooms by their names.
type Told = HashMap<Option<RoomId>, Room>;

/// `GET /api/v1/rooms?match=&limit=&after=`: rooms in the order of their names.
pub(in super::super) async fn list(state: &State, query: &Query<'_>) -> Result<Response<Body>, Refusal> {
    #[derive(Serialize)]
    struct Answer {
        rooms: Vec<Entry>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<RoomId>,
        missing_shards: Vec<u16>,
    }
    let limit = query.number("limit", 100, 1..=LIST_MAX)?;
    let after = query.name("after")?;
    // One more tells whether there are more.
    let mut names = state.hub.rooms_after(after.as_ref(), query.value("match"), limit + 1);
    let has_more = names.len() > limit;
    names.truncate(limit);
    let next = names.last().filter(|_| has_more).cloned();
    let (told, missing_shards) = told_of(state, names.iter().cloned().map(Some).collect()).await;
    let rooms = names.into_iter().map(|name| Entry::of(state, name, &told)).collect();
    Ok(answer::json(StatusCode::OK, &Answer { rooms, next, missing_shards }))
}

/// `GET /api/v1/rooms/{room}`: one of them, and where it stands.
pub(in super::super) async fn one(state: &State, segment: &str) -> Result<Response<Body>, Refusal> {
    #[derive(Serialize)]
    struct Answer {
        #[serde(flatten)]
        room: Entry,
        epoch: String,
        offset: u64,
        missing_shards: Vec<u16>,
    }
    let id = query::room("room", segment)?;
    let Some(room) = state.hub.existing(&id) else {
        let message = format!("nobody is in a room called {id}, and nothing of it is kept");
        return Err(Refusal::not_found(message));
    };
    let StreamPosition { epoch, offset } = room.position();
    let (told, missing_shards) = told_of(state, Arc::new([Some(id.clone())])).await;
    let (room, epoch) = (Entry::of(state, id, &told), format!("{epoch:016x}"));
    Ok(answer::json(StatusCode::OK, &Answer { room, epoch, offset, missing_shards }))
}

/// What the shards say of some rooms, and which did not say it.
async fn told_of(state: &State, names: Arc<[Option<RoomId>]>) -> (Told, Vec<u16>) {
    let (told, missing) = rooms::named(state, &names).await;
    (told.into_iter().map(|room| (room.room.clone(), room)).collect(), missing)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unsubscribe {
    room_id: Name,
    user: Option<Name>,
    client_id: Option<String>,
}

/// `POST /api/v1/unsubscribe`: takes all connections of a user, or one, out of a room.
pub(super) async fn unsubscribe(state: &State, asked: Unsubscribe) -> Result<Response<Body>, Refusal> {
    #[derive(Serialize)]
    struct Answer {
        unsubscribed: usize,
        missing_shards: Vec<u16>,
    }
    let room = asked.room_id.room();
    let command =
        |whom: Whom| move |answer| Command::Unsubscribe { room: room.clone(), whom: whom.clone(), answer };
    let answers = match (asked.user, asked.client_id) {
        (Some(user), None) => ask::command_all(state, command(Whom::User(user.user()))).await,
        (None, Some(id)) => {
            let id = query::client("client_id", &id)?;
            let shard = id.shard(state.shards.len());
            ask::command_one(state, shard.0, command(Whom::Client(id))).await
        }
        _ => return Err(exactly_one("user", "client_id")),
    };
    let (unsubscribed, missing_shards) = (answers.said.iter().sum(), answers.missing);
    Ok(answer::json(StatusCode::OK, &Answer { unsubscribed, missing_shards }))
}
