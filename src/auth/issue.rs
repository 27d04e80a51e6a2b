//! Tokens that the gateway itself signs.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;

use crate::id::UserId;

use super::{Algorithm, Options};

/// What a token that the gateway itself signs shall say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// `sub`.
    pub user: UserId,
    /// From `now` to `exp`.
    pub ttl: Duration,
    /// The allow-list; `None`: all rooms.
    pub rooms: Option<Vec<String>>,
    /// The rooms in which it may say something; `None`: all that it may enter.
    pub publish: Option<Vec<String>>,
    /// Whether it may send to everyone where a token decides.
    pub broadcast: bool,
}

/// Why no token can be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// There is nothing to sign with.
    #[error("`auth.secret` is not set: give it in the configuration file or as FANFARE_AUTH__SECRET")]
    NoSecret,
    /// The allow-list has no algorithm of shared secrets.
    #[error(
        "`auth.algorithms` allows none of HS256, HS384 and HS512, which a token signed with `auth.secret` needs"
    )]
    NoAlgorithm,
    /// The library refused to sign.
    #[error("the token cannot be signed with `auth.secret`")]
    Signing,
}

impl Options {
    /// Signs a token that a [`Verifier`] of the same options accepts; `now` is in Unix seconds.
    ///
    /// # Errors
    ///
    /// [`IssueError`] without a secret, or with an allow-list that has no use for one.
    pub fn issue(&self, grant: &Grant, now: u64) -> Result<String, IssueError> {
        self.sign(grant, None, now)
    }

    /// As [`Options::issue`], with a name of its own (`jti`) by which the token can be revoked, of at most
    /// [`TOKEN_ID_BYTES_MAX`](super::TOKEN_ID_BYTES_MAX) bytes.
    ///
    /// # Errors
    ///
    /// As those of [`Options::issue`].
    pub fn issue_named(&self, grant: &Grant, token_id: &str, now: u64) -> Result<String, IssueError> {
        self.sign(grant, Some(token_id), now)
    }

    fn sign(&self, grant: &Grant, token_id: Option<&str>, now: u64) -> Result<String, IssueError> {
        let secret = self.secret.as_ref().ok_or(IssueError::NoSecret)?;
        let allowed = if self.algorithms.is_empty() { &[Algorithm::Hs256][..] } else { &self.algorithms };
        let algorithm =
            allowed.iter().find(|algorithm| algorithm.is_symmetric()).ok_or(IssueError::NoAlgorithm)?;
        let claims = IssuedClaims {
            sub: grant.user.to_string(),
            iat: now,
            exp: now.saturating_add(grant.ttl.as_secs()),
            jti: token_id,
            rooms: grant.rooms.as_deref(),
            publish: grant.publish.as_deref(),
            broadcast: grant.broadcast.then_some(true),
            iss: self.issuer.as_deref(),
            aud: self.audience.first().map(String::as_str),
        };
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm.inner()), &claims, &key).map_err(|_| IssueError::Signing)
    }
}

#[derive(Serialize)]
struct IssuedClaims<'a> {
    sub: String,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rooms: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    publish: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    broadcast: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}
