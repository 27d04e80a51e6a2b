//! One shard without sockets, and what its clients say.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::auth::{self, Verifier};
use crate::clock::Clock;
use crate::http::Endpoint;
use crate::hub::{self, Hub};
use crate::id::{ClientId, ClientKey, NodeId, ShardIndex, UserId};
use crate::inbox::{Admission, Gate, Inbox, Limits};
use crate::metrics::{CloseReason, LabelValue};
use crate::session::{self, Session};
use crate::ws::{self, Compression, PreparedMessage};

use super::super::counts::Tally;
use super::super::state::{Newcomer, Shard};
use super::super::{Heartbeat, Options};

/// One shard of a gateway, usually the only one, with a clock of its own.
pub(in crate::shard) struct World {
    pub(in crate::shard) shard: Shard,
    pub(in crate::shard) hub: Arc<Hub>,
    inbox: Inbox,
    pub(in crate::shard) gate: Gate,
    ids: u64,
    pub(in crate::shard) now: u64,
}

impl World {
    pub(in crate::shard) fn new() -> Self {
        Self::with(hub::Options::default())
    }

    pub(in crate::shard) fn with(options: hub::Options) -> Self {
        let (outlet, inbox) = Inbox::pair(Limits::default());
        Self::of(ShardIndex(0), &Hub::new(vec![outlet], options, Clock::start()), inbox)
    }

    /// Two shards of one gateway.
    pub(in crate::shard) fn pair() -> [Self; 2] {
        Self::pair_with(hub::Options::default())
    }

    pub(in crate::shard) fn pair_with(options: hub::Options) -> [Self; 2] {
        let [(one, first), (other, second)] = [(); 2].map(|()| Inbox::pair(Limits::default()));
        let hub = Hub::new(vec![one, other], options, Clock::start());
        [Self::of(ShardIndex(0), &hub, first), Self::of(ShardIndex(1), &hub, second)]
    }

    fn of(index: ShardIndex, hub: &Arc<Hub>, inbox: Inbox) -> Self {
        let options = Arc::new(Options {
            message_bytes: 64 << 10,
            outbound_bytes: 1 << 20,
            batch_bytes: 256 << 10,
            compression: ws::DeflateOptions::default(),
            rates: super::super::Rates::default(),
            heartbeat: Heartbeat::default(),
            session: session::Limits::default(),
            sessions: super::super::SessionOptions::default(),
            node: NodeId::parse("node").unwrap(),
        });
        let verifier = Arc::new(Verifier::new(auth::Options::default()).unwrap());
        let shard = Shard::new(index, options, Arc::clone(hub), verifier);
        Self { shard, hub: Arc::clone(hub), inbox, gate: Gate::new(1_000_000), ids: 0, now: 0 }
    }

    pub(in crate::shard) fn enter(&mut self, user: &str) -> ClientKey {
        self.admit(user, Endpoint::Ws, (false, Compression::Off))
    }

    pub(in crate::shard) fn enter_as(&mut self, endpoint: Endpoint, is_ndjson: bool) -> ClientKey {
        self.admit("ann", endpoint, (is_ndjson, Compression::Off))
    }

    pub(in crate::shard) fn enter_compressed(&mut self, user: &str, endpoint: Endpoint) -> ClientKey {
        self.admit(user, endpoint, (false, Compression::Both))
    }

    fn admit(
        &mut self,
        user: &str,
        endpoint: Endpoint,
        (is_ndjson, compression): (bool, Compression),
    ) -> ClientKey {
        self.ids += 1;
        let Admission::Admitted(permit) = self.gate.admit() else { panic!("the gate is open") };
        let session = Session::new(ClientId(self.ids), UserId::parse(user).unwrap(), None, is_ndjson);
        self.shard.core.admit(Newcomer { session, endpoint, compression, expires_in: None, permit })
    }

    /// The bytes that wait for a client.
    pub(in crate::shard) fn waiting(&self, client: ClientKey) -> usize {
        self.shard.core.clients[client].queue.as_ref().map_or(0, |queue| queue.bytes())
    }

    pub(in crate::shard) fn leave(&mut self, client: ClientKey) {
        self.shard.core.lost(client, CloseReason::Client);
        while let Some(gone) = self.shard.core.next_gone() {
            self.shard.core.remove(gone);
        }
    }

    pub(in crate::shard) fn say(&mut self, client: ClientKey, text: &str) {
        self.receive(client, &masked(0x81, text.as_bytes()));
    }

    /// What a client is answered, frame heads and all, as text.
    pub(in crate::shard) fn replies(&mut self, client: ClientKey, text: &str) -> String {
        String::from_utf8_lossy(&self.raw_replies(client, text)).into_owned()
    }

    /// The frames of those answers.
    pub(in crate::shard) fn raw_replies(&mut self, client: ClientKey, text: &str) -> Vec<u8> {
        let mut replies = Vec::new();
        self.shard.receive(client, &mut masked(0x81, text.as_bytes()), self.now, &mut replies);
        replies
    }

    pub(in crate::shard) fn receive(&mut self, client: ClientKey, bytes: &[u8]) {
        let mut replies = Vec::new();
        self.shard.receive(client, &mut bytes.to_vec(), self.now, &mut replies);
    }

    pub(in crate::shard) fn retry(&mut self) {
        let mut replies = Vec::new();
        for _ in 0..self.shard.core.held.len() {
            let _ = self.shard.retry_held(&mut replies);
        }
    }

    pub(in crate::shard) fn apply(&mut self) {
        let mut commands = std::collections::VecDeque::new();
        self.inbox.take_all(&mut commands);
        for command in commands {
            self.shard.core.apply(command);
        }
    }

    /// The next delivery, also when a large room has given way before it.
    pub(in crate::shard) fn deliver_one(&mut self) -> Option<ClientKey> {
        let core = &mut self.shard.core;
        loop {
            let delivery = core.next_delivery(&mut { usize::MAX });
            if delivery.is_some() || !core.has_deliveries() {
                return delivery.map(|delivery| delivery.client);
            }
        }
    }

    pub(in crate::shard) fn deliver(&mut self) -> Vec<(ClientKey, Bytes)> {
        self.apply();
        let mut deliveries = Vec::new();
        while let Some(client) = self.deliver_one() {
            deliveries.push((client, self.shard.core.delivery_bytes().clone()));
        }
        deliveries
    }

    pub(in crate::shard) fn notices(&mut self) -> Vec<(ClientKey, Bytes)> {
        std::iter::from_fn(|| self.shard.core.next_notice().map(|notice| (notice.client, notice.frame)))
            .collect()
    }

    pub(in crate::shard) fn tick(&mut self, now: Duration) {
        self.now = u64::try_from(now.as_nanos()).unwrap();
        self.shard.core.tick(self.now, now.as_secs());
    }
}

/// A message as the gateway sends it.
pub(in crate::shard) fn frame(content: &str) -> Bytes {
    PreparedMessage::text(format!(r#"{{"type":"message","content":"{content}"}}"#).as_bytes()).frame().clone()
}

pub(in crate::shard) fn counted<L: LabelValue>(tally: &mut Tally<L>) -> Vec<(L, u64)> {
    let mut counted = Vec::new();
    tally.take(|label, count| counted.push((label, count)));
    counted
}

/// A client's frame with a mask of zeros.
pub(in crate::shard) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    ws::encode_binary(&mut frame, payload);
    frame[0] = first;
    frame[1] |= 0x80;
    let header = frame.len() - payload.len();
    frame.splice(header..header, [0; 4]);
    frame
}
