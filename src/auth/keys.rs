//! The keys: which algorithm a token may be signed with, and what verifies it.

use std::fmt;
use std::str::FromStr;

use jsonwebtoken::{AlgorithmFamily, DecodingKey};

use super::Options;

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

/// Why a [`Verifier`](super::Verifier) cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Tokens are required, but nothing could verify them.
    #[error("tokens are required, but neither `auth.secret` nor `auth.public_key` is set")]
    NoKey,
    /// Not a PEM public key of a known kind.
    #[error("is not a PEM public key for RS256, ES256 (P-256) or EdDSA (Ed25519)")]
    PublicKey,
    /// The private half was given, which the gateway has no business to hold.
    #[error("is a private key; give the gateway the public key only")]
    PrivateKey,
    /// RSA below 2048 bits is never accepted by the verifying side.
    #[error("is an RSA key of less than 2048 bits")]
    ShortKey,
    /// An algorithm is allowed that no key serves.
    #[error("`{0}` needs {needs}, which is not set", needs = if *.1 { "`auth.secret`" } else { "a fitting `auth.public_key`" })]
    NoKeyFor(&'static str, bool),
}

/// One allowed algorithm, and what verifies it: a token never chooses a key of another family.
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// A key for each allowed algorithm.
pub(super) fn keys(options: &Options) -> Result<Vec<Key>, KeyError> {
    let secret = options.secret.as_ref().map(|secret| DecodingKey::from_secret(secret.as_bytes()));
    let public = options.public_key.as_deref().map(public_key).transpose()?;
    if secret.is_none() && public.is_none() {
        return Err(KeyError::NoKey);
    }
    let natural =
        secret.iter().map(|_| Algorithm::Hs256).chain(public.iter().map(|(algorithm, _)| *algorithm));
    let allowed = if options.algorithms.is_empty() { natural.collect() } else { options.algorithms.clone() };
    let key = |algorithm: Algorithm| {
        let found = match &public {
            _ if algorithm.is_symmetric() => secret.as_ref(),
            Some((kind, key)) if *kind == algorithm => Some(key),
            _ => None,
        };
        let key = found.ok_or(KeyError::NoKeyFor(algorithm.as_str(), algorithm.is_symmetric()))?.clone();
        Ok(Key { algorithm, key })
    };
    allowed.into_iter().map(key).collect()
}

fn public_key(pem: &str) -> Result<(Algorithm, DecodingKey), KeyError> {
    if pem.contains("PRIVATE KEY-----") {
        return Err(KeyError::PrivateKey);
    }
    let length = |key: &DecodingKey| key.try_get_as_bytes().map_or(0, <[u8]>::len);
    if let Ok(key) = DecodingKey::from_rsa_pem(pem.as_bytes()) {
        return if length(&key) < RSA_2048_BYTES {
            Err(KeyError::ShortKey)
        } else {
            Ok((Algorithm::Rs256, key))
        };
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem.as_bytes())
        && length(&key) == P256_POINT_BYTES
    {
        return Ok((Algorithm::Es256, key));
    }
    match DecodingKey::from_ed_pem(pem.as_bytes()) {
        Ok(key) => Ok((Algorithm::EdDsa, key)),
        Err(_) => Err(KeyError::PublicKey),
    }
}

/// The modulus alone of the smallest accepted RSA key.
const RSA_2048_BYTES: usize = 256;
/// An uncompressed point: a tag and two coordinates.
const P256_POINT_BYTES: usize = 65;
