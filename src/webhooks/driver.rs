//! Sends what the outbox says, when it says so.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Uri};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::egress::{self, Client, whole};
use crate::id::NodeId;
use crate::log::Repeats;
use crate::metrics::WebhookResult;

use super::answer::{self, Verdict};
use super::outbox::Batch;
use super::signature::{HEADER, Key};
use super::{Shared, payload};

/// What is read of an answer's body, so that its connection can be used again. Nothing in it matters.
const BODY_BYTES_MAX: usize = 16 << 10;
/// How long that may take, while the next batch waits.
const BODY_TIME_MAX: Duration = Duration::from_secs(1);

/// The loop that sends.
pub(super) struct Driver {
    shared: Arc<Shared>,
    client: Client<Full<Bytes>>,
    url: Uri,
    key: Key,
    node: NodeId,
    random: fn() -> u64,
    /// Tells this process from all others.
    process: u64,
    timeout: Duration,
    is_failing: bool,
    repeats: Repeats,
}

/// How an attempt ended.
struct Attempt {
    result: WebhookResult,
    retry_after: Option<Duration>,
    /// For people.
    detail: String,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        client: Client<Full<Bytes>>,
        (url, key): (Uri, Key),
        (node, random): (NodeId, fn() -> u64),
        timeout: Duration,
    ) -> Self {
        let (is_failing, repeats) = (false, Repeats::default());
        Self { shared, client, url, key, node, random, process: random(), timeout, is_failing, repeats }
    }

    /// Sends until the outbox was closed and is empty.
    pub(super) async fn run(mut self) {
        loop {
            let now = self.shared.clock.now();
            let (batch, next, is_done) = {
                let mut outbox = self.shared.outbox();
                (outbox.next_batch(now), outbox.poll_timeout(), outbox.is_done())
            };
            if let Some(batch) = batch {
                self.deliver(&batch).await;
            } else if is_done {
                return;
            } else {
                self.wait(next.map(|next| Duration::from_nanos(next.saturating_sub(now)))).await;
            }
        }
    }

    /// Until something has come, or it is time. What comes before this waits has left its mark, so nothing is missed.
    async fn wait(&self, pause: Option<Duration>) {
        let woken = self.shared.wake.notified();
        match pause {
            Some(pause) => drop(tokio::time::timeout(pause, woken).await),
            None => woken.await,
        }
    }

    async fn deliver(&mut self, batch: &Batch) {
        let started = self.shared.clock.now();
        let attempt = self.attempt(batch).await;
        let now = self.shared.clock.now();
        let took = Duration::from_nanos(now.saturating_sub(started));
        self.shared.metrics.requests[attempt.result].increment(1);
        self.shared.metrics.duration.record(took.as_secs_f64());
        let verdict = answer::verdict(attempt.result, attempt.retry_after);
        self.shared.outbox().answered(verdict, now, (self.random)());
        self.shared.refresh();
        self.log(verdict, &attempt, now);
    }

    async fn attempt(&self, batch: &Batch) -> Attempt {
        let since_epoch = Clock::since_epoch();
        let sent_at = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        let body = payload::encode(batch, &self.node, self.process, sent_at);
        let request = Request::post(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, egress::USER_AGENT)
            .header(HEADER, self.key.sign(since_epoch.as_secs(), &body))
            .body(Full::new(Bytes::from(body)))
            .expect("the address was parsed, and the headers are ASCII");
        let deadline = Instant::now() + self.timeout;
        let answer = match tokio::time::timeout_at(deadline, self.client.request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                let result =
                    if error.is_connect() { WebhookResult::Unreachable } else { WebhookResult::IoError };
                return Attempt { result, retry_after: None, detail: whole(&error) };
            }
            Err(_) => {
                let detail = format!("it took longer than {} s", self.timeout.as_secs_f64());
                return Attempt { result: WebhookResult::Timeout, retry_after: None, detail };
            }
        };
        let result = answer::result(answer.status().as_u16());
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|text| text.to_str().ok());
        let retry_after = retry_after.and_then(|text| answer::retry_after(text, Clock::since_epoch()));
        let detail = format!("the answer is {}", answer.status());
        // The status has said it all; without its end the connection is not used again.
        let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect();
        let _ = tokio::time::timeout(BODY_TIME_MAX, body).await;
        Attempt { result, retry_after, detail }
    }

    fn log(&mut self, verdict: Verdict, attempt: &Attempt, now: u64) {
        match verdict {
            Verdict::Taken if self.is_failing => {
                self.is_failing = false;
                tracing::info!("the webhook takes events again");
            }
            Verdict::Taken => {}
            Verdict::Refused | Verdict::Failed { .. } => {
                self.is_failing = true;
                if let Some(left_out) = self.repeats.admit(now) {
                    let is_tried_again = verdict != Verdict::Refused;
                    let reason = &*attempt.detail;
                    tracing::warn!(
                        reason,
                        is_tried_again,
                        left_out,
                        "the webhook did not take a batch of events"
                    );
                }
            }
        }
    }
}
