//! Lets handshakes go on only a few at a time, so that a crowd of them does not hold up the clients that are here.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

use crate::clock::Clock;

/// The most handshakes that go on in one turn.
const PASSES_PER_TURN: usize = 8;

/// What handshakes may take of one turn, in nanoseconds: so long do the clients that are here wait for those who come,
/// however many these are. At least one goes on in each turn.
pub(super) const TURN_NANOS: u64 = 250_000;

/// Passes for one turn of the shard, and the tasks that wait for one, first come, first served.
#[derive(Debug, Default)]
pub(super) struct Turnstile {
    passes: Cell<usize>,
    /// When the turn is over; that begins with the first pass.
    closes_at: Cell<Option<u64>>,
    waiting: RefCell<VecDeque<Waker>>,
    stopped: Notify,
}

impl Turnstile {
    /// Begins a turn, and wakes as many of those that wait as may go on.
    pub(super) fn open(&self) {
        self.passes.set(PASSES_PER_TURN);
        self.closes_at.set(None);
        let mut waiting = self.waiting.borrow_mut();
        let count = waiting.len().min(PASSES_PER_TURN);
        waiting.drain(..count).for_each(Waker::wake);
    }

    /// Whether somebody waits.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Waits until somebody has to wait, so that there must be another turn. Safe to cancel.
    pub(super) async fn stopped(&self) {
        self.stopped.notified().await;
    }

    /// Whether somebody may go on at `now` nanoseconds; if not, it is woken in a later turn.
    fn pass(&self, now: u64, waker: &Waker) -> bool {
        let is_in_time = self.closes_at.get().is_none_or(|at| now < at);
        if self.passes.get() == 0 || !is_in_time {
            self.waiting.borrow_mut().push_back(waker.clone());
            self.stopped.notify_one();
            return false;
        }
        self.passes.set(self.passes.get() - 1);
        if self.closes_at.get().is_none() {
            self.closes_at.set(Some(now.saturating_add(TURN_NANOS)));
        }
        true
    }
}

/// A future that needs a pass for each step.
pub(super) struct Throttled<F: ?Sized> {
    pub(super) inner: Pin<Box<F>>,
    pub(super) turnstile: Rc<Turnstile>,
    pub(super) clock: Clock,
}

impl<F: Future + ?Sized> Future for Throttled<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.turnstile.pass(self.clock.now(), context.waker()) {
            self.inner.as_mut().poll(context)
        } else {
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[test]
    fn those_who_have_to_wait_go_on_in_the_next_turn_the_first_first() {
        let (turnstile, wakes) = crowd(2 * PASSES_PER_TURN + 1);
        turnstile.open();
        let passed = wakes.iter().filter(|wake| turnstile.pass(0, &waker(wake))).count();
        assert_eq!(passed, PASSES_PER_TURN);
        assert!(turnstile.is_waited_for());

        turnstile.open();
        let woken: Vec<_> = wakes.iter().map(|wake| wake.0.load(Ordering::Relaxed)).collect();
        assert_eq!(woken[..PASSES_PER_TURN], [0; PASSES_PER_TURN]);
        assert_eq!(woken[PASSES_PER_TURN..2 * PASSES_PER_TURN], [1; PASSES_PER_TURN]);
        assert_eq!(woken[2 * PASSES_PER_TURN], 0);
        turnstile.open();

        assert_eq!(wakes[2 * PASSES_PER_TURN].0.load(Ordering::Relaxed), 1);
        assert!(!turnstile.is_waited_for());
    }

    #[test]
    fn a_turn_is_over_after_its_time_but_not_before_one_went_on() {
        let (turnstile, wakes) = crowd(1);
        let pass = |now| turnstile.pass(now, &waker(&wakes[0]));
        turnstile.open();

        assert!(pass(7_000_000) && pass(7_000_000 + TURN_NANOS - 1));
        assert!(!pass(7_000_000 + TURN_NANOS));
        turnstile.open();
        assert!(pass(9_000_000));
    }

    fn crowd(size: usize) -> (Turnstile, Vec<Arc<Count>>) {
        (Turnstile::default(), (0..size).map(|_| Arc::default()).collect())
    }

    fn waker(count: &Arc<Count>) -> Waker {
        Waker::from(Arc::clone(count))
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}
