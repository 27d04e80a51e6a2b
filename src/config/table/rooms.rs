//! What is kept, and for how long: `drain`, `history`, `presence` and `sessions`.

use super::super::value::{count, size, window};
use super::{Setting, setting};

/// `drain`, `history`, `presence` and `sessions`.
pub(super) static ROOMS: &[Setting] = &[
    setting!(
        "drain.window",
        window,
        drain_window,
        "At the end connections are closed evenly over this time."
    ),
    setting!(
        "history.bytes",
        size,
        hub.history_bytes,
        "What the histories of all rooms may take; then those that have been quiet longest are forgotten.\nDefault: 64 MiB, or an eighth of what the process may have where that is less.",
        "\"64MiB\""
    ),
    setting!(
        "presence.damping",
        window,
        hub.presence.damping,
        "How long after the last connection of a user broke off it has left, unless it comes back."
    ),
    setting!(
        "presence.announced",
        count,
        hub.presence.told_max,
        "Users of a room whose coming and going is told; in larger rooms only those."
    ),
    setting!(
        "sessions.keep",
        window,
        shard.sessions.keep,
        "How long after its connection broke off a session can be resumed by one message. 0s: not at all."
    ),
    setting!(
        "sessions.bytes",
        size,
        shard.sessions.bytes,
        "What those sessions may take; then the oldest are forgotten."
    ),
];
