"""The hottest rooms, which Prometheus gets from `/metrics/rooms` by a job of its own, less often than the rest."""

from board.panels import Column, Panel, Query, table
from board.promql import gauge, rate

INTERVAL = "30s"


def hottest(count: int, name: str, aggregation: str = "sum", is_counter: bool = True) -> Query:
    """The rooms with the highest values of a metric, by name."""
    if is_counter:
        value = rate(name, "room", aggregation=aggregation)
    else:
        value = gauge(name, "room", aggregation=aggregation)
    return Query(f"topk({count}, {value})", "{{room}}", INTERVAL)


def hot(width: int = 24) -> Panel:
    """All that is known of the hottest rooms."""
    return table(
        "Hottest rooms",
        "The rooms that lead by messages, bytes, fan-out or age lately; one that leads by deliveries sets the load of "
        "the whole gateway.",
        {"room": "Room"},
        Column(hottest(20, "fanfare_room_deliveries_total"), "Deliveries", "cps"),
        Column(hottest(20, "fanfare_room_messages_total"), "Messages", "cps"),
        Column(hottest(20, "fanfare_room_published_bytes_total"), "Bytes", "Bps"),
        Column(hottest(20, "fanfare_room_members", is_counter=False), "Members", "short"),
        Column(
            hottest(20, "fanfare_room_queue_age_seconds", aggregation="max", is_counter=False), "Oldest message", "s"
        ),
        width=width,
    )
