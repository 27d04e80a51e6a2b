//! Why a conversation ends, as a number on the wire.

use std::fmt;

/// A close code of RFC 6455, section 7.4, or one of the gateway's own.
///
/// Of the gateway's own codes 4000 to 4499 mean *come back with back-off*, and 4500 to 4999 *do not come back
/// until something changed*. Made from a number by `CloseCode::from`, which never yields [`Self::Other`] for a
/// code that has a name, so that equal codes are equal values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// 1000: the purpose is fulfilled.
    Normal,
    /// 1001: the endpoint goes away, as a server that stops does.
    GoingAway,
    /// 1002: the peer broke RFC 6455.
    ProtocolError,
    /// 1003: a kind of data that is not accepted here, as binary frames.
    Unsupported,
    /// 1007: text that is not UTF-8.
    InvalidPayload,
    /// 1008: the peer broke a rule of the gateway.
    PolicyViolation,
    /// 1009: a message over the limit.
    MessageTooBig,
    /// 1010: a client misses an extension; only clients send it.
    MandatoryExtension,
    /// 1011: the gateway failed.
    Internal,
    /// 1012: the gateway restarts.
    Restart,
    /// 1013: the gateway is overloaded.
    TryLater,
    /// 1014: a gateway before the server got a bad answer from it.
    BadGateway,
    /// 4008: the client does not read what is sent to it fast enough.
    SlowConsumer,
    /// 4009: nothing was heard from the client for too long.
    NoHeartbeat,
    /// 4029: the client sends more than it may.
    RateLimited,
    /// 4500: the token expired or was revoked.
    TokenExpired,
    /// 4501: the application asked for the client to be disconnected.
    Disconnected,
    /// 4503: the user has too many connections.
    TooManyConnections,
    /// Any other number.
    Other(u16),
}

impl CloseCode {
    /// Whether `code` may stand in a Close frame (RFC 6455, section 7.4, and the IANA registry that it founds).
    ///
    /// 1004 is reserved; 1005, 1006 and 1015 are only for reports inside an endpoint; 1016 to 2999 wait for a
    /// meaning; 3000 to 4999 belong to libraries and applications.
    pub const fn allowed_on_wire(code: u16) -> bool {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl From<u16> for CloseCode {
    fn from(code: u16) -> Self {
        match code {
            1000 => Self::Normal,
            1001 => Self::GoingAway,
            1002 => Self::ProtocolError,
            1003 => Self::Unsupported,
            1007 => Self::InvalidPayload,
            1008 => Self::PolicyViolation,
            1009 => Self::MessageTooBig,
            1010 => Self::MandatoryExtension,
            1011 => Self::Internal,
            1012 => Self::Restart,
            1013 => Self::TryLater,
            1014 => Self::BadGateway,
            4008 => Self::SlowConsumer,
            4009 => Self::NoHeartbeat,
            4029 => Self::RateLimited,
            4500 => Self::TokenExpired,
            4501 => Self::Disconnected,
            4503 => Self::TooManyConnections,
            other => Self::Other(other),
        }
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        match code {
            CloseCode::Normal => 1000,
            CloseCode::GoingAway => 1001,
            CloseCode::ProtocolError => 1002,
            CloseCode::Unsupported => 1003,
            CloseCode::InvalidPayload => 1007,
            CloseCode::PolicyViolation => 1008,
            CloseCode::MessageTooBig => 1009,
            CloseCode::MandatoryExtension => 1010,
            CloseCode::Internal => 1011,
            CloseCode::Restart => 1012,
            CloseCode::TryLater => 1013,
            CloseCode::BadGateway => 1014,
            CloseCode::SlowConsumer => 4008,
            CloseCode::NoHeartbeat => 4009,
            CloseCode::RateLimited => 4029,
            CloseCode::TokenExpired => 4500,
            CloseCode::Disconnected => 4501,
            CloseCode::TooManyConnections => 4503,
            CloseCode::Other(code) => code,
        }
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        u16::from(*self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_survives_the_way_through_the_type() {
        for code in 0..=u16::MAX {
            assert_eq!(u16::from(CloseCode::from(code)), code);
        }
    }

    #[test]
    fn only_codes_with_a_meaning_on_the_wire_are_allowed_there() {
        for code in [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4503, 4999] {
            assert!(CloseCode::allowed_on_wire(code), "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, u16::MAX] {
            assert!(!CloseCode::allowed_on_wire(code), "{code}");
        }
    }
}
