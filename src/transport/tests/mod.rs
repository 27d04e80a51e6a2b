//! Plain sockets; TLS has tests of its own.

mod tls;

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
    assert_eq!(transport.read(&mut buffer).unwrap(), Received { bytes: 4, is_dry: true });
    assert_eq!(&buffer[..4], b"back");
}

#[test]
fn a_peer_is_known_by_its_address_of_either_kind_or_not_at_all() {
    for addr in ["192.0.2.1:443", "[2001:db8::1]:65535"] {
        let addr: SocketAddr = addr.parse().unwrap();
        assert_eq!(Peer::from(addr).addr(), Some(addr));
    }
    let mapped = Peer::from("[::ffff:192.0.2.1]:443".parse::<SocketAddr>().unwrap());
    assert_eq!(mapped.addr(), Some("192.0.2.1:443".parse().unwrap()), "as a socket for both kinds says it");
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
