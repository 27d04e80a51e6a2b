//! `/debug/slow`, `/debug/connections` and `/debug/closed`: single connections, as their shards see them.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::hub::Address;
use crate::id::{ClientId, ClientKey, UserId};
use crate::inspect::{Closed, Connection, LIST_MAX, Question, Queue, Which};

use super::State;
use super::answer::{self, Body, Refusal};
use super::ask::{ask, ask_all};
use super::query::{self, Query};

/// `/debug/slow?k=10`: those for which most waits.
pub(super) async fn slow(state: &State, query: &Query<'_>) -> Result<Response<Body>, Refusal> {
    let limit = query.number("k", 10, 1..=LIST_MAX)?;
    let which = |answer| Question::Connections { which: Which::Slowest(limit), answer };
    let answers = ask_all(state, which).await;
    let mut connections = answers.said.concat();
    let seconds = |queue: Option<Queue>| queue.map_or(0.0, |queue| queue.oldest_seconds);
    connections.sort_by(|one, other| {
        let bytes = |connection: &Connection| Reverse(connection.queue.map_or(0, |queue| queue.bytes));
        let by_age = || seconds(other.queue).total_cmp(&seconds(one.queue));
        bytes(one).cmp(&bytes(other)).then_with(by_age)
    });
    connections.truncate(limit);
    Ok(list(&Found { connections, total: None, missing_shards: answers.missing }))
}

/// Where the connection with this number is, if it is one of the user's.
///
/// # Errors
///
/// A [`Refusal`] when its shard does not answer.
pub(super) async fn locate(state: &State, user: &UserId, id: ClientId) -> Result<Option<Address>, Refusal> {
    let shard = id.shard(state.shards.len());
    let addresses = state.hub.connections(user).into_iter().filter(|address| address.shard == shard);
    let keys: Vec<_> = addresses.map(|address| address.client).collect();
    if keys.is_empty() {
        return Ok(None);
    }
    let which = |_, answer| Question::Connections { which: Which::Keys(keys.clone()), answer };
    let answers = ask(state, std::iter::once(shard.0), which).await;
    if !answers.missing.is_empty() {
        return Err(silent(id, answers.missing));
    }
    let found = answers.said.into_iter().flatten().find(|connection| connection.client_id == id);
    Ok(found.map(|connection| Address { shard, client: connection.key }))
}

/// `/debug/connections?user=NAME`: all of one user's.
pub(super) async fn of_user(state: &State, query: &Query<'_>) -> Result<Response<Body>, Refusal> {
    let Some(user) = query.user("user")? else {
        let message =
            "user= is needed: the name of a user; for one connection there is /debug/connections/{id}";
        return Err(Refusal::bad_request(message.to_owned()));
    };
    Ok(list(&all_of(state, &user).await))
}

/// `/api/v1/users/{user}/connections`: the same.
pub(super) async fn of_user_in_path(state: &State, segment: &str) -> Result<Response<Body>, Refusal> {
    Ok(list(&all_of(state, &query::user("user", segment)?).await))
}

/// The connections of a user, at most [`LIST_MAX`].
async fn all_of(state: &State, user: &UserId) -> Found {
    let addresses = state.hub.connections(user);
    let mut by_shard = BTreeMap::<u16, Vec<ClientKey>>::new();
    for address in addresses.iter().take(LIST_MAX) {
        by_shard.entry(address.shard.0).or_default().push(address.client);
    }
    let shards: Vec<_> = by_shard.keys().copied().collect();
    let which = |shard, answer| {
        let keys = by_shard.remove(&shard).unwrap_or_default();
        Question::Connections { which: Which::Keys(keys), answer }
    };
    let answers = ask(state, shards.into_iter(), which).await;
    let (connections, total) = (answers.said.concat(), Some(addresses.len()));
    Found { connections, total, missing_shards: answers.missing }
}

/// `/debug/connections/{id}`: the one with this number.
pub(super) async fn one(state: &State, id: &str) -> Result<Response<Body>, Refusal> {
    #[derive(Serialize)]
    struct Answer {
        connection: Connection,
    }
    let connection = find(state, query::client("id", id)?).await?;
    Ok(list(&Answer { connection }))
}

/// Asks for a connection the shard that its number names.
///
/// # Errors
///
/// A [`Refusal`] when the shard does not have it, or does not answer.
pub(super) async fn find(state: &State, id: ClientId) -> Result<Connection, Refusal> {
    let shard = id.shard(state.shards.len());
    let which = |_, answer| Question::Connections { which: Which::Client(id), answer };
    let answers = ask(state, std::iter::once(shard.0), which).await;
    match answers.said.into_iter().flatten().next() {
        Some(connection) => Ok(connection),
        None if answers.missing.is_empty() => {
            Err(Refusal::not_found(format!("no open connection has the number {id}")))
        }
        None => Err(silent(id, answers.missing)),
    }
}

/// Nothing is known of the connection with this number.
fn silent(id: ClientId, missing: Vec<u16>) -> Refusal {
    Refusal::unavailable(format!("the shard that may have connection {id} did not answer"), missing)
}

/// `/debug/closed?k=100`: those that ended last.
pub(super) async fn closed(state: &State, query: &Query<'_>) -> Result<Response<Body>, Refusal> {
    #[derive(Serialize)]
    struct Answer {
        closed: Vec<Closed>,
        missing_shards: Vec<u16>,
    }
    let limit = query.number("k", 100, 1..=LIST_MAX)?;
    let answers = ask_all(state, |answer| Question::Closed { limit, answer }).await;
    let mut closed = answers.said.concat();
    // Keeps the order of those that one shard closed together.
    closed.sort_by(|one, other| other.closed_at.total_cmp(&one.closed_at));
    closed.truncate(limit);
    Ok(list(&Answer { closed, missing_shards: answers.missing }))
}

#[derive(Serialize)]
struct Found {
    connections: Vec<Connection>,
    /// How many there are, where the list may be shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<usize>,
    missing_shards: Vec<u16>,
}

fn list(answer: &impl Serialize) -> Response<Body> {
    answer::json(StatusCode::OK, answer)
}
