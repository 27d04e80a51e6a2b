//! What a single kind cannot tell: values with a form of their own, and settings that must fit each other.

use std::net::IpAddr;

use crate::admission::Proxies;
use crate::auth::{Algorithm, KeyError, Mode, Verifier};
use crate::egress::TrustError;
use crate::transport::{self, File};
use crate::{jwks, watchdog};

use super::{Config, hooks};

/// A reason, and the key that it is told at.
pub(super) type Complaint = (&'static str, String);

/// Everything that does not fit together.
pub(super) fn complaints(config: &Config) -> Vec<Complaint> {
    let mut found = Vec::new();
    let mut refuse = |is_wrong: bool, key: &'static str, reason: &str| {
        if is_wrong {
            found.push((key, reason.to_owned()));
        }
    };
    refuse(
        config.auth.mode == Mode::None && !is_loopback(config.listen.ip()) && !config.insecure,
        "listen",
        "is not a loopback address, and without tokens (`auth.mode = \"none\"`) everyone who reaches it could be \
         anyone: configure `auth.mode = \"jwt\"`, or say `--insecure`",
    );
    refuse(
        config.listen == config.admin_listen && config.listen.port() != 0,
        "admin_listen",
        "is the address of `listen`; operators need one of their own",
    );
    refuse(config.shards > SHARDS_MAX, "shards", "is more than 1024");
    let heartbeat = &config.shard.heartbeat;
    refuse(
        heartbeat.timeout <= heartbeat.ping,
        "heartbeat.timeout",
        "must be longer than `heartbeat.ping`, or clients are given up before they are asked",
    );
    let message_bytes = config.shard.message_bytes;
    refuse(
        config.shard.outbound_bytes < message_bytes.saturating_add(ENVELOPE_BYTES_MAX),
        "limits.outbound_bytes",
        "is less than `limits.message_bytes` and 3 KiB for the envelope around it: a client that has to wait for \
         the longest allowed message would be closed as too slow",
    );
    for (key, bytes) in [
        ("limits.inbox_bytes", config.hub.inbox_bytes),
        ("limits.room_pending_bytes", config.hub.room_pending_bytes),
    ] {
        let reason =
            "is less than `limits.message_bytes`: the longest allowed message could never be delivered";
        refuse(message_bytes > bytes, key, reason);
    }
    refuse(
        config.memory.soft >= config.memory.hard,
        "limits.memory_soft",
        "is not less than `limits.memory_hard`: connections would be closed while new ones are let in",
    );
    let proxies = &config.admission.proxies;
    refuse(
        (proxies.protocol || proxies.forwarded_for) && proxies.trusted.is_empty(),
        "proxy.trusted",
        "is empty, so that no proxy is believed: name the networks of those whose `proxy.protocol` or \
         `proxy.forwarded_for` is meant",
    );
    refuse(config.shard.compression.level > 9, "compression.level", "is more than 9");
    refuse(
        config.watchdog.stall < watchdog::LOOK_EVERY * 2,
        "limits.stall",
        "is less than 500ms: shards show only ten times a second that they come round, and are looked at four times",
    );
    found.extend(tls_complaints(&config.tls));
    if let Err(error) = Verifier::new(config.auth.clone()) {
        found.push(key_complaint(error));
    }
    found.extend(of_jwks(config));
    found.extend(hooks::complaints(&config.webhooks));
    found
}

/// What is wrong with the keys that may change; a file is read, nothing is asked of the network.
fn of_jwks(config: &Config) -> Option<Complaint> {
    if config.jwks.refresh < jwks::REFRESH_MIN {
        return Some((
            "auth.jwks_refresh",
            "is less than 1s: the address would do little else than answer".to_owned(),
        ));
    }
    let source = config.auth.jwks.as_ref().filter(|_| config.auth.mode == Mode::Jwt)?;
    if jwks::is_open_to_others(source) && !config.insecure {
        let reason = "is read over http:// from another machine: who stands between could let anybody in; give an \
                      https:// address, or say `--insecure`";
        return Some(("auth.jwks", reason.to_owned()));
    }
    jwks::check(&config.auth, &config.jwks).err().map(|error| match error {
        jwks::SourceError::Trust(TrustError::Ca) => ("auth.jwks_ca", error.to_string()),
        other => ("auth.jwks", other.to_string()),
    })
}

/// What is wrong with the certificate and its key.
fn tls_complaints(tls: &transport::Options) -> Vec<Complaint> {
    let mut found = Vec::new();
    if tls.certificate.is_some() && tls.key.is_none() {
        found.push(("tls.certificate", "needs `tls.key`, its private key".to_owned()));
    }
    if tls.certificate.is_none() {
        let reason = "needs `tls.certificate`: without it there is no TLS";
        for (key, file) in [("tls.key", &tls.key), ("tls.client_ca", &tls.client_ca)] {
            found.extend(file.as_ref().map(|_| (key, reason.to_owned())));
        }
    }
    if let Some(Err(error)) = tls.files().map(|files| files.load()) {
        let key = match error.file {
            File::Certificate => "tls.certificate",
            File::Key => "tls.key",
            File::ClientCa => "tls.client_ca",
        };
        found.push((key, error.to_string()));
    }
    found
}

/// What works but is hardly meant.
pub(super) fn warnings(config: &Config) -> Vec<Complaint> {
    let mut found = Vec::new();
    let auth = &config.auth;
    let secret_bytes = auth.secret.as_ref().map(|secret| secret.as_bytes().len());
    if let Some(bytes) = secret_bytes.filter(|bytes| *bytes < SECRET_BYTES_MIN) {
        found.push((
            "auth.secret",
            format!("has {bytes} bytes; fewer than {SECRET_BYTES_MIN} can be guessed"),
        ));
    }
    for (key, is_given) in
        [("auth.public_key", !auth.public_keys.is_empty()), ("auth.jwks", auth.jwks.is_some())]
    {
        if auth.mode == Mode::None && is_given {
            found.push((key, "is not used: `auth.mode` is \"none\", tokens are not looked at".to_owned()));
        }
    }
    found.extend(of_proxies(&config.admission.proxies));
    found.extend(hooks::warnings(&config.webhooks));
    if !is_loopback(config.admin_listen.ip()) {
        found.push(("admin_listen", exposed(config).to_owned()));
    }
    found
}

/// What others may do with a listener for operators that is not on this machine only.
fn exposed(config: &Config) -> &'static str {
    if config.admin.keys.0.is_empty() {
        return "is not a loopback address, and without `api.keys` nobody is asked who it is: whoever reaches it can \
                read the names of users and what they say, publish in anybody's name, close connections and revoke \
                tokens; give `api.keys`, and let it be a private address, or behind a firewall";
    }
    "is not a loopback address, and operators are not asked who they are, since only /api/v1 needs a key: whoever \
     reaches it can read the names of users and what they say; let it be a private address, or behind a firewall"
}

/// What is hardly meant with the proxies that are believed.
fn of_proxies(proxies: &Proxies) -> Option<Complaint> {
    let Proxies { trusted, protocol, forwarded_for } = proxies;
    let reason = if trusted.is_empty() {
        return None;
    } else if !protocol && !forwarded_for {
        "is not used: neither `proxy.protocol` nor `proxy.forwarded_for` is on"
    } else if trusted.iter().any(|network| network.prefix_len() == 0) {
        "holds all addresses: whoever connects is believed to be whoever it says"
    } else {
        return None;
    };
    Some(("proxy.trusted", reason.to_owned()))
}

/// A pattern of origins: scheme and host, perhaps a port.
pub(super) fn origin(origin: &str) -> Result<(), String> {
    let has_form = origin.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty()
            && !host.is_empty()
            && !host.contains(|c: char| "/?#@".contains(c) || c.is_whitespace())
    });
    if has_form || origin == "*" {
        return Ok(());
    }
    Err(format!("`{origin}` is not an origin; write scheme://host[:port] without a path, or \"*\" for all"))
}

/// Every part a level, or a target with one; a lone misspelt level would be taken for a target.
pub(super) fn log_level(filter: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let is_level = |level: &str| LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level));
    for part in filter.split(',').map(str::trim) {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        if !is_level(level) {
            return Err(format!("`{part}` has no level; levels are {}", LEVELS.join(", ")));
        }
    }
    tracing_subscriber::EnvFilter::try_new(filter).map(|_| ()).map_err(|error| error.to_string())
}

/// One name of the allow-list.
pub(super) fn algorithm(name: &str) -> Result<Algorithm, String> {
    name.parse().map_err(|()| {
        let known = Algorithm::ALL.map(Algorithm::as_str).join(", ");
        format!("`{name}` is not accepted; known are {known}")
    })
}

/// PEM text as given, or from the file of that name.
pub(super) fn pem(given: String) -> Result<String, String> {
    if given.contains("-----BEGIN") {
        return Ok(given);
    }
    std::fs::read_to_string(&given).map_err(|error| format!("cannot read `{given}`: {error}"))
}

fn key_complaint(error: KeyError) -> Complaint {
    let key = match error {
        KeyError::NoKey => "auth.mode",
        KeyError::PublicKey(_)
        | KeyError::PrivateKey(_)
        | KeyError::ShortKey(_)
        | KeyError::TooManyKeys(_) => "auth.public_key",
        KeyError::NoKeyFor(..) => "auth.algorithms",
    };
    (key, error.to_string())
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Far above any machine, far below what an index of a shard can be.
const SHARDS_MAX: usize = 1024;
/// What a message grows by on its way: the frame's header, names of room and user, its key, offset and time.
/// Each name has up to 128 bytes, and a control character in it is printed as six (`\u00XX`): 2304 for three.
const ENVELOPE_BYTES_MAX: usize = 3072;
/// RFC 7518, 3.2: a key of the hash's size or larger.
pub(super) const SECRET_BYTES_MIN: usize = 32;
