//! What an answer means, pure.

use std::time::{Duration, SystemTime};

use crate::metrics::WebhookResult;

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The server has it.
    Taken,
    /// It would be refused again.
    Refused,
    /// It is tried again.
    Failed {
        /// Not earlier than after this time.
        retry_after: Option<Duration>,
    },
}

/// How a status is counted.
pub(super) fn result(status: u16) -> WebhookResult {
    match status {
        200..=299 => WebhookResult::Ok,
        408 | 425 | 429 => WebhookResult::Throttled,
        400..=499 => WebhookResult::ClientError,
        500..=599 => WebhookResult::ServerError,
        // A redirection may be a page for times of maintenance. It is not followed: who sends it could have the events.
        _ => WebhookResult::Redirect,
    }
}

/// What becomes of a batch whose attempt ended so.
pub(super) fn verdict(result: WebhookResult, retry_after: Option<Duration>) -> Verdict {
    match result {
        WebhookResult::Ok => Verdict::Taken,
        WebhookResult::ClientError => Verdict::Refused,
        WebhookResult::Redirect
        | WebhookResult::Throttled
        | WebhookResult::ServerError
        | WebhookResult::Timeout
        | WebhookResult::Unreachable
        | WebhookResult::IoError => Verdict::Failed { retry_after },
    }
}

/// Reads `Retry-After` (RFC 9110, 10.2.3): seconds, or a date, which lies ahead of `since_epoch` or counts as this moment.
pub(super) fn retry_after(text: &str, since_epoch: Duration) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(date.saturating_sub(since_epoch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_would_be_refused_again_is_given_up() {
        let of = |status: u16| verdict(result(status), None);

        for taken in [200, 202, 204] {
            assert_eq!(of(taken), Verdict::Taken, "{taken}");
        }
        for refused in [400, 401, 403, 404, 410, 413, 422, 499] {
            assert_eq!(of(refused), Verdict::Refused, "{refused}");
        }
        for failed in [301, 302, 307, 408, 425, 429, 500, 502, 503, 504, 599, 600, 999] {
            assert_eq!(of(failed), Verdict::Failed { retry_after: None }, "{failed}");
        }
        assert!(matches!(verdict(WebhookResult::Timeout, None), Verdict::Failed { .. }));
    }

    #[test]
    fn reads_seconds_and_dates() {
        let read = |text| retry_after(text, Duration::from_secs(784_111_770));

        assert_eq!(read("0"), Some(Duration::ZERO));
        assert_eq!(read(" 120 "), Some(Duration::from_secs(120)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(7)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:00 GMT"), Some(Duration::ZERO));
        for wrong in ["", "-1", "1.5", "soon", "18446744073709551616", "Thu, 01 Jan 1970"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
