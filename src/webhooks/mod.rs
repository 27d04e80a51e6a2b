//! Tells a server of the application what happens in rooms: signed batches of events over HTTP, at least once and in order.
//!
//! Events come from any thread by a [`Sender`] and wait in an `outbox` (pure), which says what goes out, when, and what is
//! given up; `payload` and `signature` (pure) make the request, `answer` (pure) judges what comes back, and the `driver`, a
//! task of the control thread, does it.

mod answer;
mod driver;
mod outbox;
mod payload;
mod signature;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Uri;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::auth::Secret;
use crate::clock::Clock;
use crate::egress::{self, Client, Connections, TrustError};
use crate::id::{NodeId, RoomId, UserId};
use crate::log::Repeats;
use crate::metrics::{LabelValue as _, WebhookLoss, WebhookMetrics, count};

use driver::Driver;
use outbox::Outbox;
use signature::Key;

/// The least `queue_bytes`: a batch of the longest names, and as much again.
pub const QUEUE_BYTES_MIN: usize = 64 << 10;
/// The longest `timeout`; a batch is given up after five minutes.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// What may be given for connecting, of what `timeout` leaves.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// How long a connection is kept for the next batch; servers commonly keep theirs for longer.
const IDLE: Duration = Duration::from_secs(4);
/// How long the end waits for what has not been sent.
const FINISH_MAX: Duration = Duration::from_secs(5);

/// Where events are sent to, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// `None`: nothing is sent.
    pub url: Option<Uri>,
    /// What requests are signed with; always there when there is a `url`.
    pub secret: Option<Secret>,
    /// The kinds that are sent.
    pub events: Vec<EventKind>,
    /// What may wait, in bytes of memory. When it is full, the oldest event is left out.
    pub queue_bytes: usize,
    /// From the look-up of the name to the answer.
    pub timeout: Duration,
    /// PEM text of certificates that are trusted beside the system's.
    pub ca: Option<String>,
    /// Whether `url` may be http:// to another machine.
    pub allow_http: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            url: None,
            secret: None,
            events: EventKind::ALL.to_vec(),
            queue_bytes: 16 << 20,
            timeout: Duration::from_secs(10),
            ca: None,
            allow_http: false,
        }
    }
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A room has its first member on this node.
    RoomOccupied,
    /// It has had none for a while.
    RoomVacated,
    /// A user is in a room, with the first of their connections.
    MemberJoined,
    /// They are not.
    MemberLeft,
}

impl EventKind {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::RoomOccupied, Self::RoomVacated, Self::MemberJoined, Self::MemberLeft];

    /// As it stands in the configuration and in an event's `type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoomOccupied => "room_occupied",
            Self::RoomVacated => "room_vacated",
            Self::MemberJoined => "member_joined",
            Self::MemberLeft => "member_left",
        }
    }
}

/// Something that has happened in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// Where.
    pub room: RoomId,
    /// Who it was; `None` when it is about the room.
    pub user: Option<UserId>,
    /// When that was found, in milliseconds since the Unix epoch.
    pub at: u64,
}

/// Where events are given, from any thread and under any lock; cheap to clone. The default one takes none.
#[derive(Clone, Default)]
pub struct Sender(Option<Arc<Shared>>);

impl Sender {
    /// Whether events of this kind are sent; who asks first need not make one that is not.
    pub fn wants(&self, kind: EventKind) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.wanted[kind as usize])
    }

    /// Puts an event behind those that wait, if it is of a kind that is sent. Never waits: when the queue is full, its
    /// oldest event is left out and counted.
    pub fn push(&self, event: Event) {
        let Some(shared) = self.0.as_ref().filter(|_| self.wants(event.kind)) else { return };
        let now = shared.clock.now();
        if shared.outbox().push(event, now) {
            shared.wake.notify_one();
        }
    }

    /// Sets the gauges, and counts what was left out since it was last called.
    pub fn refresh(&self) {
        if let Some(shared) = &self.0 {
            shared.refresh();
        }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&self.0.as_ref().map(|shared| shared.wanted)).finish()
    }
}

/// What the sending works with.
pub struct Parts {
    /// Who tells.
    pub node: NodeId,
    /// What it counts.
    pub metrics: WebhookMetrics,
    /// The process's monotonic time.
    pub clock: Clock,
    /// Where random numbers come from: for the ids of events, and for pauses.
    pub random: fn() -> u64,
}

/// The sending: a task that runs until [`Webhooks::finish`], or until this is dropped.
pub struct Webhooks {
    shared: Option<Arc<Shared>>,
    task: JoinSet<()>,
}

impl Webhooks {
    /// Starts it on the runtime of the caller; without a `url` nothing is started.
    ///
    /// # Errors
    ///
    /// [`TrustError`] when nobody could be trusted to be the server.
    pub fn start(options: &Options, parts: Parts) -> Result<Self, TrustError> {
        parts.metrics.queue_limit.set(count(options.queue_bytes));
        let mut task = JoinSet::new();
        let (Some(url), Some(secret)) = (&options.url, &options.secret) else {
            return Ok(Self { shared: None, task });
        };
        let client = client(url, options.ca.as_deref(), options.timeout)?;
        let shared = Arc::new(Shared {
            outbox: Mutex::new(Outbox::new(options.queue_bytes)),
            wake: Notify::new(),
            wanted: EventKind::ALL.map(|kind| options.events.contains(&kind)),
            metrics: parts.metrics,
            clock: parts.clock,
            repeats: Repeats::default(),
        });
        let (target, origin) = ((url.clone(), Key::new(secret)), (parts.node, parts.random));
        task.spawn(Driver::new(Arc::clone(&shared), client, target, origin, options.timeout).run());
        Ok(Self { shared: Some(shared), task })
    }

    /// Where events are given.
    pub fn sender(&self) -> Sender {
        Sender(self.shared.clone())
    }

    /// Ends it: what waits is sent once more, until something cannot be delivered, or for five seconds. What is left, and
    /// what is given later, counts as lost.
    pub async fn finish(mut self) {
        let Some(shared) = self.shared.take() else { return };
        shared.outbox().close();
        shared.wake.notify_one();
        let _ = tokio::time::timeout(FINISH_MAX, self.task.join_next()).await;
        self.task.shutdown().await;
        shared.outbox().abandon();
        shared.refresh();
    }
}

/// Whether the address could be asked by somebody who trusts the system's certificates and those in `ca`; nothing is asked.
///
/// # Errors
///
/// [`TrustError`].
pub fn check(url: &Uri, ca: Option<&str>) -> Result<(), TrustError> {
    client(url, ca, TIMEOUT_MAX).map(drop)
}

fn client(url: &Uri, ca: Option<&str>, timeout: Duration) -> Result<Client<Full<Bytes>>, TrustError> {
    egress::client(url, ca, Connections { connect: CONNECT_MAX.min(timeout), idle: IDLE })
}

/// What senders and the driver have in common.
struct Shared {
    /// Held for a few instructions, and never while anything waits.
    outbox: Mutex<Outbox>,
    wake: Notify,
    /// By the order of [`EventKind`].
    wanted: [bool; 4],
    metrics: WebhookMetrics,
    clock: Clock,
    repeats: Repeats,
}

impl Shared {
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows and tells what the outbox has counted.
    fn refresh(&self) {
        let now = self.clock.now();
        let (counts, vitals) = {
            let mut outbox = self.outbox();
            (outbox.take_counts(), outbox.vitals(now))
        };
        self.metrics.sent.increment(counts.sent);
        self.metrics.queue_bytes.set(count(vitals.bytes));
        self.metrics.queue_events.set(count(vitals.events));
        self.metrics.queue_age.set(vitals.oldest.as_secs_f64());
        for (reason, events) in counts.lost().filter(|(_, events)| *events > 0) {
            self.metrics.lost[reason].increment(events);
            let left_out = self.repeats.admit(now);
            if reason == WebhookLoss::Shutdown || left_out.is_some() {
                tracing::warn!(events, reason = reason.as_str(), left_out, "events for the webhook are lost");
            }
        }
    }
}
