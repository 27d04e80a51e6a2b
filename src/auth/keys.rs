//! The keys: which algorithm a token may be signed with, and what verifies it.

use std::fmt;
use std::str::FromStr;

use jsonwebtoken::{AlgorithmFamily, DecodingKey};

use super::Options;
use super::set::SetRules;

/// A shared secret; its `Debug` says nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text as it is; the key is its bytes.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The key itself.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(********)")
    }
}

/// A signature algorithm that may be allowed; `none` cannot even be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of RFC 7518 and RFC 8037")]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    /// All that there are.
    pub const ALL: [Self; 6] = [Self::Hs256, Self::Hs384, Self::Hs512, Self::Rs256, Self::Es256, Self::EdDsa];

    /// The name in a token's header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// Whether both sides hold the same secret.
    pub fn is_symmetric(self) -> bool {
        self.inner().family() == AlgorithmFamily::Hmac
    }

    pub(super) fn inner(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Hs384 => jsonwebtoken::Algorithm::HS384,
            Self::Hs512 => jsonwebtoken::Algorithm::HS512,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

impl FromStr for Algorithm {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name).ok_or(())
    }
}

/// Why a [`Verifier`](super::Verifier) cannot be made. Public keys are named by their place in the list, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Tokens are required, but nothing could verify them.
    #[error("tokens are required, but neither `auth.secret` nor `auth.public_key` nor `auth.jwks` is set")]
    NoKey,
    /// Not a PEM public key of a known kind.
    #[error("key {0} is not a PEM public key for RS256, ES256 (P-256) or EdDSA (Ed25519)")]
    PublicKey(usize),
    /// The private half was given, which the gateway has no business to hold.
    #[error("key {0} is a private key; give the gateway the public key only")]
    PrivateKey(usize),
    /// RSA below 2048 bits is never accepted by the verifying side.
    #[error("key {0} is an RSA key of less than 2048 bits")]
    ShortKey(usize),
    /// Each of them might have to be tried for one token.
    #[error("has {0} keys, more than {KEYS_TRIED_MAX}: each may have to be tried for one token")]
    TooManyKeys(usize),
    /// An algorithm is allowed that no key serves.
    #[error("`{0}` needs {needs}, which is not set", needs = if *.1 { "`auth.secret`" } else { "a fitting `auth.public_key`" })]
    NoKeyFor(&'static str, bool),
}

/// One algorithm, and what verifies it: a token never chooses a key of another family.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// The most public keys that are tried for one token which does not say by its `kid` which it is: each costs as much as
/// the check of a token.
pub const KEYS_TRIED_MAX: usize = 8;

/// The configured keys, for the allowed algorithms only.
pub(super) fn keys(options: &Options) -> Result<Vec<Key>, KeyError> {
    let public = public_keys(&options.public_keys)?;
    if options.secret.is_none() && public.is_empty() && options.jwks.is_none() {
        return Err(KeyError::NoKey);
    }
    let allowed = |algorithm: &Algorithm| match options.algorithms.as_slice() {
        [] => !matches!(algorithm, Algorithm::Hs384 | Algorithm::Hs512),
        listed => listed.contains(algorithm),
    };
    let secret = |secret: &Secret| {
        let key = DecodingKey::from_secret(secret.as_bytes());
        let symmetric = Algorithm::ALL.into_iter().filter(|algorithm| algorithm.is_symmetric());
        symmetric.map(|algorithm| Key { algorithm, key: key.clone() }).collect::<Vec<_>>()
    };
    let secret = options.secret.iter().flat_map(secret);
    let keys: Vec<_> = secret.chain(public).filter(|key| allowed(&key.algorithm)).collect();
    let of_set = SetRules::of(options);
    for algorithm in &options.algorithms {
        if !keys.iter().any(|key| key.algorithm == *algorithm) && !of_set.may_have(*algorithm) {
            return Err(KeyError::NoKeyFor(algorithm.as_str(), algorithm.is_symmetric()));
        }
    }
    Ok(keys)
}

/// Each text has one key or more.
fn public_keys(texts: &[String]) -> Result<Vec<Key>, KeyError> {
    let blocks: Vec<_> = texts.iter().flat_map(|text| blocks(text)).collect();
    if blocks.len() > KEYS_TRIED_MAX {
        return Err(KeyError::TooManyKeys(blocks.len()));
    }
    (1..).zip(blocks).map(|(number, block)| public_key(number, block)).collect()
}

/// The PEM blocks of a text; one that has none is given back as it is, to be refused.
fn blocks(text: &str) -> Vec<&str> {
    let starts: Vec<_> = text.match_indices("-----BEGIN").map(|(at, _)| at).collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    if starts.is_empty() {
        vec![text]
    } else {
        starts.iter().zip(ends).map(|(from, to)| &text[*from..to]).collect()
    }
}

fn public_key(number: usize, pem: &str) -> Result<Key, KeyError> {
    if pem.contains("PRIVATE KEY-----") {
        return Err(KeyError::PrivateKey(number));
    }
    let length = |key: &DecodingKey| key.try_get_as_bytes().map_or(0, <[u8]>::len);
    if let Ok(key) = DecodingKey::from_rsa_pem(pem.as_bytes()) {
        return if length(&key) < RSA_2048_BYTES {
            Err(KeyError::ShortKey(number))
        } else {
            Ok(Key { algorithm: Algorithm::Rs256, key })
        };
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem.as_bytes())
        && length(&key) == P256_POINT_BYTES
    {
        return Ok(Key { algorithm: Algorithm::Es256, key });
    }
    match DecodingKey::from_ed_pem(pem.as_bytes()) {
        Ok(key) => Ok(Key { algorithm: Algorithm::EdDsa, key }),
        Err(_) => Err(KeyError::PublicKey(number)),
    }
}

/// The modulus alone of the smallest accepted RSA key.
pub(super) const RSA_2048_BYTES: usize = 256;
/// An uncompressed point: a tag and two coordinates.
const P256_POINT_BYTES: usize = 65;
