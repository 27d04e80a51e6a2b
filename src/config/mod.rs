//! File, environment and flags -> one checked [`Config`], made of the modules' `Options`.
//!
//! Everything is derived from one table of settings. Every mistake is reported at once, with its place, its key
//! and the reason; whoever holds a [`Config`] need not check it again.

mod api_keys;
mod check;
mod hooks;
mod print;
mod rooms;
mod sources;
mod table;
mod tables;
#[cfg(test)]
mod tests;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use crate::auth::Grant;
use crate::auth::{self, Mode};
use crate::hub::{Access, OnOverflow, PresenceMode, Rules};
use crate::id::{NameError, NodeId, UserId};
use crate::session::{self, Broadcast};
use crate::webhooks::{self, EventKind};
use crate::{admin, admission, http, hub, jwks, listener, memory, shard, transport, watchdog, ws};

pub use print::default_file;
pub use sources::{Flag, Sources};
use tables::{Fault, Faults};

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where operators connect.
    pub admin_listen: SocketAddr,
    /// How many shard threads.
    pub shards: usize,
    /// Whether anonymous clients from elsewhere are accepted.
    pub insecure: bool,
    /// Over how long connections are closed at the end.
    pub drain_window: Duration,
    /// What is logged, and how.
    pub log: Log,
    /// Tokens.
    pub auth: auth::Options,
    /// How the keys that may change are read.
    pub jwks: jwks::Options,
    /// The upgrade.
    pub http: http::Options,
    /// Limits by address, and proxies.
    pub admission: admission::Options,
    /// Accepting.
    pub listener: listener::Options,
    /// Connections; the node's name and the sessions' limits as well.
    pub shard: shard::Options,
    /// Directories and inboxes.
    pub hub: hub::Options,
    /// The certificate, where connections are TLS.
    pub tls: transport::Options,
    /// What all connections may take.
    pub memory: memory::Limits,
    /// When a shard counts as standing still.
    pub watchdog: watchdog::Options,
    /// Who is told what happens in rooms.
    pub webhooks: webhooks::Options,
    /// How operators and applications are answered.
    pub admin: admin::Options,
}

impl Default for Config {
    /// Development mode on this machine.
    fn default() -> Self {
        let demo = http::Options { demo: true, allow_loopback_origins: true, ..http::Options::default() };
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8080).into(),
            admin_listen: (Ipv4Addr::LOCALHOST, 9090).into(),
            shards: std::thread::available_parallelism().map_or(1, Into::into),
            insecure: false,
            drain_window: Duration::from_secs(5),
            log: Log { format: LogFormat::Text, level: "info".to_owned() },
            auth: auth::Options::default(),
            jwks: jwks::Options::default(),
            http: demo,
            admission: admission::Options::default(),
            listener: listener::Options::default(),
            shard: shard::Options {
                message_bytes: 64 << 10,
                outbound_bytes: OUTBOUND_BYTES,
                batch_bytes: batch_bytes(OUTBOUND_BYTES),
                compression: ws::DeflateOptions::default(),
                rates: shard::Rates::default(),
                heartbeat: shard::Heartbeat::default(),
                sessions: shard::SessionOptions::default(),
                session: session::Limits::default(),
                node: host_name(),
            },
            hub: hub::Options {
                rooms: rooms::for_development(),
                history_bytes: HISTORY_BYTES.min(memory::available() / 8),
                ..hub::Options::default()
            },
            tls: transport::Options::default(),
            memory: memory::Limits::of(memory::available()),
            watchdog: watchdog::Options::default(),
            webhooks: webhooks::Options::default(),
            admin: admin::Options::default(),
        }
    }
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// For people or machines.
    pub format: LogFormat,
    /// A filter of `tracing-subscriber`.
    pub level: String,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// A configuration, and how it came about.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What the gateway runs with.
    pub config: Config,
    /// What works but is hardly meant.
    pub warnings: Vec<Mistake>,
    /// What the file says to no effect, since the environment or a flag says otherwise.
    pub overridden: Vec<Mistake>,
    origins: BTreeMap<&'static str, Origin>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    File { path: PathBuf, line: usize },
    Environment(String),
    Flag(&'static str),
}

impl Origin {
    /// The same place, on this line where it is known.
    fn at(&self, line: Option<usize>) -> Self {
        match (self, line) {
            (Self::File { path, .. }, Some(line)) => Self::File { path: path.clone(), line },
            _ => self.clone(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong with the configuration: place, key, reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    place: Option<Origin>,
    key: Option<String>,
    reason: String,
}

impl Mistake {
    /// The setting, if it is about one.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
}

/// One line: control characters of what was written are escaped.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = Escaping(f);
        match &self.place {
            Some(place) => write!(f, "{place}: ")?,
            None if self.key.is_some() => f.write_str("default: ")?,
            None => {}
        }
        match &self.key {
            Some(key) => write!(f, "{key}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            let plain = part.trim_end_matches(char::is_control);
            self.0.write_str(plain)?;
            write!(self.0, "{}", part[plain.len()..].escape_default())?;
        }
        Ok(())
    }
}

/// Everything that is wrong; never empty. One line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(Mistake::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Mistakes {}

/// Why no token can be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a name.
    #[error("the user {0}")]
    User(NameError),
    /// No name for the token.
    #[error("the system has no random numbers to give")]
    Random,
    /// Nothing to sign with.
    #[error(transparent)]
    Issue(auth::IssueError),
}

impl Config {
    /// Reads all sources; flags win over the environment, that over the file, that over the defaults.
    ///
    /// # Errors
    ///
    /// [`Mistakes`]: all there are, of single values and of what does not fit together.
    pub fn load(sources: &Sources) -> Result<Loaded, Mistakes> {
        let mut mistakes = Vec::new();
        let mut config = Self::default();
        let mut origins = BTreeMap::new();
        let mut overridden = Vec::new();
        for given in sources::collect(sources, &mut mistakes) {
            if let Err(Faults(faults)) = (given.setting.parse)(&mut config, &given.value) {
                mistakes.extend(faults.into_iter().map(|Fault { line, reason }| Mistake {
                    place: Some(given.origin.at(line)),
                    key: Some(given.setting.key.to_owned()),
                    reason,
                }));
            }
            let key = given.setting.key;
            let winner = given.origin.clone();
            if let Some(place @ Origin::File { .. }) = origins.insert(key, given.origin) {
                let reason = format!("has no effect, since {winner} is given and wins");
                overridden.push(Mistake { place: Some(place), key: Some(key.to_owned()), reason });
            }
        }
        config.derive(&origins);
        let at = |(key, reason): check::Complaint| {
            // A default is never wrong alone: what was given beside it is.
            let place = origins.get(key).or_else(|| partner(key).and_then(|key| origins.get(key))).cloned();
            Mistake { place, key: Some(key.to_owned()), reason }
        };
        // A value that could not be read keeps its default, about which nothing more needs to be said.
        let is_told = |key: &str, mistakes: &[Mistake]| {
            let told = |key: &str| mistakes.iter().any(|mistake| mistake.key.as_deref() == Some(key));
            // Whether a key is missing or fits cannot be told when one could not be read.
            let needs_keys = matches!(key, "auth.mode" | "auth.algorithms");
            let unread_key = || ["auth.secret", "auth.public_key", "auth.jwks"].into_iter().any(told);
            told(key) || partner(key).is_some_and(told) || (needs_keys && unread_key())
        };
        // One value may be too much for several defaults, which is one mistake; what was given is each its own.
        let mut blamed = BTreeSet::new();
        let mut is_repeated = |key: &str| {
            let is_blamed_again = partner(key).is_some_and(|other| !blamed.insert(other));
            is_blamed_again && !origins.contains_key(key)
        };
        let fresh: Vec<_> = check::complaints(&config)
            .into_iter()
            .filter(|(key, _)| !is_told(key, &mistakes) && !is_repeated(key))
            .map(at)
            .collect();
        mistakes.extend(fresh);
        if !mistakes.is_empty() {
            return Err(Mistakes(mistakes));
        }
        let warnings = check::warnings(&config).into_iter().map(at).collect();
        Ok(Loaded { config, warnings, overridden, origins })
    }

    /// Signs a token for this user that a gateway with this configuration accepts. It has a name (`jti`) by which it can be
    /// revoked, from the system's random source; `now` is in Unix seconds.
    ///
    /// # Errors
    ///
    /// [`TokenError`] for a name that no user can have, and without a secret to sign with or random numbers.
    pub fn issue_token(
        &self,
        user: &str,
        grant: impl FnOnce(UserId) -> Grant,
        now: u64,
    ) -> Result<String, TokenError> {
        let user = UserId::parse(user).map_err(TokenError::User)?;
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| TokenError::Random)?;
        let id = format!("{:032x}", u128::from_be_bytes(id));
        self.auth.issue_named(&grant(user), &id, now).map_err(TokenError::Issue)
    }

    /// The keys whose values are others than in `other`; of secrets as well, although they are printed alike.
    pub fn changed_from(&self, other: &Self) -> Vec<&'static str> {
        let is_other = |setting: &&table::Setting| match setting.key {
            "auth.secret" => self.auth.secret != other.auth.secret,
            "webhooks.secret" => self.webhooks.secret != other.webhooks.secret,
            "api.keys" => self.admin.keys != other.admin.keys,
            _ => (setting.print)(self) != (setting.print)(other),
        };
        table::SETTINGS.iter().filter(is_other).map(|setting| setting.key).collect()
    }

    /// Sets what follows from other settings.
    fn derive(&mut self, origins: &BTreeMap<&'static str, Origin>) {
        self.shard.batch_bytes = batch_bytes(self.shard.outbound_bytes);
        self.admin.message_bytes = self.shard.message_bytes;
        let is_development = self.auth.mode == Mode::None;
        self.http.demo = is_development;
        self.http.allow_loopback_origins = is_development;
        let is_told = |kinds: [EventKind; 2]| {
            self.webhooks.url.is_some() && kinds.iter().any(|kind| self.webhooks.events.contains(kind))
        };
        self.hub.presence.tells_of_rooms = is_told([EventKind::RoomOccupied, EventKind::RoomVacated]);
        self.hub.presence.tells_of_members = is_told([EventKind::MemberJoined, EventKind::MemberLeft]);
        if !is_development && !origins.contains_key("rooms") {
            self.hub.rooms = Rules::default();
        }
        if !origins.contains_key("broadcast") {
            let who = if is_development { Broadcast::Everyone } else { Broadcast::Token };
            self.shard.session.broadcast = who;
        }
    }
}

/// A client that has a batch waiting must have space left for more.
fn batch_bytes(outbound_bytes: usize) -> usize {
    (outbound_bytes / 4).min(BATCH_BYTES_MAX)
}

/// The other key of a check over two.
fn partner(key: &str) -> Option<&'static str> {
    match key {
        "heartbeat.timeout" => Some("heartbeat.ping"),
        "limits.outbound_bytes" | "limits.inbox_bytes" | "limits.room_pending_bytes" => {
            Some("limits.message_bytes")
        }
        "limits.memory_soft" => Some("limits.memory_hard"),
        "listen" => Some("auth.mode"),
        "tls.certificate" => Some("tls.key"),
        "tls.key" | "tls.client_ca" => Some("tls.certificate"),
        "admin_listen" => Some("listen"),
        "webhooks.secret" => Some("webhooks.url"),
        _ => None,
    }
}

/// Words for an enum, for the kind `choice`.
trait Choice: Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

impl Choice for PresenceMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("list", Self::List), ("events", Self::Events)];
}

impl Choice for Access {
    const WORDS: &'static [(&'static str, Self)] =
        &[("everyone", Self::Everyone), ("token", Self::Token), ("nobody", Self::Nobody)];
}

impl Choice for OnOverflow {
    const WORDS: &'static [(&'static str, Self)] =
        &[("disconnect", Self::Disconnect), ("drop_oldest", Self::DropOldest), ("latest", Self::Latest)];
}

impl Choice for Mode {
    const WORDS: &'static [(&'static str, Self)] = &[("none", Self::None), ("jwt", Self::Jwt)];
}

impl Choice for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

impl Choice for Broadcast {
    const WORDS: &'static [(&'static str, Self)] =
        &[("everyone", Self::Everyone), ("token", Self::Token), ("nobody", Self::Nobody)];
}

/// The host's name with what a node's name cannot have replaced.
fn host_name() -> NodeId {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let legal = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = name.trim().chars().take(64).map(legal).collect();
    NodeId::parse(&name).or_else(|_| NodeId::parse("fanfare")).expect("the fallback is a name")
}

/// What histories may take, where the process may have eight times as much.
const HISTORY_BYTES: usize = 64 << 20;

const OUTBOUND_BYTES: usize = 1 << 20;
/// The most that a room hands to one write, however much may wait.
const BATCH_BYTES_MAX: usize = 256 << 10;
