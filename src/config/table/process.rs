//! What the process is and logs, and how rooms are run: keys without a section, and those of `log`.

use crate::id::NodeId;

use super::super::value::{address, choice, count, flag, list, quoted, text};
use super::super::{check, rooms};
use super::{Setting, setting};

/// Keys without a section, and `log`.
pub(super) static PROCESS: &[Setting] = &[
    setting!("listen", address, listen, "Where clients connect; port 0 takes a free one."),
    setting!(
        "admin_listen",
        address,
        admin_listen,
        "Where operators and back ends connect: /metrics, /livez, /readyz, /debug, /api/v1.\nNever open it to the world."
    ),
    setting!("shards", count, shards, "Threads that serve connections. Default: one per core.", "2"),
    Setting {
        key: "node",
        doc: "This node's name: letters, digits, `.`, `_` and `-`. Default: the host's name.",
        example: Some("\"eu-1\""),
        parse: |config, value| {
            let name = text::parse(value)?.unwrap_or_default();
            config.shard.node = NodeId::parse(&name).map_err(|error| error.to_string())?;
            Ok(())
        },
        print: |config| Some(quoted(&config.shard.node.to_string())),
    },
    Setting {
        key: "origins",
        doc: "Origins of the pages that may connect, such as \"https://*.example.org\"; \"*\" for all.\nEmpty: the gateway's own, and in development mode those of this machine.",
        example: None,
        parse: |config, value| {
            config.http.origins = list::parse(value)?;
            Ok(config.http.origins.iter().try_for_each(|origin| check::origin(origin))?)
        },
        print: |config| list::print(&config.http.origins),
    },
    Setting {
        key: "rooms",
        doc: "How rooms are run; the first whose `match` fits a room's name, `*` standing for any text. In a file also\nas [[rooms]] at its end. `overflow`: what becomes of messages for a member whose queue is full:\n\"disconnect\" closes it with 4008, \"drop_oldest\" leaves out the oldest, \"latest\" all but the newest for each\n`key`; it is told which by a `gap`. `history`: what is kept for who comes back: { messages = 1000, age =\n\"10m\", bytes = \"1MiB\" }, of which each may be left out; none without. `presence`: \"off\", \"list\" (who asks is\ntold who is there) or \"events\" (the members also get `join` and `leave`). `join`, `publish`, `read` (the\nhistory): \"everyone\", \"token\" (whose token names the room in `rooms`, or for that in `publish`) or \"nobody\".\nDefault: no rules; in development mode a history and \"events\" for demo.*, \"list\" for others.",
        example: Some(
            "[{ match = \"chat.*\", history = { messages = 1000, age = \"1h\" }, presence = \"events\" }]",
        ),
        parse: |config, value| {
            config.hub.rooms = rooms::parse(value)?;
            Ok(())
        },
        print: |config| Some(rooms::print(&config.hub.rooms)),
    },
    setting!(
        "insecure",
        flag,
        insecure,
        "Allows `auth.mode = \"none\"` on an address that is not loopback, and `auth.jwks` over http:// from elsewhere."
    ),
    setting!("echo", flag, http.echo, "Serves /echo, which returns each message."),
    setting!(
        "broadcast",
        choice,
        shard.session.broadcast,
        "Who may send to every connection: \"everyone\", \"token\" (where it says `\"broadcast\": true`) or\n\"nobody\". Default: \"everyone\" without tokens, \"token\" with them.",
        "\"token\""
    ),
    setting!(
        "log.format",
        choice,
        log.format,
        "\"text\" for people or \"json\" for machines; logs go to standard error."
    ),
    Setting {
        key: "log.level",
        doc: "error, warn, info, debug, trace or off; for parts as \"info,fanfare::shard=debug\".",
        example: None,
        parse: |config, value| {
            config.log.level = text::parse(value)?.unwrap_or_default();
            Ok(check::log_level(&config.log.level)?)
        },
        print: |config| Some(quoted(&config.log.level)),
    },
];
