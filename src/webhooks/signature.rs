//! How a request shows that it comes from a gateway that knows the secret, pure.

use std::fmt::Write as _;

use aws_lc_rs::hmac;

use crate::auth::Secret;

/// Where the signature stands.
pub(super) const HEADER: &str = "fanfare-signature";

/// The secret, ready to sign with.
pub(super) struct Key(hmac::Key);

impl Key {
    pub(super) fn new(secret: &Secret) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
    }

    /// The value of the header: the time in Unix seconds, and HMAC-SHA256 (RFC 2104) of `TIME.BODY` as hexadecimal digits.
    ///
    /// The time is signed as well, so that whoever has recorded a request cannot repeat it later.
    pub(super) fn sign(&self, unix: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{unix}.").as_bytes());
        context.update(body);
        let mut header = format!("t={unix},v1=");
        for byte in context.sign().as_ref() {
            let _ = write!(header, "{byte:02x}");
        }
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by `printf '1790000000.{"events":[]}' | openssl dgst -sha256 -hmac 'a secret of more than thirty-two bytes'`.
    #[test]
    fn signs_the_time_and_the_body() {
        let key = Key::new(&Secret::new("a secret of more than thirty-two bytes"));

        let header = key.sign(1_790_000_000, br#"{"events":[]}"#);

        assert_eq!(
            header,
            "t=1790000000,v1=ad4c4ec21c93ac182328f3334b38da840aace7dcda65cc6aae0063ec9fdaa818"
        );
    }
}
