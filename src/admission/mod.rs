//! Who comes in, by where they come from: limits by address, the rate of handshakes, and the real address behind proxies.

mod addresses;
mod forwarded;
mod places;
pub mod proxy;

use core::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use crate::metrics::HandshakeFailure;

pub use addresses::Place;
use addresses::{Addresses, Rate};
pub use places::{PLACES_TO_REFUSE, Places, Taken};

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuse {
    /// As many connections are open as may be, or they take too much memory.
    Full,
    /// A crowd came, and this one waited too long for its turn; it shall come back after so many seconds.
    Crowd(u8),
    /// Its address has as many connections as it may have.
    AddressLimit,
    /// Its address begins connections too fast.
    AddressRate,
    /// All together begin connections too fast.
    Rate,
}

impl Refuse {
    /// What it is counted as.
    pub fn failure(self) -> HandshakeFailure {
        match self {
            Self::Full => HandshakeFailure::Capacity,
            Self::Crowd(_) => HandshakeFailure::Overload,
            Self::AddressLimit => HandshakeFailure::AddressLimit,
            Self::AddressRate => HandshakeFailure::AddressRate,
            Self::Rate => HandshakeFailure::Rate,
        }
    }
}

/// Bounds by address, and the proxies that are believed.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Connections of one address; none: no limit.
    pub connections_per_address: Option<usize>,
    /// Handshakes of all addresses in a second, as many at once; none: no limit.
    pub handshakes_per_second: Option<usize>,
    /// The same of one address.
    pub handshakes_per_second_per_address: Option<usize>,
    /// Who tells whom they speak for.
    pub proxies: Proxies,
}

/// Proxies before the gateway.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// Where they are.
    pub trusted: Vec<IpNet>,
    /// Whether each of their connections begins with a header of the PROXY protocol.
    pub protocol: bool,
    /// Whether their `X-Forwarded-For` is believed.
    pub forwarded_for: bool,
}

impl Proxies {
    /// Whether a connection of this address begins with a header of the PROXY protocol.
    pub fn expects_header(&self, peer: IpAddr) -> bool {
        self.protocol && self.is_trusted(peer)
    }

    /// The client that the values of `X-Forwarded-For` name, from the first header to the last, when they came from `peer`:
    /// the last address that is no trusted proxy's. What stands before that may be anything that a client wrote.
    pub fn client<'a>(&self, peer: IpAddr, values: impl DoubleEndedIterator<Item = &'a [u8]>) -> IpAddr {
        if !self.forwarded_for {
            return peer;
        }
        forwarded::client(peer, values, |address| self.is_trusted(address))
    }

    /// Whether a request on a connection of this address may name the client by `X-Forwarded-For`.
    pub fn expects_forwarded_for(&self, peer: IpAddr) -> bool {
        self.forwarded_for && self.is_trusted(peer)
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|network| network.contains(&address))
    }
}

/// Lets connections in within the limits by address; cheap to clone.
#[derive(Clone, Debug)]
pub struct Desk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    proxies: Proxies,
    has_limits: bool,
    addresses: Mutex<Addresses>,
    told: Places,
}

impl Desk {
    /// A desk for a gateway with at most so many connections.
    pub fn new(options: Options, connections: usize) -> Self {
        let Options { connections_per_address, proxies, .. } = options;
        let rate = options.handshakes_per_second.map(Rate::per_second);
        let rate_each = options.handshakes_per_second_per_address.map(Rate::per_second);
        let has_limits = connections_per_address.is_some() || rate.is_some() || rate_each.is_some();
        let addresses = Addresses::new(connections_per_address, rate, rate_each, connections);
        let addresses = Mutex::new(addresses);
        Self(Arc::new(Inner { proxies, has_limits, addresses, told: Places::new(PLACES_TO_REFUSE) }))
    }

    /// The proxies before the gateway.
    pub fn proxies(&self) -> &Proxies {
        &self.0.proxies
    }

    /// Whether the limits are looked at when a connection of this address is accepted; else as soon as the proxy that it
    /// is from has said for whom it is.
    pub fn is_at_the_door(&self, peer: IpAddr) -> bool {
        let proxies = &self.0.proxies;
        !proxies.expects_header(peer) && !proxies.expects_forwarded_for(peer)
    }

    /// Lets a connection in at `now` nanoseconds; it takes no place where there are no limits.
    ///
    /// # Errors
    ///
    /// The limit that it is over. It counts against none then.
    pub fn enter(&self, address: IpAddr, now: u64) -> Result<Option<Place>, Refuse> {
        if !self.0.has_limits {
            return Ok(None);
        }
        let prefix = self.addresses().enter(address, now)?;
        Ok(Some(Place::new(self.clone(), prefix)))
    }

    /// Asks for a place to be told why a connection is not let in; it is closed without a word when there is none. Without
    /// that bound those who are refused would take the places of those who are not.
    pub fn tell(&self) -> Option<Taken> {
        self.0.told.take()
    }

    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        // No code panics between two changes that belong together, so that a poisoned table is still whole.
        self.0.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
