//! What joins applications and other nodes: `webhooks`, `api` and `engine`.

use super::super::hooks::{events, secret, url};
use super::super::value::{duration, flag, quoted, size, text};
use super::super::{api_keys, check};
use super::{Setting, setting};

/// `webhooks`.
pub(super) static WEBHOOKS: &[Setting] = &[
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
];

/// `api` and `engine`.
pub(super) static API: &[Setting] = &[
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
