//! Who comes: what a proxy says before the client does, and the limits by address.

use std::io;
use std::net::SocketAddr;

use hyper::Request;
use hyper::header::HeaderValue;

use crate::admission::{Place, Refuse, Taken, proxy};
use crate::metrics::HandshakeFailure;

use super::Shared;
use super::link::Link;
use super::refusal::Refusal;

/// A connection on its way in.
pub(super) struct Caller {
    /// The other end, as far as it is known.
    pub(super) peer: SocketAddr,
    /// Why its request can only be answered with that, if so.
    pub(super) refuse: Option<Refuse>,
    /// Its place among those of its address, unless the listener has it.
    pub(super) place: Option<Place>,
    /// Its place among those that are told why they are refused, unless the listener has it.
    told: Option<Taken>,
    /// Whether the limits by address have been looked at.
    is_known: bool,
}

/// What becomes of a connection that is not even asked what it wants.
pub(super) enum TurnedAway {
    /// It is answered.
    Told(Refusal),
    /// It is closed without a word.
    Dropped(HandshakeFailure),
}

impl Caller {
    /// One that was accepted, and is refused for this reason, if for any.
    pub(super) fn new(peer: SocketAddr, refuse: Option<Refuse>, shared: &Shared) -> Self {
        let is_known = refuse.is_some() || shared.desk.is_at_the_door(peer.ip());
        Self { peer, refuse, place: None, told: None, is_known }
    }

    /// Reads what a proxy says first, byte for byte, so that whatever is behind it is still to be read; and takes a place
    /// among those of the address, unless only the request tells it.
    ///
    /// # Errors
    ///
    /// When the connection ends.
    pub(super) async fn arrive(
        &mut self,
        link: &mut Link<'_>,
        shared: &Shared,
    ) -> io::Result<Result<(), TurnedAway>> {
        let proxies = shared.desk.proxies();
        if proxies.expects_header(self.peer.ip()) {
            match read_header(link).await? {
                Ok(header) => self.peer = header.client.unwrap_or(self.peer),
                Err(proxy::Malformed) => return Ok(Err(TurnedAway::Told(Refusal::proxy()))),
            }
        }
        if self.is_known || proxies.expects_forwarded_for(self.peer.ip()) {
            return Ok(Ok(()));
        }
        if let Err(refuse) = self.enter(shared) {
            self.told = shared.desk.tell();
            if self.told.is_none() {
                return Ok(Err(TurnedAway::Dropped(refuse.failure())));
            }
            self.refuse = Some(refuse);
        }
        Ok(Ok(()))
    }

    /// Finds the client that its proxies name in the request, where only that tells it, and takes a place among those of
    /// its address.
    ///
    /// # Errors
    ///
    /// The limit that it is over.
    pub(super) fn look_at<B>(&mut self, request: &Request<B>, shared: &Shared) -> Result<(), Refuse> {
        if self.is_known {
            return Ok(());
        }
        let values = request.headers().get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
        let client = shared.desk.proxies().client(self.peer.ip(), values);
        if client != self.peer.ip() {
            // The port is that of the proxy's connection, and none of the client's.
            self.peer = SocketAddr::new(client, 0);
        }
        self.enter(shared)
    }

    fn enter(&mut self, shared: &Shared) -> Result<(), Refuse> {
        self.is_known = true;
        self.place = shared.desk.enter(self.peer.ip(), shared.clock.now())?;
        Ok(())
    }
}

async fn read_header(link: &mut Link<'_>) -> io::Result<Result<proxy::Header, proxy::Malformed>> {
    let mut header = Vec::new();
    loop {
        match proxy::parse(&header) {
            Ok(Some(header)) => return Ok(Ok(header)),
            Ok(None) => {}
            Err(error) => return Ok(Err(error)),
        }
        let missing = proxy::missing(&header);
        if link.read_bare(missing, &mut header).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

const X_FORWARDED_FOR: &str = "x-forwarded-for";

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::Shutdown;

    use super::super::tests::{connected, shared_by};
    use super::*;
    use crate::admission::{Options, Proxies};
    use crate::transport::Transport;

    fn proxies() -> Options {
        let trusted = vec!["127.0.0.0/8".parse().unwrap()];
        let proxies = Proxies { trusted, protocol: true, forwarded_for: false };
        Options { connections_per_address: Some(1), proxies, ..Options::default() }
    }

    #[tokio::test]
    async fn what_is_behind_the_header_of_a_proxy_is_left_to_be_read() {
        const BEHIND: &[u8] = b"\x16\x03\x01 whatever it is";
        let shared = shared_by(proxies());
        let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x07\x7f\0\0\x01\x12\x67\0\x50";
        for header in [&b"PROXY TCP4 198.51.100.7 127.0.0.1 4711 80\r\n"[..], v2] {
            let (mut client, server) = connected();
            client.write_all(&[header, BEHIND].concat()).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut caller = Caller::new(server.peer_addr().unwrap(), None, &shared);
            let mut transport = Transport::plain(server);

            let arrived = caller.arrive(&mut Link::new(&mut transport), &shared).await;

            assert!(matches!(arrived, Ok(Ok(()))));
            assert_eq!(caller.peer, "198.51.100.7:4711".parse().unwrap());
            let mut behind = Vec::new();
            transport.parts().0.read_to_end(&mut behind).unwrap();
            assert_eq!(behind, BEHIND);
        }
    }

    #[tokio::test]
    async fn who_is_over_a_limit_is_told_so_or_closed_and_those_told_are_few() {
        let shared = shared_by(proxies());
        let mut callers = Vec::new();
        let mut dropped = 0;
        for _ in 0..30 {
            let (mut client, server) = connected();
            client.write_all(b"PROXY TCP4 198.51.100.7 127.0.0.1 4711 80\r\n").unwrap();
            let mut caller = Caller::new(server.peer_addr().unwrap(), None, &shared);
            let mut transport = Transport::plain(server);
            match caller.arrive(&mut Link::new(&mut transport), &shared).await.unwrap() {
                Ok(()) => callers.push(caller),
                Err(TurnedAway::Dropped(HandshakeFailure::AddressLimit)) => dropped += 1,
                Err(TurnedAway::Told(_) | TurnedAway::Dropped(_)) => panic!("the header is good"),
            }
        }

        assert!(callers[0].refuse.is_none());
        assert!(callers[1..].iter().all(|caller| caller.refuse == Some(Refuse::AddressLimit)));
        assert_eq!((callers.len(), dropped), (1 + 16, 13));
        drop(callers);
        assert!(shared.desk.tell().is_some());
        assert!(shared.desk.enter([198, 51, 100, 7].into(), 0).is_ok());
    }
}
