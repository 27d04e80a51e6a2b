//! The header by which a proxy says for whom a connection is: the PROXY protocol, versions 1 and 2
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A header at the beginning of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many bytes it takes; what is behind it is the client's.
    pub bytes: usize,
    /// The client; none when the proxy speaks for itself, or does not know.
    pub client: Option<SocketAddr>,
}

/// What comes is no header, and cannot become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a header of the PROXY protocol, version 1 or 2")]
pub struct Malformed;

/// Reads the header that `bytes` begin with; `None` while more of it has to come.
///
/// # Errors
///
/// [`Malformed`], as soon as that is clear.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    if begins_as(bytes, SIGNATURE_V2) {
        return if bytes.len() < SIGNATURE_V2.len() { Ok(None) } else { binary(bytes) };
    }
    if begins_as(bytes, SIGNATURE_V1) {
        return text(bytes);
    }
    Err(Malformed)
}

/// How many bytes more the header takes at least that `bytes` are the beginning of: as many can be read without reading
/// anything that is behind it and another's, as TLS is.
pub fn missing(bytes: &[u8]) -> usize {
    let shortest = match bytes.first() {
        Some(&first) if first == SIGNATURE_V2[0] => HEAD_BYTES_V2 + addresses_len(bytes).unwrap_or(0),
        _ => LINE_BYTES_MIN,
    };
    let end_of_line = if bytes.ends_with(b"\r") { 1 } else { 2 };
    shortest.checked_sub(bytes.len()).filter(|missing| *missing > 0).unwrap_or(end_of_line)
}

/// Version 1: a line.
fn text(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let line = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if line.len() < LINE_BYTES_MAX { Ok(None) } else { Err(Malformed) };
    };
    let line = str::from_utf8(&line[..end]).map_err(|_| Malformed)?;
    let header = |client| Ok(Some(Header { bytes: end + 2, client }));
    let mut fields = line.split(' ').skip(1);
    let family = fields.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return header(None);
    }
    let fields: Vec<_> = fields.collect();
    let [client, server, client_port, server_port] = fields[..] else { return Err(Malformed) };
    let (client, server) = match family {
        "TCP4" => (ip::<Ipv4Addr>(client)?, ip::<Ipv4Addr>(server)?),
        "TCP6" => (ip::<Ipv6Addr>(client)?, ip::<Ipv6Addr>(server)?),
        _ => return Err(Malformed),
    };
    // Only that they are there matters of these.
    let _ = (server, port(server_port)?);
    header(Some(SocketAddr::new(client, port(client_port)?)))
}

fn ip<T: Into<IpAddr> + std::str::FromStr>(text: &str) -> Result<IpAddr, Malformed> {
    text.parse::<T>().map(Into::into).map_err(|_| Malformed)
}

fn port(text: &str) -> Result<u16, Malformed> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain).ok_or(Malformed)
}

/// Version 2: the signature, version and command, family, length, addresses, and more that is passed over.
fn binary(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let rest = &bytes[SIGNATURE_V2.len()..];
    let is_local = match rest.first() {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(Malformed),
    };
    let (Some(family), Some(length)) = (rest.get(1), addresses_len(bytes)) else { return Ok(None) };
    if length > ADDRESSES_BYTES_MAX {
        return Err(Malformed);
    }
    let Some(addresses) = bytes.get(HEAD_BYTES_V2..HEAD_BYTES_V2 + length) else { return Ok(None) };
    let header = |client| Ok(Some(Header { bytes: HEAD_BYTES_V2 + length, client }));
    if is_local {
        return header(None);
    }
    match family {
        // TCP over IPv4 and IPv6: client, server, client's port, server's port.
        0x11 => {
            let [a, b, c, d, _, _, _, _, high, low, ..] = *addresses else { return Err(Malformed) };
            let client = SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low])));
            if addresses.len() < 12 { Err(Malformed) } else { header(Some(client)) }
        }
        0x21 => {
            let client: [u8; 16] = addresses.first_chunk().copied().ok_or(Malformed)?;
            let port = addresses.get(32..34).filter(|_| addresses.len() >= 36).ok_or(Malformed)?;
            header(Some(SocketAddr::from((client, u16::from_be_bytes([port[0], port[1]])))))
        }
        // Not told, or of a kind that this listener cannot have: the proxy is all that is known.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => header(None),
        _ => Err(Malformed),
    }
}

/// How many bytes follow the first 16 of version 2, where these are there.
fn addresses_len(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(HEAD_BYTES_V2 - 2..HEAD_BYTES_V2)?;
    Some(usize::from(u16::from_be_bytes([length[0], length[1]])))
}

/// Whether they are the beginning of it, or it is theirs.
fn begins_as(bytes: &[u8], signature: &[u8]) -> bool {
    let shared = bytes.len().min(signature.len());
    bytes[..shared] == signature[..shared]
}

const SIGNATURE_V1: &[u8] = b"PROXY ";
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature of version 2, version and command, family, length.
const HEAD_BYTES_V2: usize = 16;

/// The shortest line of version 1, with its end: `PROXY UNKNOWN`.
const LINE_BYTES_MIN: usize = 15;

/// The longest.
const LINE_BYTES_MAX: usize = 107;

/// The most that a header of version 2 may hold behind its first 16 bytes. Addresses take 36, and extensions a few hundred.
const ADDRESSES_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_lines_of_version_1() {
        for (line, client) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", Some("192.0.2.1:56324")),
            ("PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n", Some("[2001:db8::1]:0")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
        ] {
            check_every_cut(line.as_bytes(), client);
        }
    }

    #[test]
    fn reads_version_2_and_passes_over_what_it_does_not_know() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];
        check_every_cut(&header(0x21, 0x11, &v4), Some("192.0.2.1:56324"));
        check_every_cut(
            &header(0x21, 0x11, &[&v4[..], b"\x04\x00\x03abc"].concat()),
            Some("192.0.2.1:56324"),
        );
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        v6[15] = 7;
        v6[33] = 80;
        check_every_cut(&header(0x21, 0x21, &v6), Some("[2001:db8::7]:80"));
        check_every_cut(&header(0x20, 0x11, &v4), None);
        check_every_cut(&header(0x20, 0x00, b""), None);
        check_every_cut(&header(0x21, 0x31, &[0; 216]), None);
    }

    #[test]
    fn refuses_what_is_none_as_soon_as_that_is_clear() {
        let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 100]].concat();
        for bytes in [
            &b"GET /ws HTTP/1.1\r\n"[..],
            b"\x16\x03\x01",
            b"PROXX",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 7\r\n",
            b"PROXY TCP4 192.0.2.1  198.51.100.1 56324 443\r\n",
            b"PROXY TCP4 ::1 ::2 1 2\r\n",
            b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 +1 443\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 01 443\r\n",
            b"PROXY UDP4 192.0.2.1 198.51.100.1 1 443\r\n",
            b"PROXY \xff\r\n",
            &long,
            b"\r\n\r\n\0\r\nQUIT\r",
            b"\r\n\r\n\0\r\nQUIT\n\x11",
            b"\r\n\r\n\0\r\nQUIT\n\x22",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
            &header(0x21, 0x11, &[0; 11]),
            &header(0x21, 0x21, &[0; 35]),
            &header(0x21, 0x13, &[0; 36]),
        ] {
            assert_eq!(parse(bytes), Err(Malformed), "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_alike_however_they_are_cut(
            kind in 0..3_usize,
            rest in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let bytes = [[&b""[..], SIGNATURE_V1, SIGNATURE_V2][kind], &rest].concat();
            let whole = parse(&bytes);
            for cut in 0..bytes.len() {
                match parse(&bytes[..cut]) {
                    Ok(None) => {}
                    early => prop_assert_eq!(early, whole, "cut at {}", cut),
                }
            }
        }

        #[test]
        fn what_is_read_as_it_is_missing_ends_with_the_header(
            is_binary: bool,
            command in prop::sample::select(vec![0x20_u8, 0x21]),
            family in prop::sample::select(vec![0x00_u8, 0x11, 0x21, 0x31]),
            addresses in prop::collection::vec(any::<u8>(), 36..300),
            names in "[ 0-9a-f.:]{0,80}",
        ) {
            let line = format!("PROXY UNKNOWN {names}\r\n").into_bytes();
            let whole = if is_binary { header(command, family, &addresses) } else { line };
            let mut read = 0;
            while parse(&whole[..read]) == Ok(None) {
                let missing = missing(&whole[..read]);
                prop_assert!(missing > 0);
                read += missing;
                prop_assert!(read <= whole.len());
            }
            prop_assert_eq!(parse(&whole[..read]).map(|header| header.map(|header| header.bytes)), Ok(Some(read)));
            prop_assert_eq!(read, whole.len());
        }
    }

    fn check_every_cut(bytes: &[u8], client: Option<&str>) {
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
        let mut read = 0;
        while read < bytes.len() {
            let missing = missing(&bytes[..read]);
            assert!(missing > 0 && read + missing <= bytes.len(), "{missing} bytes at {read}");
            read += missing;
        }
        let client = client.map(|client| client.parse().unwrap());
        let followed = [bytes, b"GET /"].concat();
        assert_eq!(parse(&followed), Ok(Some(Header { bytes: bytes.len(), client })));
    }

    fn header(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [SIGNATURE_V2, &[command, family], &length, addresses].concat()
    }
}
