//! The bounded mailbox of a shard, the commands put into it, and the gate that bounds connections.
//!
//! Everything that other threads want of a shard arrives here. Publications and direct messages are
//! bounded in bytes and in number: what does not fit is refused to whoever sends, who holds back.
//! What opens, closes or drains connections, takes clients out of rooms or ends the shard is not counted, because it
//! must get through when a shard is busiest; it is bounded by its sources (the [`Gate`], operators who wait for an answer, one
//! resumption of each connection, few drains, one stop), and questions of operators by their number.

mod gate;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::sync::{Notify, oneshot};

use crate::admission::Refuse;
use crate::id::{ClientId, ClientKey, MessageKey, RoomId, RoomKey, ShardIndex, UserId};
use crate::inspect::Question;
use crate::metrics::{CloseReason, Source};
use crate::ws::{CloseCode, PreparedMessage};

pub use gate::{Admission, Gate, Permit};

/// What can be asked of a shard.
#[derive(Debug)]
pub enum Command {
    /// Take over a socket that was just accepted.
    Accept {
        /// The socket, non-blocking, with nothing read from it.
        stream: TcpStream,
        /// The other end of it.
        peer: SocketAddr,
        /// The place it occupies; to be dropped when the connection is closed.
        permit: Permit,
        /// The identity given to it, which chose this shard.
        id: ClientId,
        /// Why the request can only be answered with that, if so.
        refuse: Option<Refuse>,
        /// When it was accepted; the handshake limit counts from here.
        accepted_at: Instant,
    },
    /// Broadcast to the members that a room has on this shard.
    Publish {
        /// The room's place on this shard. It may be gone by now; the publication is then dropped.
        room: RoomKey,
        /// What was said.
        publication: Publication,
    },
    /// As [`Command::Publish`], to all but one.
    PublishBut {
        /// The room's place on this shard.
        room: RoomKey,
        /// What was said, which excludes nobody by itself; boxed, since commands are as large as the largest.
        publication: Box<Publication>,
        /// Who does not get it, if it is a member.
        except: ClientId,
    },
    /// Take clients out of a room.
    Unsubscribe {
        /// The room.
        room: RoomId,
        /// Whose clients.
        whom: Whom,
        /// How many that were.
        answer: oneshot::Sender<usize>,
    },
    /// Write to single clients, outside any room.
    Direct {
        /// Who gets it; those that are gone by now are skipped.
        clients: SmallVec<[ClientKey; 2]>,
        /// What they get.
        message: PreparedMessage,
        /// Who said it, and when.
        origin: Origin,
    },
    /// Close some clients' connections.
    Close {
        /// Whose.
        whom: Whom,
        /// Why.
        why: Farewell,
        /// How many that were.
        answer: oneshot::Sender<usize>,
    },
    /// End a session of this shard, if it has not ended yet, and tell which rooms it is in, or was in.
    Depart {
        /// Which, and whose it is to be.
        session: Departing,
        /// The shard and the client that want to know; they get an [`Command::Arrive`].
        to: (ShardIndex, ClientKey),
    },
    /// Make a client a member of the rooms of an earlier session.
    Arrive {
        /// Which client.
        client: ClientKey,
        /// Whose it is.
        user: UserId,
        /// The rooms; `None` when the session is not known any more.
        rooms: Option<Vec<RoomId>>,
    },
    /// Close everything, spread evenly over the window; given anew, what is left over the new one.
    Drain {
        /// How long the closing may take.
        window: Duration,
    },
    /// Close no more of them.
    AbortDrain,
    /// Say something about the connections or rooms of the shard.
    Ask(Question),
    /// End the shard's thread at once; what is open is dropped.
    Stop,
}

/// A session that goes on with another connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departing {
    /// The client that it is, or was.
    pub client: ClientKey,
    /// Who wants to go on with it; nobody else's are given away.
    pub user: UserId,
}

/// Whose connections are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// The one with this number.
    Client(ClientId),
    /// All of this user.
    User(UserId),
    /// All that came in by, or were renewed with, the token of this `jti`.
    Token(Box<str>),
}

/// What a client is told when it is closed, and what is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Farewell {
    /// The code on the wire.
    pub code: CloseCode,
    /// The reason on the wire.
    pub text: Cow<'static, str>,
    /// The reason in metrics.
    pub reason: CloseReason,
}

/// What was said in a room, at its place in the room's order.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Its place: the first publication of a room has 1, and each has one more than the last.
    pub offset: u64,
    /// The message, encoded once for all members on all shards.
    pub message: PreparedMessage,
    /// What it is about, where the room leaves out older messages about the same.
    pub key: Option<MessageKey>,
    /// The one client of the receiving shard that does not get it.
    pub exclude: Option<ClientKey>,
    /// Who said it, and when.
    pub origin: Origin,
}

/// Who said something, and the first steps of its way. Times are nanoseconds of the gateway's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// What kind of publisher.
    pub source: Source,
    /// When the request was read.
    pub read_at: u64,
    /// When it was given to the shards with recipients.
    pub dispatched_at: u64,
}

/// The bounds of an inbox, over what is counted.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of encoded messages.
    pub bytes: usize,
    /// Publications and direct messages.
    pub items: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 16 << 20, items: 1 << 16 }
    }
}

/// The inbox has no room for that. It is as before, and the sender holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the shard's inbox is full")]
pub struct Full;

/// The receiving end, owned by one shard.
///
/// When it is dropped, what is inside is dropped too, and what is sent later goes nowhere: a shard
/// that is gone must not hold back the rooms it shared with others.
#[derive(Debug)]
pub struct Inbox {
    shared: Arc<Shared>,
}

impl Inbox {
    /// Makes an inbox and the end that sends to it.
    pub fn pair(limits: Limits) -> (Outlet, Self) {
        let queue = Mutex::new(Queue::default());
        let shared = Arc::new(Shared { queue, limits, filled: Notify::new() });
        (Outlet { shared: Arc::clone(&shared) }, Self { shared })
    }

    /// Takes everything that has come, in order, to the end of `into`, and frees its space.
    ///
    /// Costs one swap when `into` is empty, which is the way to call it.
    pub fn take_all(&self, into: &mut VecDeque<Command>) {
        if into.is_empty() {
            // A burst must not keep its memory for ever.
            into.shrink_to(KEPT_ITEMS);
        }
        let mut queue = self.shared.lock();
        let stored = mem::take(&mut queue.stored);
        queue.held.subtract(stored);
        queue.questions = 0;
        if into.is_empty() {
            mem::swap(&mut queue.commands, into);
        } else {
            into.append(&mut queue.commands);
        }
    }

    /// Waits until a command has come since the last wait ended.
    ///
    /// It may end when there is nothing, but never waits while a command that came after the last
    /// [`take_all`](Self::take_all) is inside. Safe to cancel.
    pub async fn notified(&self) {
        self.shared.filled.notified().await;
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let left = {
            let mut queue = self.shared.lock();
            queue.closed = true;
            let stored = mem::take(&mut queue.stored);
            queue.held.subtract(stored);
            mem::take(&mut queue.commands)
        };
        drop(left);
    }
}

/// The sending end of a shard's inbox; cheap to clone.
#[derive(Debug, Clone)]
pub struct Outlet {
    shared: Arc<Shared>,
}

impl Outlet {
    /// Sends a command and wakes the shard.
    ///
    /// # Errors
    ///
    /// [`Full`] when a publication or direct message does not fit, or [`QUESTIONS_MAX`] questions wait already; the
    /// inbox is then as before. Other commands are always taken.
    pub fn push(&self, command: Command) -> Result<(), Full> {
        if command.is_question() && self.shared.lock().questions >= QUESTIONS_MAX {
            return Err(Full);
        }
        match command.message_bytes() {
            Some(bytes) => drop(self.reserve(bytes)?.push(command)),
            None => drop(self.shared.store(command, Amount::default())),
        }
        Ok(())
    }

    /// What is inside that the shard has not taken, with what was reserved.
    pub fn waiting(&self) -> Amount {
        self.shared.lock().held
    }

    /// Takes the space for one message of so many encoded bytes, before anything is sent.
    ///
    /// Whoever sends to several inboxes reserves in each first, so that it reaches all or none.
    /// A message larger than the whole inbox fits when nothing else is inside.
    ///
    /// # Errors
    ///
    /// [`Full`] when there is no space; nothing is taken then.
    pub fn reserve(&self, bytes: usize) -> Result<Reservation<'_>, Full> {
        let mut queue = self.shared.lock();
        if !queue.has_room_for(bytes, self.shared.limits) {
            return Err(Full);
        }
        let amount = Amount { bytes, items: 1 };
        queue.held.add(amount);
        Ok(Reservation { shared: &self.shared, amount })
    }
}

/// Space taken in an inbox. Given back when it is dropped unused.
#[derive(Debug)]
#[must_use = "the space is given back at once"]
pub struct Reservation<'a> {
    shared: &'a Shared,
    amount: Amount,
}

impl<'a> Reservation<'a> {
    /// Puts the message into the space that was taken for it.
    ///
    /// The shard is woken when the result is dropped: a sender that holds a lock drops it after that.
    pub fn push(mut self, command: Command) -> Wake<'a> {
        debug_assert_eq!(command.message_bytes(), Some(self.amount.bytes), "reserved for another message");
        let amount = mem::take(&mut self.amount);
        self.shared.store(command, amount)
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        // A reservation that was used has left its amount in the inbox.
        if self.amount != Amount::default() {
            self.shared.lock().held.subtract(self.amount);
        }
    }
}

/// Wakes the shard when dropped, if its inbox was empty before.
#[derive(Debug)]
#[must_use = "it wakes the shard when dropped, which may be too early"]
pub struct Wake<'a>(Option<&'a Notify>);

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        if let Some(notify) = self.0 {
            notify.notify_one();
        }
    }
}

impl Command {
    fn is_question(&self) -> bool {
        matches!(self, Self::Ask(_))
    }

    /// The encoded bytes of what is counted; `None` for what is always taken.
    fn message_bytes(&self) -> Option<usize> {
        match self {
            Self::PublishBut { publication, .. } => Some(publication.message.frame().len()),
            Self::Publish { publication, .. } => Some(publication.message.frame().len()),
            Self::Direct { message, .. } => Some(message.frame().len()),
            Self::Accept { .. }
            | Self::Close { .. }
            | Self::Unsubscribe { .. }
            | Self::Drain { .. }
            | Self::AbortDrain
            | Self::Depart { .. }
            | Self::Arrive { .. }
            | Self::Ask(_)
            | Self::Stop => None,
        }
    }
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    limits: Limits,
    filled: Notify,
}

impl Shared {
    /// Appends a command whose amount is already part of `held`.
    fn store(&self, command: Command, amount: Amount) -> Wake<'_> {
        let mut queue = self.lock();
        if queue.closed {
            queue.held.subtract(amount);
            // A command may own a socket, and closing that is no work to do under the lock.
            drop(queue);
            drop(command);
            return Wake(None);
        }
        queue.questions += usize::from(command.is_question());
        let was_empty = queue.commands.is_empty();
        queue.commands.push_back(command);
        queue.stored.add(amount);
        Wake(was_empty.then_some(&self.filled))
    }

    /// No code panics between two changes that belong together, so a poisoned queue is still whole.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Invariant: `held` is `stored` plus all reservations that are neither used nor dropped.
#[derive(Debug, Default)]
struct Queue {
    commands: VecDeque<Command>,
    stored: Amount,
    held: Amount,
    /// Questions among the commands.
    questions: usize,
    closed: bool,
}

impl Queue {
    fn has_room_for(&self, bytes: usize, limits: Limits) -> bool {
        self.held.items == 0
            || (self.held.items < limits.items && self.held.bytes.saturating_add(bytes) <= limits.bytes)
    }
}

/// How much of what is counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// Bytes of encoded messages.
    pub bytes: usize,
    /// Publications and direct messages.
    pub items: usize,
}

impl Amount {
    fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.items += other.items;
    }

    fn subtract(&mut self, other: Self) {
        self.bytes -= other.bytes;
        self.items -= other.items;
    }
}

/// Questions of operators that wait for one shard, which may not come round to answer them.
pub const QUESTIONS_MAX: usize = 64;

/// Commands that an emptied queue keeps memory for.
const KEPT_ITEMS: usize = 4096;
