//! Sends the clients away: because the process is to end, or because an operator says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::drain::{self, Order, Progress};
use crate::inbox::{Command, Gate, Outlet};
use crate::log::seconds;
use crate::metrics::ServerMetrics;
use crate::readiness::{Cause, Readiness};

use super::{Signals, tell_all};

/// How often is looked whether all connections have ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What clients may take beyond the drain window to end their side.
const GRACE: Duration = Duration::from_secs(5);

/// What is drained, and who is told.
pub(super) struct Drains {
    pub(super) gate: Gate,
    pub(super) shards: Vec<Outlet>,
    pub(super) signal: drain::Signal,
    pub(super) ready: Readiness,
    pub(super) metrics: ServerMetrics,
    pub(super) clock: Clock,
    /// Over which time connections are closed where nobody says another.
    pub(super) window: Duration,
    pub(super) begun_with: BegunWith,
    pub(super) current: Option<Drain>,
}

/// How many connections were open when the drain began; for whoever shows how far it is.
#[derive(Clone, Debug, Default)]
pub(super) struct BegunWith(Arc<AtomicUsize>);

impl BegunWith {
    /// How far a drain is with so many connections left, from 0 to 1; 0 without one.
    pub(super) fn ratio(&self, connections: usize) -> f64 {
        match self.0.load(Ordering::Relaxed) {
            0 => 0.0,
            of => drain::ratio(connections, of),
        }
    }
}

/// A drain under way, or one that has ended with nobody left.
pub(super) struct Drain {
    /// Open when it began.
    connections: usize,
    begun_at: u64,
    window: Duration,
    /// Set when the process ends with it: when that is at the latest.
    ends_at: Option<Instant>,
    is_done: bool,
}

impl Drain {
    /// For how long it has been going on, in seconds as the log shows them.
    fn took(&self, clock: Clock) -> f64 {
        seconds(Duration::from_nanos(clock.now().saturating_sub(self.begun_at)))
    }
}

impl Drains {
    /// Obeys signals and operators until the process is to end; returns whether what else has to be done may take its
    /// time, which a second signal does not allow.
    pub(super) async fn run(&mut self, signals: &mut Signals, orders: &mut mpsc::Receiver<Order>) -> bool {
        loop {
            let ends_at = self.current.as_ref().and_then(|drain| drain.ends_at);
            let is_emptying = self.current.as_ref().is_some_and(|drain| !drain.is_done);
            tokio::select! {
                () = signals.next() => {
                    if ends_at.is_some() {
                        self.log_cut("a second signal ends the drain");
                        return false;
                    }
                    self.begin(None, true);
                }
                Some(order) = orders.recv() => self.obey(order),
                () = emptied(&self.gate), if is_emptying => {
                    self.log_end();
                    if ends_at.is_some() {
                        return true;
                    }
                }
                () = until(ends_at) => {
                    self.log_cut("some connections did not end in time");
                    return true;
                }
            }
        }
    }

    fn obey(&mut self, order: Order) {
        // Who asked may be gone by the time of the answer.
        match order {
            Order::Look { answer } => _ = answer.send(self.progress()),
            Order::Begin { window, answer } => {
                if !self.progress().is_ending {
                    self.begin(window, false);
                }
                let _ = answer.send(self.progress());
            }
            Order::Abort { answer } => {
                let may_abort = !self.progress().is_ending;
                if may_abort {
                    self.abort();
                }
                let _ = answer.send(may_abort.then(|| self.progress()));
            }
        }
    }

    /// Begins, or begins anew with those that are left.
    fn begin(&mut self, window: Option<Duration>, is_ending: bool) {
        let window = window.unwrap_or(self.window);
        let open = self.gate.open();
        let earlier = self.current.as_ref().map(|drain| (drain.connections, drain.begun_at));
        let (connections, begun_at) = earlier.unwrap_or_else(|| (open, self.clock.now()));
        tracing::info!(
            connections = open,
            window_seconds = seconds(window),
            "draining: all connections are closed"
        );
        let why = if is_ending {
            "the gateway is shutting down"
        } else {
            "the gateway is drained, as an operator asked"
        };
        self.ready.block(Cause::Draining, why, self.clock.now());
        self.metrics.draining.set(1.0);
        self.begun_with.0.store(connections, Ordering::Relaxed);
        self.signal.drain();
        tell_all(&self.shards, || Command::Drain { window });
        let ends_at = is_ending.then(|| Instant::now() + window.saturating_add(GRACE));
        self.current = Some(Drain { connections, begun_at, window, ends_at, is_done: false });
    }

    fn abort(&mut self) {
        let Some(drain) = self.current.take() else { return };
        let (connections, left) = (drain.connections, self.gate.open());
        tracing::info!(connections, left, "the drain is aborted: clients are taken again");
        tell_all(&self.shards, || Command::AbortDrain);
        self.signal.resume();
        self.begun_with.0.store(0, Ordering::Relaxed);
        self.metrics.draining.set(0.0);
        self.ready.clear(Cause::Draining);
    }

    fn progress(&self) -> Progress {
        let connections = self.gate.open();
        let current = self.current.as_ref();
        Progress {
            is_draining: current.is_some(),
            is_ending: current.is_some_and(|drain| drain.ends_at.is_some()),
            connections,
            of: current.map_or(connections, |drain| drain.connections),
            window: current.map_or(self.window, |drain| drain.window),
        }
    }

    fn log_end(&mut self) {
        if let Some(drain) = &mut self.current {
            drain.is_done = true;
            let took = drain.took(self.clock);
            tracing::info!(connections = drain.connections, seconds = took, "drained");
        }
    }

    fn log_cut(&self, why: &'static str) {
        if let Some(drain) = &self.current {
            let (connections, left, took) = (drain.connections, self.gate.open(), drain.took(self.clock));
            tracing::warn!(connections, left, seconds = took, "{why}");
        }
    }
}

/// Waits until no connection is open.
async fn emptied(gate: &Gate) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    while gate.open() > 0 {
        looks.tick().await;
    }
}

/// Waits until then, or for ever.
async fn until(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => std::future::pending().await,
    }
}
