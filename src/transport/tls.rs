//! TLS over a socket that does not block, by rustls, which does no input or output of its own.
//!
//! A session holds no buffers while nothing is under way: ciphertext goes through two that all connections of a thread
//! share. What a session does keep is the beginning of a record that has not come whole, and the end of what the socket did
//! not take, both bounded and counted in [`held`]. So plaintext never waits in here: a read hands out all there is of
//! what it took from the socket.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeTlsData, UnbufferedStatus};

use super::Received;

/// What sessions of this thread take of memory, in bytes.
pub fn held() -> usize {
    HELD.get()
}

/// One connection's TLS.
pub struct Session {
    connection: UnbufferedServerConnection,
    /// Ciphertext of a record, or of a message of the handshake, that has not come whole.
    incoming: Vec<u8>,
    /// Ciphertext that the socket did not take; empty while nothing waits.
    outgoing: Vec<u8>,
    /// How much of `outgoing` it has taken since.
    written: usize,
    /// The peer has said that nothing more comes.
    peer_has_ended: bool,
    /// rustls or the session has given up, and rustls is not asked again.
    has_failed: bool,
    end: End,
    /// What is in [`HELD`] for it.
    counted: usize,
}

/// How far our side has come in ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// Said in `outgoing`; the socket is shut when that is written.
    Waits,
    Shut,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("end", &self.end).finish_non_exhaustive()
    }
}

impl Session {
    /// Waits for the peer to begin the handshake.
    ///
    /// # Errors
    ///
    /// When rustls cannot use the configuration.
    pub(super) fn new(config: Arc<ServerConfig>) -> io::Result<Self> {
        let connection = UnbufferedServerConnection::new(config).map_err(invalid)?;
        let mut session = Self {
            connection,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            written: 0,
            peer_has_ended: false,
            has_failed: false,
            end: End::Open,
            counted: 0,
        };
        session.count();
        Ok(session)
    }

    /// Takes ciphertext from the socket once, `budget` bytes with what was kept at most, and hands out what is in it, in
    /// parts that together are no longer. The handshake is driven by it as well.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when the socket has nothing, `Interrupted` when there may be more but nothing to hand out yet.
    /// `InvalidData` when the peer breaks the protocol or gives up, of which it has been told: nothing comes out any more; `UnexpectedEof` when the
    /// socket has ended and the peer did not say so.
    pub fn read(
        &mut self,
        socket: &TcpStream,
        budget: usize,
        take: impl FnMut(&[u8]),
    ) -> io::Result<Received> {
        if self.peer_has_ended {
            return Ok(Received { bytes: 0, is_dry: false });
        }
        if self.has_failed {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let received = BUFFERS.with_borrow_mut(|buffers| self.receive(socket, budget, buffers, take));
        self.count();
        received
    }

    /// Encrypts and writes as much of the slices, in their order, as the socket takes, and a little more: what it leaves of
    /// the last [`FLIGHT_BYTES`] waits here, and [`wants_flush`](Self::wants_flush) says so.
    ///
    /// # Errors
    ///
    /// `WouldBlock` while something waits; any other ends the connection.
    pub fn write(&mut self, socket: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush(socket)?;
        let taken = BUFFERS.with_borrow_mut(|buffers| {
            let mut flights = Flights { slices, taken: 0 };
            let mut taken = 0;
            loop {
                let flight = flights.next(&mut buffers.gathered);
                if flight.is_empty() {
                    return Ok(taken);
                }
                let length = self.encrypt(Said::Data(flight), &mut buffers.output)?;
                taken += flight.len();
                if !self.send(socket, &buffers.output[..length])? {
                    return Ok(taken);
                }
            }
        });
        self.count();
        taken
    }

    /// Whether something waits that the socket did not take.
    pub fn wants_flush(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Writes what waits.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when some of it goes on waiting; any other ends the connection.
    pub fn flush(&mut self, mut socket: &TcpStream) -> io::Result<()> {
        while self.written < self.outgoing.len() {
            match socket.write(&self.outgoing[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.written > 0 {
            self.written = 0;
            self.outgoing = Vec::new();
            self.count();
        }
        if self.end == End::Waits {
            self.end = End::Shut;
            socket.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }

    /// Tells the peer that nothing more comes, and shuts the socket's sending side when that is written.
    ///
    /// # Errors
    ///
    /// When the connection is gone already.
    pub fn shutdown_write(&mut self, socket: &TcpStream) -> io::Result<()> {
        if self.end != End::Open {
            return Ok(());
        }
        self.end = End::Waits;
        BUFFERS.with_borrow_mut(|buffers| {
            match self.encrypt(Said::Nothing, &mut buffers.output) {
                Ok(length) => self.outgoing.extend_from_slice(&buffers.output[..length]),
                // Not even the handshake is done: there is nothing to be said in.
                Err(error) => tracing::trace!(%error, "ended without close_notify"),
            }
        });
        self.count();
        match self.flush(socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }

    fn receive(
        &mut self,
        mut socket: &TcpStream,
        budget: usize,
        buffers: &mut Buffers,
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<Received> {
        let kept = self.incoming.len();
        let limit = budget.min(buffers.input.len());
        debug_assert!(kept < limit, "the budget is larger than what may be kept");
        let count = match socket.read(&mut buffers.input[kept..limit]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            other => other?,
        };
        buffers.input[..kept].copy_from_slice(&self.incoming);
        let (input, output) = (&mut buffers.input[..kept + count], &mut buffers.output);
        let processed = self.process(input, output, &mut take);
        // Also what tells the peer of a fault is written, as far as the socket takes it at once.
        match self.flush(socket) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock && processed.is_ok() => {
                return Err(error);
            }
            _ => {}
        }
        let (used, bytes) = processed.map_err(invalid)?;
        self.keep(&input[used..])?;
        let is_dry = kept + count < limit && !self.peer_has_ended;
        match bytes {
            0 if self.peer_has_ended => Ok(Received { bytes, is_dry }),
            0 if is_dry => Err(io::ErrorKind::WouldBlock.into()),
            0 => Err(io::ErrorKind::Interrupted.into()),
            _ => Ok(Received { bytes, is_dry }),
        }
    }

    /// Goes through what has come; returns how much of it is done with, and how much plaintext was in it.
    fn process(
        &mut self,
        input: &mut [u8],
        output: &mut [u8],
        take: &mut impl FnMut(&[u8]),
    ) -> Result<(usize, usize), rustls::Error> {
        let (mut used, mut bytes) = (0, 0);
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut input[used..]);
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        bytes += record.payload.len();
                        take(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, output, &mut self.outgoing)?,
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.peer_has_ended = true,
                Ok(_) => return Ok((used + discard, bytes)),
                Err(error) => {
                    self.has_failed = true;
                    used += discard;
                    // What it had to say, the alert last.
                    while self.connection.wants_write() {
                        let status = self.connection.process_tls_records(&mut input[used..]);
                        let Ok(ConnectionState::EncodeTlsData(data)) = status.state else { break };
                        encode(data, output, &mut self.outgoing)?;
                    }
                    return Err(error);
                }
            }
            used += discard;
        }
    }

    /// Keeps what is of use only with what comes later.
    fn keep(&mut self, rest: &[u8]) -> io::Result<()> {
        if rest.len() > INCOMING_BYTES_MAX {
            self.has_failed = true;
            return Err(invalid("the peer sends a handshake that is too long"));
        }
        if self.outgoing.len() > OUTGOING_BYTES_MAX {
            self.has_failed = true;
            return Err(invalid("the peer does not read what it is answered"));
        }
        if rest.is_empty() {
            self.incoming = Vec::new();
        } else {
            self.incoming.clear();
            self.incoming.reserve_exact(rest.len());
            self.incoming.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Has something encrypted, once what rustls itself has to say is in `outgoing`; returns the length of the ciphertext.
    fn encrypt(&mut self, what: Said<'_>, output: &mut [u8]) -> io::Result<usize> {
        if self.has_failed {
            return Err(io::ErrorKind::NotConnected.into());
        }
        loop {
            // What was kept has been gone through, but rustls knows places in it.
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut self.incoming);
            match state.map_err(invalid)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let length = match what {
                        Said::Data(plain) => traffic.encrypt(plain, output),
                        Said::Nothing => traffic.queue_close_notify(output),
                    };
                    return length.map_err(invalid);
                }
                ConnectionState::EncodeTlsData(data) => {
                    encode(data, output, &mut self.outgoing).map_err(invalid)?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => self.peer_has_ended = true,
                _ => return Err(io::ErrorKind::NotConnected.into()),
            }
            self.incoming.drain(..discard);
        }
    }

    /// Writes ciphertext behind what waits; false when not all of it is written.
    fn send(&mut self, mut socket: &TcpStream, mut bytes: &[u8]) -> io::Result<bool> {
        while !bytes.is_empty() && self.outgoing.is_empty() {
            match socket.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if bytes.is_empty() {
            return Ok(true);
        }
        self.outgoing.extend_from_slice(bytes);
        match self.flush(socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Has its memory counted as it is.
    fn count(&mut self) {
        let bytes = SESSION_BYTES + self.incoming.capacity() + self.outgoing.capacity();
        HELD.set(HELD.get() - self.counted + bytes);
        self.counted = bytes;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The thread's own may be gone already when the thread ends.
        let _ = HELD.try_with(|held| held.set(held.get() - self.counted));
    }
}

/// What is to be encrypted.
#[derive(Clone, Copy)]
enum Said<'a> {
    Data(&'a [u8]),
    /// That nothing more comes.
    Nothing,
}

/// Slices, taken in parts.
struct Flights<'a, 'b> {
    slices: &'a [IoSlice<'b>],
    /// How much of the first one was taken.
    taken: usize,
}

impl<'a> Flights<'a, '_> {
    /// The next [`FLIGHT_BYTES`], or what is left: as it is where it lies together, else gathered, so that small slices share
    /// a record. Empty at the end.
    fn next<'c>(&mut self, gathered: &'c mut Vec<u8>) -> &'c [u8]
    where
        'a: 'c,
    {
        if let Some((first, others)) = self.slices.split_first() {
            let rest = &first[self.taken..];
            if others.is_empty() || rest.len() >= FLIGHT_BYTES {
                return self.take(FLIGHT_BYTES);
            }
        }
        gathered.clear();
        while gathered.len() < FLIGHT_BYTES && !self.slices.is_empty() {
            let part = self.take(FLIGHT_BYTES - gathered.len());
            gathered.extend_from_slice(part);
        }
        gathered
    }

    /// As much of the first slice.
    fn take(&mut self, limit: usize) -> &'a [u8] {
        let rest = &self.slices[0][self.taken..];
        if rest.len() <= limit {
            (self.slices, self.taken) = (&self.slices[1..], 0);
            return rest;
        }
        self.taken += limit;
        &rest[..limit]
    }
}

/// What all sessions of a thread share.
struct Buffers {
    /// What came from a socket, behind what the session kept.
    input: Box<[u8]>,
    /// What goes to one.
    output: Box<[u8]>,
    /// Plaintext that did not lie together.
    gathered: Vec<u8>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            input: vec![0; INPUT_BYTES].into_boxed_slice(),
            output: vec![0; FLIGHT_BYTES + OVERHEAD_BYTES].into_boxed_slice(),
            gathered: Vec::new(),
        }
    }
}

fn encode<Data>(
    mut data: EncodeTlsData<'_, Data>,
    output: &mut [u8],
    outgoing: &mut Vec<u8>,
) -> Result<(), rustls::Error> {
    let length = data.encode(output).map_err(|error| rustls::Error::General(error.to_string()))?;
    outgoing.extend_from_slice(&output[..length]);
    Ok(())
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Plaintext that is encrypted before the socket is tried: two records of the largest size (RFC 8446, 5.1). What it does not
/// take of them waits in the session, which is why there are no more.
const FLIGHT_BYTES: usize = 32 << 10;

/// What that grows by, with a message of rustls' own between.
const OVERHEAD_BYTES: usize = 1 << 10;

/// What a session may keep of what came: a record is at most 18 KiB (RFC 5246, 6.2.3), and a chain of client certificates may
/// need more than one.
const INCOMING_BYTES_MAX: usize = 32 << 10;

/// What may wait to be written when a session takes more in. A handshake is shorter, and later rustls answers little.
const OUTGOING_BYTES_MAX: usize = 128 << 10;

/// What one read takes, with what was kept.
const INPUT_BYTES: usize = 64 << 10;

/// What an idle session takes besides its buffers: itself, and what rustls has allocated for it, mostly keys.
const SESSION_BYTES: usize = size_of::<Session>() + (3 << 10);
