"""How late messages are, and where they wait."""

from board.panels import LATE, Json, Query, Row, dashboard, graph, heatmap, quantiles, stat
from board.promql import mean, quantile, rate

DELIVERY = "fanfare_delivery_duration_seconds"
STAGE = "fanfare_delivery_stage_duration_seconds"
ON_TIME = 'stage=~"ingress|inbox|fan_out"'
SLOW = 'stage="client_queue"'


def board() -> Json:
    return dashboard(
        "latency",
        "Latency",
        "How late messages are, in which stage they wait, and how far clients and handshakes are.",
        Row(
            "Delivery",
            (
                stat(
                    "Median",
                    "Half of the messages were faster, from reading them to the socket of a recipient that reads.",
                    "s",
                    quantile(0.5, DELIVERY),
                    LATE,
                    width=6,
                ),
                stat(
                    "p99",
                    "One message in a hundred took longer; the alert for late messages looks at this.",
                    "s",
                    quantile(0.99, DELIVERY),
                    LATE,
                    width=6,
                ),
                stat(
                    "p99.9",
                    "One message in a thousand took longer; a large room shows here first.",
                    "s",
                    quantile(0.999, DELIVERY),
                    LATE,
                    width=6,
                ),
                stat(
                    "Measured deliveries",
                    "What these figures rest on: the first and the last recipient of each batch, and some between.",
                    "cps",
                    rate(f"{DELIVERY}_count"),
                    width=6,
                ),
                heatmap(
                    "Delivery duration",
                    "How many messages took how long; a second band above the first is a shard or a room of its own.",
                    "s",
                    DELIVERY,
                ),
                quantiles(
                    "Delivery duration quantiles",
                    "A median that rises is load; a p99 that rises alone is a stall, a large room or a busy machine.",
                    "s",
                    DELIVERY,
                    steps=LATE,
                    width=12,
                ),
            ),
        ),
        Row(
            "Where messages wait",
            (
                graph(
                    "Mean time by stage",
                    "Stacked, the stages are a delivery: `ingress` is parsing and the room's order, `inbox` a busy "
                    "shard, `fan_out` a large room or slow writes.",
                    "s",
                    Query(mean(STAGE, "stage", ON_TIME), "{{stage}}"),
                    stack=True,
                ),
                graph(
                    "p99 by stage",
                    "The stage whose line follows the delivery p99 is where the time goes.",
                    "s",
                    Query(quantile(0.99, STAGE, "stage", ON_TIME), "{{stage}}"),
                    steps=LATE,
                ),
                graph(
                    "Median by stage",
                    "What a normal message waits; a stage that leads here is slow for everybody.",
                    "s",
                    Query(quantile(0.5, STAGE, "stage", ON_TIME), "{{stage}}"),
                ),
                quantiles(
                    "Time in the queues of slow clients",
                    "How long messages wait for sockets that were full; this is the clients' time and is not part of "
                    "a delivery.",
                    "s",
                    STAGE,
                    match=SLOW,
                    width=12,
                ),
                graph(
                    "Deliveries that had to queue",
                    "Measured deliveries by where they ended: on time at the socket, or first in a client's queue.",
                    "cps",
                    Query(rate(f"{STAGE}_count", match='stage="fan_out"'), "on time"),
                    Query(rate(f"{STAGE}_count", match=SLOW), "queued"),
                    width=12,
                ),
            ),
        ),
        Row(
            "Which gateway, which shard",
            (
                graph(
                    "Delivery p99 by gateway",
                    "One gateway above the others has a machine, a room or a network of its own to look at.",
                    "s",
                    Query(quantile(0.99, DELIVERY, "instance"), "{{instance}}"),
                    steps=LATE,
                    width=12,
                ),
                graph(
                    "Shard lag p99",
                    "How late timers run, which everything on that shard waits as well; above 0.1 s messages are "
                    "noticeably late.",
                    "s",
                    Query(
                        quantile(0.99, "fanfare_shard_lag_seconds", "instance, shard"), "{{instance}} shard {{shard}}"
                    ),
                    steps=((0.1, "red"),),
                    width=12,
                ),
            ),
        ),
        Row(
            "Around delivery",
            (
                quantiles(
                    "Ping to pong",
                    "The network both ways, and the client; delivery is not slow when only this is.",
                    "s",
                    "fanfare_ping_rtt_seconds",
                ),
                quantiles(
                    "Handshake",
                    "From accepting a connection to its 101; slow clients and busy shards both lengthen it.",
                    "s",
                    "fanfare_handshake_duration_seconds",
                ),
                quantiles(
                    "Token check",
                    "What verifying a token costs; it is CPU time of the shard.",
                    "s",
                    "fanfare_auth_duration_seconds",
                ),
            ),
        ),
    )
