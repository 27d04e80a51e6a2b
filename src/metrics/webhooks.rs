//! The labels and handles of the webhook.

use metrics::{Counter, Gauge};
use serde::{Serialize, Serializer};

use super::labels::{Family, LabelValue, label};
use super::{Recorder, table};

label! {
    /// How an attempt to send a batch of events to the webhook ended.
    WebhookResult, "result" {
        /// The server took it.
        Ok = "ok",
        /// A redirection, which is not followed, or another answer that is none.
        Redirect = "redirect",
        /// Later, said the server: 408, 425 or 429.
        Throttled = "throttled",
        /// Any other 4xx: it is not tried again.
        ClientError = "client_error",
        /// 5xx.
        ServerError = "server_error",
        /// There was no answer in time.
        Timeout = "timeout",
        /// There was no connection, or no TLS.
        Unreachable = "unreachable",
        /// The connection broke.
        IoError = "io_error",
    }
}

label! {
    /// Why an event was not delivered to the webhook.
    WebhookLoss, "reason" {
        /// Too much waited: the oldest was left out.
        QueueFull = "queue_full",
        /// The server refused its batch.
        Rejected = "rejected",
        /// Its batch had been tried for as long as one is.
        Expired = "expired",
        /// The gateway ended before it was delivered.
        Shutdown = "shutdown",
    }
}

/// What the sending of events counts.
#[derive(Clone)]
pub struct WebhookMetrics {
    /// Events that the server took.
    pub sent: Counter,
    /// Events that were not delivered.
    pub lost: Family<WebhookLoss, Counter>,
    /// Attempts to send a batch.
    pub requests: Family<WebhookResult, Counter>,
    /// How long those took, in seconds.
    pub duration: metrics::Histogram,
    /// Events that wait.
    pub queue_events: Gauge,
    /// What they take.
    pub queue_bytes: Gauge,
    /// What they may take.
    pub queue_limit: Gauge,
    /// How long the oldest has been waiting, in seconds.
    pub queue_age: Gauge,
}

impl WebhookMetrics {
    /// Registers the handles.
    pub fn new(recorder: &Recorder) -> Self {
        Self {
            sent: recorder.counter(&table::WEBHOOK_SENT, &[]),
            lost: recorder.counters(&table::WEBHOOK_LOST),
            requests: recorder.counters(&table::WEBHOOK_REQUESTS),
            duration: recorder.histogram(&table::WEBHOOK_DURATION, &[]),
            queue_events: recorder.gauge(&table::WEBHOOK_QUEUE_EVENTS, &[]),
            queue_bytes: recorder.gauge(&table::WEBHOOK_QUEUE_BYTES, &[]),
            queue_limit: recorder.gauge(&table::WEBHOOK_QUEUE_LIMIT, &[]),
            queue_age: recorder.gauge(&table::WEBHOOK_QUEUE_AGE, &[]),
        }
    }
}
