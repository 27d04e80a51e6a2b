//! Builds each part from the configuration and joins them; the only place that knows all parts.

mod certificates;
mod drains;
mod hooks;
mod keys;
mod rooms;
mod settings;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::admin;
use crate::admission::{Desk, PLACES_TO_REFUSE};
use crate::auth::Verifier;
use crate::clock::Clock;
use crate::config::{Config, Sources};
use crate::drain::Order;
use crate::egress::TrustError;
use crate::hub::Hub;
use crate::id::ShardIndex;
use crate::inbox::{Command, Gate, Inbox, Outlet};
use crate::inspect::Vitals;
use crate::listener::{Listener, raise_descriptor_limit};
use crate::memory::Ledger;
use crate::metrics::{
    HttpMetrics, HubMetrics, ListenerMetrics, Recorder, ServerMetrics, ShardMetrics, count,
};
use crate::readiness::{Cause, Readiness};
use crate::shard::{self, Parts};
use crate::transport::CertificateError;
use crate::{auth, drain, http, inbox, jwks, watchdog, webhooks};

use certificates::Reloads;
use drains::{BegunWith, Drains};
use settings::Settings;

/// Descriptors of the process that serve no client: standard streams, listeners, the control thread, and operators.
const DESCRIPTORS_RESERVED: usize = 32 + admin::CONNECTIONS_MAX;

/// Descriptors that a shard needs for itself.
const DESCRIPTORS_PER_SHARD: usize = 8;

/// Why the gateway could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address for clients.
    #[error("`listen`: cannot listen on {addr}: {source}")]
    Listen {
        /// As configured.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The address for operators.
    #[error(transparent)]
    Admin(#[from] admin::StartError),
    /// A key or secret that cannot be used.
    #[error("auth: {0}")]
    Auth(#[from] auth::KeyError),
    /// The keys that may change.
    #[error("`auth.jwks` {0}")]
    Keys(#[from] jwks::SourceError),
    /// The certificate, its key, or who signs those of clients.
    #[error("tls: {0}")]
    Tls(#[from] CertificateError),
    /// Whom to trust to be the server of the webhook.
    #[error("webhooks: {0}")]
    Webhooks(#[from] TrustError),
    /// A shard.
    #[error(transparent)]
    Shard(#[from] shard::SpawnError),
    /// A shard has ended, with all its connections.
    #[error("a shard has ended unexpectedly; the log says why")]
    ShardEnded,
    /// The control thread.
    #[error("cannot start: {0}")]
    Start(#[source] io::Error),
}

/// Runs the gateway until it is told to stop by SIGTERM or SIGINT, and drains it. A second signal ends it at once. On SIGHUP the
/// sources are read again.
///
/// # Errors
///
/// [`Error`] when something cannot be started; nothing runs then.
pub fn run(config: Config, sources: Sources) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
    let runtime = Control(Some(runtime));
    runtime.0.as_ref().expect("it is there until the end").block_on(serve(config, sources))
}

/// The control thread's runtime. Shards that do not end must not hold up the exit, and those that go on serving must not
/// keep a process without control alive when this thread panics.
struct Control(Option<Runtime>);

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(config: Config, sources: Sources) -> Result<(), Error> {
    let mut signals = Signals::new().map_err(Error::Start)?;
    let recorder = Recorder::new();
    let metrics = ServerMetrics::new(&recorder);
    let (signal, watch) = drain::pair();
    let listener = bind(config.listen)?;
    let (outlets, inboxes) = inboxes(&config);
    let clock = Clock::start();
    let hooks = hooks::start(&config, &recorder, clock)?;
    let hub = Hub::new(outlets.clone(), config.hub.clone(), clock);
    let verifier = Arc::new(Verifier::new(config.auth.clone())?);
    let connections = connections_that_fit(config.listener.connections, config.shards);
    let desk = Desk::new(config.admission.clone(), connections);
    let (http, reloads) = shared_by_handshakes(&config, &verifier, &desk, watch.clone(), (&recorder, clock))?;
    let ledger = Ledger::new(config.shards, config.memory);
    let shared = Shared { hub: Arc::clone(&hub), http, recorder: recorder.clone(), clock };
    let Shards { threads, vitals } = start_shards(&config, shared, inboxes, &ledger)?;
    let watched = watchdog::Shards::new(&recorder, &outlets, &vitals);
    let ready = Readiness::default();
    ready.block(Cause::Starting, "connections are not accepted yet", clock.now());
    let _keys = keys::start(&config, &verifier, &recorder, &ready, clock)?;
    let accepting = ListenerMetrics::new(&recorder);
    accepting.limit.set(count(connections));
    show_limits(&metrics, &config);
    let gate = Gate::new(connections).with_memory(ledger.clone());
    let begun_with = BegunWith::default();
    let (rooms, keys) = (Arc::clone(&hub), admin::KeyRing::new(config.admin.keys.clone()));
    let (controls, mut orders) = drain::controls();
    let (begun, hook) = (begun_with.clone(), hooks.sender());
    let shown = Shown { ledger, ready: ready.clone(), gate: gate.clone(), begun_with: begun, hook };
    let state = admin::State {
        refresh: refresh(&recorder, &metrics, shown, &hub, &watched, clock),
        verifier: Arc::clone(&verifier),
        drain: controls,
        recorder: recorder.clone(),
        ready: ready.clone(),
        clock,
        hub,
        shards: outlets.clone(),
        keys: keys.clone(),
        options: config.admin.clone(),
    };
    // Before anybody can know that the gateway is there, and send it a SIGHUP.
    let settings = Settings::begin(config.clone(), sources, (Arc::clone(&rooms), keys), &recorder)?;
    let admin = admin::start(config.admin_listen, state)?;
    let public = listener.local_addr().map_err(Error::Start)?;
    announce(public, admin.addr(), reloads.certificates().is_some()).map_err(Error::Start)?;

    let watched = (watched, gate.clone(), ready.clone());
    let _background =
        start_background(&config, watched, (reloads, settings), (&rooms, hooks.sender(), clock));
    log_start(&config, public, admin.addr(), connections);
    ready.clear(Cause::Starting);
    let accept = listener.run((gate.clone(), desk), outlets.clone(), watch, accepting, clock);
    let mut drains = Drains {
        gate,
        shards: outlets.clone(),
        signal,
        ready,
        metrics,
        clock,
        window: config.drain_window,
        begun_with,
        current: None,
    };
    let may_wait = serve_until_drained(accept, threads, &mut drains, (&mut signals, &mut orders)).await?;
    tell_all(&outlets, || Command::Stop);
    hooks::finish(hooks, &mut signals, may_wait).await;
    admin.stop();
    tracing::info!("stopped");
    Ok(())
}

/// Returns whether what else has to be done may take its time.
async fn serve_until_drained(
    accept: impl Future<Output = io::Result<()>>,
    threads: Vec<JoinHandle<()>>,
    drains: &mut Drains,
    (signals, orders): (&mut Signals, &mut mpsc::Receiver<Order>),
) -> Result<bool, Error> {
    let mut shards = watch_over(threads);
    tokio::select! {
        ended = accept => ended.map(|()| false).map_err(Error::Start),
        _ = shards.join_next() => Err(Error::ShardEnded),
        may_wait = drains.run(signals, orders) => Ok(may_wait),
    }
}

fn tell_all(shards: &[Outlet], command: impl Fn() -> Command) {
    for shard in shards {
        // What is told here is never refused.
        let _ = shard.push(command());
    }
}

/// The line that says what was started.
fn log_start(config: &Config, public: SocketAddr, admin: SocketAddr, connections: usize) {
    let version = env!("CARGO_PKG_VERSION");
    let auth = match config.auth.mode {
        auth::Mode::None => "none",
        auth::Mode::Jwt => "jwt",
    };
    let (shards, node) = (config.shards, &config.shard.node);
    tracing::info!(version, %node, %public, %admin, shards, connections, auth, "started");
}

fn bind(addr: SocketAddr) -> Result<Listener, Error> {
    Listener::bind(addr).map_err(|source| Error::Listen { addr, source })
}

fn inboxes(config: &Config) -> (Vec<Outlet>, Vec<Inbox>) {
    let limits = inbox::Limits { bytes: config.hub.inbox_bytes, ..inbox::Limits::default() };
    (0..config.shards).map(|_| Inbox::pair(limits)).unzip()
}

fn shared_by_handshakes(
    config: &Config,
    verifier: &Arc<Verifier>,
    desk: &Desk,
    watch: drain::Watch,
    (recorder, clock): (&Recorder, Clock),
) -> Result<(Arc<http::Shared>, Reloads), Error> {
    let reloads = Reloads::begin(&config.tls, recorder)?;
    let (options, metrics) = (config.http.clone(), HttpMetrics::new(recorder));
    let shared = http::Shared::new(options, Arc::clone(verifier), desk.clone(), watch, metrics, clock);
    let shared = shared.with_certificates(reloads.certificates());
    Ok((Arc::new(shared), reloads))
}

/// What all shards are given.
struct Shared {
    hub: Arc<Hub>,
    http: Arc<http::Shared>,
    recorder: Recorder,
    clock: Clock,
}

/// The running shards, by their indices.
struct Shards {
    threads: Vec<JoinHandle<()>>,
    vitals: Vec<Arc<Vitals>>,
}

fn start_shards(
    config: &Config,
    shared: Shared,
    inboxes: Vec<Inbox>,
    ledger: &Ledger,
) -> Result<Shards, Error> {
    let Shared { hub, http, recorder, clock } = shared;
    let options = Arc::new(config.shard.clone());
    let (mut threads, mut vitals) = (Vec::new(), Vec::new());
    for (number, inbox) in inboxes.into_iter().enumerate() {
        vitals.push(Vitals::new(clock.now()));
        threads.push(shard::spawn(Parts {
            index: ShardIndex(u16::try_from(number).expect("the configuration bounds the shards")),
            options: Arc::clone(&options),
            inbox,
            hub: Arc::clone(&hub),
            http: Arc::clone(&http),
            metrics: ShardMetrics::new(&recorder, number),
            memory: ledger.account(number),
            vitals: Arc::clone(&vitals[number]),
            clock,
        })?);
    }
    Ok(Shards { threads, vitals })
}

/// Sets the gauges that stand beside those of what they bound.
fn show_limits(metrics: &ServerMetrics, config: &Config) {
    metrics.queue_limit.set(count(config.shard.outbound_bytes));
    metrics.queue_watermark.set(count(config.shard.watermark()));
    metrics.inbox_limit.set(count(config.hub.inbox_bytes));
    metrics.memory_soft_limit.set(count(config.memory.soft));
    metrics.memory_hard_limit.set(count(config.memory.hard));
}

/// What others change, and gauges show.
struct Shown {
    ledger: Ledger,
    ready: Readiness,
    gate: Gate,
    begun_with: BegunWith,
    hook: webhooks::Sender,
}

/// Sets, at each scrape, the gauges of what others only count.
fn refresh(
    recorder: &Recorder,
    server: &ServerMetrics,
    shown: Shown,
    hub: &Arc<Hub>,
    watched: &watchdog::Shards,
    clock: Clock,
) -> Arc<dyn Fn() + Send + Sync> {
    let (server, watched) = (server.clone(), watched.clone());
    let (metrics, hub) = (HubMetrics::new(recorder), Arc::clone(hub));
    Arc::new(move || {
        server.ready.set(if shown.ready.is_ready() { 1.0 } else { 0.0 });
        server.memory.set(count(shown.ledger.total()));
        server.drain_progress.set(shown.begun_with.ratio(shown.gate.open()));
        metrics.rooms.set(count(hub.rooms()));
        metrics.users.set(count(hub.users()));
        metrics.history_messages.set(count(hub.budget().messages()));
        metrics.history_bytes.set(count(hub.budget().bytes()));
        metrics.history_limit.set(count(hub.budget().limit()));
        watched.refresh(clock.now());
        shown.hook.refresh();
    })
}

/// Starts what goes on beside the shards: the watchdog, the looks at certificate, settings and rooms. All end when the set is
/// dropped.
fn start_background(
    config: &Config,
    (shards, gate, ready): (watchdog::Shards, Gate, Readiness),
    (reloads, settings): (Reloads, Settings),
    (hub, hook, clock): (&Arc<Hub>, webhooks::Sender, Clock),
) -> JoinSet<()> {
    let options = config.watchdog.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(watchdog::run(watchdog::Parts { options, shards, gate, ready, clock }));
    tasks.spawn(reloads.run());
    tasks.spawn(settings.run());
    tasks.spawn(rooms::tell(Arc::clone(hub), hook, clock));
    tasks.spawn(rooms::sweep(Arc::clone(hub)));
    tasks
}

/// The configured limit, or what the process's descriptors allow where that is less.
fn connections_that_fit(configured: usize, shards: usize) -> usize {
    let reserved = DESCRIPTORS_RESERVED + shards * DESCRIPTORS_PER_SHARD + PLACES_TO_REFUSE;
    let descriptors = raise_descriptor_limit();
    // With very few descriptors half of them serve clients all the same.
    let fitting = descriptors.saturating_sub(reserved).max(descriptors / 2);
    if fitting < configured {
        tracing::warn!(
            descriptors,
            from = configured,
            to = fitting,
            "limits.connections is lowered to what the limit of open files allows"
        );
    }
    configured.min(fitting)
}

/// Tells scripts where to connect, before the first connection is accepted.
fn announce(public: SocketAddr, admin: SocketAddr, is_tls: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let scheme = if is_tls { "wss" } else { "ws" };
    writeln!(out, "listening public {scheme}://{public}/ws")?;
    writeln!(out, "listening admin http://{admin}")?;
    out.flush()
}

/// A set whose first member ends with the first shard, which by itself none does.
fn watch_over(threads: Vec<JoinHandle<()>>) -> JoinSet<()> {
    let mut set = JoinSet::new();
    for thread in threads {
        // A thread that panicked has ended as well; the panic was reported where it happened.
        set.spawn_blocking(move || drop(thread.join()));
    }
    set
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
