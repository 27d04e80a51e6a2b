//! Who asks for the upgrade: the token's user, or in its absence the one that the query names.

use std::borrow::Cow;
use std::hash::{BuildHasher as _, RandomState};

use hyper::Request;
use hyper::header::AUTHORIZATION;

use crate::auth::{AuthError, Claims, Verifier};
use crate::id::UserId;
use crate::percent;

use super::guard;
use super::refusal::Refusal;

/// Who asks, by the token that a gateway with tokens requires; `now` is in Unix seconds.
///
/// # Errors
///
/// [`AuthError`] when there is no good token.
pub(super) fn by_token<B>(request: &Request<B>, verifier: &Verifier, now: u64) -> Result<Claims, AuthError> {
    match token(request) {
        Some(Ok(token)) => verifier.verify(&token, now),
        Some(Err(Garbled)) => Err(AuthError::Malformed),
        None => Err(AuthError::Missing),
    }
}

/// Who asks, by the query, where no token is needed.
///
/// # Errors
///
/// The [`Refusal`] with 400 when the query names no possible user.
pub(super) fn by_name<B>(request: &Request<B>, verifier: &Verifier) -> Result<Claims, Refusal> {
    let user = match query_value(request, "user") {
        Some(Ok(name)) => {
            UserId::parse(&name).map_err(|error| Refusal::malformed(format!("user= {error}")))?
        }
        Some(Err(Garbled)) => return Err(Refusal::malformed("user= is not percent-encoded UTF-8")),
        None => anonymous(),
    };
    Ok(verifier.anonymous(user))
}

/// What a client sent is not text.
#[derive(Debug, PartialEq, Eq)]
struct Garbled;

/// The token of an earlier session in the query of a request whose beginning this is, as somebody sends it who comes back.
pub fn session_named(head: &[u8]) -> Option<&str> {
    let target = head.strip_prefix(b"GET ")?.split(|byte| *byte == b' ').next()?;
    let query = str::from_utf8(target).ok()?.split_once('?')?.1;
    query.split('&').find_map(|pair| pair.strip_prefix("session="))
}

/// The token, from the first place that has one.
fn token<B>(request: &Request<B>) -> Option<Result<Cow<'_, str>, Garbled>> {
    let bearer = request.headers().get_all(AUTHORIZATION).iter().find_map(|value| bearer(value.as_bytes()));
    let offered =
        || guard::offered(request.headers()).find_map(|offer| offer.strip_prefix("fanfare.token.")).map(Ok);
    bearer.or_else(offered).map(|token| token.map(Cow::Borrowed)).or_else(|| query_value(request, "token"))
}

/// The token of an `Authorization` header (RFC 6750 section 2.1), whose scheme has no case.
fn bearer(value: &[u8]) -> Option<Result<&str, Garbled>> {
    let (scheme, token) = value.split_at_checked(b"Bearer".len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"Bearer") && token.first().is_none_or(|&byte| byte == b' ');
    is_bearer.then(|| str::from_utf8(token).map(str::trim).map_err(|_| Garbled))
}

/// The first value of this name in the query, decoded.
fn query_value<'a, B>(request: &'a Request<B>, name: &str) -> Option<Result<Cow<'a, str>, Garbled>> {
    request.uri().query()?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then(|| percent::decoded(value).ok_or(Garbled))
    })
}

/// A name that nobody else has: 60 random bits.
fn anonymous() -> UserId {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    // The standard library's hasher is keyed from the system's random source, once for each thread, and
    // differently each time: unique is enough here, since the name opens nothing.
    let mut random = RandomState::new().hash_one(0);
    let mut name = String::from("anon-");
    for _ in 0..12 {
        name.push(char::from(DIGITS[(random % 32) as usize]));
        random /= 32;
    }
    UserId::parse(&name).expect("17 bytes of ASCII are a name")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::auth;

    #[test]
    fn finds_the_token_in_the_header_then_the_subprotocols_then_the_query() {
        let all = [("authorization", "Bearer a"), ("sec-websocket-protocol", "fanfare.v1, fanfare.token.b")];

        assert_eq!(found("/ws?token=c", &all), Some("a".to_owned()));
        assert_eq!(found("/ws?token=c", &all[1..]), Some("b".to_owned()));
        assert_eq!(found("/ws?x=1&token=c%2Ed&token=e", &[]), Some("c.d".to_owned()));
        assert_eq!(found("/ws?tokens=c", &[("authorization", "Basic YTpi")]), None);
        assert_eq!(found("/ws?token=c", &[("authorization", "Basic YTpi")]), Some("c".to_owned()));
        assert_eq!(found("/ws", &[("authorization", "bEARER  a ")]), Some("a".to_owned()));
        assert_eq!(found("/ws?token=c", &[("authorization", "Bearer")]), Some(String::new()));
    }

    #[test]
    fn finds_the_session_that_a_request_names_although_it_is_not_whole() {
        assert_eq!(session_named(b"GET /ws?user=a&session=AbC HTTP/1.1\r\nHo"), Some("AbC"));
        assert_eq!(session_named(b"GET /ws?session=AbC"), Some("AbC"));
        for other in ["", "GET /ws", "POST /ws?session=x HTTP/1.1", "GET /ws HTTP/1.1\r\nX: ?session=x"] {
            assert_eq!(session_named(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn takes_the_user_of_the_query_when_no_token_is_needed() {
        let user = |uri| identified(uri).map(|claims| claims.user);

        assert_eq!(user("/ws?user=7"), Ok(UserId::from_u64(7)));
        assert_eq!(user("/ws?a=b&user=J%C3%BCrgen+M%2B"), Ok(UserId::parse("Jürgen M+").unwrap()));
        assert!(user(&format!("/ws?user={}", "a".repeat(128))).is_ok());
    }

    #[test]
    fn refuses_a_user_that_cannot_be() {
        let long = format!("/ws?user={}", "a".repeat(129));
        for uri in
            ["/ws?user=", "/ws?user", "/ws?user=%", "/ws?user=%4", "/ws?user=%+1", "/ws?user=%FF", &long]
        {
            assert_eq!(identified(uri).map_err(|refusal| refusal.status().as_u16()), Err(400), "{uri}");
        }
    }

    #[test]
    fn gives_each_nameless_client_a_name_of_its_own() {
        let names: HashSet<_> = (0..1000).map(|_| format!("{}", identified("/ws").unwrap().user)).collect();

        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|name| name.starts_with("anon-") && name.len() == 17));
    }

    fn identified(uri: &str) -> Result<Claims, Refusal> {
        let verifier = Verifier::new(auth::Options::default()).unwrap();
        by_name(&Request::builder().uri(uri).body(()).unwrap(), &verifier)
    }

    fn found(uri: &str, headers: &[(&str, &str)]) -> Option<String> {
        let request = headers
            .iter()
            .fold(Request::builder().uri(uri), |request, (name, value)| request.header(*name, *value));
        token(&request.body(()).unwrap()).map(|token| token.unwrap().into_owned())
    }
}
