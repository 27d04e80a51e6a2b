//! `/api/v1/stats`: the gateway in a few numbers.

use std::time::Duration;

use hyper::{Response, StatusCode};
use serde::Serialize;

use super::super::answer::{self, Body};
use super::super::{Context, process};

/// What `/metrics` has in full. What shards count is at most 50 ms old.
#[derive(Serialize)]
struct Answer {
    connections: u64,
    rooms: usize,
    users: usize,
    messages_received: u64,
    messages_sent: u64,
    /// What the connections take.
    memory_bytes: u64,
    /// What the process takes, where the system tells.
    resident_bytes: Option<u64>,
    uptime_seconds: f64,
    version: &'static str,
}

/// `GET`.
pub(in super::super) fn look(context: &Context) -> Response<Body> {
    let state = &context.state;
    (state.refresh)();
    let sums = context.metrics.sums();
    let uptime = Duration::from_nanos(state.clock.now());
    let answer = Answer {
        connections: sums.connections,
        rooms: state.hub.rooms(),
        users: state.hub.users(),
        messages_received: sums.messages_received,
        messages_sent: sums.messages_sent,
        memory_bytes: sums.memory_bytes,
        resident_bytes: process::resident_bytes(),
        uptime_seconds: uptime.as_secs_f64(),
        version: env!("CARGO_PKG_VERSION"),
    };
    answer::json(StatusCode::OK, &answer)
}
