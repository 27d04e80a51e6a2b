//! `/api/v1`: what changes something, and what applications ask.
//!
//! A page in an operator's browser must not be able to do so: a body is JSON and says so, which browsers send to other
//! origins only after asking, and whoever sends an `Origin` is a browser.

mod clients;
pub(super) mod drain;
pub(super) mod records;
pub(super) mod rooms;
pub(super) mod stats;

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, ORIGIN};
use hyper::{Request, Response};
use serde::de::DeserializeOwned;

use super::answer::{Body, Refusal};
use super::keys::Caller;
use super::routes::Act;
use super::{Context, publish};

/// The longest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Does what is asked.
pub(super) async fn act(
    act: Act,
    caller: Caller,
    request: Request<Incoming>,
    context: &Arc<Context>,
) -> Result<Response<Body>, Refusal> {
    let state = &context.state;
    if request.headers().contains_key(ORIGIN) {
        return Err(Refusal::forbidden("requests of pages in a browser are not answered here".to_owned()));
    }
    match act {
        Act::Publish => publish::publish(context, caller, request).await,
        Act::Disconnect => clients::disconnect(state, body(request, context).await?).await,
        Act::Revoke => clients::revoke(state, body(request, context).await?).await,
        Act::Unsubscribe => rooms::unsubscribe(state, body(request, context).await?).await,
        Act::BeginDrain => drain::begin(state, body(request, context).await?).await,
        Act::AbortDrain => drain::abort(state).await,
    }
}

/// The body of a request, understood to its last field.
async fn body<T: DeserializeOwned>(request: Request<Incoming>, context: &Context) -> Result<T, Refusal> {
    if !is_of_type(request.headers().get(CONTENT_TYPE), "application/json") {
        return Err(Refusal::not_json("send JSON, with `Content-Type: application/json`".to_owned()));
    }
    let body = read(request, BODY_BYTES_MAX, context).await?;
    serde_json::from_slice(&body)
        .map_err(|error| Refusal::bad_request(format!("the body is not what is expected here: {error}")))
}

/// The body of a request as a whole, which has at most so many bytes and comes in time.
pub(super) async fn read(
    request: Request<Incoming>,
    bytes_max: usize,
    context: &Context,
) -> Result<Bytes, Refusal> {
    let read = Limited::new(request.into_body(), bytes_max).collect();
    let Ok(read) = tokio::time::timeout(context.state.options.peer, read).await else {
        return Err(Refusal::timeout("the body did not come in time".to_owned()));
    };
    match read {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Refusal::too_long(format!("the body has more than {bytes_max} bytes")))
        }
        Err(_) => Err(Refusal::bad_request("the body broke off".to_owned())),
    }
}

/// Whether content is of this type, whatever its parameters.
pub(super) fn is_of_type(kind: Option<&HeaderValue>, wanted: &str) -> bool {
    let kind = kind.and_then(|kind| kind.to_str().ok()).and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case(wanted))
}
