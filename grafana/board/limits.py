"""How near each limit is: shares that more than one dashboard shows."""

from board.panels import NEAR_LIMIT, Panel, Query, bars
from board.promql import gauge, share

NODE = "job, instance"

CONNECTIONS = share(gauge("fanfare_connections", NODE), gauge("fanfare_connections_limit", NODE), NODE)
DESCRIPTORS = share(gauge("process_open_fds", NODE), gauge("process_max_fds", NODE), NODE)
INBOX = share(
    gauge("fanfare_shard_inbox_bytes", NODE, aggregation="max"),
    gauge("fanfare_shard_inbox_limit_bytes", NODE, aggregation="max"),
    NODE,
)
QUEUE = share(
    gauge("fanfare_outbound_queue_largest_bytes", NODE, aggregation="max"),
    gauge("fanfare_outbound_queue_limit_bytes", NODE),
    NODE,
)


def bar(width: int = 8) -> Panel:
    """All four beside each other, of the gateway that is nearest."""
    return bars(
        "How near the limits are",
        "The used share of each limit, of the gateway that is nearest to it; a full bar refuses clients, "
        "closes them or holds publishers back.",
        "percentunit",
        Query(f"max ({CONNECTIONS})", "connections"),
        Query(f"max ({DESCRIPTORS})", "file descriptors"),
        Query(f"max ({QUEUE})", "largest client queue"),
        Query(f"max ({INBOX})", "fullest inbox"),
        steps=NEAR_LIMIT,
        width=width,
    )
