//! The handles of the webhook.

use metrics::{Counter, Gauge};

use super::labels::{Family, WebhookLoss, WebhookResult};
use super::{Recorder, table};

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
