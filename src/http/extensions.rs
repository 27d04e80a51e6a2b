//! Which offer of permessage-deflate is taken (RFC 7692, section 5 and 7.1).

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use crate::ws::{Compression, WINDOW_BITS_MAX};

/// Where extensions are offered and answered.
pub(super) const SEC_WEBSOCKET_EXTENSIONS: HeaderName = HeaderName::from_static("sec-websocket-extensions");

/// An offer that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) compression: Compression,
    /// What it is answered with.
    pub(super) answer: HeaderValue,
}

/// What one offer that means something asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Offer {
    server_max_window_bits: Option<u8>,
}

/// The first offer that can be taken. What is not understood is declined, as the RFC asks, and no reason to refuse the client.
///
/// Both sides are told to keep no window between messages, which needs no consent (sections 7.1.1.1 and 7.1.1.2).
pub(super) fn choose(headers: &HeaderMap) -> Option<Taken> {
    let values = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|value| value.to_str().ok());
    let offer = values.flat_map(offers).find_map(parse)?;
    let mut answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover".to_owned();
    if let Some(bits) = offer.server_max_window_bits {
        answer = format!("{answer}; server_max_window_bits={bits}");
    }
    let compression = match offer.server_max_window_bits {
        None | Some(WINDOW_BITS_MAX) => Compression::Both,
        Some(_) => Compression::FromClient,
    };
    Some(Taken { compression, answer: HeaderValue::try_from(answer).ok()? })
}

/// What stands between commas, those in quotes left alone.
fn offers(value: &str) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    value.split(move |character| {
        is_quoted ^= character == '"';
        character == ',' && !is_quoted
    })
}

/// An offer of the extension; none when it is another one, or has a parameter that is unknown, there twice, or has a value
/// that it cannot have.
fn parse(offer: &str) -> Option<Offer> {
    let mut parts = offer.split(';').map(str::trim);
    if parts.next() != Some("permessage-deflate") {
        return None;
    }
    let mut asked = Offer::default();
    let mut names = Vec::new();
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(unquoted(value.trim_start()))),
            None => (part, None),
        };
        if names.contains(&name) {
            return None;
        }
        names.push(name);
        match (name, value) {
            // Granted to everybody; the client's window may be what it likes.
            (
                "server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits",
                None,
            ) => {}
            ("client_max_window_bits", Some(value)) => _ = window_bits(value)?,
            ("server_max_window_bits", Some(value)) => {
                asked.server_max_window_bits = Some(window_bits(value)?);
            }
            _ => return None,
        }
    }
    Some(asked)
}

/// From 8 to 15, in decimal digits without a leading zero (section 7.1.2.1).
fn window_bits(value: &str) -> Option<u8> {
    let is_plain = !value.starts_with('0') && value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|bits| is_plain && (WINDOW_BITS_MIN..=WINDOW_BITS_MAX).contains(bits))
}

/// A value may stand in quotes (RFC 6455, section 9.1).
fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

const WINDOW_BITS_MIN: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    fn chosen(offers: &[&'static str]) -> Option<(Compression, String)> {
        let mut headers = HeaderMap::new();
        for offer in offers {
            headers.append(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(offer));
        }
        choose(&headers).map(|taken| (taken.compression, taken.answer.to_str().unwrap().to_owned()))
    }

    #[test]
    fn takes_an_offer_and_has_both_sides_keep_nothing_between_messages() {
        for offer in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate;client_max_window_bits=10 ; server_no_context_takeover",
            "permessage-deflate; client_no_context_takeover; client_max_window_bits=\"8\"",
        ] {
            assert_eq!(chosen(&[offer]), Some((Compression::Both, ANSWER.to_owned())), "{offer}");
        }
    }

    #[test]
    fn compresses_nothing_for_a_client_with_a_smaller_window() {
        let answer = |bits| format!("{ANSWER}; server_max_window_bits={bits}");

        let offer = "permessage-deflate; server_max_window_bits=9";
        assert_eq!(chosen(&[offer]), Some((Compression::FromClient, answer(9))));
        let offer = "permessage-deflate; server_max_window_bits=15";
        assert_eq!(chosen(&[offer]), Some((Compression::Both, answer(15))));
    }

    #[test]
    fn declines_what_is_malformed_unknown_or_there_twice() {
        for offer in [
            "",
            "permessage-bzip2",
            "x-webkit-deflate-frame",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=08",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; server_max_window_bits=999999999999999999999",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; client_max_window_bits=\"15",
            "permessage-deflate; server_no_context_takeover=true",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
            "permessage-deflate; window=10",
            "permessage-deflate; ",
            "permessage-deflate=1",
            "foo; x=\"a, permessage-deflate, b\"",
        ] {
            assert_eq!(chosen(&[offer]), None, "{offer}");
        }
    }

    #[test]
    fn takes_the_first_offer_that_it_can_of_all_headers() {
        let offers = [
            "permessage-deflate; unknown, permessage-bzip2",
            "permessage-deflate; server_max_window_bits=10, permessage-deflate",
        ];
        assert_eq!(chosen(&offers).map(|(compression, _)| compression), Some(Compression::FromClient));
    }
}
