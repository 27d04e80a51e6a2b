//! `/livez` and `/readyz`.

use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::readiness::Reason;

use super::State;
use super::answer::{self, Body};

pub(super) fn alive() -> Response<Body> {
    answer::text(StatusCode::OK, "alive\n")
}

pub(super) fn ready(state: &State) -> Response<Body> {
    #[derive(Serialize)]
    struct Answer {
        ready: bool,
        reasons: Vec<Reason>,
    }
    let reasons = state.ready.reasons(state.clock.now());
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer::json(status, &Answer { ready: reasons.is_empty(), reasons })
}
