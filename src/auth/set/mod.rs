//! A set of keys as issuers publish it (JWKS, RFC 7517) -> the keys that can verify tokens, and why others are left out.

#[cfg(test)]
mod tests;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::keys::{Key, RSA_2048_BYTES};
use super::{Algorithm, JwksSource, Options};

/// The keys of a set that are of use.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<SetKey>,
    skipped: Vec<(usize, Skipped)>,
}

#[derive(Debug)]
struct SetKey {
    kid: Option<Box<str>>,
    key: Key,
}

/// Which keys of a set may be of use: what the configuration allows, where the set comes from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetRules {
    algorithms: Vec<Algorithm>,
    /// Whether shared secrets may be among them.
    secrets: bool,
}

/// Why a key of a set is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Skipped {
    /// Not an object with a text `kty`.
    #[error("is not a JSON Web Key")]
    NotAKey,
    /// Of a `kty` or on a curve that no accepted algorithm uses.
    #[error("is of another kind than RSA, EC with P-256, OKP with Ed25519, and oct")]
    OtherKind,
    /// `use` or `key_ops` say so.
    #[error("is not for verifying signatures, as its `use` or `key_ops` says")]
    OtherUse,
    /// Its `alg`, or what its kind serves, is not allowed here, or does not fit its kind.
    #[error("is not for an algorithm that is accepted here")]
    OtherAlgorithm,
    /// A part of it is missing, not base64url, or cannot be.
    #[error("lacks a part, or has one that cannot be")]
    Unreadable,
    /// RSA below 2048 bits, or a secret shorter than the hash of its algorithm.
    #[error("is too short")]
    TooShort,
    /// Published for everybody to sign with.
    #[error("holds its private half, with which anybody who reads the set can sign")]
    PrivateKey,
    /// A secret that came over the network.
    #[error("is a shared secret, which is taken from a file only")]
    SharedSecret,
}

/// Why a set is not taken over. Says nothing of what the set says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// Not JSON.
    #[error("is not JSON, from line {line}, column {column} on")]
    NotJson {
        /// From 1.
        line: usize,
        /// In bytes.
        column: usize,
    },
    /// JSON of another form.
    #[error("is not a set of keys: an object with a list `keys` is needed")]
    NotASet,
    /// More than [`SET_KEYS_MAX`].
    #[error("has {0} keys, more than {SET_KEYS_MAX}")]
    TooManyKeys(usize),
    /// To take it over would refuse everybody.
    #[error("has no key that can verify a token{0}")]
    NoKey(Reasons),
}

/// The keys that were left out, each with its place from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reasons(Vec<(usize, Skipped)>);

/// The most keys in a set.
pub const SET_KEYS_MAX: usize = 100;

impl SetRules {
    /// What the configuration allows.
    pub fn of(options: &Options) -> Self {
        let secrets = matches!(options.jwks, Some(JwksSource::File(_)));
        let known = match options.algorithms.as_slice() {
            [] => &Algorithm::ALL,
            listed => listed,
        };
        let known = if options.jwks.is_some() { known } else { &[] };
        let is_possible = |algorithm: &Algorithm| secrets || !algorithm.is_symmetric();
        Self { algorithms: known.iter().copied().filter(is_possible).collect(), secrets }
    }

    /// Whether a set may have keys for it.
    pub(super) fn may_have(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }
}

impl KeySet {
    /// Reads a set. Keys that are of no use here are skipped, as RFC 7517, 5 has it.
    ///
    /// # Errors
    ///
    /// [`SetError`] when it is no set, too large a one, or one without a key that is of use.
    pub fn parse(text: &[u8], rules: &SetRules) -> Result<Self, SetError> {
        let set: Value = serde_json::from_slice(text)
            .map_err(|error| SetError::NotJson { line: error.line(), column: error.column() })?;
        let listed = set.get("keys").and_then(Value::as_array).ok_or(SetError::NotASet)?;
        if listed.len() > SET_KEYS_MAX {
            return Err(SetError::TooManyKeys(listed.len()));
        }
        let mut set = Self::default();
        for (number, jwk) in (1..).zip(listed) {
            match keys(jwk, rules) {
                Ok(keys) => set.keys.extend(keys),
                Err(reason) => set.skipped.push((number, reason)),
            }
        }
        if set.keys.is_empty() { Err(SetError::NoKey(set.skipped())) } else { Ok(set) }
    }

    /// How many keys can be used; a secret counts for each of its algorithms.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that cannot.
    pub fn skipped(&self) -> Reasons {
        Reasons(self.skipped.clone())
    }

    /// Whether a key has this name.
    pub(super) fn knows(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid.as_deref() == Some(kid))
    }

    /// The keys for this algorithm that a token may mean: those named `kid` when one has that name, those without a
    /// name when none has, and all when the token names none.
    pub(super) fn fitting(&self, kid: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        let kid = kid.map(|kid| Some(kid).filter(|kid| self.knows(kid)));
        let is_meant = move |key: &&SetKey| kid.is_none_or(|kid| key.kid.as_deref() == kid);
        let keys = self.keys.iter().filter(is_meant).map(|key| &key.key);
        keys.filter(move |key| key.algorithm == algorithm)
    }
}

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (number, reason)) in self.0.iter().enumerate() {
            let before = if place == 0 { ": " } else { ", " };
            write!(f, "{before}key {number} {reason}")?;
        }
        Ok(())
    }
}

/// One key for each algorithm that it serves; more than one only for secrets.
fn keys(jwk: &Value, rules: &SetRules) -> Result<Vec<SetKey>, Skipped> {
    let jwk = jwk.as_object().ok_or(Skipped::NotAKey)?;
    let kind = jwk.get("kty").and_then(Value::as_str).ok_or(Skipped::NotAKey)?;
    let name = match jwk.get("kid") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name.as_str()),
        Some(_) => return Err(Skipped::NotAKey),
    };
    let curve = jwk.get("crv").and_then(Value::as_str);
    let served: &[Algorithm] = match (kind, curve) {
        ("RSA", _) => &[Algorithm::Rs256],
        ("EC", Some("P-256")) => &[Algorithm::Es256],
        ("OKP", Some("Ed25519")) => &[Algorithm::EdDsa],
        ("oct", _) if rules.secrets => &[Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512],
        ("oct", _) => return Err(Skipped::SharedSecret),
        _ => return Err(Skipped::OtherKind),
    };
    if !is_for_verifying(jwk) {
        return Err(Skipped::OtherUse);
    }
    if kind != "oct" && jwk.contains_key("d") {
        return Err(Skipped::PrivateKey);
    }
    let is_meant = |algorithm: &Algorithm| match jwk.get("alg") {
        None | Some(Value::Null) => true,
        Some(alg) => alg.as_str() == Some(algorithm.as_str()),
    };
    let served = served.iter().copied().filter(|algorithm| is_meant(algorithm) && rules.may_have(*algorithm));
    let served: Vec<_> = served.collect();
    if served.is_empty() {
        return Err(Skipped::OtherAlgorithm);
    }
    let made = match served.as_slice() {
        [Algorithm::Rs256] => vec![Key { algorithm: Algorithm::Rs256, key: rsa(jwk)? }],
        [Algorithm::Es256] => vec![Key { algorithm: Algorithm::Es256, key: p256(jwk)? }],
        [Algorithm::EdDsa] => vec![Key { algorithm: Algorithm::EdDsa, key: ed25519(jwk)? }],
        symmetric => secrets(jwk, symmetric)?,
    };
    Ok(made.into_iter().map(|key| SetKey { kid: name.map(Into::into), key }).collect())
}

/// What is said must include it; what is not said allows all.
fn is_for_verifying(jwk: &Map<String, Value>) -> bool {
    let is_used = match jwk.get("use") {
        None | Some(Value::Null) => true,
        Some(used) => used.as_str() == Some("sig"),
    };
    let may_verify = match jwk.get("key_ops") {
        None | Some(Value::Null) => true,
        Some(Value::Array(list)) => list.iter().any(|one| one.as_str() == Some("verify")),
        Some(_) => false,
    };
    is_used && may_verify
}

fn rsa(jwk: &Map<String, Value>) -> Result<DecodingKey, Skipped> {
    let (modulus, exponent) = (unpadded(part(jwk, "n")?), unpadded(part(jwk, "e")?));
    if modulus.len() < RSA_2048_BYTES || (modulus.len() == RSA_2048_BYTES && modulus[0] < 0x80) {
        return Err(Skipped::TooShort);
    }
    // Larger ones are never accepted by the verifying side.
    let is_possible = |number: &[u8], bytes_max| {
        number.len() <= bytes_max && number.last().is_some_and(|last| last % 2 == 1)
    };
    if !is_possible(&modulus, RSA_MODULUS_BYTES_MAX)
        || !is_possible(&exponent, RSA_EXPONENT_BYTES_MAX)
        || exponent == [1]
    {
        return Err(Skipped::Unreadable);
    }
    Ok(DecodingKey::from_rsa_raw_components(&modulus, &exponent))
}

fn p256(jwk: &Map<String, Value>) -> Result<DecodingKey, Skipped> {
    let (x, y) = (coordinate(jwk, "x")?, coordinate(jwk, "y")?);
    DecodingKey::from_ec_components(x, y).map_err(|_| Skipped::Unreadable)
}

fn ed25519(jwk: &Map<String, Value>) -> Result<DecodingKey, Skipped> {
    DecodingKey::from_ed_components(coordinate(jwk, "x")?).map_err(|_| Skipped::Unreadable)
}

/// Each algorithm needs a secret as long as its hash, as RFC 7518, 3.2 has it.
fn secrets(jwk: &Map<String, Value>, algorithms: &[Algorithm]) -> Result<Vec<Key>, Skipped> {
    let secret = part(jwk, "k")?;
    let bytes_min = |algorithm| match algorithm {
        Algorithm::Hs512 => 64,
        Algorithm::Hs384 => 48,
        _ => 32,
    };
    let fitting = algorithms.iter().copied().filter(|algorithm| secret.len() >= bytes_min(*algorithm));
    let key = DecodingKey::from_secret(&secret);
    let keys: Vec<_> = fitting.map(|algorithm| Key { algorithm, key: key.clone() }).collect();
    if keys.is_empty() { Err(Skipped::TooShort) } else { Ok(keys) }
}

fn part(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, Skipped> {
    let text = jwk.get(name).and_then(Value::as_str).ok_or(Skipped::Unreadable)?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Skipped::Unreadable)
}

/// A part of exactly 32 bytes, as text.
fn coordinate<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<&'a str, Skipped> {
    if part(jwk, name)?.len() != COORDINATE_BYTES {
        return Err(Skipped::Unreadable);
    }
    jwk.get(name).and_then(Value::as_str).ok_or(Skipped::Unreadable)
}

/// RFC 7518, 6.3.1 forbids leading zeros, which some write all the same.
fn unpadded(mut number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.drain(..zeros);
    number
}

/// Of P-256 and of Ed25519.
const COORDINATE_BYTES: usize = 32;
/// 8192 bits.
const RSA_MODULUS_BYTES_MAX: usize = 1024;
/// More than any exponent in use, and too few to make a check slow.
const RSA_EXPONENT_BYTES_MAX: usize = 4;
