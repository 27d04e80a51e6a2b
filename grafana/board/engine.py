"""What is published: how much, to how many, in which rooms."""

from board import rooms, webhook
from board.panels import SOME, Json, Query, Row, dashboard, graph, heatmap, quantiles, stat
from board.promql import gauge, rate, share

BROADCASTS = rate("fanfare_broadcasts_total")
DIRECT = rate("fanfare_direct_messages_total")
DELIVERED = rate("fanfare_messages_sent_total", match='type="message"')


def board() -> Json:
    return dashboard(
        "engine",
        "Engine",
        "Publications: how many, to how many recipients, how they are batched, which rooms are hot, and what the "
        "application is told of them.",
        Row(
            "At a glance",
            (
                stat("Publications", "Messages to a room or to everyone.", "cps", BROADCASTS),
                stat("Direct messages", "Messages to a user, whether here or not.", "cps", DIRECT),
                stat(
                    "Fan-out",
                    "Messages written for each one published; it multiplies the load.",
                    "none",
                    share(DELIVERED, f"({BROADCASTS} + {DIRECT})"),
                ),
                stat("Rooms", "Rooms with at least one member.", "short", gauge("fanfare_rooms")),
                stat(
                    "Memberships",
                    "Each client counts once for each of its rooms.",
                    "short",
                    gauge("fanfare_room_memberships"),
                ),
                stat(
                    "Held publications",
                    "Messages that waited because a room or a shard had too much under way.",
                    "cps",
                    rate("fanfare_publications_held_total"),
                    SOME,
                ),
            ),
        ),
        Row(
            "Publications",
            (
                graph(
                    "Published",
                    "By where they go: to rooms and everyone, or to single users.",
                    "cps",
                    Query(rate("fanfare_broadcasts_total", "source"), "broadcasts from {{source}}"),
                    Query(rate("fanfare_direct_messages_total", "source"), "direct from {{source}}"),
                ),
                graph(
                    "Delivered",
                    "Messages written to their recipients, and those lost; the distance to what is published is the "
                    "fan-out.",
                    "cps",
                    Query(DELIVERED, "delivered"),
                    Query(rate("fanfare_messages_dropped_total"), "lost"),
                ),
                graph(
                    "Held",
                    "Messages that had to wait and the clients that wait with them; see the backpressure dashboard.",
                    "short",
                    Query(rate("fanfare_publications_held_total"), "held messages a second"),
                    Query(gauge("fanfare_held_connections"), "held clients now"),
                ),
            ),
        ),
        Row(
            "Fan-out",
            (
                heatmap(
                    "Recipients of a batch on one shard",
                    "Each band is a kind of room; a rare one far up is what makes others wait.",
                    "short",
                    "fanfare_broadcast_recipients",
                ),
                quantiles(
                    "Recipients of a batch on one shard, quantiles",
                    "A p99 far above the median means few large rooms among many small ones.",
                    "short",
                    "fanfare_broadcast_recipients",
                    width=12,
                ),
                quantiles(
                    "Messages in one write",
                    "How much batching helps: 1 is an idle gateway, more is load that is written together.",
                    "short",
                    "fanfare_write_batch_messages",
                ),
                quantiles(
                    "Size of messages from clients",
                    "p99 near the message limit means that some clients are soon closed with 1009.",
                    "bytes",
                    "fanfare_message_size_bytes",
                    match='direction="received"',
                ),
                quantiles(
                    "Size of messages to clients",
                    "Counted for each recipient, so that large rooms weigh more.",
                    "bytes",
                    "fanfare_message_size_bytes",
                    match='direction="sent"',
                ),
            ),
        ),
        Row(
            "History and recovery",
            (
                graph(
                    "Rooms entered with recover",
                    "`impossible` are clients that were away for longer than the history lasts, or come from another life of "
                    "the gateway: they load everything anew.",
                    "cps",
                    Query(rate("fanfare_recoveries_total", "result"), "{{result}}"),
                ),
                graph(
                    "Sessions resumed",
                    "`unknown` are clients that were away for longer than `sessions.keep`, or whose gateway was started anew.",
                    "cps",
                    Query(rate("fanfare_resumes_total", "result"), "{{result}}"),
                ),
                quantiles(
                    "Messages replayed to one client in one room",
                    "How much clients miss: long breaks, or loud rooms.",
                    "short",
                    "fanfare_recovery_replayed_messages",
                ),
                graph(
                    "What histories take",
                    "At the limit the rooms that have been quiet longest lose theirs.",
                    "bytes",
                    Query(gauge("fanfare_history_bytes"), "kept"),
                    Query(gauge("fanfare_history_limit_bytes"), "limit"),
                ),
                graph(
                    "Messages in histories",
                    "Of all rooms together.",
                    "short",
                    Query(gauge("fanfare_history_messages"), "messages"),
                ),
            ),
        ),
        Row(
            "Rooms",
            (
                graph(
                    "Rooms and memberships",
                    "Rooms that only grow are names made anew for each use.",
                    "short",
                    Query(gauge("fanfare_rooms"), "rooms"),
                    Query(gauge("fanfare_room_memberships"), "memberships"),
                ),
                graph(
                    "Members of the average room",
                    "Memberships over rooms; the fan-out of an average message.",
                    "none",
                    Query(
                        share(gauge("fanfare_room_memberships"), f"clamp_min({gauge('fanfare_rooms')}, 1)"), "members"
                    ),
                ),
                graph(
                    "Joins and leaves",
                    "Many of both are clients that hop between rooms, or come back again and again.",
                    "cps",
                    Query(rate("fanfare_messages_received_total", "type", match='type=~"join|leave"'), "{{type}}"),
                ),
                rooms.hot(),
                graph(
                    "Hottest rooms by deliveries",
                    "A room that leads by far is what the gateway works for; consider splitting it.",
                    "cps",
                    rooms.hottest(10, "fanfare_room_deliveries_total"),
                ),
                graph(
                    "Hottest rooms by messages",
                    "A small room that leads here has a loud publisher; `/debug/tap?room=` shows who.",
                    "cps",
                    rooms.hottest(10, "fanfare_room_messages_total"),
                ),
                graph(
                    "Shards that did not tell their rooms",
                    "Above 0, what the room panels show is incomplete, and a shard is busy or stalled.",
                    "short",
                    Query(gauge("fanfare_rooms_missing_shards", "instance"), "{{instance}}", rooms.INTERVAL),
                    steps=SOME,
                ),
            ),
        ),
        webhook.row(),
    )
