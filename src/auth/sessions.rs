//! What a client is given to come back by: it names the place of its session, and nobody can make one up.

use std::hash::{BuildHasher, RandomState};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use slotmap::{Key as _, KeyData};

use crate::id::{ClientKey, ShardIndex};

/// Where a session is, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionPlace {
    /// Its shard.
    pub shard: ShardIndex,
    /// Its client's key there.
    pub client: ClientKey,
}

/// Issues and reads session tokens; those of another process mean nothing.
///
/// The tag is a keyed `SipHash` (Aumasson and Bernstein 2012), which is what the standard library's hasher is seeded for. 64 bits
/// are enough where a guess costs a request and gains the rooms of the same user's other connection.
#[derive(Debug)]
pub struct SessionTokens(RandomState);

/// Shard, key and tag.
const TOKEN_BYTES: usize = 2 + 8 + 8;

impl SessionTokens {
    /// Tokens under this key.
    pub fn new(key: RandomState) -> Self {
        Self(key)
    }

    /// The token of a session.
    pub fn issue(&self, place: SessionPlace) -> String {
        let mut bytes = [0; TOKEN_BYTES];
        let (shard, client) = (place.shard.0, place.client.data().as_ffi());
        bytes[..2].copy_from_slice(&shard.to_be_bytes());
        bytes[2..10].copy_from_slice(&client.to_be_bytes());
        bytes[10..].copy_from_slice(&self.tag(shard, client).to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The session of a token, if it is one of this process.
    pub fn read(&self, token: &str) -> Option<SessionPlace> {
        let bytes =
            URL_SAFE_NO_PAD.decode(Some(token).filter(|token| token.len() <= TOKEN_BYTES * 2)?).ok()?;
        let (shard, rest) = bytes.split_first_chunk::<2>()?;
        let (client, tag) = rest.split_first_chunk::<8>()?;
        let (shard, client) = (u16::from_be_bytes(*shard), u64::from_be_bytes(*client));
        let is_ours = self.tag(shard, client).to_be_bytes() == tag;
        is_ours.then(|| SessionPlace {
            shard: ShardIndex(shard),
            client: ClientKey::from(KeyData::from_ffi(client)),
        })
    }

    fn tag(&self, shard: u16, client: u64) -> u64 {
        self.0.hash_one((shard, client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_tokens_and_no_others_nor_changed_ones() {
        let (ours, others) = (SessionTokens::new(RandomState::new()), SessionTokens::new(RandomState::new()));
        let client = ClientKey::from(KeyData::from_ffi(7 << 32 | 3));
        let place = SessionPlace { shard: ShardIndex(2), client };
        let token = ours.issue(place);

        assert_eq!(ours.read(&token), Some(place));
        assert_eq!(others.read(&token), None);
        for cut in 0..token.len() {
            assert_eq!(ours.read(&token[..cut]), None, "cut at {cut}");
            let mut changed = token.clone().into_bytes();
            changed[cut] = if changed[cut] == b'A' { b'B' } else { b'A' };
            assert_eq!(ours.read(str::from_utf8(&changed).unwrap()), None, "changed at {cut}");
        }
        assert_eq!(ours.read("not base64 at all, and much too long to be one of these tokens"), None);
    }
}
