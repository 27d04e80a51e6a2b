//! A client that shows another token on its open connection.

use crate::auth::Claims;
use crate::id::ClientKey;
use crate::metrics::CloseReason;
use crate::protocol::{Ack, ErrorCode, Mark};
use crate::session::Permissions;

use super::state::Core;

impl Core {
    /// Takes another token of the same user: from here on its time and its permissions are those of the connection.
    ///
    /// Rooms that the client is in stay joined, whatever the token says of them. A token that is refused changes nothing;
    /// it counts as a bad message, since to check one takes time.
    pub(super) fn renew(
        &mut self,
        key: ClientKey,
        token: &str,
        mark: Option<Mark<'_>>,
        replies: &mut Vec<u8>,
    ) {
        match self.claims(key, token) {
            Ok(claims) => {
                let expires_in = claims.expires_at.map(|at| at.saturating_sub(self.timestamp));
                self.apply_claims(key, claims, expires_in);
                if let Some(mark) = mark {
                    self.acknowledge(mark, &Ack::Authenticated { expires_in }, replies);
                }
            }
            Err((code, text)) => {
                self.refuse(mark, code, &text, replies);
                let bad_messages_max = self.options.session.bad_messages;
                if code == ErrorCode::Forbidden
                    && let Some(client) = self.clients.get_mut(key)
                    && let Err((code, reason)) = client.session.count_refused_token(bad_messages_max)
                {
                    self.close(key, code, reason, CloseReason::Policy);
                }
            }
        }
    }

    fn claims(&self, key: ClientKey, token: &str) -> Result<Claims, (ErrorCode, String)> {
        if !self.verifier.is_required() {
            return Err((ErrorCode::Unavailable, "this gateway asks for no tokens".to_owned()));
        }
        let claims = self
            .verifier
            .verify(token, self.timestamp)
            .map_err(|error| (ErrorCode::Forbidden, format!("`token` is refused: {error}")))?;
        if claims.user != *self.clients[key].session.user() {
            return Err((ErrorCode::Forbidden, "`token` is another user's".to_owned()));
        }
        Ok(claims)
    }

    fn apply_claims(&mut self, key: ClientKey, claims: Claims, expires_in: Option<u64>) {
        let expires_at = self.expiry(expires_in);
        let client = &mut self.clients[key];
        client.session.permit_as(permissions(claims));
        client.expires_at = expires_at;
        self.reschedule(key);
    }
}

/// What a session keeps of a token.
pub(super) fn permissions(claims: Claims) -> Permissions {
    let Claims { rooms, publish, broadcast: may_broadcast, token_id, .. } = claims;
    Permissions { rooms, publish, may_broadcast, token_id }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::tests::World;
    use super::super::wheel::tick_at_or_after;
    use super::*;
    use crate::auth::{Grant, Mode, Options, Secret, Verifier};
    use crate::id::UserId;

    const NOW: u64 = 1_000_000;

    /// A gateway that asks for tokens, and a client of this user whose token runs out in 60 seconds.
    fn world(user: &str) -> (World, ClientKey) {
        let mut world = World::new();
        world.shard.core.verifier = Arc::new(Verifier::new(options()).unwrap());
        world.tick(Duration::from_secs(1));
        world.shard.core.timestamp = NOW;
        let client = world.enter(user);
        world.shard.core.clients[client].expires_at = tick_at_or_after(Duration::from_secs(61));
        world.notices();
        (world, client)
    }

    fn options() -> Options {
        let secret = Secret::new("a secret of more than thirty-two bytes".to_owned());
        Options { mode: Mode::Jwt, secret: Some(secret), ..Options::default() }
    }

    fn token(user: &str, seconds: u64, rooms: Option<&str>) -> String {
        let rooms = rooms.map(|room| vec![room.to_owned()]);
        let user = UserId::parse(user).unwrap();
        let grant = Grant { user, ttl: Duration::from_secs(seconds), rooms, publish: None, broadcast: false };
        options().issue(&grant, NOW).unwrap()
    }

    fn answer(world: &mut World, client: ClientKey, token: &str) -> String {
        let text = format!(r#"{{"type":"auth","token":"{token}","id":1}}"#);
        world.replies(client, &text)
    }

    #[test]
    fn a_newer_token_lets_a_client_stay_and_says_how_long() {
        let (mut world, ann) = world("ann");

        let ack = answer(&mut world, ann, &token("ann", 3600, None));

        assert!(ack.contains(r#""type":"ack","id":1,"expires_in":3600,"#), "{ack}");
        world.tick(Duration::from_secs(50));
        world.receive(ann, &super::super::tests::masked(0x8a, b""));
        world.tick(Duration::from_secs(100));
        assert!(world.shard.core.clients[ann].is_open());
    }

    #[test]
    fn the_rooms_of_the_newer_token_are_those_that_may_be_joined() {
        let (mut world, ann) = world("ann");
        world.say(ann, r#"{"type":"join","room_id":"before"}"#);
        answer(&mut world, ann, &token("ann", 3600, Some("after")));

        let refused = world.replies(ann, r#"{"type":"join","room_id":"elsewhere","id":2}"#);
        let joined = world.replies(ann, r#"{"type":"join","room_id":"after","id":3}"#);
        assert!(refused.contains("forbidden") && joined.contains(r#""type":"ack""#), "{refused} {joined}");
        assert_eq!(world.shard.core.clients[ann].rooms_joined(), 2, "what was joined before stays");
    }

    #[test]
    fn a_token_that_is_not_good_changes_nothing_and_too_many_close_the_connection() {
        let (mut world, ann) = world("ann");
        for (bad, why) in [
            (token("ben", 3600, None), "another user's"),
            ("no.token.at-all".to_owned(), "refused"),
            (token("ann", 3600, None) + "x", "refused"),
        ] {
            let error = answer(&mut world, ann, &bad);
            assert!(error.contains(r#""code":"forbidden""#) && error.contains(why), "{error}");
            assert!(!error.contains(&bad), "a token is not repeated");
        }
        assert_eq!(world.shard.core.clients[ann].expires_at, tick_at_or_after(Duration::from_secs(61)));

        for _ in 3..world.shard.core.options.session.bad_messages {
            answer(&mut world, ann, "bad");
        }
        assert!(!world.shard.core.clients[ann].is_open());
    }

    #[test]
    fn a_gateway_without_tokens_takes_none() {
        let mut world = World::new();
        let ann = world.enter("ann");
        let error = answer(&mut world, ann, "x");
        assert!(error.contains(r#""code":"unavailable""#), "{error}");
    }
}
