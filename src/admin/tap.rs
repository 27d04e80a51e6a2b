//! `/debug/tap`: a live look at one room or connection, as server-sent events.
//!
//! Nobody waits for who looks: the shards put events into a bounded queue, this side takes one when the socket took the
//! last, and what did not fit is told as a number.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Frame;
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Interval;

use crate::clock::Clock;
use crate::inspect::{Question, Subject, TapReader, Tapped, tap};

use super::Context;
use super::answer::{self, Body, Refusal};
use super::ask::tell_all;
use super::connections;
use super::query::Query;

/// Taps open at once: each costs the shards a copy of what they show it.
pub(super) const TAPS_MAX: usize = 8;

/// The places for taps.
pub(super) struct Taps(Arc<Semaphore>);

impl Default for Taps {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(TAPS_MAX)))
    }
}

/// Opens a tap, and answers with what it shows until the reader goes away or there is nothing more to see.
pub(super) async fn open(context: &Arc<Context>, query: &Query<'_>) -> Result<Response<Body>, Refusal> {
    let subject = subject(query)?;
    let Ok(place) = Arc::clone(&context.taps.0).try_acquire_owned() else {
        return Err(Refusal::too_many(format!("{TAPS_MAX} taps are open; no more are allowed at once")));
    };
    if let Subject::Connection(id) = subject {
        connections::find(&context.state, id).await?;
    }
    let stream = Stream::begin(Arc::clone(context), subject, place);
    Ok(answer::of(StatusCode::OK, KIND, stream.boxed_unsync()))
}

/// What [`open`] would answer, without looking at anything.
pub(super) fn head(query: &Query<'_>) -> Result<Response<Body>, Refusal> {
    subject(query)?;
    Ok(answer::of(StatusCode::OK, KIND, Empty::new().boxed_unsync()))
}

const KIND: &str = "text/event-stream";

fn subject(query: &Query<'_>) -> Result<Subject, Refusal> {
    match (query.room("room")?, query.client("connection")?) {
        (Some(room), None) => Ok(room),
        (None, Some(client)) => Ok(Subject::Connection(client)),
        _ => Err(Refusal::bad_request("exactly one of room= and connection= is needed".to_owned())),
    }
}

/// The body of an open tap. The shards see when its end drops the reader.
struct Stream {
    context: Arc<Context>,
    /// Given back when the tap ends.
    _place: OwnedSemaphorePermit,
    reader: TapReader,
    /// Why there is nothing more when no shard has the tap any more.
    end: &'static str,
    /// How many events were shown.
    shown: u64,
    keep_alive: Interval,
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
    has_ended: bool,
}

impl Stream {
    fn begin(context: Arc<Context>, subject: Subject, place: OwnedSemaphorePermit) -> Self {
        let end = match subject {
            Subject::Room(_) => "stopped",
            Subject::Connection(_) => "closed",
        };
        let (tap, reader) = tap(subject, context.metrics.tap_lost.clone());
        let mut stopped = context.stopped.clone();
        let mut keep_alive = tokio::time::interval(context.state.options.keep_alive);
        keep_alive.reset();
        context.metrics.taps.increment(1.0);
        let stream = Self {
            _place: place,
            reader,
            end,
            shown: 0,
            keep_alive,
            stopped: Box::pin(async move { stopped.stopped().await }),
            has_ended: false,
            context,
        };
        tell_all(&stream.context.state, || Question::Tap(tap.clone()));
        stream
    }

    /// Text for one event, behind the number of those that were lost before it.
    fn show(&mut self, tapped: &Tapped) -> String {
        let mut text = self.lost();
        let json = json(&Shown { time: unix_time(), tapped });
        let name = tapped.event.name();
        // Writing to a `String` cannot fail.
        let _ = write!(text, "event: {name}\ndata: {json}\nid: {}\n\n", self.shown);
        self.shown += 1;
        text
    }

    fn end(&mut self, reason: &'static str) -> String {
        self.has_ended = true;
        let json = json(&Ended { time: unix_time(), reason });
        self.lost() + &format!("event: end\ndata: {json}\n\n")
    }

    /// Text for how many events were lost since the last text; empty when none were.
    fn lost(&mut self) -> String {
        match self.reader.take_lost() {
            0 => String::new(),
            count => format!("event: lost\ndata: {}\n\n", json(&Lost { time: unix_time(), count })),
        }
    }

    fn poll_text(&mut self, context: &mut task::Context<'_>) -> Poll<Option<String>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        if self.stopped.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(self.end("stopped")));
        }
        if let Poll::Ready(next) = self.reader.poll_next(context) {
            let text = match next {
                Some(tapped) => self.show(&tapped),
                None => self.end(self.end),
            };
            self.keep_alive.reset();
            return Poll::Ready(Some(text));
        }
        self.keep_alive.poll_tick(context).map(|_| Some(self.lost() + ": nothing new\n\n"))
    }
}

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.poll_text(context).map(|text| text.map(|text| Ok(Frame::data(Bytes::from(text)))))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.context.metrics.taps.decrement(1.0);
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    time: f64,
    #[serde(flatten)]
    tapped: &'a Tapped,
}

#[derive(Serialize)]
struct Lost {
    time: f64,
    count: u64,
}

#[derive(Serialize)]
struct Ended {
    time: f64,
    reason: &'static str,
}

fn json(data: &impl Serialize) -> String {
    serde_json::to_string(data).expect("no event has a map whose keys are not text")
}

/// Unix seconds, to the millisecond.
fn unix_time() -> f64 {
    (Clock::since_epoch().as_secs_f64() * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_after_the_point() {
        let time = unix_time().to_string();
        let (_, fraction) = time.split_once('.').unwrap_or((&time, ""));
        assert!(fraction.len() <= 3, "{time}");
    }
}
