//! The loop of a shard: poll, read what came, apply what others sent, write the batches, tick, reap.
//!
//! The sockets are registered with a poller of the shard's own, which itself stands in the reactor of the
//! shard's tokio runtime. So no task belongs to an open connection, while handshakes, timers and the inbox stay
//! ordinary futures.

mod handshakes;
mod input;
mod output;
mod questions;
mod recovery;
mod turnstile;

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use metrics::Counter;
use mio::Events;
use slotmap::{KeyData, SecondaryMap};
use tokio::io::unix::AsyncFd;
use tokio::task::{JoinError, JoinSet, LocalSet};

use crate::clock::Clock;
use crate::http;
use crate::id::{ClientId, ClientKey};
use crate::inbox::{Command, Inbox, Permit};
use crate::inspect::Vitals;
use crate::log::{Repeats, seconds};
use crate::memory::Account;
use crate::metrics::LabelValue as _;
use crate::transport::{self, Peer, READ_BYTES_MIN, Transport, watch};

use super::Parts;
use super::report::Report;
use super::state::Shard;
use super::wheel::{TICK, ticks_passed};

use handshakes::Newcomers;
use questions::Scan;
use recovery::Panics;
use turnstile::Turnstile;

/// What one read takes at most, and the size of the buffer that all connections of a shard share.
const SCRATCH_BYTES: usize = READ_BYTES_MIN;

/// Readiness events taken in one turn.
const EVENTS_PER_TURN: usize = 256;

/// Deliveries in one turn, before the sockets are polled again; a large room gives way earlier.
const DELIVERIES_PER_TURN: usize = 256;

/// How long a busy shard goes on by itself before its runtime has a turn, in nanoseconds. Handshakes and timers wait
/// so long; the sockets, the inbox and the clients' deadlines do not.
const RUNTIME_EVERY: u64 = 500_000;

/// How soon input that a room refused is tried again.
const HELD_RETRY: Duration = Duration::from_nanos(HELD_RETRY_NANOS);
const HELD_RETRY_NANOS: u64 = 1_000_000;

/// Bytes compressed and decompressed in one turn, for all clients together, after which what is left waits for the next: some
/// milliseconds.
const COMPRESSION_PER_TURN: usize = 512 << 10;

/// Commands taken from the inbox in one turn, before deliveries have theirs.
const COMMANDS_PER_TURN: usize = 256;

/// How often a shard shows that it comes round, and measures how late it does, in nanoseconds.
const BEAT_EVERY: u64 = 100_000_000;

/// Clients that are behind, up to which a shard looks at each of their queues at every beat.
const BEHIND_FEW: usize = 1000;

/// How often it does with more of them: every so many beats.
const MANY_BEHIND_EVERY: u32 = 10;

/// A shard that takes so many bytes more says so before the next beat.
const FOOTPRINT_STEP: usize = 256 << 10;

/// A turn that begins so much later than it should, or takes so long, tells of a process that was stopped, not of silent
/// clients.
const STANDSTILL: Duration = Duration::from_secs(1);

/// Why a shard could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start a shard: {0}")]
pub struct SpawnError(#[from] io::Error);

/// Starts the thread of a shard. It ends when it has drained.
///
/// # Errors
///
/// [`SpawnError`] when the system gives no thread or poller; nothing runs then.
pub fn spawn(parts: Parts) -> Result<JoinHandle<()>, SpawnError> {
    let poll = mio::Poll::new()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = thread::Builder::new().name(format!("shard-{}", parts.index.0)).spawn(move || {
        let _count = CountPanic(parts.metrics.panics.clone());
        let local = LocalSet::new();
        local.block_on(&runtime, async move {
            match Driver::new(parts, poll) {
                Ok(driver) => driver.run().await,
                Err(error) => tracing::error!(%error, "a shard's poller cannot be registered"),
            }
        });
    })?;
    Ok(handle)
}

/// Counts the panic that ends the shard's thread, if one does: the last of too many.
struct CountPanic(Counter);

impl Drop for CountPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.increment(1);
        }
    }
}

type Handshake = (http::Outcome, ClientId, Permit);

struct Driver {
    shard: Shard,
    sockets: SecondaryMap<ClientKey, Socket>,
    poll: AsyncFd<mio::Poll>,
    events: Events,
    readable: VecDeque<ClientKey>,
    inbox: Inbox,
    commands: VecDeque<Command>,
    handshakes: JoinSet<Handshake>,
    turnstile: Rc<Turnstile>,
    http: Arc<http::Shared>,
    scratch: Box<[u8]>,
    replies: Vec<u8>,
    clock: Clock,
    report: Report,
    vitals: Arc<Vitals>,
    memory: Account,
    /// What it takes, as it was last said.
    said_bytes: usize,
    /// The beat at which nobody was found to let go of.
    relieved_at: u32,
    /// Looks at all rooms that operators have asked for.
    scans: VecDeque<Scan>,
    /// Connections whose handshake has not begun.
    newcomers: Newcomers,
    /// Handshakes that ended while the shard slept.
    finished: VecDeque<Result<Handshake, JoinError>>,
    /// Events may be left in the poller.
    more_events: bool,
    /// When held input is tried again, in nanoseconds of the clock.
    retry_at: u64,
    /// When the next turn should begin at the latest.
    expected_at: u64,
    /// When the runtime had its last turn.
    yielded_at: u64,
    /// When the shard is to show that it comes round.
    beat_at: u64,
    beats: u32,
    /// Lines about faults of the gateway's own.
    failing: Repeats,
    /// Lines about times in which it did not come round.
    standing: Repeats,
    /// Lines about memory that is short.
    short: Repeats,
    panics: Panics,
    /// Since when it has not slept, or that was last counted.
    awake_since: u64,
}

struct Socket {
    transport: Transport,
    /// In the queue of those to be read.
    queued: bool,
    /// The peer has ended its side, so that only reading to the end tells.
    ended: bool,
    /// Kept, since the system does not know it any more when the peer has reset the connection.
    peer: Peer,
}

/// Whether the shard goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Go,
    End,
}

impl Driver {
    fn new(parts: Parts, poll: mio::Poll) -> io::Result<Self> {
        let now = parts.clock.now();
        Ok(Self {
            shard: Shard::new(parts.index, parts.options, parts.hub, parts.http.verifier()),
            sockets: SecondaryMap::new(),
            poll: watch(poll, tokio::io::Interest::READABLE)?,
            events: Events::with_capacity(EVENTS_PER_TURN),
            readable: VecDeque::new(),
            inbox: parts.inbox,
            commands: VecDeque::new(),
            handshakes: JoinSet::new(),
            turnstile: Rc::default(),
            http: parts.http,
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            replies: Vec::new(),
            clock: parts.clock,
            report: Report::new(parts.metrics),
            newcomers: Newcomers::default(),
            finished: VecDeque::new(),
            more_events: true,
            retry_at: 0,
            expected_at: now,
            yielded_at: 0,
            vitals: parts.vitals,
            memory: parts.memory,
            said_bytes: 0,
            relieved_at: u32::MAX,
            scans: VecDeque::new(),
            beat_at: now,
            beats: 0,
            failing: Repeats::default(),
            standing: Repeats::default(),
            short: Repeats::default(),
            panics: Panics::default(),
            awake_since: now,
        })
    }

    async fn run(mut self) {
        loop {
            if self.guarded_turn() == Next::End {
                return;
            }
            if self.has_work() {
                // Others' sockets must not wait until this work is done.
                self.more_events = true;
                let now = self.clock.now();
                if self.report.is_due(now) {
                    self.count_busy(now);
                    self.publish();
                }
                if now - self.yielded_at >= RUNTIME_EVERY || self.turnstile.is_waited_for() {
                    self.yielded_at = now;
                    tokio::task::yield_now().await;
                }
                continue;
            }
            self.publish();
            self.wait().await;
        }
    }

    /// Sleeps until there is something to do. Every branch is safe to cancel.
    async fn wait(&mut self) {
        let now = self.clock.now();
        self.count_busy(now);
        let sleep = self.sleep(now);
        self.expected_at = now.saturating_add(u64::try_from(sleep.as_nanos()).unwrap_or(u64::MAX));
        tokio::select! {
            biased;
            ready = self.poll.readable_mut() => if let Ok(mut ready) = ready {
                // Cleared before the poller is emptied: what comes in between is a new edge.
                ready.clear_ready();
                self.more_events = true;
            },
            () = self.inbox.notified() => {}
            () = self.turnstile.stopped() => {}
            Some(done) = self.handshakes.join_next() => self.finished.push_back(done),
            () = tokio::time::sleep(sleep) => {}
        }
        self.awake_since = self.clock.now();
    }

    fn sleep(&self, now: u64) -> Duration {
        if !self.shard.core.held.is_empty() {
            return HELD_RETRY;
        }
        let beat = Duration::from_nanos(self.beat_at);
        let at = self.shard.core.next_tick().map_or(beat, |tick| beat.min(TICK * tick));
        at.saturating_sub(Duration::from_nanos(now))
    }

    fn count_busy(&mut self, now: u64) {
        self.report.busy(now.saturating_sub(self.awake_since));
        self.awake_since = now;
    }

    fn publish(&mut self) {
        let (connections, handshakes) = (self.sockets.len(), self.handshakes.len());
        self.report.publish(&mut self.shard.core, connections, handshakes);
    }

    fn has_work(&self) -> bool {
        self.more_events
            || !self.readable.is_empty()
            || !self.commands.is_empty()
            || !self.finished.is_empty()
            || !self.newcomers.is_empty()
            || self.turnstile.is_waited_for()
            || !self.scans.is_empty()
            || self.shard.core.has_deliveries()
            || self.shard.core.catch_ups.is_ready()
    }

    fn turn(&mut self) -> Next {
        self.shard.core.compression_work = 0;
        let began = self.tick();
        self.poll_sockets();
        self.read();
        self.retry_held();
        if self.apply() == Next::End {
            return Next::End;
        }
        self.let_in();
        self.shard.core.catch_up();
        self.notices();
        self.deliver();
        self.keep_within_memory();
        self.reap();
        self.scan();
        // A process may be stopped anywhere in a turn as well.
        self.expected_at = self.excuse_standstill(began);
        Next::Go
    }

    /// Does what is due; returns the time.
    fn tick(&mut self) -> u64 {
        let now = self.excuse_standstill(self.expected_at);
        self.shard.core.tick(now, Clock::unix());
        if now >= self.beat_at {
            self.beat(now);
        }
        now
    }

    /// Blames nobody for what was not read or written since then, if that is too long ago; returns the time.
    fn excuse_standstill(&mut self, since: u64) -> u64 {
        let now = self.clock.now();
        let lag = Duration::from_nanos(now.saturating_sub(since));
        if lag >= STANDSTILL {
            if let Some(left_out) = self.standing.admit(now) {
                let (shard, seconds) = (self.shard.core.index.0, seconds(lag));
                tracing::warn!(
                    shard,
                    seconds,
                    left_out,
                    "the shard stood still; when all did at once, the process or the machine was stopped"
                );
            }
            self.shard.core.excuse(ticks_passed(lag));
        }
        now
    }

    /// Reads the clock, and tells the state what it says.
    fn read_clock(&mut self) -> u64 {
        let now = self.clock.now();
        self.shard.core.time = now;
        now
    }

    /// Shows that the shard comes round, and how late.
    fn beat(&mut self, now: u64) {
        self.report.lag(now - self.beat_at);
        self.beat_at = now + BEAT_EVERY;
        self.vitals.beat(now);
        self.say_footprint();
        let core = &mut self.shard.core;
        core.taps.prune();
        if core.backlogged.len() <= BEHIND_FEW || self.beats.is_multiple_of(MANY_BEHIND_EVERY) {
            let worst = core.worst_queues();
            self.vitals.set_oldest_queued_at(worst.oldest_at);
            self.report.largest_queue(worst.bytes);
        }
        self.beats = self.beats.wrapping_add(1);
    }

    fn poll_sockets(&mut self) {
        if !self.more_events {
            return;
        }
        if let Err(error) = self.poll.get_mut().poll(&mut self.events, Some(Duration::ZERO)) {
            if error.kind() != io::ErrorKind::Interrupted
                && let Some(left_out) = self.failing.admit(self.clock.now())
            {
                tracing::error!(%error, left_out, "polling the sockets failed");
            }
            return;
        }
        let mut count = 0;
        let mut writable = Vec::new();
        for event in &self.events {
            count += 1;
            let key = ClientKey::from(KeyData::from_ffi(event.token().0 as u64));
            let Some(socket) = self.sockets.get_mut(key) else { continue };
            socket.ended |= event.is_read_closed() || event.is_error();
            if (event.is_readable() || socket.ended) && !socket.queued {
                socket.queued = true;
                self.readable.push_back(key);
            }
            if event.is_writable() && (self.shard.core.has_backlog(key) || socket.transport.wants_flush()) {
                writable.push(key);
            }
        }
        self.more_events = count == EVENTS_PER_TURN;
        for key in writable {
            self.go_on_writing(key);
        }
    }

    /// What the shard takes now, in bytes.
    fn footprint(&mut self) -> usize {
        self.shard.core.counts.transports = transport::held();
        self.shard.core.footprint()
    }

    fn say_footprint(&mut self) {
        self.said_bytes = self.footprint();
        self.memory.set(self.said_bytes);
    }

    /// Looks at what all shards take when this one takes more than before, and at every beat.
    fn keep_within_memory(&mut self) {
        let bytes = self.footprint();
        if bytes > self.said_bytes + FOOTPRINT_STEP {
            self.say_footprint();
        }
        let excess = self.memory.excess();
        if excess == 0 || self.beats == self.relieved_at {
            return;
        }
        let closed = self.shard.core.relieve(excess);
        self.say_footprint();
        if closed == 0 {
            // All were looked at in vain, which is not worth it in each turn.
            self.relieved_at = self.beats;
        }
        if closed > 0
            && let Some(left_out) = self.short.admit(self.clock.now())
        {
            let shard = self.shard.core.index.0;
            tracing::warn!(shard, closed, bytes, left_out, "memory is short: who holds most is closed");
        }
    }

    fn apply(&mut self) -> Next {
        if self.commands.is_empty() {
            self.inbox.take_all(&mut self.commands);
        }
        if !self.commands.is_empty() {
            self.read_clock();
        }
        for _ in 0..COMMANDS_PER_TURN {
            if self.has_compressed_enough() {
                break;
            }
            let Some(command) = self.commands.pop_front() else { break };
            match command {
                Command::Stop => return Next::End,
                Command::Accept { stream, peer, permit, id, refuse, accepted_at } => {
                    let arrival = http::Arrival { stream, peer, refuse, accepted_at };
                    self.newcomers.push((arrival, permit, id), &self.http.verifier());
                }
                Command::Ask(question) => self.ask(question),
                other => self.shard.core.apply(other),
            }
        }
        Next::Go
    }

    fn has_compressed_enough(&self) -> bool {
        self.shard.core.compression_work >= COMPRESSION_PER_TURN
    }

    /// Ends the sending side of those that were sent Close, and frees the slots whose last trace is gone.
    fn reap(&mut self) {
        self.notices();
        self.remember();
        while let Some(key) = self.shard.core.next_closed() {
            if self.shard.core.has_backlog(key) {
                continue; // Its Close still waits; it comes back here when that is written.
            }
            if let Some(socket) = self.sockets.get_mut(key) {
                // Fails only when the connection is gone already, which the next read tells.
                let _ = socket.transport.shutdown_write();
            }
            self.read_later(key);
        }
        while let Some(key) = self.shard.core.next_gone() {
            if let Some(mut socket) = self.sockets.remove(key) {
                socket.transport.take_leave();
                // Closing the descriptor would deregister it as well; this keeps the poller exact.
                let _ = self.poll.get_ref().registry().deregister(&mut socket.transport);
            }
            self.shard.core.remove(key);
        }
    }

    /// Says of those that ended when, and where they came from, while their sockets are there.
    pub(super) fn remember(&mut self) {
        for (key, closed) in self.shard.core.farewells.take_fresh() {
            closed.closed_at = Clock::since_epoch().as_secs_f64();
            closed.peer = self.sockets.get(*key).and_then(|socket| socket.peer.addr());
            tracing::debug!(
                client = %closed.client_id,
                // As text, which is quoted where lines are text: a client must not forge one by its name.
                user = closed.user.to_string(),
                peer = closed.peer.map(tracing::field::display),
                reason = closed.reason.as_str(),
                detail = &*closed.detail,
                "a connection ended"
            );
        }
    }
}

#[cfg(test)]
mod tests;
