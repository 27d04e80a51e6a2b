//! The client that a chain of proxies names in `X-Forwarded-For`.

use core::net::{IpAddr, SocketAddr};

/// Goes through the addresses from the last to the first, each of which was added by the one behind it: for as long as that
/// one is trusted, it is believed. What cannot be read ends the chain.
pub(super) fn client<'a>(
    peer: IpAddr,
    values: impl DoubleEndedIterator<Item = &'a [u8]>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let mut client = peer;
    for entry in values.rev().flat_map(|value| value.rsplit(|byte| *byte == b',')) {
        if !is_trusted(client) {
            break;
        }
        match address(entry) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// An address as proxies write it: alone, or with a port, and then in brackets if it is of IPv6.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let entry = str::from_utf8(entry).ok()?.trim();
    let bare = entry.strip_prefix('[').and_then(|entry| entry.strip_suffix(']')).unwrap_or(entry);
    let address = bare.parse().ok().or_else(|| entry.parse().ok().map(|address: SocketAddr| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_address_that_is_no_proxy_s_is_the_client() {
        for (values, client) in [
            (&["198.51.100.7"][..], "198.51.100.7"),
            (&["198.51.100.7, 10.0.0.9"], "198.51.100.7"),
            (&["1.1.1.1, 198.51.100.7,10.0.0.9"], "198.51.100.7"),
            (&["1.1.1.1", "198.51.100.7", "10.0.0.9"], "198.51.100.7"),
            (&["10.0.0.8, 10.0.0.9"], "10.0.0.8"),
            (&["198.51.100.7:1234"], "198.51.100.7"),
            (&["[2001:db8::7]:1234, 10.0.0.9"], "2001:db8::7"),
            (&["[2001:db8::7]"], "2001:db8::7"),
            (&["2001:db8::7"], "2001:db8::7"),
            (&["::ffff:198.51.100.7"], "198.51.100.7"),
            (&["198.51.100.7, unknown"], "10.0.0.1"),
            (&["198.51.100.7, unknown, 10.0.0.9"], "10.0.0.9"),
            (&[""], "10.0.0.1"),
            (&[], "10.0.0.1"),
        ] {
            assert_eq!(found("10.0.0.1", values), client, "{values:?}");
        }
    }

    #[test]
    fn who_is_no_proxy_is_not_believed() {
        assert_eq!(found("203.0.113.5", &["198.51.100.7"]), "203.0.113.5");
    }

    fn found(peer: &str, values: &[&str]) -> String {
        let is_trusted = |address: IpAddr| address.to_string().starts_with("10.");
        client(peer.parse().unwrap(), values.iter().map(|value| value.as_bytes()), is_trusted).to_string()
    }
}
