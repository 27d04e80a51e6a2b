//! `/api/v1/disconnect` and `/api/v1/revoke`: ends the connections of somebody.

use std::borrow::Cow;
use std::fmt;

use hyper::{Response, StatusCode};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::auth::TOKEN_ID_BYTES_MAX;
use crate::clock::Clock;
use crate::id::{RoomId, UserId};
use crate::inbox::{Command, Farewell, Whom};
use crate::metrics::CloseReason;
use crate::ws::CloseCode;

use super::super::State;
use super::super::answer::{self, Body, Refusal};
use super::super::{ask, query};

/// Longest reason in a Close frame, in bytes: a control frame has 125, and the code takes two.
const REASON_BYTES_MAX: usize = 123;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Disconnect {
    user: Option<Name>,
    client_id: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Revoke {
    user: Option<Name>,
    token_id: Option<String>,
}

/// `POST /api/v1/disconnect`: closes all connections of a user, or one, with 4501.
pub(super) async fn disconnect(state: &State, asked: Disconnect) -> Result<Response<Body>, Refusal> {
    let whom = match (asked.user, asked.client_id) {
        (Some(name), None) => Whom::User(name.user()),
        (None, Some(id)) => Whom::Client(query::client("client_id", &id)?),
        _ => return Err(exactly_one("user", "client_id")),
    };
    let text = asked.reason.unwrap_or_else(|| "disconnected by the application".to_owned());
    if text.len() > REASON_BYTES_MAX {
        let message =
            format!("`reason` has {} bytes: at most {REASON_BYTES_MAX} fit into a Close frame", text.len());
        return Err(Refusal::bad_request(message));
    }
    let (code, reason) = (CloseCode::Disconnected, CloseReason::Kicked);
    close(state, whom, Farewell { code, text: text.into(), reason }).await
}

/// `POST /api/v1/revoke`: a token, or all that a user has, count no more; connections by them are closed with 4500.
pub(super) async fn revoke(state: &State, asked: Revoke) -> Result<Response<Body>, Refusal> {
    if !state.verifier.is_required() {
        let message = "this gateway asks for no tokens: there is nothing to revoke".to_owned();
        return Err(Refusal::conflict(message));
    }
    let now = Clock::unix();
    // Before the connections are looked at: who comes in meanwhile is looked at anew.
    let (whom, revoked) = match (asked.user, asked.token_id) {
        (Some(name), None) => {
            let user = name.user();
            let revoked = state.verifier.revoke_user(&user, now);
            (Whom::User(user), revoked)
        }
        (None, Some(id)) if !id.is_empty() && id.len() <= TOKEN_ID_BYTES_MAX => {
            let revoked = state.verifier.revoke_token(&id, now);
            (Whom::Token(id.into()), revoked)
        }
        (None, Some(_)) => {
            let message = format!("`token_id` must be the `jti` of a token, 1 to {TOKEN_ID_BYTES_MAX} bytes");
            return Err(Refusal::bad_request(message));
        }
        _ => return Err(exactly_one("user", "token_id")),
    };
    revoked.map_err(|full| Refusal::no_room(full.to_string()))?;
    let text = Cow::Borrowed("the token was revoked");
    close(state, whom, Farewell { code: CloseCode::TokenExpired, text, reason: CloseReason::TokenRevoked })
        .await
}

/// Has every shard that may have such connections close them; who does not answer in time does it later.
async fn close(state: &State, whom: Whom, why: Farewell) -> Result<Response<Body>, Refusal> {
    #[derive(Serialize)]
    struct Answer {
        closed: usize,
        missing_shards: Vec<u16>,
    }
    let close = |answer| Command::Close { whom: whom.clone(), why: why.clone(), answer };
    let answers = match &whom {
        Whom::Client(id) => ask::command_one(state, id.shard(state.shards.len()).0, close).await,
        Whom::User(_) | Whom::Token(_) => ask::command_all(state, close).await,
    };
    let answer = Answer { closed: answers.said.iter().sum(), missing_shards: answers.missing };
    Ok(answer::json(StatusCode::OK, &answer))
}

pub(super) fn exactly_one(one: &str, other: &str) -> Refusal {
    Refusal::bad_request(format!("give exactly one of `{one}` and `{other}`"))
}

/// The name of a user or a room, a number or a string as in the clients' messages. Invariant: it is one.
pub(super) struct Name(RoomId);

impl Name {
    pub(super) fn user(&self) -> UserId {
        UserId::from(self.0.as_ref())
    }

    pub(super) fn room(self) -> RoomId {
        self.0
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an unsigned integer or a string of 1 to 128 bytes")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Name, E> {
                Ok(Name(RoomId::from_u64(number)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Name, E> {
                RoomId::parse(text).map(Name).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}
