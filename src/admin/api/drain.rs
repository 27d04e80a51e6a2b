//! `/api/v1/drain`: sends all clients away, and takes them again.

use std::time::Duration;

use hyper::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::drain::Progress;

use super::super::State;
use super::super::answer::{self, Body, Refusal};

/// The longest window.
const WINDOW_SECONDS_MAX: f64 = 24.0 * 60.0 * 60.0;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Begin {
    window_seconds: Option<f64>,
}

#[derive(Serialize)]
struct Answer {
    state: &'static str,
    connections: usize,
    of: usize,
    progress: f64,
    window_seconds: f64,
}

/// `POST`: begins, or goes on with another window.
pub(super) async fn begin(state: &State, asked: Begin) -> Result<Response<Body>, Refusal> {
    let seconds = asked.window_seconds.filter(|seconds| !(0.0..=WINDOW_SECONDS_MAX).contains(seconds));
    if let Some(seconds) = seconds {
        let message = format!("`window_seconds` is {seconds}: must be from 0 to {WINDOW_SECONDS_MAX}");
        return Err(Refusal::bad_request(message));
    }
    answer(state.drain.begin(asked.window_seconds.map(Duration::from_secs_f64)).await)
}

/// `DELETE`: keeps who is left, and takes new clients.
pub(super) async fn abort(state: &State) -> Result<Response<Body>, Refusal> {
    match state.drain.abort().await {
        Some(None) => {
            Err(Refusal::conflict("the process is going to end: this drain cannot be aborted".to_owned()))
        }
        aborted => answer(aborted.flatten()),
    }
}

/// `GET`: how far it is.
pub(in super::super) async fn look(state: &State) -> Result<Response<Body>, Refusal> {
    answer(state.drain.look().await)
}

fn answer(progress: Option<Progress>) -> Result<Response<Body>, Refusal> {
    let Some(progress) = progress else {
        return Err(Refusal::unavailable("the gateway does not drain any more".to_owned(), Vec::new()));
    };
    let answer = Answer {
        state: match progress {
            Progress { is_draining: false, .. } => "running",
            Progress { is_ending: true, .. } => "ending",
            Progress { connections: 0, .. } => "drained",
            _ => "draining",
        },
        connections: progress.connections,
        of: progress.of,
        progress: progress.ratio(),
        window_seconds: progress.window.as_secs_f64(),
    };
    Ok(answer::json(StatusCode::OK, &answer))
}
