//! What a connection is doing: whether its peer is waited for, and since when.
//!
//! Its stream tells when bytes move and when the peer takes none, its answers tell while they are under way.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::clock::Clock;

use super::answer::Body;

/// What one connection is doing.
#[derive(Debug)]
pub(super) struct Activity {
    clock: Clock,
    /// When bytes last moved, or the peer began to take none; in nanoseconds of the clock.
    since: AtomicU64,
    /// The peer does not take what is written.
    is_blocked: AtomicBool,
    /// Answers under way: at most one, as HTTP/1.1 has it.
    answers: AtomicUsize,
    /// Told whenever the peer is waited for from then on.
    waits: Arc<Notify>,
}

impl Activity {
    /// A connection whose peer is to ask for something.
    pub(super) fn new(clock: Clock, waits: Arc<Notify>) -> Arc<Self> {
        let (is_blocked, answers) = Default::default();
        Arc::new(Self { clock, since: AtomicU64::new(clock.now()), is_blocked, answers, waits })
    }

    /// Since when nothing goes on before the peer asks or reads; `None` while it is the peer who waits.
    pub(super) fn waits_since(&self) -> Option<u64> {
        let waits = self.is_blocked.load(Ordering::Relaxed) || self.answers.load(Ordering::Relaxed) == 0;
        waits.then(|| self.since.load(Ordering::Relaxed))
    }

    /// From here on an answer is under way, until what comes back, or the body that it becomes part of, is dropped.
    pub(super) fn begin_answer(self: &Arc<Self>) -> Answering {
        self.answers.fetch_add(1, Ordering::Relaxed);
        Answering(Arc::clone(self))
    }

    /// The stream of this connection, which tells what it does.
    pub(super) fn watch<S>(self: &Arc<Self>, stream: S) -> Watched<S> {
        Watched { stream, activity: Arc::clone(self) }
    }

    fn moved(&self) {
        self.is_blocked.store(false, Ordering::Relaxed);
        self.touch();
    }

    fn blocked(&self) {
        if !self.is_blocked.swap(true, Ordering::Relaxed) {
            self.touch();
            self.waits.notify_one();
        }
    }

    fn touch(&self) {
        self.since.store(self.clock.now(), Ordering::Relaxed);
    }
}

/// An answer under way.
#[derive(Debug)]
pub(super) struct Answering(Arc<Activity>);

impl Answering {
    /// Ends with the body.
    pub(super) fn until_the_end_of(self, body: Body) -> Body {
        Part { body, _answering: self }.boxed_unsync()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answers.fetch_sub(1, Ordering::Relaxed);
        self.0.touch();
        self.0.waits.notify_one();
    }
}

/// The body of an answer under way.
struct Part {
    body: Body,
    _answering: Answering,
}

impl hyper::body::Body for Part {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that tells what it does.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(_) => self.activity.moved(),
            Poll::Pending => self.activity.blocked(),
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_read(context, into));
        // Who says something may still take nothing.
        if !self.activity.is_blocked.load(Ordering::Relaxed) {
            self.activity.touch();
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;
    use crate::admin::answer;

    #[test]
    fn the_peer_is_waited_for_while_no_answer_is_under_way() {
        let activity = Activity::new(Clock::start(), Arc::default());
        let began = activity.waits_since().unwrap();

        let answering = activity.begin_answer();
        assert_eq!(activity.waits_since(), None);
        let body = answering.until_the_end_of(answer::text(hyper::StatusCode::OK, "alive\n").into_body());
        assert_eq!(activity.waits_since(), None);
        assert_eq!(hyper::body::Body::size_hint(&body).exact(), Some(6));
        drop(body);

        assert!(activity.waits_since().unwrap() > began);
    }

    #[tokio::test]
    async fn the_peer_is_waited_for_while_it_does_not_read_whatever_it_says() {
        let activity = Activity::new(Clock::start(), Arc::default());
        let (stream, mut peer) = duplex(4);
        let mut stream = activity.watch(stream);
        let _answering = activity.begin_answer();

        stream.write_all(b"1234").await.unwrap();
        assert_eq!(activity.waits_since(), None);
        assert!(poll_once(stream.write_all(b"5678")).is_pending());
        let blocked_since = activity.waits_since().unwrap();
        peer.write_all(b"?").await.unwrap();
        stream.read_u8().await.unwrap();
        assert!(poll_once(stream.write_all(b"5678")).is_pending());
        assert_eq!(activity.waits_since(), Some(blocked_since));

        peer.read_exact(&mut [0; 4]).await.unwrap();
        stream.write_all(b"5678").await.unwrap();
        assert_eq!(activity.waits_since(), None);
    }

    fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
        std::pin::pin!(future).poll(&mut Context::from_waker(std::task::Waker::noop()))
    }
}
