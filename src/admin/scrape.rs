//! `/metrics`.

use hyper::Response;

use super::answer::{self, Body};
use super::{State, process};

pub(super) fn metrics(state: &State) -> Response<Body> {
    (state.refresh)();
    let mut page = state.recorder.render();
    process::render(&mut page);
    answer::metrics(page)
}
