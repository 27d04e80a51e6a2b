//! Tokens that count no more although their time is not over.

use std::collections::HashMap;
use std::time::Duration;

use crate::id::UserId;

use super::Claims;

/// What was revoked, in the memory of this process. All times are in Unix seconds.
///
/// An entry is forgotten when no token that it means can be valid any more; no entry is given up for another.
#[derive(Debug)]
pub struct Revocations {
    /// A token's `jti` -> when it may be forgotten.
    tokens: HashMap<Box<str>, u64>,
    /// When a user's tokens were revoked: those issued up to then count no more.
    users: HashMap<UserId, Revoked>,
    options: Options,
    /// No entry may be forgotten before.
    forget_at: u64,
}

#[derive(Clone, Copy, Debug)]
struct Revoked {
    at: u64,
    forget_at: u64,
}

/// Bounds of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long an entry is kept: at least as long as a token lives.
    pub ttl: Duration,
    /// The most entries.
    pub entries: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(24 * 60 * 60), entries: 100_000 }
    }
}

/// The list has no room, and none of its entries may be forgotten yet. Nothing was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("as many revocations are kept as `auth.revocations` allows, and none may be forgotten yet")]
pub struct Full;

impl Revocations {
    /// An empty list.
    pub fn new(options: Options) -> Self {
        Self { tokens: HashMap::new(), users: HashMap::new(), options, forget_at: 0 }
    }

    /// Revokes the token with this `jti`.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn revoke_token(&mut self, token: &str, now: u64) -> Result<(), Full> {
        self.make_room(self.tokens.contains_key(token), now)?;
        self.tokens.insert(token.into(), now.saturating_add(self.options.ttl.as_secs()));
        Ok(())
    }

    /// Revokes all tokens of a user that were issued up to `at`.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn revoke_user(&mut self, user: &UserId, at: u64, now: u64) -> Result<(), Full> {
        self.make_room(self.users.contains_key(user), now)?;
        let forget_at = now.saturating_add(self.options.ttl.as_secs());
        self.users.insert(user.clone(), Revoked { at, forget_at });
        Ok(())
    }

    /// Whether a token that says this was revoked. One that does not say when it was issued counts as an old one.
    pub fn are_revoked(&self, claims: &Claims, now: u64) -> bool {
        let token = claims.token_id.as_ref().and_then(|id| self.tokens.get(id));
        let is_meant = |user: &Revoked| {
            user.forget_at > now && claims.issued_at.is_none_or(|issued_at| issued_at <= user.at)
        };
        token.is_some_and(|forget_at| *forget_at > now) || self.users.get(&claims.user).is_some_and(is_meant)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.tokens.len() + self.users.len()
    }

    /// Whether nothing was revoked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn make_room(&mut self, is_known: bool, now: u64) -> Result<(), Full> {
        if is_known || self.len() < self.options.entries {
            return Ok(());
        }
        if now < self.forget_at {
            return Err(Full);
        }
        self.tokens.retain(|_, forget_at| *forget_at > now);
        self.users.retain(|_, user| user.forget_at > now);
        let left = self.tokens.values().copied().chain(self.users.values().map(|user| user.forget_at));
        self.forget_at = left.min().unwrap_or(0);
        if self.len() < self.options.entries { Ok(()) } else { Err(Full) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_revoked_by_its_id_and_a_users_by_when_they_were_issued() {
        let mut revocations = Revocations::new(Options::default());
        revocations.revoke_token("t1", 100).unwrap();
        revocations.revoke_user(&user("ann"), 100, 100).unwrap();

        let is_revoked = |name: &str, id, at| revocations.are_revoked(&claims(name, id, at), 200);
        assert!(is_revoked("ben", Some("t1"), Some(200)));
        assert!(!is_revoked("ben", Some("t2"), Some(50)));
        assert!(is_revoked("ann", None, Some(100)) && is_revoked("ann", Some("t2"), None));
        assert!(!is_revoked("ann", None, Some(101)), "issued after that");
    }

    #[test]
    fn what_cannot_be_valid_any_more_makes_room_and_nothing_else_does() {
        let options = Options { ttl: Duration::from_secs(10), entries: 2 };
        let mut revocations = Revocations::new(options);
        revocations.revoke_token("t1", 100).unwrap();
        revocations.revoke_user(&user("ann"), 105, 105).unwrap();
        assert_eq!(revocations.revoke_token("t2", 109), Err(Full));
        revocations.revoke_token("t1", 109).unwrap();
        assert_eq!(revocations.revoke_token("t2", 114), Err(Full), "the first was revoked anew");

        revocations.revoke_token("t2", 115).unwrap();

        assert_eq!(revocations.len(), 2);
        assert!(!revocations.are_revoked(&claims("ann", None, Some(1)), 115), "no such token is left");
    }

    #[test]
    fn a_revocation_is_over_after_its_time_also_where_nothing_needs_its_place() {
        let options = Options { ttl: Duration::from_secs(10), ..Options::default() };
        let mut revocations = Revocations::new(options);
        revocations.revoke_token("t1", 100).unwrap();
        revocations.revoke_user(&user("ann"), 100, 100).unwrap();

        for claims in [claims("ben", Some("t1"), None), claims("ann", None, None)] {
            assert!(revocations.are_revoked(&claims, 109));
            assert!(!revocations.are_revoked(&claims, 110));
        }
    }

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn claims(name: &str, token_id: Option<&str>, issued_at: Option<u64>) -> Claims {
        let token_id = token_id.map(Into::into);
        Claims {
            user: user(name),
            expires_at: None,
            issued_at,
            token_id,
            rooms: None,
            publish: None,
            broadcast: false,
        }
    }
}
