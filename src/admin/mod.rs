//! The admin listener: metrics, health, and a look at single connections and rooms.
//!
//! It owns a thread with a runtime of its own, so that load on the gateway cannot hide it, and the
//! once-a-second upkeep of the metrics. It is meant for operators and scrapers, never for the world.
//! What only a shard knows, it asks the shards; whatever they do, every answer comes in a bounded time.

mod activity;
mod answer;
mod api;
mod ask;
mod connections;
mod health;
mod keys;
mod openapi;
mod places;
mod process;
mod publish;
mod query;
mod rooms;
mod routes;
mod scrape;
mod serve;
mod tap;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener;

use crate::auth::Verifier;
use crate::clock::Clock;
use crate::drain;
use crate::hub::Hub;
use crate::inbox::Outlet;
use crate::metrics::{AdminMetrics, Recorder};
use crate::readiness::Readiness;
use crate::transport;

pub use self::keys::{ApiKey, ApiKeys, KEY_BYTES_MIN, KeyRing, Scope};
pub use self::places::CONNECTIONS_MAX;
use self::tap::Taps;

/// Who may ask for what, and how long the listener waits for others.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who may use `/api/v1`, at first.
    pub keys: ApiKeys,
    /// The longest message that may be published.
    pub message_bytes: usize,
    /// What may be kept to know what was published already.
    pub idempotency_bytes: usize,
    /// For the shards' answers to one request; what is missing then is named.
    pub answer: Duration,
    /// Between two signs of life of a tap on which nothing happens.
    pub keep_alive: Duration,
    /// For a peer to send a whole request, or to read more of what is written.
    pub peer: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keys: ApiKeys::default(),
            message_bytes: 64 << 10,
            idempotency_bytes: 16 << 20,
            answer: Duration::from_secs(1),
            keep_alive: Duration::from_secs(15),
            peer: Duration::from_secs(10),
        }
    }
}

/// What the admin listener shows.
#[derive(Clone)]
pub struct State {
    /// The metrics of the process.
    pub recorder: Recorder,
    /// Whether new connections are welcome.
    pub ready: Readiness,
    /// The process's monotonic time.
    pub clock: Clock,
    /// Where each user's connections are.
    pub hub: Arc<Hub>,
    /// The way to each shard, by its index.
    pub shards: Vec<Outlet>,
    /// Called before each scrape, to set gauges that others only count; must not block.
    pub refresh: Arc<dyn Fn() + Send + Sync>,
    /// Which tokens count.
    pub verifier: Arc<Verifier>,
    /// The way to whoever drains the gateway.
    pub drain: drain::Controls,
    /// Who may use `/api/v1`.
    pub keys: KeyRing,
    /// Bounds and times.
    pub options: Options,
}

/// Why the admin listener did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be bound.
    #[error("`admin_listen`: cannot listen on {addr}: {source}")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system gave no thread or no poller.
    #[error("cannot start the admin thread: {0}")]
    Thread(#[source] io::Error),
}

/// The running admin listener; dropping it stops it without waiting.
pub struct AdminHandle {
    addr: SocketAddr,
    /// The listener stops when this is dropped.
    running: Option<drain::Signal>,
    thread: Option<JoinHandle<()>>,
}

impl AdminHandle {
    /// The address bound, with the real port where 0 was asked for.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops the listener and waits until its thread has ended: at most half a second for answers under way.
    pub fn stop(mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook and must not end the shutdown.
            let _ = thread.join();
        }
    }
}

/// Binds `addr` and serves it on a thread of its own until the handle is dropped.
///
/// # Errors
///
/// [`StartError`] when the address cannot be bound or the thread cannot be started; nothing runs then.
pub fn start(addr: SocketAddr, state: State) -> Result<AdminHandle, StartError> {
    let bind = |source| StartError::Bind { addr, source };
    let listener = transport::listen(addr, BACKLOG).map_err(bind)?;
    let bound = listener.local_addr().map_err(bind)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
    let listener = {
        let _context = runtime.enter();
        TcpListener::from_std(listener).map_err(StartError::Thread)?
    };
    let (running, stopped) = drain::pair();
    let metrics = AdminMetrics::new(&state.recorder);
    routes::register(&metrics);
    let publishing = publish::Memory::new(state.options.idempotency_bytes);
    let context = Arc::new(Context { state, metrics, taps: Taps::default(), publishing, stopped });
    let thread = thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || runtime.block_on(serve::serve(listener, &context)))
        .map_err(StartError::Thread)?;
    Ok(AdminHandle { addr: bound, running: Some(running), thread: Some(thread) })
}

/// What may wait to be accepted: who comes while there is no space tries again only after a second.
const BACKLOG: i32 = 1024;

/// What every request is answered from.
struct Context {
    state: State,
    metrics: AdminMetrics,
    taps: Taps,
    publishing: publish::Memory,
    stopped: drain::Watch,
}
