//! A token and the time -> [`Claims`], or why not.
//!
//! Owns the keys. Pure: the clock comes in as `now`, in Unix seconds, and only the
//! signatures are left to `jsonwebtoken`, whose checks of the claims would read its own; a token therefore means the same in a test and on the wire.

mod issue;
mod keys;
pub mod revocations;
mod sessions;
mod set;
#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::RandomState;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::id::UserId;

pub use issue::{Grant, IssueError};
pub use keys::{Algorithm, KEYS_TRIED_MAX, KeyError, Secret};
use keys::{Key, keys};
use revocations::{Full, Revocations};
pub use sessions::{SessionPlace, SessionTokens};
pub use set::{KeySet, Reasons, SET_KEYS_MAX, SetError, SetRules};

/// How clients prove who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Whether a token is needed at all.
    pub mode: Mode,
    /// The shared secret of the HS algorithms, and what `fanfare token` signs with.
    pub secret: Option<Secret>,
    /// PEM texts of public keys of RS256, ES256 or `EdDSA`; at most [`KEYS_TRIED_MAX`] keys in all of them.
    pub public_keys: Vec<String>,
    /// Where more keys come from, which may change.
    pub jwks: Option<JwksSource>,
    /// The algorithms that are accepted; empty: HS256 for a secret, and those that fit the other keys.
    pub algorithms: Vec<Algorithm>,
    /// The only accepted `iss`, when given.
    pub issuer: Option<String>,
    /// A token must name one of these as `aud`; empty: `aud` is not looked at.
    pub audience: Vec<String>,
    /// How far the clocks of issuer and gateway may be apart.
    pub leeway: Duration,
    /// Whether a token without `exp` is refused.
    pub require_exp: bool,
    /// Bounds of what is kept of revoked tokens.
    pub revocations: revocations::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::None,
            secret: None,
            public_keys: Vec::new(),
            jwks: None,
            algorithms: Vec::new(),
            issuer: None,
            audience: Vec::new(),
            leeway: Duration::ZERO,
            require_exp: true,
            revocations: revocations::Options::default(),
        }
    }
}

/// Where a set of keys is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksSource {
    /// A file on this machine.
    File(PathBuf),
    /// An `https` or `http` address.
    Url(String),
}

/// Whether clients need a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Development: everyone is who they say.
    None,
    /// A valid JWT, or 401.
    Jwt,
}

/// What a client may do, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Who it is.
    pub user: UserId,
    /// Unix seconds from which the token is no longer honoured: `exp`, or that plus the leeway for a token that was
    /// only accepted because of it.
    pub expires_at: Option<u64>,
    /// When the token was issued, in Unix seconds.
    pub issued_at: Option<u64>,
    /// The token's own name, its `jti`.
    pub token_id: Option<Box<str>>,
    /// The rooms it may enter, `*` standing for any text; `None`: all.
    pub rooms: Option<Vec<String>>,
    /// The rooms in which it may say something; `None`: all that it may enter.
    pub publish: Option<Vec<String>>,
    /// Whether the token says that it may send to everyone.
    pub broadcast: bool,
}

/// Why a client is refused with 401; the text is the sentence of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No token came.
    #[error(
        "a token is required: send it as `Authorization: Bearer`, as subprotocol `fanfare.token.T` or as `token=` in the query"
    )]
    Missing,
    /// Not three parts of base64url with JSON inside.
    #[error("the token is not a JSON Web Token")]
    Malformed,
    /// A claim is there but cannot be what it is.
    #[error("the token's claim `{0}` has a value that is not valid")]
    BadClaim(&'static str),
    /// A claim that is needed is not there.
    #[error("the token has no claim `{0}`, which is required")]
    MissingClaim(&'static str),
    /// Signed in a way that is not on the allow-list.
    #[error("the token is signed with an algorithm that is not accepted here")]
    WrongAlgorithm,
    /// Signed by a key that is in no set, or not yet.
    #[error("the token is signed with a key that is not known here")]
    UnknownKey,
    /// The signature does not fit the key.
    #[error("the token's signature is not valid")]
    BadSignature,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// From another issuer.
    #[error("the token was issued by another party than the one that is accepted here")]
    WrongIssuer,
    /// It counts no more, as the application said.
    #[error("the token was revoked")]
    Revoked,
    /// For another service.
    #[error("the token is meant for another audience")]
    WrongAudience,
}

/// The keys that may change while the gateway runs.
struct Replaceable {
    rules: SetRules,
    /// Locked only to take a share of the set or to put another one there.
    current: RwLock<Arc<KeySet>>,
    /// Whether a token came with a key that is not in it.
    is_missed: AtomicBool,
}

/// Checks tokens; made once, shared by all handshakes.
pub struct Verifier {
    mode: Mode,
    keys: Vec<Key>,
    set: Replaceable,
    issuer: Option<String>,
    audience: Vec<String>,
    leeway: u64,
    require_exp: bool,
    revocations: Mutex<Revocations>,
    sessions: SessionTokens,
}

impl Verifier {
    /// Builds the keys.
    ///
    /// # Errors
    ///
    /// [`KeyError`] when a key is not one, or does not serve an allowed algorithm.
    pub fn new(options: Options) -> Result<Self, KeyError> {
        let keys = match options.mode {
            Mode::None => Vec::new(),
            Mode::Jwt => keys(&options)?,
        };
        Ok(Self {
            mode: options.mode,
            keys,
            set: Replaceable {
                rules: SetRules::of(&options),
                current: RwLock::default(),
                is_missed: AtomicBool::new(false),
            },
            issuer: options.issuer,
            audience: options.audience,
            leeway: options.leeway.as_secs(),
            require_exp: options.require_exp,
            revocations: Mutex::new(Revocations::new(options.revocations)),
            // The standard library seeds its hashers from the system's random source.
            sessions: SessionTokens::new(RandomState::new()),
        })
    }

    /// What clients come back by.
    pub fn sessions(&self) -> &SessionTokens {
        &self.sessions
    }

    /// Whether a client needs a token at all.
    pub fn is_required(&self) -> bool {
        self.mode == Mode::Jwt
    }

    /// What a client without a token may do, where none is required.
    pub fn anonymous(&self, user: UserId) -> Claims {
        Claims {
            user,
            expires_at: None,
            issued_at: None,
            token_id: None,
            rooms: None,
            publish: None,
            broadcast: false,
        }
    }

    /// Reads a token; `now` is in Unix seconds.
    ///
    /// # Errors
    ///
    /// [`AuthError`]: the first thing that is wrong; nothing of the claims is looked at before the signature.
    pub fn verify(&self, token: &str, now: u64) -> Result<Claims, AuthError> {
        let (message, signature) = token.rsplit_once('.').ok_or(AuthError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(AuthError::Malformed)?;
        self.check_signature(&json(header)?, message, signature)?;
        let claims: TokenClaims = json(payload)?;
        let expires_at = self.check_time(&claims, now)?;
        self.check_parties(&claims)?;
        let claims = Claims {
            user: user(claims.sub)?,
            expires_at,
            issued_at: seconds(claims.iat.as_ref(), "iat")?,
            token_id: token_id(claims.jti)?,
            rooms: rooms(claims.rooms, "rooms")?,
            publish: rooms(claims.publish, "publish")?,
            broadcast: broadcast(claims.broadcast.as_ref())?,
        };
        if self.is_revoked(&claims, now) { Err(AuthError::Revoked) } else { Ok(claims) }
    }

    /// Whether what a token said counts no more, although it did when it was read.
    pub fn is_revoked(&self, claims: &Claims, now: u64) -> bool {
        self.revocations().are_revoked(claims, now)
    }

    /// Revokes the token with this `jti`.
    ///
    /// # Errors
    ///
    /// [`Full`] when there is no room for another revocation.
    pub fn revoke_token(&self, token: &str, now: u64) -> Result<(), Full> {
        self.revocations().revoke_token(token, now)
    }

    /// Revokes all tokens of a user that were issued up to now, by an issuer whose clock may be ahead by the leeway.
    ///
    /// # Errors
    ///
    /// [`Full`] when there is no room for another revocation.
    pub fn revoke_user(&self, user: &UserId, now: u64) -> Result<(), Full> {
        self.revocations().revoke_user(user, now.saturating_add(self.leeway), now)
    }

    fn revocations(&self) -> MutexGuard<'_, Revocations> {
        // No code panics between two changes that belong together, so that a poisoned list is still whole.
        self.revocations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a set of keys and puts it in the place of the one before; who is being checked has one or the other.
    ///
    /// # Errors
    ///
    /// [`SetError`]; the set before it stays.
    pub fn replace_set(&self, text: &[u8]) -> Result<Arc<KeySet>, SetError> {
        let set = Arc::new(KeySet::parse(text, &self.set.rules)?);
        *self.set.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&set);
        Ok(set)
    }

    /// Whether a token was refused with [`AuthError::UnknownKey`] since this was last asked.
    pub fn take_missed_key(&self) -> bool {
        self.set.is_missed.swap(false, Ordering::Relaxed)
    }

    fn check_signature(&self, header: &TokenHeader, message: &str, signature: &str) -> Result<(), AuthError> {
        // RFC 7515, 4.1.11: who does not understand what is critical must refuse; we understand no extension.
        if header.crit.is_some() {
            return Err(AuthError::Malformed);
        }
        let algorithm: Algorithm = header.alg.parse().map_err(|()| AuthError::WrongAlgorithm)?;
        let set = Arc::clone(&self.set.current.read().unwrap_or_else(PoisonError::into_inner));
        let kid = header.kid.as_deref();
        let named = kid.filter(|kid| set.knows(kid));
        // A configured key has no name: it may be any that the set does not know.
        let configured = self.keys.iter().filter(|key| key.algorithm == algorithm && named.is_none());
        let tried: Vec<_> = configured.chain(set.fitting(kid, algorithm).take(KEYS_TRIED_MAX)).collect();
        for key in &tried {
            match jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.key, algorithm.inner()) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(_) => return Err(AuthError::Malformed),
            }
        }
        let may_come = self.set.rules.may_have(algorithm) && named.is_none();
        if may_come && (kid.is_some() || tried.is_empty()) {
            self.set.is_missed.store(true, Ordering::Relaxed);
            return Err(AuthError::UnknownKey);
        }
        Err(if tried.is_empty() { AuthError::WrongAlgorithm } else { AuthError::BadSignature })
    }

    fn check_time(&self, claims: &TokenClaims, now: u64) -> Result<Option<u64>, AuthError> {
        let exp = seconds(claims.exp.as_ref(), "exp")?;
        let nbf = seconds(claims.nbf.as_ref(), "nbf")?;
        if exp.is_none() && self.require_exp {
            return Err(AuthError::MissingClaim("exp"));
        }
        // Who comes in time is let go at `exp` itself; the leeway is for clocks that differ, not a longer life.
        let expires_at = exp.map(|exp| if now < exp { exp } else { exp.saturating_add(self.leeway) });
        if expires_at.is_some_and(|at| now >= at) {
            return Err(AuthError::Expired);
        }
        if nbf.is_some_and(|nbf| nbf > now.saturating_add(self.leeway)) {
            return Err(AuthError::NotYetValid);
        }
        Ok(expires_at)
    }

    fn check_parties(&self, claims: &TokenClaims) -> Result<(), AuthError> {
        if let Some(issuer) = &self.issuer {
            match &claims.iss {
                None => return Err(AuthError::MissingClaim("iss")),
                Some(Value::String(iss)) if iss == issuer => {}
                Some(_) => return Err(AuthError::WrongIssuer),
            }
        }
        if self.audience.is_empty() {
            return Ok(());
        }
        let ours = |value: &Value| value.as_str().is_some_and(|aud| self.audience.iter().any(|a| a == aud));
        match &claims.aud {
            None => Err(AuthError::MissingClaim("aud")),
            Some(Value::Array(list)) if list.iter().any(ours) => Ok(()),
            Some(one) if ours(one) => Ok(()),
            Some(_) => Err(AuthError::WrongAudience),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms: Vec<_> = self.keys.iter().map(|key| key.algorithm).collect();
        f.debug_struct("Verifier")
            .field("mode", &self.mode)
            .field("algorithms", &algorithms)
            .finish_non_exhaustive()
    }
}

/// Longest `jti`, in bytes: each connection keeps its token's.
pub const TOKEN_ID_BYTES_MAX: usize = 128;

#[derive(Deserialize)]
struct TokenHeader {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// Every claim that counts, as it came: what is wrong with one is said by name.
#[derive(Deserialize)]
struct TokenClaims {
    sub: Option<Value>,
    exp: Option<Value>,
    nbf: Option<Value>,
    iat: Option<Value>,
    jti: Option<Value>,
    iss: Option<Value>,
    aud: Option<Value>,
    rooms: Option<Value>,
    publish: Option<Value>,
    broadcast: Option<Value>,
}

/// One part of a token; read as a whole, so that a duplicate claim is not a matter of who reads it.
fn json<T: DeserializeOwned>(part: &str) -> Result<T, AuthError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| AuthError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| AuthError::Malformed)
}

fn user(sub: Option<Value>) -> Result<UserId, AuthError> {
    match sub {
        None => Err(AuthError::MissingClaim("sub")),
        Some(Value::String(name)) => UserId::parse(&name).map_err(|_| AuthError::BadClaim("sub")),
        Some(Value::Number(number)) => {
            number.as_u64().map(UserId::from_u64).ok_or(AuthError::BadClaim("sub"))
        }
        Some(_) => Err(AuthError::BadClaim("sub")),
    }
}

/// A list that cannot be read grants nothing: it refuses the token instead of meaning "all rooms".
fn rooms(claim: Option<Value>, name: &'static str) -> Result<Option<Vec<String>>, AuthError> {
    let Some(claim) = claim else { return Ok(None) };
    let Value::Array(list) = claim else { return Err(AuthError::BadClaim(name)) };
    let names = list.into_iter().map(|room| match room {
        Value::String(room) => Ok(room),
        Value::Number(number) if number.is_u64() => Ok(number.to_string()),
        _ => Err(AuthError::BadClaim(name)),
    });
    names.collect::<Result<_, _>>().map(Some)
}

fn token_id(jti: Option<Value>) -> Result<Option<Box<str>>, AuthError> {
    match jti {
        None => Ok(None),
        Some(Value::String(id)) if id.is_empty() => Ok(None),
        Some(Value::String(id)) if id.len() <= TOKEN_ID_BYTES_MAX => Ok(Some(id.into())),
        Some(_) => Err(AuthError::BadClaim("jti")),
    }
}

fn broadcast(claim: Option<&Value>) -> Result<bool, AuthError> {
    match claim {
        None => Ok(false),
        Some(Value::Bool(said)) => Ok(*said),
        Some(_) => Err(AuthError::BadClaim("broadcast")),
    }
}

/// A `NumericDate` of RFC 7519: Unix seconds, with a fraction if the issuer likes.
fn seconds(claim: Option<&Value>, name: &'static str) -> Result<Option<u64>, AuthError> {
    let Some(claim) = claim else { return Ok(None) };
    if let Some(whole) = claim.as_u64() {
        return Ok(Some(whole));
    }
    let fraction = claim.as_f64().filter(|seconds| *seconds >= 0.0).ok_or(AuthError::BadClaim(name))?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates; negative is refused"
    )]
    Ok(Some(fraction as u64))
}
