//! The public listener: accepts sockets and hands each to the shard that its connection belongs to.
//!
//! Nothing is read here; even the handshake is the shard's. The loop never waits for a shard.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::admission::{Desk, Refuse};
use crate::clock::Clock;
use crate::drain;
use crate::id::ClientId;
use crate::inbox::{Admission, Command, Gate, Outlet};
use crate::log::Repeats;
use crate::metrics::{AcceptError, ListenerMetrics};
use crate::transport;

/// Bounds of the listener.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections open at once, those in their handshake included.
    pub connections: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { connections: 100_000 }
    }
}

/// Raises the process's limit of open descriptors as far as it may, and returns it.
pub fn raise_descriptor_limit() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, ..limit };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit.current = limit.maximum;
        }
    }
    limit.current.and_then(|descriptors| usize::try_from(descriptors).ok()).unwrap_or(usize::MAX)
}

/// A bound socket that does not accept yet; the kernel lets clients wait in its queue.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
}

impl Listener {
    /// Binds; port 0 lets the system choose.
    ///
    /// # Errors
    ///
    /// When the address cannot be had.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = transport::listen(address, BACKLOG)?;
        Ok(Self { socket: TcpListener::from_std(listener) })
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// When the system cannot tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until the watch says that everything ends.
    ///
    /// While draining, connections are still accepted, so that the handshake can tell them 503.
    /// Without descriptors it pauses: the clients that wait are served when others have gone.
    ///
    /// # Errors
    ///
    /// When the socket cannot be watched.
    pub async fn run(
        self,
        (gate, desk): (Gate, Desk),
        shards: Vec<Outlet>,
        mut watch: drain::Watch,
        metrics: ListenerMetrics,
        clock: Clock,
    ) -> io::Result<()> {
        assert!(!shards.is_empty(), "somebody must serve");
        let socket = transport::watch(self.socket, Interest::READABLE)?;
        let ids = ClientIds::new();
        let [failing, full] = Default::default();
        let mut dispatcher = Dispatcher { gate, desk, shards, metrics, clock, ids, failing, full };
        tokio::select! {
            () = watch.stopped() => Ok(()),
            result = dispatcher.run(&socket) => result,
        }
    }
}

struct Dispatcher {
    gate: Gate,
    desk: Desk,
    shards: Vec<Outlet>,
    metrics: ListenerMetrics,
    clock: Clock,
    ids: ClientIds,
    failing: Repeats,
    full: Repeats,
}

/// What to do after a turn of accepting.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Nobody waits.
    Wait,
    /// There may be more, after others had their turn.
    Yield,
    /// Nothing can be accepted for some time, after so many attempts went better.
    Pause { accepted: usize },
}

/// How long accepting pauses without descriptors: twice as long each time, up to a second, until one was found again.
#[derive(Debug, Default)]
struct Pauses {
    last: Duration,
}

impl Pauses {
    fn next(&mut self, accepted: usize) -> Duration {
        self.last = if accepted > 0 { PAUSE_MIN } else { (self.last * 2).clamp(PAUSE_MIN, PAUSE_MAX) };
        self.last
    }
}

impl Dispatcher {
    async fn run(&mut self, socket: &AsyncFd<TcpListener>) -> io::Result<()> {
        let mut pauses = Pauses::default();
        loop {
            let mut ready = socket.readable().await?;
            match self.accept_some(socket.get_ref()) {
                Next::Wait => {
                    ready.clear_ready();
                    pauses = Pauses::default();
                }
                Next::Yield => {
                    tokio::time::sleep(BREATH).await;
                    pauses = Pauses::default();
                }
                Next::Pause { accepted } => tokio::time::sleep(pauses.next(accepted)).await,
            }
        }
    }

    fn accept_some(&mut self, socket: &TcpListener) -> Next {
        for accepted in 0..ACCEPTS_PER_TURN {
            match socket.accept() {
                Ok((stream, peer)) => self.dispatch(stream.into(), peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Next::Wait,
                Err(error) => {
                    let reason = classify(&error);
                    self.metrics.errors[reason].increment(1);
                    if let Some(left_out) = self.failing.admit(self.clock.now()) {
                        tracing::warn!(%error, left_out, "connections cannot be accepted");
                    }
                    if reason == AcceptError::Descriptors {
                        return Next::Pause { accepted };
                    }
                }
            }
        }
        Next::Yield
    }

    fn dispatch(&mut self, stream: std::net::TcpStream, peer: SocketAddr) {
        self.metrics.accepted.increment(1);
        let entered = if self.desk.is_at_the_door(peer.ip()) {
            self.desk.enter(peer.ip(), self.clock.now())
        } else {
            Ok(None)
        };
        let (admission, mut refuse) = match &entered {
            Ok(_) => (self.gate.admit(), None),
            Err(refuse) => (self.gate.refuse(), Some(*refuse)),
        };
        if refuse.is_none() && !matches!(admission, Admission::Admitted(_)) {
            self.warn_of_limit();
            refuse = Some(Refuse::Full);
        }
        let (Admission::Admitted(mut permit) | Admission::Told(mut permit)) = admission else {
            return self.metrics.refused.count(refuse.unwrap_or(Refuse::Full).failure());
        };
        permit.add(entered.unwrap_or_default());
        let id = self.ids.next();
        let shard = &self.shards[shard_of(id, self.shards.len())];
        let accepted_at = now();
        let command = Command::Accept { stream, peer, permit, id, refuse, accepted_at };
        // A shard takes every connection; one that has ended drops it.
        let _ = shard.push(command);
    }
}

impl Dispatcher {
    fn warn_of_limit(&self) {
        let Some(left_out) = self.full.admit(self.clock.now()) else { return };
        let why = if self.gate.is_short_of_memory() {
            "the connections take more memory than limits.memory_soft"
        } else {
            "as many are open as limits.connections allows"
        };
        tracing::warn!(left_out, "a connection is refused: {why}");
    }
}

/// Numbers for connections: each once, in an order that starts anew with each process and that clients cannot guess
/// from their own, spread evenly so that they choose the shard.
struct ClientIds {
    key: u64,
    count: u64,
}

impl ClientIds {
    fn new() -> Self {
        // The standard library's hasher is keyed from the system's random source.
        Self { key: RandomState::new().hash_one(0), count: 0 }
    }

    fn next(&mut self) -> ClientId {
        self.count += 1;
        ClientId(mix(self.key.wrapping_add(self.count)))
    }
}

/// The finalizer of splitmix64: one to one, so that no number comes twice.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn shard_of(id: ClientId, shards: usize) -> usize {
    usize::from(id.shard(shards).0)
}

fn classify(error: &io::Error) -> AcceptError {
    use rustix::io::Errno;
    let out = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    if out.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) {
        AcceptError::Descriptors
    } else {
        AcceptError::Other
    }
}

#[expect(clippy::disallowed_methods, reason = "the driver of accepting reads the clock once for each socket")]
fn now() -> Instant {
    Instant::now()
}

/// What may wait to be accepted; the kernel has its own upper bound, `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Sockets accepted at a time. With [`BREATH`] they bound how fast a crowd is let in, which is somewhat faster than a shard can
/// serve it, so that accepting does not take the processor from those who are here.
const ACCEPTS_PER_TURN: usize = 64;

/// Between two such turns of a crowd.
const BREATH: Duration = Duration::from_millis(1);

const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::collections::{HashSet, VecDeque};
    use std::net::TcpStream;

    use super::*;
    use crate::admission::{self, PLACES_TO_REFUSE};
    use crate::inbox::{self, Inbox};
    use crate::metrics::Recorder;

    #[tokio::test]
    async fn hands_each_connection_to_the_shard_that_its_id_chooses() {
        let (shards, inboxes) = shards(3);
        let served = Served::start(Gate::new(100), admission::Options::default(), shards);

        let clients: Vec<_> = (0..50).map(|_| served.connect()).collect();
        let mut ids = HashSet::new();
        let mut accepted = Vec::new();
        while ids.len() < clients.len() {
            for (index, inbox) in inboxes.iter().enumerate() {
                for (id, stream, refuse) in taken(inbox) {
                    assert_eq!(shard_of(id, 3), index);
                    assert_eq!(refuse, None);
                    assert!(ids.insert(id));
                    accepted.push(stream);
                }
            }
            tokio::task::yield_now().await;
        }

        assert!(accepted.iter().all(|stream| stream.nodelay().unwrap()));
        let nothing = io::Read::read(&mut &accepted[0], &mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        served.stop().await;
    }

    #[tokio::test]
    async fn marks_connections_over_the_limit_and_closes_those_far_over_it() {
        let (shards, inboxes) = shards(1);
        let served = Served::start(Gate::new(1), admission::Options::default(), shards);
        let clients: Vec<_> = (0..2 + PLACES_TO_REFUSE).map(|_| served.connect()).collect();

        let mut fulls = Vec::new();
        let mut kept = VecDeque::new();
        while fulls.len() <= PLACES_TO_REFUSE {
            let mut commands = VecDeque::new();
            inboxes[0].take_all(&mut commands);
            for command in commands {
                let Command::Accept { refuse, .. } = &command else { panic!("{command:?}") };
                fulls.push(*refuse);
                kept.push_back(command);
            }
            tokio::task::yield_now().await;
        }
        let last = clients.last().unwrap().try_clone().unwrap();
        let read = tokio::task::spawn_blocking(move || io::Read::read(&mut &last, &mut [0]));

        assert_eq!(read.await.unwrap().unwrap(), 0, "the last one is closed without a word");
        assert_eq!(fulls[0], None);
        assert!(fulls[1..].iter().all(|refuse| *refuse == Some(Refuse::Full)));
        assert_eq!(fulls.len(), 1 + PLACES_TO_REFUSE);
        let refused = r#"fanfare_handshake_failures_total{reason="capacity"} 1"#;
        assert!(served.recorder.render().contains(refused), "and counted, as no handshake can");
        served.stop().await;
    }

    #[test]
    fn never_gives_an_id_twice_and_spreads_them_evenly() {
        let mut ids = ClientIds::new();
        let mut counts = [0_u32; 4];
        let mut seen = HashSet::new();
        for _ in 0..40_000 {
            let id = ids.next();
            assert!(seen.insert(id));
            counts[shard_of(id, 4)] += 1;
        }

        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }

    #[test]
    fn pauses_longer_each_time_until_there_was_a_descriptor_again() {
        let mut pauses = Pauses::default();
        let times: Vec<_> = [0, 0, 0, 3, 0].map(|accepted| pauses.next(accepted).as_millis()).into();
        assert_eq!(times, [10, 20, 40, 10, 20]);

        let longest = (0..100).map(|_| pauses.next(0)).max();
        assert_eq!(longest, Some(PAUSE_MAX));
    }

    #[test]
    fn knows_when_descriptors_have_run_out() {
        let failed = |errno: rustix::io::Errno| classify(&io::Error::from(errno));

        assert_eq!(failed(rustix::io::Errno::MFILE), AcceptError::Descriptors);
        assert_eq!(failed(rustix::io::Errno::NFILE), AcceptError::Descriptors);
        assert_eq!(failed(rustix::io::Errno::CONNABORTED), AcceptError::Other);
    }

    struct Served {
        address: SocketAddr,
        signal: drain::Signal,
        task: tokio::task::JoinHandle<io::Result<()>>,
        recorder: Recorder,
    }

    impl Served {
        #[expect(clippy::disallowed_methods, reason = "the test awaits its end in `stop`")]
        fn start(gate: Gate, options: admission::Options, shards: Vec<Outlet>) -> Self {
            let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let (signal, watch) = drain::pair();
            let recorder = Recorder::new();
            let metrics = ListenerMetrics::new(&recorder);
            let task = tokio::spawn(listener.run(
                (gate, Desk::new(options, 100)),
                shards,
                watch,
                metrics,
                Clock::start(),
            ));
            Self { address, signal, task, recorder }
        }

        fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).unwrap()
        }

        async fn stop(self) {
            self.signal.stop();
            self.task.await.unwrap().unwrap();
            assert!(TcpStream::connect(self.address).is_err());
        }
    }

    fn shards(count: usize) -> (Vec<Outlet>, Vec<Inbox>) {
        (0..count).map(|_| Inbox::pair(inbox::Limits::default())).unzip()
    }

    fn taken(inbox: &Inbox) -> Vec<(ClientId, TcpStream, Option<Refuse>)> {
        let mut commands = VecDeque::new();
        inbox.take_all(&mut commands);
        let accepted = |command| match command {
            Command::Accept { stream, id, refuse, .. } => (id, stream, refuse),
            other => panic!("{other:?}"),
        };
        commands.into_iter().map(accepted).collect()
    }
}
