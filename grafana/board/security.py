"""Who was refused, and why clients were closed."""

from board.panels import SOME, Json, Query, Row, dashboard, graph, quantiles, stat
from board.promql import gauge, increase, quantile, rate, share

ATTEMPTS = rate("fanfare_auth_attempts_total")
REFUSED = rate("fanfare_auth_attempts_total", match='result!="ok"')

JWKS_READ_AT = gauge("fanfare_jwks_last_success_timestamp_seconds", "instance", aggregation="max")


def board() -> Json:
    return dashboard(
        "security",
        "Security",
        "Who was let in and who was refused, what was rejected, and why connections were closed.",
        Row(
            "At a glance",
            (
                stat(
                    "Refused tokens",
                    "The share of tokens answered with 401; no value where no token is required.",
                    "percentunit",
                    share(REFUSED, ATTEMPTS),
                    ((0.2, "orange"), (0.5, "red")),
                ),
                stat("Token checks", "Tokens that were looked at.", "cps", ATTEMPTS),
                stat(
                    "Refused handshakes",
                    "Connections that did not become a WebSocket, for whatever reason.",
                    "cps",
                    rate("fanfare_handshake_failures_total"),
                    ((1, "orange"),),
                ),
                stat(
                    "Rejected requests",
                    "Messages of clients answered with an error.",
                    "cps",
                    rate("fanfare_messages_rejected_total"),
                    ((1, "orange"),),
                ),
                stat(
                    "Broke the protocol",
                    "Clients closed for broken frames, broken text, too much or nothing but nonsense.",
                    "cps",
                    rate(
                        "fanfare_connections_closed_total",
                        match='reason=~"protocol_error|invalid_payload|too_large|policy"',
                    ),
                    SOME,
                ),
                stat(
                    "Failed accepts",
                    "Connections that the system could not hand over, mostly for want of descriptors.",
                    "cps",
                    rate("fanfare_accept_errors_total"),
                    SOME,
                ),
            ),
        ),
        Row(
            "Who comes in",
            (
                graph(
                    "Token checks by result",
                    "`bad_signature` for all is a changed secret, `unknown_key` a rotation that is not known here, "
                    "`expired` a broken refresh or clock, `missing` a stranger.",
                    "cps",
                    Query(rate("fanfare_auth_attempts_total", "result"), "{{result}}"),
                    stack=True,
                ),
                graph(
                    "Refused handshakes by reason",
                    "`auth` is 401, `origin` 403, `capacity`, `overload` and `draining` 503, `address_limit`, "
                    "`address_rate` and `rate` 429; `tls` is a TLS handshake that failed, `proxy` a proxy that does not "
                    "say for whom it speaks. Many `timeout` are connections that say nothing.",
                    "cps",
                    Query(rate("fanfare_handshake_failures_total", "reason"), "{{reason}}"),
                    stack=True,
                ),
                graph(
                    "From accepted to opened",
                    "What is accepted and not opened was refused or is still in its handshake.",
                    "cps",
                    Query(rate("fanfare_accepted_connections_total"), "accepted"),
                    Query(rate("fanfare_connections_opened_total"), "opened"),
                    Query(rate("fanfare_accept_errors_total", "reason"), "not accepted: {{reason}}"),
                ),
            ),
        ),
        Row(
            "The keys of tokens",
            (
                graph(
                    "Readings of the key set",
                    "`auth.jwks`, by result; nothing without it. While `error` goes on, the keys before it stay in force.",
                    "cps",
                    Query(rate("fanfare_jwks_refreshes_total", "result"), "{{result}}"),
                    width=12,
                ),
                graph(
                    "Age of the key set",
                    "Since it was last read well; it grows up to `auth.jwks_refresh`. Nothing before the first time.",
                    "s",
                    Query(f"time() - ({JWKS_READ_AT} > 0)", "{{instance}}"),
                    width=12,
                ),
            ),
        ),
        Row(
            "Certificate",
            (
                stat(
                    "Runs out in",
                    "When the first certificate of a gateway is no longer good; no value without TLS.",
                    "s",
                    "min ("
                    + gauge("fanfare_tls_certificate_not_after_timestamp_seconds", "job, instance", aggregation="min")
                    + ") - time()",
                    width=12,
                ),
                graph(
                    "Certificate reloads",
                    "Attempts to use new files; after an `error` the certificate before is in force.",
                    "short",
                    Query(increase("fanfare_tls_reloads_total", "result"), "{{result}}"),
                    width=12,
                ),
            ),
        ),
        Row(
            "What is rejected",
            (
                graph(
                    "Rejected requests by reason",
                    "`forbidden` is somebody who tries rooms, `rate_limited` a loud client, `bad_message` a broken "
                    "one.",
                    "cps",
                    Query(rate("fanfare_messages_rejected_total", "reason"), "{{reason}}"),
                    stack=True,
                ),
                graph(
                    "Too many or too fast, by whose limit",
                    "`ip` and `global` are connections answered 429, `user` those closed with 4503, `connection` messages "
                    "answered with `rate_limited`.",
                    "cps",
                    Query(rate("fanfare_rate_limited_total", "scope"), "{{scope}}"),
                    stack=True,
                ),
                graph(
                    "Messages that are none",
                    "What was no message that the gateway knows; a client that sends nothing else is closed with 1008.",
                    "cps",
                    Query(rate("fanfare_messages_received_total", match='type="invalid"'), "invalid"),
                ),
            ),
        ),
        Row(
            "Why connections ended",
            (
                graph(
                    "Closed by reason",
                    "The gateway's own view; `client` is normal, `io_error` a network, `token_expired` a client that "
                    "does not renew.",
                    "cps",
                    Query(rate("fanfare_connections_closed_total", "reason"), "{{reason}}"),
                    stack=True,
                ),
                graph(
                    "Close frames to clients",
                    "By the code that the gateway chose; 4008 is too slow, 4009 silent, 4500 an expired token, 1011 a "
                    "fault of ours.",
                    "cps",
                    Query(rate("fanfare_close_frames_sent_total", "code"), "{{code}}"),
                    stack=True,
                ),
                graph(
                    "Close frames from clients",
                    "By the class of their code; `protocol` are clients that found fault with what they were sent.",
                    "cps",
                    Query(rate("fanfare_close_frames_received_total", "class"), "{{class}}"),
                    stack=True,
                ),
                graph(
                    "Silent clients",
                    "Clients closed because nothing came from them for too long; many at once are a lost network.",
                    "cps",
                    Query(rate("fanfare_ping_timeouts_total"), "timed out"),
                ),
                graph(
                    "How long connections were open",
                    "Of those that ended; a median of seconds is a client that cannot stay, and comes back.",
                    "s",
                    Query(quantile(0.5, "fanfare_connection_duration_seconds"), "p50"),
                    Query(quantile(0.9, "fanfare_connection_duration_seconds"), "p90"),
                ),
                quantiles(
                    "Token check",
                    "What verifying a token costs; a flood of tokens costs this much each.",
                    "s",
                    "fanfare_auth_duration_seconds",
                ),
            ),
        ),
    )
