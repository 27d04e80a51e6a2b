//! What connections may do: `limits`, `compression`, `proxy` and `heartbeat`.

use super::super::value::{byte_rate, count, duration, flag, most, networks, rate, size};
use super::{Setting, setting};

/// `limits`, `compression`, `proxy` and `heartbeat`.
pub(super) static CONNECTIONS: &[Setting] = &[
    setting!(
        "limits.connections",
        count,
        listener.connections,
        "Connections at once; more are answered 503."
    ),
    setting!(
        "limits.connections_per_address",
        rate,
        admission.connections_per_address,
        "Connections of one IPv4 address or IPv6 /64; more are answered 429. 0: no limit."
    ),
    setting!(
        "limits.connections_per_user",
        most,
        hub.connections_per_user,
        "Connections of one user; more are closed with 4503. 0: no limit."
    ),
    setting!(
        "limits.handshakes_per_second",
        rate,
        admission.handshakes_per_second,
        "New connections in a second, and as many at once; more are answered 429. 0: no limit."
    ),
    setting!(
        "limits.handshakes_per_second_per_address",
        rate,
        admission.handshakes_per_second_per_address,
        "The same for one IPv4 address or IPv6 /64."
    ),
    setting!(
        "limits.message_bytes",
        size,
        shard.message_bytes,
        "The longest message of a client; longer ones close it with 1009."
    ),
    setting!(
        "limits.handshake",
        duration,
        http.handshake,
        "Time for a connection to become a WebSocket, with TLS that of its handshake as well."
    ),
    setting!(
        "limits.header_bytes",
        size,
        http.header_bytes,
        "The largest header block of the upgrade; larger ones are answered 431."
    ),
    setting!(
        "limits.stall",
        duration,
        watchdog.stall,
        "A shard that has not come round for longer stands still: the log and /readyz say so. At least 500ms."
    ),
    setting!("limits.headers", count, http.headers, "Headers in that block."),
    setting!(
        "limits.outbound_bytes",
        size,
        shard.outbound_bytes,
        "What may wait for one client; more closes it with 4008. At least `message_bytes` and 3 KiB."
    ),
    setting!(
        "limits.inbox_bytes",
        size,
        hub.inbox_bytes,
        "What may wait for one shard; who sends more is not read from until there is room."
    ),
    setting!(
        "limits.room_pending_bytes",
        size,
        hub.room_pending_bytes,
        "What one room may have on its way to one shard; who sends more is not read from until there is\nroom."
    ),
    setting!(
        "limits.memory_soft",
        size,
        memory.soft,
        "What all connections may take of memory (entries, unfinished input, queues; not the kernel's buffers)\nbefore new ones are answered 503. Default: two fifths of what the process may have.",
        "\"2GiB\""
    ),
    setting!(
        "limits.memory_hard",
        size,
        memory.hard,
        "What they may take before those that hold most are closed, with 4008 or 1013. More than `memory_soft`.\nDefault: half of what the process may have.",
        "\"3GiB\""
    ),
    setting!("limits.rooms", count, shard.session.rooms, "Rooms that one connection may be in."),
    setting!(
        "limits.messages_per_second",
        rate,
        shard.rates.messages,
        "Messages of one connection in a second, twice as many at once; more are refused with `rate_limited`,\nand close it with 4029 when they go on. 0: no limit."
    ),
    setting!(
        "limits.bytes_per_second",
        byte_rate,
        shard.rates.bytes,
        "Bytes of those messages in a second. 0: no limit."
    ),
    setting!(
        "limits.bad_messages",
        count,
        shard.session.bad_messages,
        "Refused messages in a row that close a connection with 1008."
    ),
    setting!(
        "compression.enabled",
        flag,
        http.compression,
        "Compresses messages for clients that offer it (permessage-deflate), without a context between messages.\nNot for fanfare.v1.ndjson."
    ),
    setting!(
        "compression.threshold",
        size,
        shard.compression.threshold,
        "Shorter messages are sent as they are."
    ),
    setting!(
        "compression.level",
        count,
        shard.compression.level,
        "From 1, the fastest, to 9, the smallest. A message to a room is compressed once for each shard."
    ),
    setting!(
        "proxy.trusted",
        networks,
        admission.proxies.trusted,
        "The networks of the proxies before the gateway, such as \"10.0.0.0/8\"; only they are believed."
    ),
    setting!(
        "proxy.protocol",
        flag,
        admission.proxies.protocol,
        "Whether each connection of theirs begins with a header of the PROXY protocol, version 1 or 2."
    ),
    setting!(
        "proxy.forwarded_for",
        flag,
        admission.proxies.forwarded_for,
        "Whether their X-Forwarded-For names the client: the last address in it that is not in `trusted`."
    ),
    setting!("heartbeat.ping", duration, shard.heartbeat.ping, "Time between two pings to a client."),
    setting!(
        "heartbeat.timeout",
        duration,
        shard.heartbeat.timeout,
        "Silence of a client that closes it with 4009; longer than `ping`."
    ),
    setting!(
        "heartbeat.write",
        duration,
        shard.heartbeat.write,
        "Time that a blocked write waits before the client is closed with 4008."
    ),
];
