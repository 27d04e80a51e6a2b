"""What the application's server is told, and what it is not."""

from board.panels import SOME, Query, Row, graph, quantiles, stat
from board.promql import gauge, rate, share

QUEUE = share(
    gauge("fanfare_webhook_queue_bytes", aggregation="max"),
    gauge("fanfare_webhook_queue_limit_bytes", aggregation="max"),
)


def row() -> Row:
    return Row(
        "Webhook",
        (
            stat(
                "Webhook behind",
                "How long the oldest event has been waiting for the application's server, of the gateway that is "
                "furthest behind.",
                "s",
                gauge("fanfare_webhook_queue_oldest_age_seconds", aggregation="max"),
                ((10, "orange"), (60, "red")),
            ),
            stat(
                "Webhook queue",
                "The used share of `webhooks.queue_bytes`; when it is full, the oldest events are left out.",
                "percentunit",
                QUEUE,
                ((0.5, "orange"), (0.85, "red")),
            ),
            stat(
                "Events waiting",
                "Events that the application's server has not taken yet.",
                "short",
                gauge("fanfare_webhook_queue_events"),
            ),
            stat(
                "Events lost",
                "Events that the application's server was never given.",
                "cps",
                rate("fanfare_webhook_events_lost_total"),
                SOME,
            ),
            graph(
                "Events for the webhook",
                "Those that the application's server took, and those it was not given, by the reason.",
                "cps",
                Query(rate("fanfare_webhook_events_sent_total"), "taken"),
                Query(rate("fanfare_webhook_events_lost_total", "reason"), "lost: {{reason}}"),
            ),
            graph(
                "Requests of the webhook",
                "By how they ended; all but `ok` and `client_error` are tried again.",
                "reqps",
                Query(rate("fanfare_webhook_requests_total", "result"), "{{result}}"),
            ),
            quantiles(
                "Duration of the webhook's requests",
                "One batch of up to 100 events is under way at a time: 100 divided by this is what can be told in a "
                "second.",
                "s",
                "fanfare_webhook_request_duration_seconds",
            ),
        ),
    )
