//! Who may use `/api/v1`: keys, and what each of them may do.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

/// The shortest key, in bytes: who guesses should have no chance, and nobody slows down who guesses here.
pub const KEY_BYTES_MIN: usize = 32;

/// What a key may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// To say something.
    Publish,
    /// To look.
    Read,
    /// To take clients out of rooms, close their connections, and drain the gateway.
    Manage,
}

impl Scope {
    /// As in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Manage => "manage",
        }
    }
}

/// A key of the API. What is kept of the secret is its hash, so that nothing that prints the configuration can tell it.
#[derive(Clone)]
pub struct ApiKey {
    name: String,
    hash: Digest,
    scopes: Vec<Scope>,
}

impl ApiKey {
    /// A key of this name, which is for operators only, with its secret and what it may do.
    pub fn new(name: String, secret: &str, scopes: Vec<Scope>) -> Self {
        Self { name, hash: hash(secret), scopes }
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it may do.
    pub fn scopes(&self) -> &[Scope] {
        &self.scopes
    }

    /// Whether both have the same secret. Takes the same time for any two.
    pub fn is_same_secret(&self, other: &Self) -> bool {
        self.is(&other.hash)
    }

    fn caller(&self) -> Caller {
        Caller(self.hash.as_ref().first_chunk().copied())
    }

    fn is(&self, hash: &Digest) -> bool {
        verify_slices_are_equal(self.hash.as_ref(), hash.as_ref()).is_ok()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey")
            .field("name", &self.name)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// As the secrets' hashes can tell.
impl PartialEq for ApiKey {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.scopes == other.scopes && self.is_same_secret(other)
    }
}

/// All keys; with none of them nobody is asked for one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ApiKeys(pub Arc<[ApiKey]>);

/// The keys in force, which may be changed as a whole while requests are answered; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct KeyRing(Arc<RwLock<ApiKeys>>);

impl KeyRing {
    /// These keys, until others are set.
    pub fn new(keys: ApiKeys) -> Self {
        Self(Arc::new(RwLock::new(keys)))
    }

    /// Has these keys count and no others, from the next request on.
    pub fn set(&self, keys: ApiKeys) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    pub(super) fn keys(&self) -> ApiKeys {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether somebody who was let in may still do what the scope allows.
    pub(super) fn check_again(&self, caller: Caller, scope: Scope) -> Result<(), Denied> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).check_again(caller, scope)
    }
}

/// Who asks: a part of the hash of its key, or nobody in particular. It is the same whatever other keys there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Caller(Option<[u8; 8]>);

/// Why somebody may not do what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// There is no key in the request.
    Missing,
    /// There is one that nobody has.
    Unknown,
    /// It is not for this.
    Forbidden(Scope),
}

impl ApiKeys {
    /// Whether anybody is asked for a key.
    pub(super) fn is_required(&self) -> bool {
        !self.0.is_empty()
    }

    /// Who asks with these headers, if it may do what the scope allows.
    ///
    /// The hash of what was sent is compared with that of every key, whether one has been found or not: time tells nothing.
    pub(super) fn check(&self, headers: &HeaderMap, scope: Scope) -> Result<Caller, Denied> {
        if !self.is_required() {
            return Ok(Caller(None));
        }
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Err(Denied::Missing) };
        let secret = value.to_str().ok().and_then(bearer).filter(|_| values.next().is_none());
        let hash = hash(secret.ok_or(Denied::Unknown)?);
        let fitting: Vec<_> = self.0.iter().map(|key| key.is(&hash)).collect();
        let place = fitting.iter().position(|fits| *fits).ok_or(Denied::Unknown)?;
        if !self.0[place].scopes.contains(&scope) {
            return Err(Denied::Forbidden(scope));
        }
        Ok(self.0[place].caller())
    }

    fn check_again(&self, caller: Caller, scope: Scope) -> Result<(), Denied> {
        if !self.is_required() {
            return Ok(());
        }
        if caller == Caller::default() {
            return Err(Denied::Missing);
        }
        let key = self.0.iter().find(|key| key.caller() == caller).ok_or(Denied::Unknown)?;
        if key.scopes.contains(&scope) { Ok(()) } else { Err(Denied::Forbidden(scope)) }
    }
}

/// What stands behind the word `Bearer`, which may be written in any case.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
}

fn hash(secret: &str) -> Digest {
    digest(&SHA256, secret.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "one key of more than 32 characters";
    const OTHER: &str = "another key of more than 32 characters";

    fn keys() -> ApiKeys {
        let one = ApiKey::new("one".to_owned(), ONE, vec![Scope::Publish]);
        let other = ApiKey::new("other".to_owned(), OTHER, vec![Scope::Read, Scope::Manage]);
        ApiKeys([one, other].into())
    }

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect()
    }

    #[test]
    fn each_key_opens_what_it_is_for() {
        let check = |secret: &str, scope| keys().check(&headers(&[&format!("Bearer {secret}")]), scope);

        assert_eq!(check(ONE, Scope::Publish), Ok(keys().0[0].caller()));
        assert_eq!(check(OTHER, Scope::Manage), Ok(keys().0[1].caller()));
        assert_ne!(keys().0[0].caller(), keys().0[1].caller());
        assert_eq!(check(ONE, Scope::Read), Err(Denied::Forbidden(Scope::Read)));
        assert_eq!(check("one key", Scope::Publish), Err(Denied::Unknown));
        assert_eq!(check(&ONE.to_uppercase(), Scope::Publish), Err(Denied::Unknown));
        assert_eq!(check("", Scope::Publish), Err(Denied::Unknown));
    }

    #[test]
    fn the_header_is_there_once_and_of_its_kind() {
        let check = |values: &[&str]| keys().check(&headers(values), Scope::Publish);
        let good = format!("bEARER {ONE}");

        assert!(check(&[&good]).is_ok());
        assert_eq!(check(&[]), Err(Denied::Missing));
        assert_eq!(check(&[&good, &good]), Err(Denied::Unknown));
        assert_eq!(check(&[ONE]), Err(Denied::Unknown));
        assert_eq!(check(&[&format!("Basic {ONE}")]), Err(Denied::Unknown));
        assert_eq!(check(&["Bearer"]), Err(Denied::Unknown));
    }

    #[test]
    fn without_keys_nobody_is_asked() {
        let none = ApiKeys::default();

        assert_eq!(none.check(&headers(&[]), Scope::Manage), Ok(Caller(None)));
        assert_eq!(none.check(&headers(&["Bearer whatever"]), Scope::Publish), Ok(Caller(None)));
    }

    #[test]
    fn keys_are_changed_as_a_whole() {
        let ring = KeyRing::new(keys());
        let check = || ring.keys().check(&headers(&[&format!("Bearer {ONE}")]), Scope::Publish);
        let caller = check().unwrap();

        ring.set(ApiKeys([ApiKey::new("other".to_owned(), OTHER, vec![Scope::Publish])].into()));
        assert_eq!(check(), Err(Denied::Unknown));
        ring.set(ApiKeys(keys().0.iter().rev().cloned().collect()));
        assert_eq!(check(), Ok(caller), "who it is does not depend on its place");
        assert_ne!(keys(), ring.keys());
        assert_eq!(keys(), keys());
    }

    #[test]
    fn nothing_prints_a_secret() {
        assert!(!format!("{:?}", keys()).contains("32"));
    }
}
