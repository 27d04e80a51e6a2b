//! The bounded places for connections to the admin listener, and who has to give up one.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::{AbortHandle, JoinSet};

use crate::clock::Clock;

/// Connections served at once; one more waits for a place, and others in the kernel's queue.
pub(super) const PLACES_MAX: usize = 64;

/// On a connection that is to give up its place to another one, nothing has moved for so long: less, and it may be one that
/// was accepted a moment ago, whose request is on its way.
const STILL_TIME_MIN: Duration = Duration::from_millis(50);

/// How long the peer may take nothing of what it asked for.
const BLOCKED_TIME_MAX: Duration = Duration::from_secs(10);

/// The connections that are open, each a task.
#[derive(Default)]
pub(super) struct Places {
    tasks: JoinSet<()>,
    taken: Vec<Taken>,
}

struct Taken {
    task: AbortHandle,
    movement: Arc<Movement>,
}

/// When something last moved on a connection. Times are nanoseconds of the gateway's clock.
#[derive(Debug)]
pub(super) struct Movement {
    moved_at: AtomicU64,
    /// What is to be written waits for the peer to read.
    is_blocked: AtomicBool,
}

impl Places {
    /// How long it takes at `now` until there is a place; `None` when there is one.
    pub(super) fn wait_for_one(&self, now: u64) -> Option<Duration> {
        let is_full = self.taken.len() >= PLACES_MAX;
        let stillest = self.stillest().filter(|_| is_full)?;
        Some(STILL_TIME_MIN.saturating_sub(self.taken[stillest].movement.still_for(now)))
    }

    /// Takes a place at `now` for what the connection does.
    pub(super) fn fill<F>(&mut self, now: u64, connection: impl FnOnce(Arc<Movement>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let movement =
            Arc::new(Movement { moved_at: AtomicU64::new(now), is_blocked: AtomicBool::new(false) });
        let task = self.tasks.spawn(connection(Arc::clone(&movement)));
        self.taken.push(Taken { task, movement });
    }

    /// Waits until a connection has ended; for ever when none is open. Safe to cancel.
    pub(super) async fn one_ended(&mut self) {
        if self.tasks.join_next().await.is_none() {
            return std::future::pending().await;
        }
        self.taken.retain(|taken| !taken.task.is_finished());
    }

    /// Waits until all connections have ended.
    pub(super) async fn all_ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }

    /// Ends the connection on which nothing has moved for longest, if that was long enough.
    pub(super) fn end_the_stillest(&mut self, now: u64) {
        if let Some(stillest) = self.stillest()
            && self.taken[stillest].movement.still_for(now) >= STILL_TIME_MIN
        {
            self.taken.swap_remove(stillest).task.abort();
        }
    }

    /// Ends the connections whose peers have not read for too long.
    pub(super) fn end_the_blocked(&mut self, now: u64) {
        for Taken { task, movement } in &self.taken {
            if movement.is_blocked.load(Ordering::Relaxed) && movement.still_for(now) >= BLOCKED_TIME_MAX {
                tracing::debug!("admin: a connection is ended whose peer does not read");
                task.abort();
            }
        }
    }

    fn stillest(&self) -> Option<usize> {
        let moved_at = |index: &usize| self.taken[*index].movement.moved_at.load(Ordering::Relaxed);
        (0..self.taken.len()).min_by_key(moved_at)
    }
}

impl Movement {
    fn still_for(&self, now: u64) -> Duration {
        Duration::from_nanos(now.saturating_sub(self.moved_at.load(Ordering::Relaxed)))
    }

    fn moved(&self, now: u64) {
        self.moved_at.store(now, Ordering::Relaxed);
    }
}

/// A stream that says when something moves on it.
pub(super) struct Moving<S> {
    stream: S,
    clock: Clock,
    movement: Arc<Movement>,
}

impl<S> Moving<S> {
    pub(super) fn new(stream: S, clock: Clock, movement: Arc<Movement>) -> Self {
        Self { stream, clock, movement }
    }

    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.movement.is_blocked.store(result.is_pending(), Ordering::Relaxed);
        if result.is_ready() {
            self.movement.moved(self.clock.now());
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Moving<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        self.movement.moved(self.clock.now());
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Moving<S> {
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
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    async fn for_ever(_: Arc<Movement>) {
        std::future::pending::<()>().await;
    }

    #[tokio::test]
    async fn a_newcomer_gets_the_place_of_the_connection_that_was_still_for_longest() {
        let mut places = Places::default();
        for number in 0..PLACES_MAX as u64 {
            assert_eq!(places.wait_for_one(number), None);
            places.fill(number, for_ever);
        }
        places.taken[0].movement.moved(100);

        let still = u64::try_from(STILL_TIME_MIN.as_nanos()).unwrap();
        assert_eq!(places.wait_for_one(1), Some(STILL_TIME_MIN));
        places.end_the_stillest(still);
        assert_eq!(places.wait_for_one(still + 1), Some(Duration::ZERO), "nobody had been still for so long");
        let stillest = places.taken[1].task.id();
        places.end_the_stillest(still + 1);

        assert_eq!(places.wait_for_one(still + 1), None);
        assert!(places.taken.iter().all(|taken| taken.task.id() != stillest));
    }

    #[tokio::test]
    async fn who_does_not_read_is_ended_and_who_reads_slowly_is_not() {
        let mut places = Places::default();
        let clock = Clock::start();
        let ((stream, mut peer), (slow, mut reader)) = (tokio::io::duplex(8), tokio::io::duplex(8));
        for stream in [stream, slow] {
            places.fill(0, |movement| async move {
                let mut stream = Moving::new(stream, clock, movement);
                drop(stream.write_all(&[0; 1000]).await);
            });
        }
        tokio::task::yield_now().await;
        assert!(places.taken.iter().all(|taken| taken.movement.is_blocked.load(Ordering::Relaxed)));

        let late = clock.now() + 10 * SECOND;
        places.end_the_blocked(late - SECOND);
        reader.read_exact(&mut [0; 8]).await.unwrap();
        tokio::task::yield_now().await;
        // As if the reading had been later.
        places.taken[1].movement.moved(late);
        places.end_the_blocked(late);
        places.one_ended().await;

        assert_eq!(places.taken.len(), 1);
        assert_eq!(peer.read(&mut [0; 16]).await.unwrap(), 8, "what was written, and then the end");
        assert_eq!(peer.read(&mut [0; 16]).await.unwrap(), 0);
    }
}
