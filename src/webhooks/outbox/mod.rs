//! What waits to be sent, pure: what goes out when, what is tried again, and what is given up. All times are in nanoseconds
//! of the gateway's clock.
//!
//! One batch is under way at a time, so that events arrive in their order; it is kept until it was taken or is given up.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::id::NameRef;
use crate::metrics::{LabelValue as _, WebhookLoss};

use super::Event;
use super::answer::Verdict;

/// Events in a batch at most.
pub(super) const BATCH_EVENTS_MAX: usize = 100;
/// How long the first event of a batch waits for others.
const COLLECT: u64 = 100 * MILLISECOND;
/// How long a batch is tried, from its first attempt on.
pub(super) const GIVE_UP_AFTER: u64 = 300 * SECOND;
/// The longest pause after the first failure; it doubles with each that follows.
const PAUSE_FIRST: u64 = SECOND / 2;
/// The longest pause there is, where the server does not ask for a longer one.
const PAUSE_MAX: u64 = 30 * SECOND;
/// The longest pause that a server can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);
/// What the queue keeps of its memory when it is empty.
const SPARE_MAX: usize = 1024;

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;

/// An event that waits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its place in the order of all events of this process, from 1.
    pub(super) number: u64,
    pub(super) event: Event,
    /// When it came.
    since: u64,
}

impl Entry {
    /// What it takes of memory; names are counted as if nobody shared them.
    fn bytes(&self) -> usize {
        let text = |name: NameRef<'_>| if let NameRef::Text(text) = name { text.len() } else { 0 };
        let user = self.event.user.as_ref().map_or(0, |user| text(user.as_ref()));
        size_of::<Self>() + text(self.event.room.as_ref()) + user
    }
}

/// Events that go out together.
pub(super) type Batch = Arc<[Entry]>;

/// The queue and what is under way.
#[derive(Debug)]
pub(super) struct Outbox {
    /// The bound of `bytes`.
    bytes_max: usize,
    /// Of all events here, those under way included.
    bytes: usize,
    waiting: VecDeque<Entry>,
    batch: Option<UnderWay>,
    /// The number of the last event.
    last_number: u64,
    /// Attempts in a row that failed, of whatever batch.
    failures: u32,
    /// No attempt is made before that, but for the last one of a batch.
    resume_at: u64,
    stage: Stage,
    counts: Counts,
}

/// How far the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Open,
    /// Each batch is tried once more, and at once.
    Closing,
    /// Nothing is taken.
    Closed,
}

/// The batch that is tried.
#[derive(Debug)]
struct UnderWay {
    batch: Batch,
    /// When its last attempt is.
    give_up_at: u64,
    /// Whether its answer is waited for.
    is_out: bool,
}

/// What has become of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) sent: u64,
    lost: [u64; WebhookLoss::ALL.len()],
}

impl Counts {
    /// How many were lost for which reason.
    pub(super) fn lost(&self) -> impl Iterator<Item = (WebhookLoss, u64)> {
        WebhookLoss::ALL.iter().map(|reason| (*reason, self.lost[reason.index()]))
    }
}

/// What is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vitals {
    pub(super) events: usize,
    pub(super) bytes: usize,
    /// How long the oldest has been here.
    pub(super) oldest: Duration,
}

impl Outbox {
    /// An empty one for so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            waiting: VecDeque::new(),
            batch: None,
            last_number: 0,
            failures: 0,
            resume_at: 0,
            stage: Stage::Open,
            counts: Counts::default(),
        }
    }

    /// Takes an event, at the cost of the oldest that wait where there is no room. Returns whether what
    /// [`Outbox::poll_timeout`] says has changed.
    pub(super) fn push(&mut self, event: Event, now: u64) -> bool {
        self.last_number += 1;
        let entry = Entry { number: self.last_number, event, since: now };
        let bytes = entry.bytes();
        while self.stage != Stage::Closed && self.bytes + bytes > self.bytes_max {
            let Some(oldest) = self.waiting.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.lose(1, WebhookLoss::QueueFull);
        }
        if self.stage == Stage::Closed {
            self.lose(1, WebhookLoss::Shutdown);
            return false;
        }
        if self.bytes + bytes > self.bytes_max {
            self.lose(1, WebhookLoss::QueueFull);
            return false;
        }
        self.bytes += bytes;
        self.waiting.push_back(entry);
        self.batch.is_none() && matches!(self.waiting.len(), 1 | BATCH_EVENTS_MAX)
    }

    /// What is to be sent at `now`, if it is time; [`Outbox::answered`] must follow.
    pub(super) fn next_batch(&mut self, now: u64) -> Option<Batch> {
        if self.poll_timeout()? > now {
            return None;
        }
        if self.batch.is_none() {
            let count = self.waiting.len().min(BATCH_EVENTS_MAX);
            let batch: Batch = self.waiting.drain(..count).collect();
            if self.waiting.is_empty() && self.waiting.capacity() > SPARE_MAX {
                self.waiting = VecDeque::new();
            }
            self.batch = Some(UnderWay { batch, give_up_at: now + GIVE_UP_AFTER, is_out: false });
        }
        let under_way = self.batch.as_mut().expect("it is there, or was put there above");
        under_way.is_out = true;
        Some(Arc::clone(&under_way.batch))
    }

    /// When there will be something to send; `None` as long as nothing comes in or is answered.
    pub(super) fn poll_timeout(&self) -> Option<u64> {
        if let Some(under_way) = &self.batch {
            let due = self.resume_at.min(under_way.give_up_at);
            return (!under_way.is_out).then_some(if self.is_closing() { 0 } else { due });
        }
        let first = self.waiting.front()?;
        if self.is_closing() {
            return Some(0);
        }
        let is_full = self.waiting.len() >= BATCH_EVENTS_MAX;
        Some(self.resume_at.max(if is_full { 0 } else { first.since + COLLECT }))
    }

    /// Takes what became of the batch that is out; `random` is any number, equally likely.
    pub(super) fn answered(&mut self, verdict: Verdict, now: u64, random: u64) {
        let Some(mut under_way) = self.batch.take() else { return };
        under_way.is_out = false;
        match verdict {
            Verdict::Taken => {
                self.counts.sent += under_way.batch.len() as u64;
                self.forget(&under_way.batch);
                self.failures = 0;
            }
            Verdict::Refused => {
                self.give_up(&under_way.batch, WebhookLoss::Rejected);
                self.failures = 0;
            }
            Verdict::Failed { retry_after } => {
                self.resume_at = now + self.pause(retry_after, random);
                self.failures = self.failures.saturating_add(1);
                if self.is_closing() {
                    self.batch = Some(under_way);
                    self.abandon();
                } else if now >= under_way.give_up_at {
                    self.give_up(&under_way.batch, WebhookLoss::Expired);
                } else {
                    self.batch = Some(under_way);
                }
            }
        }
    }

    /// From here on batches do not wait to be full, nor to be tried again, and the first that fails ends it.
    pub(super) fn close(&mut self) {
        self.stage = self.stage.max(Stage::Closing);
    }

    /// Gives up all there is and takes nothing more.
    pub(super) fn abandon(&mut self) {
        self.stage = Stage::Closed;
        let under_way = self.batch.take().map_or(0, |under_way| under_way.batch.len());
        self.lose(under_way + self.waiting.len(), WebhookLoss::Shutdown);
        self.waiting = VecDeque::new();
        self.bytes = 0;
    }

    /// Whether it was closed and all is sent or given up.
    pub(super) fn is_done(&self) -> bool {
        self.is_closing() && self.batch.is_none() && self.waiting.is_empty()
    }

    /// What was counted since the last time.
    pub(super) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// What is here at `now`.
    pub(super) fn vitals(&self, now: u64) -> Vitals {
        let under_way = self.batch.as_ref().map_or(&[][..], |under_way| &under_way.batch);
        let oldest = under_way.first().or(self.waiting.front());
        Vitals {
            events: under_way.len() + self.waiting.len(),
            bytes: self.bytes,
            oldest: Duration::from_nanos(oldest.map_or(0, |entry| now.saturating_sub(entry.since))),
        }
    }

    fn is_closing(&self) -> bool {
        self.stage != Stage::Open
    }

    /// Full jitter: anything up to a bound that doubles, so that gateways which failed together do not come back
    /// together. What the server asks for comes on top of it.
    fn pause(&self, retry_after: Option<Duration>, random: u64) -> u64 {
        let bound = PAUSE_FIRST.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MAX);
        let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        let jitter = (u128::from(bound) * u128::from(random)) >> 64;
        let pause = asked.as_nanos() + jitter;
        u64::try_from(pause).expect("both parts are less than minutes")
    }

    fn give_up(&mut self, batch: &Batch, reason: WebhookLoss) {
        self.lose(batch.len(), reason);
        self.forget(batch);
    }

    fn forget(&mut self, batch: &Batch) {
        self.bytes -= batch.iter().map(Entry::bytes).sum::<usize>();
    }

    fn lose(&mut self, events: usize, reason: WebhookLoss) {
        self.counts.lost[reason.index()] += events as u64;
    }
}
