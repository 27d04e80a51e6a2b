"""Each shard: its share of the work, how late it runs, what waits in its inbox."""

from board.panels import ANY, BUSY, NEAR_LIMIT, Json, Query, Row, dashboard, graph, heatmap, stat
from board.promql import gauge, increase, quantile, rate, select, share

BY_SHARD = "instance, shard"
SHARD = "{{instance}} shard {{shard}}"
BUSY_BY_SHARD = rate("fanfare_shard_busy_seconds_total", "job, instance, shard")
IMBALANCE = share(
    f"max by (job, instance) ({BUSY_BY_SHARD})", f"avg by (job, instance) ({BUSY_BY_SHARD})", "job, instance"
)


def board() -> Json:
    return dashboard(
        "shards",
        "Shards",
        "The threads that serve connections: how busy, how late, how even, and whether one stands still.",
        Row(
            "At a glance",
            (
                stat(
                    "Stalled now",
                    "Shards that do not come round; their clients get nothing.",
                    "short",
                    f"sum ({select('fanfare_shard_stalled_seconds')} > bool 0)",
                    ANY,
                ),
                stat(
                    "Longest stall now",
                    "How long the shard that stands still longest has done so.",
                    "s",
                    gauge("fanfare_shard_stalled_seconds", aggregation="max"),
                    ANY,
                ),
                stat(
                    "Busiest shard",
                    "The share of its time in which it works; above 0.9 it has nothing left for a peak.",
                    "percentunit",
                    rate("fanfare_shard_busy_seconds_total", aggregation="max"),
                    BUSY,
                ),
                stat(
                    "Imbalance",
                    "The busiest shard's work over the average one's; 1 is even.",
                    "none",
                    f"max ({IMBALANCE})",
                    ((1.5, "orange"),),
                ),
                stat(
                    "Worst lag p99",
                    "How late timers run on the latest shard.",
                    "s",
                    f"max ({quantile(0.99, 'fanfare_shard_lag_seconds', BY_SHARD)})",
                    ((0.1, "red"),),
                ),
                stat(
                    "Panics",
                    "Panics caught in the last step of the graph; each is a fault in the gateway.",
                    "short",
                    increase("fanfare_shard_panics_total"),
                    ANY,
                ),
            ),
        ),
        Row(
            "Work",
            (
                graph(
                    "Utilisation",
                    "The share of its time in which a shard works; all near 1 is load, one alone is a hot room or a "
                    "loud client.",
                    "percentunit",
                    Query(rate("fanfare_shard_busy_seconds_total", BY_SHARD), SHARD),
                    steps=BUSY,
                    highest=1,
                ),
                graph(
                    "Imbalance",
                    "The busiest shard over the average one, by gateway; it matters when the busiest has little time "
                    "left.",
                    "none",
                    Query(f"max by (instance) ({IMBALANCE})", "{{instance}}"),
                    steps=((1.5, "orange"),),
                ),
                graph(
                    "Connections",
                    "Connections are spread by a hash and should be even; after a panic they are not until clients "
                    "come back.",
                    "short",
                    Query(gauge("fanfare_shard_connections", BY_SHARD), SHARD),
                ),
            ),
        ),
        Row(
            "Lateness",
            (
                graph(
                    "Lag p99",
                    "How late timers run, which everything on that shard waits as well; without utilisation the "
                    "machine withholds the CPU.",
                    "s",
                    Query(quantile(0.99, "fanfare_shard_lag_seconds", BY_SHARD), SHARD),
                    steps=((0.1, "red"),),
                    width=12,
                ),
                heatmap(
                    "Lag",
                    "All timers of all shards; a thin band far above the rest are single stalls.",
                    "s",
                    "fanfare_shard_lag_seconds",
                ),
                graph(
                    "Stalled for",
                    "How long a shard has not come round, once that is over the watchdog's limit.",
                    "s",
                    Query(gauge("fanfare_shard_stalled_seconds", BY_SHARD), SHARD),
                    steps=ANY,
                    width=12,
                ),
                graph(
                    "Stalls and panics",
                    "Stalls that the watchdog found, also short ones between two scrapes, and panics that were caught.",
                    "cps",
                    Query(rate("fanfare_shard_stalls_total", BY_SHARD), f"stalls {SHARD}"),
                    Query(rate("fanfare_shard_panics_total", BY_SHARD), f"panics {SHARD}"),
                    width=12,
                ),
            ),
        ),
        Row(
            "What waits",
            (
                graph(
                    "Inbox messages",
                    "Messages that the shard has not taken yet; a line that stays up is a shard that does not keep up.",
                    "short",
                    Query(gauge("fanfare_shard_inbox_messages", BY_SHARD), SHARD),
                ),
                graph(
                    "Inbox share of its limit",
                    "At 1, everybody who publishes to members on that shard is held back.",
                    "percentunit",
                    Query(
                        f"{gauge('fanfare_shard_inbox_bytes', 'job, instance, shard')} "
                        "/ on (job, instance) group_left () "
                        f"{gauge('fanfare_shard_inbox_limit_bytes', 'job, instance', aggregation='max')}",
                        SHARD,
                    ),
                    steps=NEAR_LIMIT,
                    highest=1,
                ),
                graph(
                    "Bytes waiting for clients",
                    "What the shard's slow clients have not taken.",
                    "bytes",
                    Query(gauge("fanfare_outbound_queue_bytes", BY_SHARD), SHARD),
                ),
                graph(
                    "Slow clients",
                    "Clients with more than the watermark waiting; they should be spread like connections.",
                    "short",
                    Query(gauge("fanfare_slow_connections", BY_SHARD), SHARD),
                    width=12,
                ),
                graph(
                    "Handshakes under way",
                    "Connections that wait for the rest of their request; many that stay are clients that say nothing.",
                    "short",
                    Query(gauge("fanfare_handshakes", BY_SHARD), SHARD),
                    width=12,
                ),
            ),
        ),
    )
