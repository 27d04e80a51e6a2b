//! What bytes go over: a plain socket, and whatever else a connection may be made of.
//!
//! Reading and writing go through [`Transport`]; nothing above knows which kind it is.

mod certificates;
#[cfg(test)]
mod tests;
mod tls;

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::AsRawFd;

use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;

pub use certificates::{CertificateError, Certificates, Contents, File, Files, Identity, Options};
pub use tls::{Session, held};

/// Has the current runtime watch a descriptor, which `owner` keeps open until it is dropped.
///
/// # Errors
///
/// When the runtime cannot watch it.
#[expect(deprecated, reason = "its successor is unsafe, for types that lie about their descriptor")]
pub fn watch<T: AsRawFd>(owner: T, interest: tokio::io::Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(owner, interest)
}

/// Listens on an address, without blocking; `backlog` connections may wait to be accepted.
///
/// # Errors
///
/// When the system does not let the process listen there.
pub fn listen(address: SocketAddr, backlog: i32) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit it, which saves a system call for each.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// What the kernel takes of a connection's bytes before they can be sent. Without a bound it takes megabytes for a peer that
/// does not read, which no limit of the gateway counts.
const UNSENT_BYTES_MAX: u32 = 128 << 10;

/// One connection's way to its peer; never blocks.
#[derive(Debug)]
pub struct Transport(Kind);

#[derive(Debug)]
enum Kind {
    Plain(TcpStream),
    /// Boxed, so that a plain one takes no more for it.
    Tls(TcpStream, Box<Session>),
}

/// What a read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// How much was received; 0 means that the peer has ended its side.
    pub bytes: usize,
    /// Nothing is left, so that the poller tells when more comes.
    pub is_dry: bool,
}

impl Transport {
    /// A plain socket, which must be non-blocking already.
    pub fn plain(stream: std::net::TcpStream) -> Self {
        Self(Kind::Plain(TcpStream::from_std(stream)))
    }

    /// TLS with the certificate that is in force, over a socket that must be non-blocking already. Its handshake is driven by
    /// reading.
    ///
    /// # Errors
    ///
    /// When rustls cannot begin.
    pub fn tls(stream: std::net::TcpStream, certificates: &Certificates) -> io::Result<Self> {
        let session = Session::new(certificates.current())?;
        Ok(Self(Kind::Tls(TcpStream::from_std(stream), Box::new(session))))
    }

    /// The socket, and the TLS on it where there is some; for a handshake that watches one while it drives the other.
    pub fn parts(&mut self) -> (&TcpStream, Option<&mut Session>) {
        match &mut self.0 {
            Kind::Plain(stream) => (stream, None),
            Kind::Tls(stream, session) => (stream, Some(session)),
        }
    }

    /// Reads what has come into a buffer of at least [`READ_BYTES_MIN`].
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is nothing, `Interrupted` when it has to be tried again; any other error ends the connection.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<Received> {
        match &mut self.0 {
            Kind::Plain(stream) => {
                let bytes = stream.read(into)?;
                // A short read has emptied a stream socket, unless its end is what remains (epoll(7)).
                Ok(Received { bytes, is_dry: bytes < into.len() })
            }
            Kind::Tls(stream, session) => {
                let mut end = 0;
                session.read(stream, into.len(), |plain| {
                    let begin = end;
                    end += plain.len();
                    into[begin..end].copy_from_slice(plain);
                })
            }
        }
    }

    /// Writes as much as the connection takes at once.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when it takes nothing; any other error but `Interrupted` ends the connection.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Plain(stream) => stream.write(bytes),
            Kind::Tls(stream, session) => session.write(stream, &[IoSlice::new(bytes)]),
        }
    }

    /// Writes as much of the slices, in their order, as the connection takes at once.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Plain(stream) => stream.write_vectored(slices),
            Kind::Tls(stream, session) => session.write(stream, slices),
        }
    }

    /// Whether what was taken waits here for the socket.
    pub fn wants_flush(&self) -> bool {
        match &self.0 {
            Kind::Plain(_) => false,
            Kind::Tls(_, session) => session.wants_flush(),
        }
    }

    /// Writes what waits here, to be called when the socket takes more.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Kind::Plain(_) => Ok(()),
            Kind::Tls(stream, session) => match session.flush(stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                other => other,
            },
        }
    }

    /// Tells the peer that nothing more comes, behind all that was taken; reading goes on.
    ///
    /// # Errors
    ///
    /// When the connection is gone already.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Kind::Plain(stream) => stream.shutdown(Shutdown::Write),
            Kind::Tls(stream, session) => session.shutdown_write(stream),
        }
    }

    /// The last that is done with a connection. TLS tells the peer so, as far as the socket takes it at once: without that, the
    /// peer cannot know whether somebody on the way has cut off what was said (RFC 8446, 6.1).
    pub fn take_leave(&mut self) {
        if let Kind::Tls(stream, session) = &mut self.0 {
            // Fails when the connection is gone already.
            let _ = session.shutdown_write(stream);
        }
    }

    fn source(&mut self) -> &mut TcpStream {
        let (Kind::Plain(stream) | Kind::Tls(stream, _)) = &mut self.0;
        stream
    }
}

/// What a buffer to read into has at least.
pub const READ_BYTES_MIN: usize = 64 << 10;

/// The other end of a connection, in 18 bytes. An IPv4 address is mapped into IPv6 (RFC 4291 section 2.5.5.2), an IPv6 address
/// has no scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    ip: [u8; 16],
    /// 0 when it is not known.
    port: u16,
}

impl Peer {
    /// Its address, if that is known.
    pub fn addr(self) -> Option<SocketAddr> {
        let ip = IpAddr::from(self.ip).to_canonical();
        (!ip.is_unspecified()).then(|| SocketAddr::new(ip, self.port))
    }
}

impl From<SocketAddr> for Peer {
    fn from(addr: SocketAddr) -> Self {
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self { ip: ip.octets(), port: addr.port() }
    }
}

impl Source for Transport {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.source().register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.source().reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.source().deregister(registry)
    }
}
