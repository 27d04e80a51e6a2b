//! `POST /api/v1/publish`: what applications say, to a room, a user or everyone.
//!
//! Members get the same JSON as of a client's message. One message is one request; many are lines of one, each answered in its
//! turn, so that neither side has to keep them.

mod lines;
mod once;
mod stream;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName};
use hyper::{HeaderMap, Request, Response, StatusCode};
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::hub::{Address, Busy, Excluded, OnOverflow, RoomOptions, Said, StreamPosition, Text};
use crate::id::{ClientId, MessageKey, NameRef, RoomId, UserId, write_decimal};
use crate::metrics::{PublishResult, Source};
use crate::protocol::{self, ONCE_BYTES_MAX, Parser, Posting, Target};
use crate::ws::{Draft, PreparedMessage};

use super::answer::{self, Body, Refusal};
use super::keys::Caller;
use super::{Context, api, connections};

use self::once::{Key, Once};

/// What the longest message may have around it: the names of the fields and what stands in the others.
const MARGIN_BYTES: usize = 4096;

/// What a message grows by on its way, as clients' messages do.
const ENVELOPE_BYTES_MAX: usize = 3072;

/// Requests of many lines at once: each keeps its place for as long as lines come.
const STREAMS_MAX: usize = 32;

/// How long a caller is to wait when too much is on its way, in seconds.
const RETRY_AFTER: u64 = 1;

/// Between two tries to publish what found no room.
const RETRY_EVERY: Duration = Duration::from_millis(1);

const LINES: &str = "application/x-ndjson";

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What is kept from one request to the next.
pub(super) struct Memory {
    once: Mutex<Once>,
    streams: Arc<Semaphore>,
}

/// What has become of something said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Published {
    /// Its place in its room; none when nobody is there, and nothing is kept.
    Room(Option<StreamPosition>),
    /// How many connections of the user it was given to.
    User(usize),
    Everyone,
}

impl Memory {
    /// Remembers nothing yet; `once_bytes` bounds the answers that may have to be repeated.
    pub(super) fn new(once_bytes: usize) -> Self {
        Self { once: Mutex::new(Once::new(once_bytes)), streams: Arc::new(Semaphore::new(STREAMS_MAX)) }
    }
}

/// Answers a request.
pub(super) async fn publish(
    context: &Arc<Context>,
    caller: Caller,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let kind = request.headers().get(CONTENT_TYPE);
    if api::is_of_type(kind, LINES) {
        return stream::publish(context, caller, request);
    }
    if !api::is_of_type(kind, "application/json") {
        let message =
            format!("send JSON, with `Content-Type: application/json`, or lines of it as `{LINES}`");
        return Err(Refusal::not_json(message));
    }
    let once = once_header(request.headers())?;
    let most = context.state.options.message_bytes + MARGIN_BYTES;
    let body = api::read(request, most, context).await?;
    let mut publisher = Publisher::new(context, caller);
    let done = publisher.publish(&body, once.as_deref(), Duration::ZERO).await?;
    let mut body = Vec::new();
    done.write(&mut body);
    Ok(answer::of_json(StatusCode::OK, body))
}

/// The key by which a repeat of a request is known.
fn once_header(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| (1..=ONCE_BYTES_MAX).contains(&text.len()));
    let text = text.filter(|_| values.next().is_none()).map(str::to_owned);
    let rule =
        || format!("`Idempotency-Key` must be there once, with 1 to {ONCE_BYTES_MAX} visible characters");
    text.map(Some).ok_or_else(|| Refusal::bad_request(rule()))
}

/// Publishes for one request, one message after the other.
struct Publisher<'a> {
    context: &'a Context,
    caller: Caller,
    parser: Parser,
    /// The message of the moment.
    json: Vec<u8>,
}

/// Where the one connection of a user is that does not get a message.
#[derive(Clone, Copy)]
enum Located {
    NotAsked,
    Nowhere,
    At(Address),
}

/// What has come of one try.
enum Tried {
    Done(Published),
    /// Too much is on its way.
    Busy,
    /// First it has to be known which of this user's connections that is.
    Locate(UserId, ClientId),
}

impl<'a> Publisher<'a> {
    fn new(context: &'a Context, caller: Caller) -> Self {
        Self { context, caller, parser: Parser::new(), json: Vec::new() }
    }

    /// Publishes what the text says, and waits at most so long for room. `once` is the key from the request's head.
    async fn publish(
        &mut self,
        text: &[u8],
        once: Option<&str>,
        patience: Duration,
    ) -> Result<Published, Refusal> {
        let clock = self.context.state.clock;
        let read_at = clock.now();
        let give_up_at = read_at.saturating_add(u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX));
        let mut located = Located::NotAsked;
        loop {
            match self.attempt(text, once, located, read_at) {
                Ok(Tried::Done(published)) => return Ok(published),
                Ok(Tried::Locate(user, client)) => located = self.locate(&user, client).await?,
                Ok(Tried::Busy) if clock.now() < give_up_at => tokio::time::sleep(RETRY_EVERY).await,
                Ok(Tried::Busy) => {
                    self.context.metrics.publishes[PublishResult::Busy].increment(1);
                    let message = "too much is on its way there already: come back later".to_owned();
                    return Err(Refusal::busy(message, RETRY_AFTER));
                }
                Err(refusal) => {
                    self.context.metrics.publishes[PublishResult::Refused].increment(1);
                    return Err(refusal);
                }
            }
        }
    }

    /// Nothing is waited for in here, so that of two requests with the same key only one publishes.
    fn attempt(
        &mut self,
        text: &[u8],
        once: Option<&str>,
        located: Located,
        read_at: u64,
    ) -> Result<Tried, Refusal> {
        let Self { context, caller, parser, json } = self;
        let posting = parser.parse_posting(text).map_err(|refusal| Refusal::bad_request(refusal.content))?;
        let once = match (once, posting.once) {
            (Some(head), Some(field)) if head != field => {
                let message = "`idempotency_key` is not what `Idempotency-Key` says: give one of them";
                return Err(Refusal::bad_request(message.to_owned()));
            }
            (head, field) => head.or(field).map(|text| Key { caller: *caller, text: text.into() }),
        };
        // From the look at what is known until it is known as well nobody else may look.
        let lock = || context.publishing.once.lock().unwrap_or_else(PoisonError::into_inner);
        let mut once = once.map(|key| (lock(), key));
        if let Some(published) = once.as_mut().and_then(|(known, key)| known.find(key, read_at)) {
            context.metrics.publishes[PublishResult::Repeated].increment(1);
            return Ok(Tried::Done(published));
        }
        json.clear();
        let message_bytes = context.state.options.message_bytes;
        protocol::write_message(&posting.message, posting.from, Clock::unix(), json);
        if json.len() > message_bytes + ENVELOPE_BYTES_MAX {
            let message = format!("the message has more than `limits.message_bytes`, {message_bytes} bytes");
            return Err(Refusal::too_long(message));
        }
        let tried = match give(context, &posting, json, located, read_at) {
            Ok(tried) => tried,
            Err(Busy) => Tried::Busy,
        };
        if let Tried::Done(published) = tried {
            context.count(published);
            let forgotten = once.map_or(0, |(mut known, key)| known.remember(key, published, read_at));
            context.metrics.once_forgotten.increment(forgotten);
        }
        Ok(tried)
    }

    /// Where the connection with this number is, if it is one of the user's.
    async fn locate(&self, user: &UserId, client: ClientId) -> Result<Located, Refusal> {
        let address = connections::locate(&self.context.state, user, client).await?;
        Ok(address.map_or(Located::Nowhere, Located::At))
    }
}

/// Gives a message, which `json` is as a whole, to those it is for.
fn give(
    context: &Context,
    posting: &Posting<'_>,
    json: &mut Vec<u8>,
    located: Located,
    read_at: u64,
) -> Result<Tried, Busy> {
    let hub = &context.state.hub;
    let exclude = posting.exclude.map(|id| (id.shard(context.state.shards.len()), Excluded::Id(id)));
    let published = match posting.message.target {
        Target::Room(room) => {
            let said = |options: RoomOptions| Said {
                text: text_for(options, posting, json),
                key: about(options, posting.message.key),
                exclude,
                source: Source::Api,
                read_at,
            };
            Published::Room(hub.publish_to(&RoomId::from(room), said)?)
        }
        Target::User(user) => {
            let except = match (posting.exclude, located) {
                (Some(client), Located::NotAsked) => {
                    return Ok(Tried::Locate(UserId::from(user), client));
                }
                (_, Located::At(address)) => Some(address),
                (_, Located::NotAsked | Located::Nowhere) => None,
            };
            let message = PreparedMessage::text(json);
            Published::User(hub.direct_but(user, except, &message, (Source::Api, read_at))?)
        }
        Target::Everyone => {
            let text = Text::Whole(PreparedMessage::text(json));
            hub.publish(hub.everyone(), Said { text, key: None, exclude, source: Source::Api, read_at })?;
            Published::Everyone
        }
    };
    Ok(Tried::Done(published))
}

/// The message as a room wants it that is run so.
fn text_for(options: RoomOptions, posting: &Posting<'_>, json: &mut Vec<u8>) -> Text {
    if !options.is_numbered() {
        return Text::Whole(PreparedMessage::text(json));
    }
    json.clear();
    protocol::write_message_up_to_offset(&posting.message, posting.from, Clock::unix(), json);
    Text::Numbered(Draft::new(json, b"}"))
}

/// What the message is about, where the room wants to know.
fn about(options: RoomOptions, key: Option<NameRef<'_>>) -> Option<MessageKey> {
    key.filter(|_| options.overflow == OnOverflow::Latest).map(MessageKey::from)
}

impl Context {
    fn count(&self, published: Published) {
        self.metrics.publishes[PublishResult::Ok].increment(1);
        match published {
            Published::Room(None) => {}
            Published::Room(Some(_)) | Published::Everyone => self.metrics.broadcasts.increment(1),
            Published::User(_) => self.metrics.direct.increment(1),
        }
    }
}

impl Published {
    /// Appends the answer, with the end of its line.
    fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Room(Some(StreamPosition { epoch, offset })) => {
                out.extend_from_slice(b"{\"offset\":");
                write_decimal(offset, out);
                out.extend_from_slice(format!(",\"epoch\":\"{epoch:016x}\"").as_bytes());
            }
            Self::User(delivered) => {
                out.extend_from_slice(b"{\"delivered\":");
                write_decimal(delivered as u64, out);
            }
            Self::Room(None) | Self::Everyone => out.push(b'{'),
        }
        out.extend_from_slice(b"}\n");
    }
}

/// The body of an answer that comes in pieces.
type Pieces = tokio::sync::mpsc::Sender<Bytes>;
