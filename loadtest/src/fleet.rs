//! All connections of a run, on one thread: connecting, upgrading, reading into one buffer.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};
use tungstenite::handshake::client::Response;
use tungstenite::handshake::machine::TryParse as _;

use crate::clock::Clock;
use crate::frames::{self, Kind};
use crate::receiver::Receiver;
use crate::rooms::{self, Member, Rooms};
use crate::target::Target;

/// No frame of a run is longer than this.
const SCRATCH_BYTES: usize = 256 * 1024;
const EVENTS: usize = 1024;
/// Connections between `connect` and the end of the upgrade; fewer than any listener's backlog.
const OPENING: usize = 100;
/// The range that Linux gives out by default.
const PORTS: RangeInclusive<u16> = 32_768..=60_999;
const STALL: Duration = Duration::from_secs(10);

pub(crate) struct Fleet {
    poll: Poll,
    target: Target,
    sources: Vec<IpAddr>,
    /// For each source address, where the search for a free port goes on.
    next_ports: Vec<u16>,
    connect_rate: Option<u32>,
    clock: Clock,
    scratch: Vec<u8>,
    events: Events,
    publications: Vec<u8>,
    connections: Vec<Connection>,
    ready: usize,
    /// Connections that ended, by what was said about it.
    pub(crate) ended: BTreeMap<String, u64>,
    pub(crate) rooms: Rooms,
}

struct Connection {
    stream: TcpStream,
    stage: Stage,
    member: Member,
    receiver: Receiver,
    /// The head of a frame whose rest has not come yet.
    inbound: Vec<u8>,
    /// What the socket did not take yet.
    outbound: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Upgrading,
    Joining,
    Ready,
    Ended,
}

impl Fleet {
    pub(crate) fn new(
        target: Target,
        sources: Vec<IpAddr>,
        connect_rate: Option<u32>,
        clock: Clock,
        rooms: Rooms,
    ) -> Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            target,
            next_ports: vec![*PORTS.start(); sources.len()],
            sources,
            connect_rate,
            clock,
            scratch: vec![0; SCRATCH_BYTES],
            events: Events::with_capacity(EVENTS),
            publications: Vec::new(),
            connections: Vec::new(),
            ready: 0,
            ended: BTreeMap::new(),
            rooms,
        })
    }

    /// Connections that are open and have joined.
    pub(crate) fn ready(&self) -> usize {
        self.ready
    }

    /// Messages that were sent and did not arrive, over all connections.
    pub(crate) fn lost(&self) -> u64 {
        let open = self.connections.iter().filter(|connection| connection.stage == Stage::Ready);
        open.map(|connection| self.rooms.lost(connection.member.connection, &connection.receiver)).sum()
    }

    /// Opens connections until there are so many, and returns how long it took.
    ///
    /// # Errors
    ///
    /// When one is refused or nothing moves for ten seconds.
    pub(crate) fn open(&mut self, total: usize, progress: &mut dyn FnMut(usize)) -> Result<Duration> {
        let began = self.clock.elapsed();
        let first = self.connections.len();
        let (mut moved, mut seen) = (began, self.ready);
        while self.ready < total {
            while self.connections.len() < total && self.connections.len() - self.ready < OPENING {
                let allowed = self.connect_rate.map_or(u128::MAX, |rate| {
                    self.clock.elapsed().saturating_sub(began).as_micros() * u128::from(rate) / 1_000_000
                });
                if (self.connections.len() - first) as u128 > allowed {
                    break;
                }
                self.connect()?;
            }
            self.turn(Duration::from_millis(if self.connect_rate.is_some() { 1 } else { 100 }))?;
            if let Some(reason) = self.ended.keys().next() {
                bail!("a connection ended after {} of {total} were open: {reason}", self.ready);
            }
            let now = self.clock.elapsed();
            if self.ready != seen || self.connect_rate.is_some() && self.connections.len() == self.ready {
                (moved, seen) = (now, self.ready);
                progress(seen);
            } else if now.saturating_sub(moved) > STALL {
                bail!("no answer for {STALL:?} after {} of {total} connections were open", self.ready);
            }
        }
        Ok(self.clock.elapsed().saturating_sub(began))
    }

    /// Serves the connections until a moment of the clock, until none is left, or until nothing is
    /// outstanding if so wished.
    pub(crate) fn serve(&mut self, until: Duration, stop_when_quiet: bool) -> Result<()> {
        let mut checked = (self.clock.elapsed(), self.rooms.counts.deliveries);
        loop {
            let now = self.clock.elapsed();
            if now >= until || self.ready == 0 || stop_when_quiet && self.rooms.outstanding() == 0 {
                return Ok(());
            }
            if self.rooms.counts.deliveries != checked.1 || self.rooms.outstanding() == 0 {
                checked = (now, self.rooms.counts.deliveries);
            } else if now.saturating_sub(checked.0) > STALL {
                bail!(
                    "stalled: {} messages outstanding, none delivered for {STALL:?}",
                    self.rooms.outstanding()
                );
            }
            self.turn(until.saturating_sub(now).min(Duration::from_millis(100)))?;
        }
    }

    /// Sends the publications that are due.
    pub(crate) fn publish(&mut self) {
        let mut frames = std::mem::take(&mut self.publications);
        while let Some(publisher) = self.rooms.next_due(&mut frames) {
            if !frames.is_empty() {
                self.send(publisher as usize, &frames);
                frames.clear();
            }
        }
        self.publications = frames;
    }

    fn connect(&mut self) -> Result<()> {
        let number = self.connections.len();
        let mut stream = self
            .open_socket(number)
            .with_context(|| format!("connection {number} to {}", self.target.address))?;
        self.poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        let connection = u32::try_from(number)?;
        self.connections.push(Connection {
            stream,
            stage: Stage::Connecting,
            member: Member { connection, room: self.rooms.of(connection) },
            receiver: Receiver::default(),
            inbound: Vec::new(),
            outbound: Vec::new(),
        });
        Ok(())
    }

    fn open_socket(&mut self, number: usize) -> Result<TcpStream> {
        let target = self.target.address;
        let socket = if self.sources.is_empty() {
            new_socket(target)?
        } else {
            let place = number % self.sources.len();
            bound_socket(target, self.sources[place], &mut self.next_ports[place])?
        };
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                Err(error.into())
            }
            _ => Ok(TcpStream::from_std(socket.into())),
        }
    }

    /// One turn of the loop: waits for events, and handles them.
    fn turn(&mut self, timeout: Duration) -> Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let mut scratch = std::mem::take(&mut self.scratch);
        for event in &events {
            self.handle(event, &mut scratch);
            self.publish();
        }
        (self.events, self.scratch) = (events, scratch);
        Ok(())
    }

    fn handle(&mut self, event: &Event, scratch: &mut [u8]) {
        let Token(number) = event.token();
        if event.is_writable() {
            self.writable(number);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            let outcome = self.read(number, scratch);
            if let Err(error) = outcome {
                self.end(number, &format!("{error:#}"));
            }
        }
    }

    fn writable(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        if connection.stage == Stage::Connecting {
            match connection.stream.take_error() {
                Ok(None) => {
                    connection.stage = Stage::Upgrading;
                    let request = std::mem::take(&mut self.target.request);
                    self.send(number, &request);
                    self.target.request = request;
                }
                Ok(Some(error)) | Err(error) => self.end(number, &format!("connect: {error}")),
            }
        } else if !connection.outbound.is_empty() {
            let waiting = std::mem::take(&mut connection.outbound);
            self.send(number, &waiting);
        }
    }

    fn read(&mut self, number: usize, scratch: &mut [u8]) -> Result<()> {
        loop {
            let connection = &mut self.connections[number];
            if matches!(connection.stage, Stage::Ended | Stage::Connecting) {
                return Ok(());
            }
            let kept = connection.inbound.len();
            scratch[..kept].copy_from_slice(&connection.inbound);
            let read = match connection.stream.read(&mut scratch[kept..]) {
                Ok(0) => bail!("the server closed without a Close frame"),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("read"),
            };
            let filled = kept + read;
            let used = self.digest(number, &scratch[..filled])?;
            if used == 0 && filled == scratch.len() {
                bail!("a frame longer than {SCRATCH_BYTES} bytes");
            }
            let connection = &mut self.connections[number];
            connection.inbound.clear();
            connection.inbound.extend_from_slice(&scratch[used..filled]);
            // A short read has emptied the socket: what comes later raises a new event.
            if filled < scratch.len() {
                return Ok(());
            }
        }
    }

    /// Handles what is whole at the head of the bytes, and says how many they were.
    fn digest(&mut self, number: usize, bytes: &[u8]) -> Result<usize> {
        let mut used = 0;
        if self.connections[number].stage == Stage::Upgrading {
            let Some((length, response)) = Response::try_parse(bytes)? else { return Ok(0) };
            self.target.verify(&response)?;
            used = length;
            self.upgraded(number);
        }
        self.rooms.bytes_arrived();
        while let Some(frame) = frames::first(&bytes[used..]).map_err(anyhow::Error::msg)? {
            used += frame.length;
            let connection = &mut self.connections[number];
            match frame.kind {
                Kind::Text if connection.stage == Stage::Ready => {
                    self.rooms.deliver(connection.member, &mut connection.receiver, frame.payload);
                }
                Kind::Text if rooms::is_join_answer(frame.payload)? => self.joined(number),
                Kind::Text | Kind::Pong => {}
                Kind::Ping => {
                    let mut pong = Vec::new();
                    frames::write_pong(frame.payload, &mut pong);
                    self.send(number, &pong);
                }
                Kind::Close => bail!("{}", describe_close(frame.payload)),
            }
        }
        Ok(used)
    }

    fn upgraded(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        if let Some(room) = connection.member.room {
            connection.stage = Stage::Joining;
            let mut frame = Vec::new();
            frames::write_text(&rooms::join_request(room), &mut frame);
            self.send(number, &frame);
        } else {
            connection.stage = Stage::Ready;
            self.ready += 1;
        }
    }

    fn joined(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        connection.stage = Stage::Ready;
        self.ready += 1;
        if let Some(room) = connection.member.room {
            self.rooms.enter(room);
        }
    }

    fn send(&mut self, number: usize, bytes: &[u8]) {
        let connection = &mut self.connections[number];
        if connection.stage == Stage::Ended {
            return;
        }
        let mut rest = bytes;
        while connection.outbound.is_empty() && !rest.is_empty() {
            match connection.stream.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return self.end(number, &format!("write: {error}")),
            }
        }
        connection.outbound.extend_from_slice(rest);
    }

    fn end(&mut self, number: usize, reason: &str) {
        let connection = &mut self.connections[number];
        let was = std::mem::replace(&mut connection.stage, Stage::Ended);
        if was == Stage::Ended {
            return;
        }
        *self.ended.entry(reason.to_owned()).or_default() += 1;
        // Of two errors in one the second adds nothing: the socket is closed either way.
        let _ = self.poll.registry().deregister(&mut connection.stream);
        let _ = connection.stream.shutdown(std::net::Shutdown::Both);
        if was == Stage::Ready {
            self.ready -= 1;
            self.rooms.leave(connection.member.connection, &connection.receiver);
        }
    }
}

/// A socket bound to the address, at a port of ours: the kernel's own search for a free port
/// becomes slow when thousands of sockets are bound to one address.
fn bound_socket(target: SocketAddr, source: IpAddr, next_port: &mut u16) -> Result<Socket> {
    for _ in PORTS {
        let port = *next_port;
        *next_port = if port == *PORTS.end() { *PORTS.start() } else { port + 1 };
        let socket = new_socket(target)?;
        socket.set_reuse_address(true)?;
        match socket.bind(&SocketAddr::new(source, port).into()) {
            Ok(()) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error).with_context(|| format!("bind to {source}")),
        }
    }
    bail!("no free port at {source}: name more addresses")
}

fn new_socket(target: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

fn describe_close(payload: &[u8]) -> String {
    match payload {
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            format!("the server closed with {code} {}", String::from_utf8_lossy(reason))
        }
        _ => "the server closed without a code".to_owned(),
    }
}
