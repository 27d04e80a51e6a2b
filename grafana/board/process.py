"""The process: CPU, memory, descriptors, versions, and the admin listener."""

from board import limits
from board.panels import NEAR_LIMIT, SOME, Column, Json, Query, Row, dashboard, graph, quantiles, stat, table
from board.promql import gauge, rate, select, share

NODE = "{{instance}}"


def board() -> Json:
    return dashboard(
        "process",
        "Process",
        "CPU, memory and descriptors of the gateways, what runs where, and the admin listener.",
        Row(
            "At a glance",
            (
                stat(
                    "Youngest process",
                    "Time since the last start; an unexpected small one is a crash.",
                    "s",
                    f"time() - {gauge('process_start_time_seconds', aggregation='max')}",
                ),
                stat("CPU", "Cores in use by all chosen gateways.", "none", rate("process_cpu_seconds_total")),
                stat(
                    "Resident memory",
                    "Of all chosen gateways together.",
                    "bytes",
                    gauge("process_resident_memory_bytes"),
                ),
                stat(
                    "Memory per connection",
                    "Resident memory over open connections; with few connections it is mostly the process itself.",
                    "bytes",
                    share(gauge("process_resident_memory_bytes"), f"clamp_min({gauge('fanfare_connections')}, 1)"),
                ),
                stat(
                    "Of the descriptor limit",
                    "The share in use, of the fullest gateway; each connection needs one.",
                    "percentunit",
                    f"max ({limits.DESCRIPTORS})",
                    NEAR_LIMIT,
                ),
                stat(
                    "Draining",
                    "Gateways that are shutting down.",
                    "short",
                    gauge("fanfare_draining"),
                    SOME,
                ),
            ),
        ),
        Row(
            "Resources",
            (
                graph(
                    "CPU",
                    "Cores in use; with one busy shard it stays near 1, however many cores there are.",
                    "none",
                    Query(rate("process_cpu_seconds_total", "instance"), NODE),
                ),
                graph(
                    "Resident memory",
                    "It follows connections and queues; growth without either is a leak.",
                    "bytes",
                    Query(gauge("process_resident_memory_bytes", "instance"), NODE),
                ),
                graph(
                    "What memory follows",
                    "Bytes that wait in queues and inboxes; compare their shape with the resident memory.",
                    "bytes",
                    Query(gauge("fanfare_outbound_queue_bytes", "instance"), f"client queues {NODE}"),
                    Query(gauge("fanfare_shard_inbox_bytes", "instance"), f"inboxes {NODE}"),
                ),
                graph(
                    "File descriptors, share of the limit",
                    "At 1 no connection can be accepted; each client needs one.",
                    "percentunit",
                    Query(f"max by (instance) ({limits.DESCRIPTORS})", NODE),
                    steps=NEAR_LIMIT,
                    highest=1,
                ),
                graph(
                    "Open descriptors and connections",
                    "They run in parallel; descriptors that grow alone are not given back.",
                    "short",
                    Query(gauge("process_open_fds", "instance"), f"descriptors {NODE}"),
                    Query(gauge("fanfare_connections", "instance"), f"connections {NODE}"),
                ),
                graph(
                    "Threads",
                    "One for each shard and some more; it should never change.",
                    "short",
                    Query(gauge("process_threads", "instance"), NODE),
                ),
                graph(
                    "Virtual memory",
                    "Address space, not memory in use; it matters only under a limit of address space.",
                    "bytes",
                    Query(gauge("process_virtual_memory_bytes", "instance"), NODE),
                ),
                graph(
                    "Uptime",
                    "A line that falls to 0 is a start; several at once are a rollout.",
                    "s",
                    Query(f"time() - {gauge('process_start_time_seconds', 'instance', aggregation='max')}", NODE),
                ),
                graph(
                    "Configuration",
                    "1 while the configuration was sound the last time it was read; 0 means that an older one is in force.",
                    "short",
                    Query(gauge("fanfare_config_last_reload_successful", "instance", aggregation="min"), NODE),
                    highest=1,
                ),
                graph(
                    "Age of the configuration",
                    "Since it was last read and sound: at the start, or on SIGHUP.",
                    "s",
                    Query(
                        "time() - "
                        + gauge(
                            "fanfare_config_last_reload_success_timestamp_seconds", "instance", aggregation="max"
                        ),
                        NODE,
                    ),
                ),
                graph(
                    "Ready and draining",
                    "Ready below 1 without draining is a full gateway or a stalled shard. Drained is the part that has gone.",
                    "short",
                    Query(gauge("fanfare_ready", "instance"), f"ready {NODE}"),
                    Query(gauge("fanfare_draining", "instance"), f"draining {NODE}"),
                    Query(gauge("fanfare_drain_progress_ratio", "instance"), f"drained {NODE}"),
                    highest=1,
                ),
            ),
        ),
        Row(
            "The admin listener",
            (
                graph(
                    "Requests",
                    "Scrapes, probes and people with `/debug`; other codes than 200 on `/readyz` are a gateway that is "
                    "not ready.",
                    "reqps",
                    Query(rate("fanfare_http_requests_total", "route, code"), "{{route}} {{code}}"),
                ),
                quantiles(
                    "Request duration",
                    "A slow scrape is a busy machine: this listener has a thread of its own.",
                    "s",
                    "fanfare_http_request_duration_seconds",
                ),
                graph(
                    "Published by the API",
                    "Messages that applications wanted to publish, each line of many counted. `busy` is a room or a shard "
                    "with too much on its way; idempotency keys that are forgotten before five minutes let a repeat "
                    "through: `api.idempotency_bytes` is too little.",
                    "cps",
                    Query(rate("fanfare_api_publishes_total", "result"), "{{result}}"),
                    Query(rate("fanfare_api_idempotency_forgotten_total"), "forgotten keys"),
                ),
                graph(
                    "Keys of the API",
                    "Requests to the API by what became of their key; `unknown` that goes on is somebody who guesses, or "
                    "an application with an old key.",
                    "reqps",
                    Query(rate("fanfare_api_key_checks_total", "result"), "{{result}}"),
                ),
                graph(
                    "Live taps",
                    "People who watch a room or a connection, and events that were too many for them.",
                    "short",
                    Query(gauge("fanfare_debug_taps"), "open taps"),
                    Query(rate("fanfare_debug_tap_events_lost_total"), "lost events a second"),
                ),
            ),
        ),
        Row(
            "Versions",
            (
                table(
                    "What runs where",
                    "Different revisions at once are a rollout that has not ended.",
                    {
                        "instance": "Instance",
                        "version": "Version",
                        "revision": "Revision",
                        "rust_version": "Compiler",
                    },
                    Column(
                        Query(
                            f"sum by (instance, version, revision, rust_version) ({select('fanfare_build_info')})"
                        ),
                        "Up",
                        "short",
                    ),
                ),
            ),
        ),
    )
