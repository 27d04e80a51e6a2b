//! The end of a connection: what is said, what is let go of when, and what is remembered.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;

use crate::http::Endpoint;
use crate::hub::Address;
use crate::id::ClientKey;
use crate::inbox::{Farewell, Whom};
use crate::inspect::Closed;
use crate::metrics::{CloseReason, CloseSent, DropReason, ReceivedClose};
use crate::ws::{self, CloseCode, Decoder};

use super::client::Stage;
use super::state::{Core, Notice};
use super::wheel::tick_at_or_after;

/// How long a client that was sent Close may take to end the stream, in ticks of 64 ms.
const LINGER_TICKS: u32 = 32;

/// Connections that ended, as remembered by each shard.
const REMEMBERED: usize = 256;

/// The connections that ended last.
#[derive(Default)]
pub(super) struct Farewells {
    last: VecDeque<(ClientKey, Closed)>,
    /// How many of the last the driver has not looked at yet.
    fresh: usize,
}

impl Farewells {
    fn remember(&mut self, key: ClientKey, closed: Closed) {
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back((key, closed));
        self.fresh = self.last.len().min(self.fresh + 1);
    }

    /// Those that the driver has not looked at yet: it knows the other end of their sockets, and the time exactly.
    pub(super) fn take_fresh(&mut self) -> impl Iterator<Item = &mut (ClientKey, Closed)> {
        let old = self.last.len() - std::mem::take(&mut self.fresh);
        self.last.range_mut(old..)
    }

    /// The last ones, the latest first.
    pub(super) fn latest(&self) -> impl Iterator<Item = &Closed> {
        self.last.iter().rev().map(|(_, closed)| closed)
    }
}

/// Why a connection ends, and what the client is told of it.
struct Cause {
    reason: CloseReason,
    /// None when the client closed, or broke off.
    code: Option<CloseCode>,
    detail: Cow<'static, str>,
}

impl Core {
    /// Says Close and lets go of everything but the socket, which waits for the peer to end the stream.
    pub(super) fn close(
        &mut self,
        key: ClientKey,
        code: CloseCode,
        text: impl Into<Cow<'static, str>>,
        reason: CloseReason,
    ) {
        let detail = text.into();
        let mut frame = Vec::new();
        ws::encode_close(&mut frame, code, &detail);
        self.say_close(key, frame, Cause { reason, code: Some(code), detail });
    }

    /// Closes all who are meant; returns how many.
    ///
    /// All clients are looked at, which takes about a millisecond for each 20,000.
    pub(super) fn close_all(&mut self, whom: &Whom, why: &Farewell) -> usize {
        let open = self.clients.iter().filter(|(_, client)| client.is_open());
        let meant: Vec<_> = open.filter(|(_, client)| client.is(whom)).map(|(key, _)| key).collect();
        for key in &meant {
            self.close(*key, why.code, why.text.clone(), why.reason);
        }
        meant.len()
    }

    /// Answers a client's Close.
    pub(super) fn answer_close(&mut self, key: ClientKey, close: Option<&ws::PeerClose<'_>>) {
        self.counts.close_received.add(class(close.map(|close| close.code)), 1);
        let mut frame = Vec::new();
        ws::encode_close_reply(&mut frame, close);
        let detail = match close {
            Some(close) => format!("the client closed with {}", u16::from(close.code)).into(),
            None => "the client closed without a code".into(),
        };
        self.say_close(key, frame, Cause { reason: CloseReason::Client, code: None, detail });
    }

    fn say_close(&mut self, key: ClientKey, frame: Vec<u8>, cause: Cause) {
        let (reason, code) = (cause.reason, cause.code);
        if !self.detach(key, cause) {
            return;
        }
        self.counts.close_sent.add(code.map_or(CloseSent::Reply, label), 1);
        if matches!(reason, CloseReason::SlowConsumer | CloseReason::Memory) {
            self.discard_bulk(key, DropReason::BytesLimit);
        }
        let notice = Notice::control(key, frame.into());
        self.notices.push_back(Notice { is_close: true, ..notice });
        self.closed.push_back(key);
        self.reschedule(key);
    }

    /// The connection is no more: nothing can be said on it.
    pub(super) fn lost(&mut self, key: ClientKey, reason: CloseReason) {
        let detail = match reason {
            CloseReason::Client => "the client ended the connection without a Close",
            CloseReason::IoError => "the connection broke",
            _ => "",
        };
        self.detach(key, Cause { reason, code: None, detail: detail.into() });
        self.forget_backlog(key);
        if self.clients.contains_key(key) {
            self.gone.push_back(key);
        }
    }

    /// Takes a client out of all directories, once.
    fn detach(&mut self, key: ClientKey, cause: Cause) -> bool {
        let now = self.now();
        let Some(client) = self.clients.get(key).filter(|client| client.is_open()) else { return false };
        let Cause { reason, code, detail } = cause;
        let closed = Closed {
            client_id: client.session.client(),
            user: client.session.user().clone(),
            shard: self.index.0,
            peer: None,
            reason,
            code: code.map(u16::from),
            detail,
            closed_at: Duration::from_secs(self.timestamp).as_secs_f64(),
            open_seconds: client.open_for(now).as_secs_f64(),
            rooms_total: client.rooms_joined(),
            queue: self.queue_view(client),
        };
        self.farewells.remember(key, closed);
        self.tap_closed(key, reason);
        let Some(client) = self.clients.get_mut(key) else { return false };
        let open = u64::try_from(client.open_for(now).as_nanos()).unwrap_or(u64::MAX);
        self.counts.samples.connection_duration.record(open);
        // Who has a frame half written may need longer to take that and the Close behind it.
        let patience = match client.queue {
            Some(_) => tick_at_or_after(self.options.heartbeat.write).max(LINGER_TICKS),
            None => LINGER_TICKS,
        };
        client.stage = Stage::Leaving { until: now.saturating_add(patience) };
        client.held = None;
        client.decoder = Decoder::default();
        self.catch_ups.forget(key);
        self.forget_arrival(key);
        self.count_input(key);
        let Some(client) = self.clients.get_mut(key) else { return false };
        let in_rooms = client.endpoint == Endpoint::Ws;
        self.keep_session(key, reason);
        while let Some(membership) = self.clients[key].memberships.last() {
            self.exit(key, membership.room);
        }
        if in_rooms {
            let address = Address { shard: self.index, client: key };
            self.hub.disconnect(self.clients[key].session.user(), address);
        }
        self.counts.closed.add(reason, 1);
        true
    }

    /// Frees the slot of a client whose socket is gone.
    pub(super) fn remove(&mut self, key: ClientKey) {
        self.clients.remove(key);
    }

    /// All was said: the sending side of this client's socket is to be ended.
    pub(super) fn end_sending(&mut self, key: ClientKey) {
        let until = self.now().saturating_add(LINGER_TICKS);
        if let Some(client) = self.clients.get_mut(key) {
            client.stage = Stage::Leaving { until };
            self.reschedule(key);
        }
        self.closed.push_back(key);
    }

    /// A client whose Close was queued for direct writing: its sending side can end.
    pub(super) fn next_closed(&mut self) -> Option<ClientKey> {
        self.closed.pop_front()
    }

    /// A client whose socket is to be dropped.
    pub(super) fn next_gone(&mut self) -> Option<ClientKey> {
        self.gone.pop_front()
    }
}

/// The label of a code that the gateway chose.
fn label(code: CloseCode) -> CloseSent {
    match code {
        CloseCode::Normal => CloseSent::Normal,
        CloseCode::GoingAway => CloseSent::GoingAway,
        CloseCode::ProtocolError => CloseSent::ProtocolError,
        CloseCode::Unsupported => CloseSent::Unsupported,
        CloseCode::InvalidPayload => CloseSent::InvalidPayload,
        CloseCode::PolicyViolation => CloseSent::PolicyViolation,
        CloseCode::MessageTooBig => CloseSent::MessageTooBig,
        CloseCode::Internal => CloseSent::Internal,
        CloseCode::TryLater => CloseSent::TryLater,
        CloseCode::SlowConsumer => CloseSent::SlowConsumer,
        CloseCode::NoHeartbeat => CloseSent::NoHeartbeat,
        CloseCode::RateLimited => CloseSent::RateLimited,
        CloseCode::TokenExpired => CloseSent::TokenExpired,
        CloseCode::Disconnected => CloseSent::Disconnected,
        CloseCode::TooManyConnections => CloseSent::TooManyConnections,
        _ => CloseSent::Other,
    }
}

/// The class of a code that a client chose.
fn class(code: Option<CloseCode>) -> ReceivedClose {
    match code.map(u16::from) {
        None => ReceivedClose::None,
        Some(1000) => ReceivedClose::Normal,
        Some(1001) => ReceivedClose::GoingAway,
        Some(code) if code < 3000 => ReceivedClose::Protocol,
        Some(_) => ReceivedClose::Application,
    }
}
