//! What bytes go over: a plain socket, and whatever else a connection may be made of.
//!
//! Reading and writing go through [`Transport`]; nothing above knows which kind it is.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::AsRawFd;

use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;

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
}

impl Transport {
    /// A plain socket, which must be non-blocking already.
    pub fn plain(stream: std::net::TcpStream) -> Self {
        Self(Kind::Plain(TcpStream::from_std(stream)))
    }

    /// Reads what has come; 0 means that the peer has ended its side.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is nothing; any other error but `Interrupted` ends the connection.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Plain(stream) => stream.read(into),
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
        }
    }

    /// Tells the peer that nothing more comes; reading goes on.
    ///
    /// # Errors
    ///
    /// When the connection is gone already.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Kind::Plain(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    fn source(&mut self) -> &mut TcpStream {
        match &mut self.0 {
            Kind::Plain(stream) => stream,
        }
    }
}

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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use mio::{Events, Poll};

    use super::*;

    #[test]
    fn carries_bytes_both_ways_and_the_end() {
        let (mut transport, mut peer) = connected();
        let mut poll = Poll::new().unwrap();
        poll.registry().register(&mut transport, Token(7), Interest::READABLE).unwrap();

        let slices = [IoSlice::new(b"one "), IoSlice::new(b"two")];
        assert_eq!(transport.write_vectored(&slices).unwrap(), 7);
        assert_eq!(transport.write(b"!").unwrap(), 1);
        transport.shutdown_write().unwrap();
        let mut received = String::new();
        peer.read_to_string(&mut received).unwrap();
        assert_eq!(received, "one two!");

        peer.write_all(b"back").unwrap();
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, None).unwrap();
        assert!(events.iter().any(|event| event.token() == Token(7) && event.is_readable()));
        let mut buffer = [0; 16];
        assert_eq!(transport.read(&mut buffer).unwrap(), 4);
        assert_eq!(&buffer[..4], b"back");
    }

    #[test]
    fn a_peer_is_known_by_its_address_of_either_kind_or_not_at_all() {
        for addr in ["192.0.2.1:443", "[2001:db8::1]:65535"] {
            let addr: SocketAddr = addr.parse().unwrap();
            assert_eq!(Peer::from(addr).addr(), Some(addr));
        }
        let mapped = Peer::from("[::ffff:192.0.2.1]:443".parse::<SocketAddr>().unwrap());
        assert_eq!(
            mapped.addr(),
            Some("192.0.2.1:443".parse().unwrap()),
            "as a socket for both kinds says it"
        );
        assert_eq!(Peer::default().addr(), None);
    }

    #[test]
    fn does_not_block_when_there_is_nothing() {
        let (mut transport, _peer) = connected();

        let error = transport.read(&mut [0; 16]).unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    fn connected() -> (Transport, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = listener.accept().unwrap().0;
        stream.set_nonblocking(true).unwrap();
        (Transport::plain(stream), peer)
    }
}
