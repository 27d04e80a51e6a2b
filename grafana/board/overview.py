"""Is it up, who is connected, is anything wrong; the other dashboards say what."""

from board import limits, rooms
from board.panels import ANY, BUSY, LATE, NEAR_LIMIT, SOME, Column, Json, Query, Row, dashboard, graph, heatmap
from board.panels import quantiles, stat, table
from board.promql import gauge, quantile, rate, select, share

DELIVERY = "fanfare_delivery_duration_seconds"
LOST = rate("fanfare_messages_dropped_total")
KNOWN = f"last_over_time({select('fanfare_build_info')}[$__range])"


def board() -> Json:
    return dashboard(
        "overview",
        "Overview",
        "Is the gateway up, who is connected, how late are messages, and what is near its limit.",
        Row(
            "At a glance",
            (
                stat(
                    "Gateways down",
                    "Gateways that were there in this time range and cannot be scraped now.",
                    "short",
                    f"sum (1 - ({select('up')} and on (job, instance) {KNOWN}))",
                    ANY,
                ),
                stat(
                    "Not ready",
                    "Gateways that want no new connections: full, stalled or shutting down; `/readyz` says why.",
                    "short",
                    f"sum (1 - {select('fanfare_ready')})",
                    ANY,
                ),
                stat("Connections", "Open WebSocket connections.", "short", gauge("fanfare_connections")),
                stat(
                    "Of the connection limit",
                    "The share in use, of the fullest gateway; at the limit, new clients are answered 503.",
                    "percentunit",
                    f"max ({limits.CONNECTIONS})",
                    NEAR_LIMIT,
                ),
                stat(
                    "Delivery p99",
                    "Ninety-nine of a hundred messages were faster, from reading them to the socket of a recipient "
                    "that reads.",
                    "s",
                    quantile(0.99, DELIVERY),
                    LATE,
                ),
                stat(
                    "Busiest shard",
                    "The share of its time in which the busiest shard works; near 1, messages get late.",
                    "percentunit",
                    rate("fanfare_shard_busy_seconds_total", aggregation="max"),
                    BUSY,
                ),
                stat("Messages in", "Messages from clients.", "cps", rate("fanfare_messages_received_total")),
                stat(
                    "Messages out",
                    "Messages written to clients, counted for each recipient.",
                    "cps",
                    rate("fanfare_messages_sent_total"),
                ),
                stat(
                    "Lost messages",
                    "The share of messages that a recipient was not given, since it was slow or left.",
                    "percentunit",
                    share(LOST, f"({rate('fanfare_messages_sent_total')} + {LOST})"),
                    ((0.001, "orange"), (0.01, "red")),
                ),
                stat(
                    "Slow clients",
                    "Clients for which more than the watermark waits; they are closed with 4008 when it gets more.",
                    "short",
                    gauge("fanfare_slow_connections"),
                    SOME,
                ),
                stat(
                    "Refused handshakes",
                    "Connections that did not become a WebSocket; the security dashboard says why.",
                    "cps",
                    rate("fanfare_handshake_failures_total"),
                    ((1, "orange"),),
                ),
                stat(
                    "Stalled shards",
                    "Shards that do not come round at this moment; their clients get nothing.",
                    "short",
                    f"sum ({select('fanfare_shard_stalled_seconds')} > bool 0)",
                    ANY,
                ),
            ),
        ),
        Row(
            "Who is connected",
            (
                graph(
                    "Connections and users",
                    "Open connections by gateway, and the users behind them; a step down is a lost network or a "
                    "restarted gateway.",
                    "short",
                    Query(gauge("fanfare_connections", "instance"), "connections {{instance}}"),
                    Query(gauge("fanfare_users", "instance"), "users {{instance}}"),
                ),
                graph(
                    "Opened and closed",
                    "Equal and low is calm; both high at once are clients that come back again and again.",
                    "cps",
                    Query(rate("fanfare_accepted_connections_total"), "accepted"),
                    Query(rate("fanfare_connections_opened_total"), "opened"),
                    Query(rate("fanfare_connections_closed_total"), "closed"),
                ),
                graph(
                    "Why connections ended",
                    "`client` is normal; look for `slow_consumer`, `ping_timeout` and `internal`.",
                    "cps",
                    Query(rate("fanfare_connections_closed_total", "reason"), "{{reason}}"),
                    stack=True,
                ),
            ),
        ),
        Row(
            "What flows",
            (
                graph(
                    "Messages from clients",
                    "By type; many `invalid` are a broken client, many `join` are clients that come back.",
                    "cps",
                    Query(rate("fanfare_messages_received_total", "type"), "{{type}}"),
                    stack=True,
                ),
                graph(
                    "Messages to clients",
                    "By type, counted for each recipient; `error` should be rare.",
                    "cps",
                    Query(rate("fanfare_messages_sent_total", "type"), "{{type}}"),
                    stack=True,
                ),
                graph(
                    "Bytes on the wire",
                    "Traffic with frame headers, without TCP; compare it with what the network takes. Publications are "
                    "compressed once for each shard, and not for each recipient.",
                    "Bps",
                    Query(rate("fanfare_received_bytes_total", match='layer="wire"'), "in"),
                    Query(rate("fanfare_sent_bytes_total", match='layer="wire"'), "out"),
                    Query(rate("fanfare_compression_input_bytes_total"), "compressed, before"),
                    Query(rate("fanfare_compression_output_bytes_total"), "compressed, after"),
                ),
            ),
        ),
        Row(
            "How late",
            (
                heatmap(
                    "Delivery duration",
                    "How many messages took how long; a second band above the first is a shard or a room of its own.",
                    "s",
                    DELIVERY,
                ),
                quantiles(
                    "Delivery duration quantiles",
                    "From reading a message to the socket of a recipient that reads; the latency dashboard says where "
                    "the time goes.",
                    "s",
                    DELIVERY,
                    steps=LATE,
                    width=12,
                ),
            ),
        ),
        Row("What is near its limit", (limits.bar(), rooms.hot(width=16))),
        Row(
            "Gateways",
            (
                table(
                    "Gateways",
                    "What runs where; different revisions at once are a rollout that has not ended.",
                    {"instance": "Instance", "version": "Version", "revision": "Revision"},
                    Column(
                        Query(f"sum by (instance, version, revision) ({select('fanfare_build_info')})"), "Up", "short"
                    ),
                    Column(Query(gauge("fanfare_ready", "instance")), "Ready", "bool_yes_no"),
                    Column(Query(gauge("fanfare_draining", "instance")), "Draining", "bool_yes_no"),
                    Column(Query(gauge("fanfare_connections", "instance")), "Connections", "short"),
                    Column(
                        Query(f"time() - {gauge('process_start_time_seconds', 'instance', aggregation='max')}"),
                        "Uptime",
                        "s",
                    ),
                ),
            ),
        ),
    )
