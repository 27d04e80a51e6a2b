//! Many messages in one request, a line each: published as they come, and answered in their order.
//!
//! Nothing is kept but one line and the answers to one piece of the body. Who does not read the answers is not read from; a line
//! that finds no room holds back those behind it for a bounded time. Each is published only if its caller may still do so.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout_at};

use crate::drain;
use crate::metrics::PublishResult;

use super::super::Context;
use super::super::answer::{self, Body, Refusal};
use super::super::keys::{Caller, Scope};
use super::lines::{Line, Splitter};
use super::{IDEMPOTENCY_KEY, LINES, MARGIN_BYTES, Pieces, Publisher, STREAMS_MAX};

/// Begins to answer.
pub(super) fn publish(
    context: &Arc<Context>,
    caller: Caller,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    if request.headers().contains_key(IDEMPOTENCY_KEY) {
        let message = "`Idempotency-Key` is for one message: give each line its `idempotency_key`";
        return Err(Refusal::bad_request(message.to_owned()));
    }
    let Ok(place) = Arc::clone(&context.publishing.streams).try_acquire_owned() else {
        let message = format!("{STREAMS_MAX} requests of many lines are under way already");
        return Err(Refusal::too_many(message));
    };
    let (answers, pieces) = mpsc::channel(1);
    let work = work(Arc::clone(context), caller, request.into_body(), answers);
    let body = Answers { work: Some(Box::pin(work)), pieces, _place: place };
    Ok(answer::of(StatusCode::OK, LINES, body.boxed_unsync()))
}

/// Publishes line by line until the body ends, or the gateway does, or no line comes for too long.
async fn work(context: Arc<Context>, caller: Caller, mut body: Incoming, pieces: Pieces) {
    let mut stopped = context.stopped.clone();
    let mut lines = Lines::new(&context, caller, pieces);
    let mut is_over = false;
    while !is_over {
        let next = tokio::select! {
            biased;
            () = stopped.stopped() => {
                lines.refuse(&stopping());
                break;
            }
            next = timeout_at(lines.deadline, body.frame()) => next,
        };
        is_over = match next {
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(piece) => lines.take(&piece).await.is_err(),
                // What stands behind a body tells nothing.
                Err(_) => false,
            },
            Ok(None) => {
                lines.finish().await;
                true
            }
            Ok(Some(Err(_))) => true,
            Err(_) => {
                let patience = context.state.options.peer.as_secs();
                lines.refuse(&Refusal::timeout(format!("no whole line came for {patience} s")));
                true
            }
        };
    }
    // Who is gone reads no answer.
    let _ = lines.flush().await;
}

/// Nobody reads the answers, or nothing more is published.
struct Over;

/// The lines of one request, and the answers to some of them.
struct Lines<'a> {
    context: &'a Context,
    publisher: Publisher<'a>,
    splitter: Splitter,
    answers: Vec<u8>,
    pieces: Pieces,
    stopped: drain::Watch,
    /// When the next line must have come as a whole.
    deadline: Instant,
}

impl<'a> Lines<'a> {
    fn new(context: &'a Context, caller: Caller, pieces: Pieces) -> Self {
        Self {
            context,
            publisher: Publisher::new(context, caller),
            splitter: Splitter::new(context.state.options.message_bytes + MARGIN_BYTES),
            answers: Vec::new(),
            pieces,
            stopped: context.stopped.clone(),
            deadline: Instant::now() + context.state.options.peer,
        }
    }

    /// Publishes the lines that end in this piece.
    async fn take(&mut self, piece: &Bytes) -> Result<(), Over> {
        let mut piece = &piece[..];
        let mut has_line = false;
        while let Some(line) = self.splitter.next(&mut piece) {
            has_line = true;
            let done = line_waits(&mut self.publisher, line, &mut self.stopped, &mut self.answers).await;
            let waits = match done {
                Ok(waits) => waits,
                Err(refusal) => {
                    self.refuse(&refusal);
                    return Err(Over);
                }
            };
            if self.answers.len() >= ANSWERS_BYTES || waits {
                send(&self.pieces, &mut self.answers).await?;
            }
        }
        self.flush().await?;
        if has_line {
            self.deadline = Instant::now() + self.context.state.options.peer;
        }
        // Others on this thread have their turn between two pieces, however fast they come.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Publishes what came behind the last end of a line.
    async fn finish(&mut self) {
        let Some(line) = self.splitter.rest() else { return };
        let done = line_waits(&mut self.publisher, line, &mut self.stopped, &mut self.answers).await;
        if let Err(refusal) = done {
            self.refuse(&refusal);
        }
    }

    fn refuse(&mut self, refusal: &Refusal) {
        refusal.write(&mut self.answers);
    }

    async fn flush(&mut self) -> Result<(), Over> {
        send(&self.pieces, &mut self.answers).await
    }
}

/// Publishes a line and appends the answer to it. True when the line had to wait, so that the answers should not.
///
/// # Errors
///
/// A [`Refusal`] of this line and all behind it.
async fn line_waits(
    publisher: &mut Publisher<'_>,
    line: Line<'_>,
    stopped: &mut drain::Watch,
    answers: &mut Vec<u8>,
) -> Result<bool, Refusal> {
    if stopped.stage() == drain::Stage::Stopped {
        return Err(stopping());
    }
    let context = publisher.context;
    let Context { state, metrics, .. } = context;
    // The keys may have changed since the request began.
    state.keys.check_again(publisher.caller, Scope::Publish).map_err(|denied| {
        metrics.publishes[PublishResult::Refused].increment(1);
        Refusal::denied(denied)
    })?;
    let begun_at = state.clock.now();
    let text = match line {
        // A line without anything is a sign of life.
        Line::Whole(text) if text.trim_ascii().is_empty() => return Ok(false),
        Line::Whole(text) => text,
        Line::TooLong => {
            metrics.publishes[PublishResult::Refused].increment(1);
            let most = state.options.message_bytes + MARGIN_BYTES;
            Refusal::too_long(format!("the line has more than {most} bytes")).write(answers);
            return Ok(false);
        }
    };
    let done = tokio::select! {
        biased;
        done = publisher.publish(text, None, state.options.answer) => done,
        // It has not been published: nothing is waited for between that and its answer.
        () = stopped.stopped() => return Err(stopping()),
    };
    match done {
        Ok(done) => done.write(answers),
        Err(refusal) => refusal.write(answers),
    }
    Ok(Duration::from_nanos(state.clock.now().saturating_sub(begun_at)) >= NOTICEABLE)
}

fn stopping() -> Refusal {
    Refusal::unavailable("the gateway is stopping".to_owned(), Vec::new())
}

async fn send(pieces: &Pieces, answers: &mut Vec<u8>) -> Result<(), Over> {
    if answers.is_empty() {
        return Ok(());
    }
    pieces.send(Bytes::from(std::mem::take(answers))).await.map_err(|_| Over)
}

/// Answers are sent when they are so many bytes, or their piece of the body has been done.
const ANSWERS_BYTES: usize = 16 << 10;

/// From here on the answers before are not to wait for what is behind.
const NOTICEABLE: Duration = Duration::from_millis(10);

/// The answers as a body. What makes them goes on whenever the body is asked for more.
struct Answers {
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    pieces: mpsc::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl hyper::body::Body for Answers {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(work) = &mut self.work
            && work.as_mut().poll(context).is_ready()
        {
            self.work = None;
        }
        self.pieces.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
