//! The parameters of a request, read strictly: what is not understood is refused, never ignored.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use crate::id::{ClientId, RoomId, UserId};
use crate::inspect::Subject;
use crate::percent;

use super::answer::Refusal;

/// The parameters of one request, decoded. Each name is there at most once, and known to the route.
#[derive(Debug)]
pub(super) struct Query<'a>(Vec<(&'a str, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads what stands behind the `?`, if anything does.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] that names the parameter which is not `allowed`, is there twice, or is not percent-encoded UTF-8.
    pub(super) fn parse(query: Option<&'a str>, allowed: &[&str]) -> Result<Self, Refusal> {
        let mut found: Vec<(&str, Cow<'_, str>)> = Vec::new();
        for pair in query.filter(|query| !query.is_empty()).into_iter().flat_map(|query| query.split('&')) {
            let (name, raw) = pair.split_once('=').unwrap_or((pair, ""));
            if !allowed.contains(&name) {
                let allowed = if allowed.is_empty() { "none" } else { &allowed.join(", ") };
                return Err(bad(name, raw, format_args!("no such parameter here; allowed: {allowed}")));
            }
            if found.iter().any(|(other, _)| *other == name) {
                return Err(bad(name, raw, "given twice; allowed: once"));
            }
            let value =
                percent::decoded(raw).ok_or_else(|| bad(name, raw, "must be percent-encoded UTF-8"))?;
            found.push((name, value));
        }
        Ok(Self(found))
    }

    /// The value of a parameter, if it is there.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, value)| &**value)
    }

    /// A whole number in a range, or this one where the parameter is not there.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] that names the range.
    pub(super) fn number(
        &self,
        name: &str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> Result<usize, Refusal> {
        let Some(value) = self.value(name) else { return Ok(default) };
        let number = Some(value).filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
        let number = number.and_then(|digits| digits.parse().ok()).filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let (least, most) = range.into_inner();
            bad(name, value, format_args!("must be a whole number from {least} to {most}"))
        })
    }

    /// The room of this name, if the parameter is there; the room of everyone when it is empty, as that has no name.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] when no room can be called so.
    pub(super) fn room(&self, name: &str) -> Result<Option<Subject>, Refusal> {
        match self.value(name) {
            None => Ok(None),
            Some("") => Ok(Some(Subject::Room(None))),
            Some(value) => {
                let id = RoomId::parse(value).map_err(|_| not_a_name(name, value))?;
                Ok(Some(Subject::Room(Some(id))))
            }
        }
    }

    /// The name of a room, if the parameter is there.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] when no room can be called so.
    pub(super) fn name(&self, name: &str) -> Result<Option<RoomId>, Refusal> {
        let room = self.value(name).map(|value| RoomId::parse(value).map_err(|_| not_a_name(name, value)));
        room.transpose()
    }

    /// The name of a user, if the parameter is there.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] when no user can be called so.
    pub(super) fn user(&self, name: &str) -> Result<Option<UserId>, Refusal> {
        let user = self.value(name).map(|value| UserId::parse(value).map_err(|_| not_a_name(name, value)));
        user.transpose()
    }

    /// The number of a connection, if the parameter is there.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] when it is not one that `welcome` could tell.
    pub(super) fn client(&self, name: &str) -> Result<Option<ClientId>, Refusal> {
        self.value(name).map(|value| client(name, value)).transpose()
    }
}

/// The number of a connection, as `welcome` tells it; `name` is how the request calls it.
///
/// # Errors
///
/// A [`Refusal`] when it has another form: a number that lost a digit is not another connection's.
pub(super) fn client(name: &str, value: &str) -> Result<ClientId, Refusal> {
    let id = Some(value).filter(|value| value.len() == 16).and_then(ClientId::parse);
    id.ok_or_else(|| bad(name, value, "must be 16 hexadecimal digits, the `client_id` of `welcome`"))
}

/// The name of a room that stands in a path; `name` is what the path has there in braces.
///
/// # Errors
///
/// A [`Refusal`] when no room can be called so.
pub(super) fn room(name: &str, segment: &str) -> Result<RoomId, Refusal> {
    let value = in_path(name, segment)?;
    RoomId::parse(&value).map_err(|_| not_a_name(name, &value))
}

/// As [`room`], of a user.
///
/// # Errors
///
/// A [`Refusal`] when no user can be called so.
pub(super) fn user(name: &str, segment: &str) -> Result<UserId, Refusal> {
    let value = in_path(name, segment)?;
    UserId::parse(&value).map_err(|_| not_a_name(name, &value))
}

fn in_path<'a>(name: &str, segment: &'a str) -> Result<Cow<'a, str>, Refusal> {
    percent::decoded_in_path(segment).ok_or_else(|| bad(name, segment, "must be percent-encoded UTF-8"))
}

fn not_a_name(name: &str, value: &str) -> Refusal {
    bad(name, value, "must be 1 to 128 bytes of UTF-8")
}

fn bad(name: &str, value: &str, what: impl std::fmt::Display) -> Refusal {
    Refusal::bad_request(format!("{name}={value}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(refusal: &Refusal) -> String {
        serde_json::to_value(refusal).unwrap()["message"].as_str().unwrap().to_owned()
    }

    #[test]
    fn decodes_names_of_any_script() {
        let query = Query::parse(Some("room=caf%C3%A9+%2B%20%25&user=%e2%82%ac"), &["room", "user"]).unwrap();

        let room = Subject::Room(Some(RoomId::parse("café + %").unwrap()));
        assert_eq!(query.room("room").unwrap(), Some(room));
        assert_eq!(query.user("user").unwrap(), Some(UserId::parse("€").unwrap()));
        assert_eq!(query.client("connection").unwrap(), None);
    }

    #[test]
    fn a_plus_in_a_path_is_one() {
        assert_eq!(room("room", "caf%C3%A9+%2F").unwrap(), RoomId::parse("café+/").unwrap());
        assert_eq!(user("user", "007").unwrap(), UserId::parse("007").unwrap());
        assert_eq!(message(&room("room", "%zz").unwrap_err()), "room=%zz: must be percent-encoded UTF-8");
        let long = "a".repeat(129);
        assert!(message(&user("user", &long).unwrap_err()).ends_with("must be 1 to 128 bytes of UTF-8"));
    }

    #[test]
    fn refuses_what_is_not_known_and_what_is_there_twice() {
        let refused = |query| message(&Query::parse(Some(query), &["k", "room"]).unwrap_err());

        assert_eq!(refused("limit=7"), "limit=7: no such parameter here; allowed: k, room");
        assert_eq!(refused("k=1&k=2"), "k=2: given twice; allowed: once");
        assert_eq!(refused("k=1&"), "=: no such parameter here; allowed: k, room");
        let none = Query::parse(Some("x"), &[]).unwrap_err();
        assert_eq!(message(&none), "x=: no such parameter here; allowed: none");
        assert!(Query::parse(Some(""), &[]).is_ok());
    }

    #[test]
    fn refuses_broken_escapes_and_what_is_not_utf8() {
        for value in ["%", "%4", "%+1", "%zz", "%FF", "%C3", "a%C3b", "%é"] {
            let query = format!("room={value}");
            let refusal = Query::parse(Some(&query), &["room"]).unwrap_err();
            assert_eq!(message(&refusal), format!("room={value}: must be percent-encoded UTF-8"));
        }
    }

    #[test]
    fn refuses_numbers_out_of_range_and_with_anything_but_digits() {
        let number = |query: &str| Query::parse(Some(query), &["k"]).unwrap().number("k", 10, 1..=100);

        assert_eq!((number("").unwrap(), number("k=1").unwrap(), number("k=100").unwrap()), (10, 1, 100));
        for value in ["0", "101", "-1", "", "1.5", "ten", "99999999999999999999999"] {
            let refusal = number(&format!("k={value}")).unwrap_err();
            assert_eq!(message(&refusal), format!("k={value}: must be a whole number from 1 to 100"));
        }
        assert!(number("k=%2B5").is_err());
    }

    #[test]
    fn a_connection_has_all_its_digits() {
        assert_eq!(client("id", "00000000000000Ff").unwrap(), ClientId(255));
        for value in ["ff", "00000000000000f", "00000000000000fg", "+000000000000001", "00000000000000000"] {
            assert!(client("id", value).is_err(), "{value}");
        }
    }

    #[test]
    fn a_name_has_1_to_128_bytes() {
        let long = format!("room={}", "a".repeat(129));
        let query = Query::parse(Some(&long), &["room"]).unwrap();
        assert!(message(&query.room("room").unwrap_err()).ends_with("must be 1 to 128 bytes of UTF-8"));
        let query = Query::parse(Some("room=&user="), &["room", "user"]).unwrap();
        assert_eq!(
            query.room("room").unwrap(),
            Some(Subject::Room(None)),
            "the room of everyone has no name"
        );
        assert!(message(&query.user("user").unwrap_err()).ends_with("must be 1 to 128 bytes of UTF-8"));
    }
}
