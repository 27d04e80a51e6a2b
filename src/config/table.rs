//! Every setting, once: key, meaning, kind and place. All else is derived from this table.

use crate::auth::{Algorithm, JwksSource, Secret};
use crate::id::NodeId;
use crate::jwks;

use super::hooks::{events, secret, url};
use super::tables::Faults;
use super::value::{
    Value, address, byte_rate, choice, count, duration, flag, leeway, list, most, networks, one_or_list,
    path, quoted, rate, size, text, window,
};
use super::{Config, api_keys, check, rooms};

/// One key of the configuration.
pub(super) struct Setting {
    /// Dotted, as in TOML.
    pub key: &'static str,
    /// For the default file; lines of at most 100 characters.
    pub doc: &'static str,
    /// Shown in the default file, commented out, where the default is nothing or is found at start.
    pub example: Option<&'static str>,
    /// Reads a value into the configuration; the reasons are without the key.
    pub parse: fn(&mut Config, &Value) -> Result<(), Faults>,
    /// Writes the value as TOML; `None`: not set.
    pub print: fn(&Config) -> Option<String>,
}

/// The setting of this key.
pub(super) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// A setting that is one field of one kind.
macro_rules! setting {
    ($key:literal, $kind:ident, $($field:ident).+, $doc:literal $(, $example:literal)?) => {
        Setting {
            key: $key,
            doc: $doc,
            example: setting!(@example $($example)?),
            parse: |config, value| {
                config.$($field).+ = $kind::parse(value)?;
                Ok(())
            },
            print: |config| $kind::print(&config.$($field).+),
        }
    };
    (@example) => { None };
    (@example $example:literal) => { Some($example) };
}

/// In the order of the default file: keys without a section first, sections together.
pub(super) static SETTINGS: &[Setting] = &[
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
    setting!(
        "auth.mode",
        choice,
        auth.mode,
        "\"none\": everyone is who they say, for development. \"jwt\": a valid token, or 401."
    ),
    Setting {
        key: "auth.secret",
        doc: "The shared secret of HS256, HS384 and HS512, of at least 32 bytes. Best given as FANFARE_AUTH__SECRET.",
        example: Some("\"...\""),
        parse: |config, value| {
            // The usual reason would repeat the value.
            let secret = text::parse(value).map_err(|_| "must be text that is not empty".to_owned())?;
            config.auth.secret = secret.map(Secret::new);
            Ok(())
        },
        print: |config| config.auth.secret.as_ref().map(|_| "\"********\"".to_owned()),
    },
    Setting {
        key: "auth.public_key",
        doc: "The public key of RS256, ES256 or EdDSA: PEM text, or the path of a PEM file; or a list of those, at most\n8 keys, of which any may have signed a token.",
        example: Some("\"/etc/fanfare/jwt.pem\""),
        parse: |config, value| {
            let given = one_or_list::parse(value)?;
            config.auth.public_keys = given.into_iter().map(check::pem).collect::<Result<_, _>>()?;
            Ok(())
        },
        print: |config| one_or_list::print(&config.auth.public_keys),
    },
    Setting {
        key: "auth.jwks",
        doc: "A set of keys (JWKS) that may change while the gateway runs: the path of a file, or an https:// address.\nhttp:// only on this machine, or with `insecure`.",
        example: Some("\"https://login.example.org/.well-known/jwks.json\""),
        parse: |config, value| {
            config.auth.jwks = text::parse(value)?.map(|given| jwks::locate(&given)).transpose()?;
            Ok(())
        },
        print: |config| {
            config.auth.jwks.as_ref().map(|source| match source {
                JwksSource::File(path) => quoted(&path.display().to_string()),
                JwksSource::Url(url) => quoted(url),
            })
        },
    },
    setting!(
        "auth.jwks_refresh",
        duration,
        jwks.refresh,
        "How often the address is asked anew; a file is looked at every two seconds. At least 1s."
    ),
    Setting {
        key: "auth.jwks_ca",
        doc: "Who may have certified that address, beside those whom the system trusts: PEM text, or the path of a PEM\nfile.",
        example: Some("\"/etc/fanfare/ca.pem\""),
        parse: |config, value| {
            config.jwks.ca = text::parse(value)?.map(check::pem).transpose()?;
            Ok(())
        },
        print: |config| text::print(&config.jwks.ca),
    },
    Setting {
        key: "auth.algorithms",
        doc: "The accepted algorithms, of HS256, HS384, HS512, RS256, ES256, EdDSA.\nEmpty: HS256 for the secret, and those that fit the other keys.",
        example: None,
        parse: |config, value| {
            config.auth.algorithms =
                list::parse(value)?.iter().map(|name| check::algorithm(name)).collect::<Result<_, _>>()?;
            Ok(())
        },
        print: |config| {
            let names: Vec<_> =
                config.auth.algorithms.iter().copied().map(Algorithm::as_str).map(str::to_owned).collect();
            list::print(&names)
        },
    },
    setting!(
        "auth.issuer",
        text,
        auth.issuer,
        "The only accepted `iss`. Default: any.",
        "\"https://login.example.org\""
    ),
    setting!(
        "auth.audience",
        list,
        auth.audience,
        "A token must name one of these as `aud`; empty: `aud` is not looked at."
    ),
    setting!(
        "auth.leeway",
        leeway,
        auth.leeway,
        "How far the clocks of issuer and gateway may be apart; 0s is strict."
    ),
    setting!(
        "auth.revocation_ttl",
        duration,
        auth.revocations.ttl,
        "How long a revocation is kept: at least as long as a token lives."
    ),
    setting!(
        "auth.revocations",
        count,
        auth.revocations.entries,
        "The most revocations that are kept at once; more are refused with 507."
    ),
    setting!("auth.require_exp", flag, auth.require_exp, "Refuses tokens that never expire."),
    setting!(
        "tls.certificate",
        path,
        tls.certificate,
        "The certificate by which clients connect with wss:// only, and those that vouch for it: a PEM file, read again\nwhen it changes and on SIGHUP. Default: no TLS.",
        "\"/etc/fanfare/tls.crt\""
    ),
    setting!("tls.key", path, tls.key, "Its private key: a PEM file.", "\"/etc/fanfare/tls.key\""),
    setting!(
        "tls.client_ca",
        path,
        tls.client_ca,
        "Clients need a certificate that one of these has signed: a PEM file. Default: they need none.",
        "\"/etc/fanfare/clients.crt\""
    ),
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
    setting!(
        "webhooks.url",
        url,
        webhooks.url,
        "Where it is told what happens in rooms: the https:// address of a server of the application, that is sent signed\nbatches of events. Default: nowhere.",
        "\"https://app.example.org/fanfare\""
    ),
    setting!(
        "webhooks.secret",
        secret,
        webhooks.secret,
        "What the requests are signed with, of at least 32 bytes. Best given as FANFARE_WEBHOOKS__SECRET.",
        "\"...\""
    ),
    setting!("webhooks.events", events, webhooks.events, "What is told."),
    setting!(
        "webhooks.queue_bytes",
        size,
        webhooks.queue_bytes,
        "What may wait for that server; when it is full, the oldest event is left out. At least 64KiB."
    ),
    setting!(
        "webhooks.timeout",
        duration,
        webhooks.timeout,
        "How long a request may take; what was not taken is tried again for five minutes. At most 1m."
    ),
    Setting {
        key: "webhooks.ca",
        doc: "Who may have certified that address, beside those whom the system trusts: PEM text, or the path of a PEM\nfile.",
        example: Some("\"/etc/fanfare/ca.pem\""),
        parse: |config, value| {
            config.webhooks.ca = text::parse(value)?.map(check::pem).transpose()?;
            Ok(())
        },
        print: |config| text::print(&config.webhooks.ca),
    },
    setting!(
        "webhooks.allow_http",
        flag,
        webhooks.allow_http,
        "Allows http:// also to another machine, for a network of your own: what is sent can be read on its way."
    ),
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
    Setting {
        key: "api.keys",
        doc: "Who may use /api/v1 on `admin_listen`: each has a `name`, a `key` of at least 32 characters that is sent as\n`Authorization: Bearer KEY`, and `scopes`: \"publish\", \"read\" and \"manage\". Without any, no key is asked\nfor. Read again on SIGHUP. In a file also as [[api.keys]] at its end.",
        example: Some(
            "[{ name = \"backend\", key = \"at-least-32-characters-at-random\", scopes = [\"publish\"] }]",
        ),
        parse: |config, value| {
            config.admin.keys = api_keys::parse(value)?;
            Ok(())
        },
        print: |config| Some(api_keys::print(&config.admin.keys)),
    },
    setting!(
        "api.idempotency_bytes",
        size,
        admin.idempotency_bytes,
        "What may be kept to know what was published with an idempotency key in the last five minutes; when that is too\nlittle, the oldest is forgotten."
    ),
    Setting {
        key: "engine.kind",
        doc: "What joins nodes; only \"memory\" (one node) in this version.",
        example: None,
        parse: |_, value| match text::parse(value)?.unwrap_or_default().as_str() {
            "memory" => Ok(()),
            other => Err(format!("`{other}` is not available in this version; only \"memory\" is").into()),
        },
        print: |_| Some(quoted("memory")),
    },
];

/// Keys of the contract that a later version takes, so that they are not called misspelt.
pub(super) fn is_of_later_version(key: &str) -> bool {
    key.starts_with("engine.nats")
}
