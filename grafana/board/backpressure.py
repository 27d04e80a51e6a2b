"""Who is slow, what waits, and what was given up."""

from board import limits
from board.panels import NEAR_LIMIT, SOME, Json, Query, Row, dashboard, graph, quantiles, stat
from board.promql import gauge, rate, share
from board.rooms import hottest

DROPPED = rate("fanfare_messages_dropped_total")
SHARD = "{{instance}} shard {{shard}}"
BY_SHARD = "instance, shard"
WRITES = rate("fanfare_socket_writes_total")


def board() -> Json:
    return dashboard(
        "backpressure",
        "Backpressure",
        "Who is slow, what waits for them and how near its limit it is, who is held back, and what was lost.",
        Row(
            "At a glance",
            (
                stat(
                    "Slow clients",
                    "Clients for which more than the watermark waits; `/debug/slow` names them.",
                    "short",
                    gauge("fanfare_slow_connections"),
                    SOME,
                ),
                stat(
                    "Waiting bytes",
                    "What waits for all clients together, messages that several wait for counted for each.",
                    "bytes",
                    gauge("fanfare_outbound_queue_bytes"),
                ),
                stat(
                    "Oldest waiting message",
                    "How long the oldest message has been waiting for its client; a blocked write ends with 4008.",
                    "s",
                    gauge("fanfare_outbound_queue_oldest_age_seconds", aggregation="max"),
                    ((5, "orange"),),
                ),
                stat(
                    "Closed as slow",
                    "Clients closed with 4008, since their queue was full or a write was blocked for too long.",
                    "cps",
                    rate("fanfare_connections_closed_total", match='reason="slow_consumer"'),
                    SOME,
                ),
                stat(
                    "Lost messages",
                    "Messages that a recipient was not given, counted for each recipient.",
                    "cps",
                    DROPPED,
                    SOME,
                ),
                stat(
                    "Publishers held",
                    "Clients that are not read from, because a room or a shard takes no more of what they say.",
                    "short",
                    gauge("fanfare_held_connections"),
                    SOME,
                ),
            ),
        ),
        Row(
            "Queues of clients",
            (
                graph(
                    "Slow and backlogged clients",
                    "Backlogged for an instant is normal under load; slow ones that stay are about to be closed.",
                    "short",
                    Query(gauge("fanfare_slow_connections"), "slow"),
                    Query(gauge("fanfare_backlogged_connections"), "backlogged"),
                ),
                graph(
                    "Waiting bytes by shard",
                    "One shard above the others has the slow clients; all together are a network that is full.",
                    "bytes",
                    Query(gauge("fanfare_outbound_queue_bytes", BY_SHARD), SHARD),
                ),
                graph(
                    "Waiting messages by shard",
                    "The same as a count: many small messages are a busy room, few large ones a fat one.",
                    "short",
                    Query(gauge("fanfare_outbound_queue_messages", BY_SHARD), SHARD),
                ),
                graph(
                    "Oldest waiting message by shard",
                    "A line that rises with the clock is a client that takes nothing at all.",
                    "s",
                    Query(gauge("fanfare_outbound_queue_oldest_age_seconds", BY_SHARD), SHARD),
                ),
                graph(
                    "Largest queue, average, watermark and limit",
                    "What waits for the slowest client and for the average backlogged one; above the watermark it "
                    "counts as slow, at the limit it is closed.",
                    "bytes",
                    Query(gauge("fanfare_outbound_queue_largest_bytes", aggregation="max"), "largest queue"),
                    Query(
                        share(
                            gauge("fanfare_outbound_queue_bytes"),
                            f"clamp_min({gauge('fanfare_backlogged_connections')}, 1)",
                        ),
                        "average queue",
                    ),
                    Query(gauge("fanfare_outbound_queue_watermark_bytes", aggregation="min"), "watermark"),
                    Query(gauge("fanfare_outbound_queue_limit_bytes", aggregation="min"), "limit"),
                ),
                graph(
                    "Memory of the connections",
                    "Entries, unfinished input and queues; above the soft limit new clients are refused, above the hard "
                    "one those that hold most are closed.",
                    "bytes",
                    Query(gauge("fanfare_memory_bytes", "instance", aggregation="max"), "taken {{instance}}"),
                    Query(gauge("fanfare_memory_soft_limit_bytes", aggregation="min"), "soft limit"),
                    Query(gauge("fanfare_memory_hard_limit_bytes", aggregation="min"), "hard limit"),
                ),
                limits.bar(),
            ),
        ),
        Row(
            "What sockets take",
            (
                graph(
                    "Socket writes",
                    "`would_block` and `partial` are full sockets, `error` are clients that are gone.",
                    "cps",
                    Query(rate("fanfare_socket_writes_total", "result"), "{{result}}"),
                    stack=True,
                ),
                graph(
                    "Writes that did not go through",
                    "The share of writes that a full socket took partly or not; a high one is a network or clients at "
                    "their limit.",
                    "percentunit",
                    Query(
                        share(rate("fanfare_socket_writes_total", match='result=~"partial|would_block"'), WRITES),
                        "partial or blocked",
                    ),
                    highest=1,
                ),
                quantiles(
                    "Waiting bytes when a socket has room again",
                    "How far clients fall behind before they catch up; p99 near the queue limit means closes soon.",
                    "bytes",
                    "fanfare_outbound_queue_flush_bytes",
                ),
                quantiles(
                    "Waiting messages when a socket has room again",
                    "The same as a count.",
                    "short",
                    "fanfare_outbound_queue_flush_messages",
                ),
                graph(
                    "Lost messages by reason",
                    "`bytes_limit` is a queue that was full, `closing` a client that was closed or gone; "
                    "`drop_oldest` and `conflated` is what rooms leave out for slow members, as their `overflow` says.",
                    "cps",
                    Query(rate("fanfare_messages_dropped_total", "reason"), "{{reason}}"),
                    stack=True,
                ),
                graph(
                    "Lost share",
                    "Lost messages as a share of all that were meant for somebody.",
                    "percentunit",
                    Query(share(DROPPED, f"({rate('fanfare_messages_sent_total')} + {DROPPED})"), "lost"),
                    steps=((0.01, "red"),),
                ),
            ),
        ),
        Row(
            "Publishers held back",
            (
                graph(
                    "Held publishers by shard",
                    "Clients that are not read from until their message was taken; now and then is back-pressure at "
                    "work, always is a room that is too hot.",
                    "short",
                    Query(gauge("fanfare_held_connections", BY_SHARD), SHARD),
                ),
                graph(
                    "Held messages",
                    "Messages that had to wait, beside all that clients sent; compare with the fullest inbox.",
                    "cps",
                    Query(rate("fanfare_publications_held_total"), "held"),
                    Query(rate("fanfare_messages_received_total", match='type="message"'), "sent by clients"),
                ),
                graph(
                    "Fullest inbox",
                    "The share of its limit that the fullest inbox holds; at 1, all who publish to that shard are "
                    "held.",
                    "percentunit",
                    Query(f"max by (instance) ({limits.INBOX})", "{{instance}}"),
                    steps=NEAR_LIMIT,
                    highest=1,
                ),
                graph(
                    "Rooms whose messages are old",
                    "How long the oldest message of a room has been under way; the room at the top holds its "
                    "publishers back.",
                    "s",
                    hottest(10, "fanfare_room_queue_age_seconds", aggregation="max", is_counter=False),
                    width=24,
                ),
            ),
        ),
    )
