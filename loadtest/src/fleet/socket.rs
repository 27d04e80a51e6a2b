//! Sockets to connect with: from which address and port.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use anyhow::{Context as _, Result, bail};
use mio::net::TcpStream;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// The range that Linux gives out by default.
const PORTS: RangeInclusive<u16> = 32_768..=60_999;

/// Where connections come from.
#[derive(Debug)]
pub(crate) struct Sources {
    addresses: Vec<IpAddr>,
    /// For each address, where the search for a free port goes on.
    next_ports: Vec<u16>,
    turn: usize,
}

impl Sources {
    /// Connections take turns over the addresses; without any, the system chooses.
    pub(crate) fn new(addresses: Vec<IpAddr>) -> Self {
        Self { next_ports: vec![*PORTS.start(); addresses.len()], addresses, turn: 0 }
    }

    /// Begins to connect.
    ///
    /// # Errors
    ///
    /// When there is no descriptor or no port left, or the target is refused at once.
    pub(crate) fn connect(&mut self, target: SocketAddr) -> Result<TcpStream> {
        let socket = if self.addresses.is_empty() {
            new_socket(target)?
        } else {
            self.turn = (self.turn + 1) % self.addresses.len();
            bound_socket(target, self.addresses[self.turn], &mut self.next_ports[self.turn])?
        };
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                Err(explain(error))
            }
            _ => Ok(TcpStream::from_std(socket.into())),
        }
    }
}

/// Closing will send a reset, as when a machine is switched off.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    // When this fails, the connection is gone already.
    let _ = SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
}

fn explain(error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::AddrNotAvailable {
        return anyhow::Error::from(error)
            .context("no free port: name more addresses with --source-ip, such as 127.0.0.2-127.0.0.9");
    }
    error.into()
}

/// A socket bound to the address, at a port of ours: the kernel's own search for a free port becomes slow when
/// thousands of sockets are bound to one address.
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
    bail!("no free port at {source}: name more addresses with --source-ip")
}

fn new_socket(target: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn connections_take_turns_over_the_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let mut sources = Sources::new(vec!["127.0.0.2".parse().unwrap(), "127.0.0.3".parse().unwrap()]);
        let from: Vec<IpAddr> = (0..4)
            .map(|_| {
                let _stream = sources.connect(target).unwrap();
                listener.accept().unwrap().1.ip()
            })
            .collect();
        assert!(from[0] != from[1] && from[0] == from[2] && from[1] == from[3]);
    }
}
