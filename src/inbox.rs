//! The bounded mailbox of a shard, the commands put into it, and the gate that bounds connections.
//!
//! Everything that other threads want of a shard arrives here. Publications and direct messages are
//! bounded in bytes and in number: what does not fit is refused to whoever sends, who holds back.
//! What opens, closes or drains connections is not counted, because it must get through when a shard
//! is busiest; it is bounded by its sources (the [`Gate`], one disconnect per client, one drain).

use std::borrow::Cow;
use std::collections::VecDeque;
use std::mem;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::id::{ClientId, ClientKey, RoomKey};
use crate::ws::{CloseCode, PreparedMessage};

/// What can be asked of a shard.
#[derive(Debug)]
pub enum Command {
    /// Take over a socket that was just accepted.
    Accept {
        /// The socket, non-blocking, with nothing read from it.
        stream: TcpStream,
        /// The place it occupies; to be dropped when the connection is closed.
        permit: Permit,
        /// The identity given to it, which chose this shard.
        id: ClientId,
        /// Whether the gateway is full, so that the request can only be answered with 503.
        full: bool,
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
    /// Write to single clients, outside any room.
    Direct {
        /// Who gets it; those that are gone by now are skipped.
        clients: SmallVec<[ClientKey; 2]>,
        /// What they get.
        message: PreparedMessage,
        /// When the request was read, in nanoseconds of the gateway's clock.
        born: u64,
    },
    /// Close one client's connection.
    Disconnect {
        /// Whose; nothing happens when it is gone by now.
        client: ClientKey,
        /// The code on the wire.
        code: CloseCode,
        /// The reason on the wire.
        reason: Cow<'static, str>,
    },
    /// Close everything, spread evenly over the window.
    Drain {
        /// How long the closing may take.
        window: Duration,
    },
}

/// What was said in a room, at its place in the room's order.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Its place: the first publication of a room has 1, and each has one more than the last.
    pub offset: u64,
    /// The message, encoded once for all members on all shards.
    pub message: PreparedMessage,
    /// The one client of the receiving shard that does not get it.
    pub exclude: Option<ClientKey>,
    /// When the request was read, in nanoseconds of the gateway's clock.
    pub born: u64,
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
    /// [`Full`] when a publication or direct message does not fit; the inbox is then as before.
    /// Other commands are always taken.
    pub fn push(&self, command: Command) -> Result<(), Full> {
        match command.message_bytes() {
            Some(bytes) => drop(self.reserve(bytes)?.push(command)),
            None => drop(self.shared.store(command, Amount::default())),
        }
        Ok(())
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

    /// Whether one message of so many encoded bytes would fit at this moment.
    pub fn room_for(&self, bytes: usize) -> bool {
        self.shared.lock().has_room_for(bytes, self.shared.limits)
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
    /// The encoded bytes of what is counted; `None` for what is always taken.
    fn message_bytes(&self) -> Option<usize> {
        match self {
            Self::Publish { publication, .. } => Some(publication.message.frame().len()),
            Self::Direct { message, .. } => Some(message.frame().len()),
            Self::Accept { .. } | Self::Disconnect { .. } | Self::Drain { .. } => None,
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
    closed: bool,
}

impl Queue {
    fn has_room_for(&self, bytes: usize, limits: Limits) -> bool {
        self.held.items == 0
            || (self.held.items < limits.items && self.held.bytes.saturating_add(bytes) <= limits.bytes)
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Amount {
    bytes: usize,
    items: usize,
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

/// Counts connections against their limit.
///
/// Over the limit there are [`PLACES_TO_REFUSE`] more, for connections that are only told so.
#[derive(Debug, Clone)]
pub struct Gate {
    limit: usize,
    open: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

/// How many connections over the limit may be open at once to be answered with 503.
pub const PLACES_TO_REFUSE: usize = 64;

/// What becomes of a connection that was just accepted.
#[derive(Debug)]
#[must_use]
pub enum Admission {
    /// It is served.
    Admitted(Permit),
    /// It is told that the gateway is full, and closed.
    Full(Permit),
    /// It is closed at once: even the places to refuse are taken.
    Refused,
}

impl Gate {
    /// Makes a gate for at most `limit` connections.
    pub fn new(limit: usize) -> Self {
        Self { limit, open: Arc::default(), refused: Arc::default() }
    }

    /// Asks for a place.
    pub fn admit(&self) -> Admission {
        if let Some(permit) = Permit::take(&self.open, self.limit) {
            Admission::Admitted(permit)
        } else if let Some(permit) = Permit::take(&self.refused, PLACES_TO_REFUSE) {
            Admission::Full(permit)
        } else {
            Admission::Refused
        }
    }

    /// The connections admitted and still open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// The place of one connection, free again when this is dropped.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

impl Permit {
    fn take(places: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let more = |taken| (taken < limit).then_some(taken + 1);
        places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(Arc::clone(places)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Commands that an emptied queue keeps memory for.
const KEPT_ITEMS: usize = 4096;

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use std::thread;

    use super::*;

    #[test]
    fn gives_commands_in_the_order_they_came() {
        let (outlet, inbox) = Inbox::pair(Limits::default());
        for born in 0..10 {
            outlet.push(direct(8, born)).unwrap();
        }

        assert_eq!(births(&taken(&inbox)), (0..10).collect::<Vec<_>>());
        assert!(taken(&inbox).is_empty());
    }

    #[test]
    fn appends_to_what_the_caller_still_has() {
        let (outlet, inbox) = Inbox::pair(Limits::default());
        let mut commands = VecDeque::from([direct(8, 1)]);
        outlet.push(direct(8, 2)).unwrap();

        inbox.take_all(&mut commands);

        assert_eq!(births(&commands), [1, 2]);
    }

    #[test]
    fn refuses_bytes_over_the_limit_until_they_are_taken() {
        let frame = direct(100, 0).message_bytes().unwrap();
        let (outlet, inbox) = Inbox::pair(Limits { bytes: frame * 2, items: 100 });
        outlet.push(direct(100, 1)).unwrap();
        outlet.push(direct(100, 2)).unwrap();

        assert!(!outlet.room_for(1));
        assert_eq!(outlet.push(direct(1, 3)), Err(Full));
        assert_eq!(births(&taken(&inbox)), [1, 2]);
        assert!(outlet.room_for(frame * 2));
        assert_eq!(outlet.push(direct(100, 4)), Ok(()));
    }

    #[test]
    fn refuses_items_over_the_limit_until_they_are_taken() {
        let (outlet, inbox) = Inbox::pair(Limits { bytes: 1 << 20, items: 2 });
        outlet.push(direct(1, 1)).unwrap();
        outlet.push(direct(1, 2)).unwrap();

        assert_eq!(outlet.push(direct(1, 3)), Err(Full));
        assert_eq!(taken(&inbox).len(), 2);
        assert_eq!(outlet.push(direct(1, 4)), Ok(()));
    }

    #[test]
    fn takes_a_message_larger_than_itself_when_empty() {
        let (outlet, _inbox) = Inbox::pair(Limits { bytes: 10, items: 10 });

        assert_eq!(outlet.push(direct(1000, 1)), Ok(()));
        assert_eq!(outlet.push(direct(1, 2)), Err(Full));
    }

    #[test]
    fn takes_lifecycle_commands_when_full() {
        let (outlet, inbox) = Inbox::pair(Limits { bytes: 10, items: 1 });
        outlet.push(direct(10, 1)).unwrap();

        outlet.push(Command::Drain { window: Duration::from_secs(5) }).unwrap();

        assert_eq!(taken(&inbox).len(), 2);
    }

    #[test]
    fn a_reservation_holds_space_and_gives_it_back_when_dropped() {
        let frame = direct(100, 0).message_bytes().unwrap();
        let (outlet, inbox) = Inbox::pair(Limits { bytes: frame, items: 100 });

        let reservation = outlet.reserve(frame).unwrap();
        assert_eq!(outlet.push(direct(1, 1)), Err(Full));
        assert!(taken(&inbox).is_empty());
        assert_eq!(outlet.push(direct(1, 1)), Err(Full), "taking nothing frees nothing");
        drop(reservation);

        drop(outlet.reserve(frame).unwrap().push(direct(100, 2)));
        assert_eq!(outlet.push(direct(1, 3)), Err(Full));
        assert_eq!(births(&taken(&inbox)), [2]);
        assert_eq!(inbox.shared.lock().held, Amount::default());
    }

    #[test]
    fn wakes_the_shard_once_for_many_commands_and_again_after_it_took_them() {
        let (outlet, inbox) = Inbox::pair(Limits::default());
        assert!(!is_woken(&inbox));
        outlet.push(direct(1, 1)).unwrap();
        outlet.push(direct(1, 2)).unwrap();
        assert!(is_woken(&inbox));
        assert!(!is_woken(&inbox));

        taken(&inbox);
        outlet.push(direct(1, 3)).unwrap();

        assert!(is_woken(&inbox));
    }

    #[test]
    fn drops_what_is_inside_and_what_comes_later_when_the_shard_is_gone() {
        let gate = Gate::new(2);
        let (outlet, inbox) = Inbox::pair(Limits { bytes: 10, items: 1 });
        outlet.push(accept(&gate)).unwrap();
        outlet.push(direct(10, 1)).unwrap();
        assert_eq!(gate.open(), 1);

        drop(inbox);
        outlet.push(accept(&gate)).unwrap();

        assert_eq!(gate.open(), 0);
        for born in 0..10 {
            assert_eq!(outlet.push(direct(10, born)), Ok(()), "nobody is held back by it");
        }
    }

    #[test]
    fn loses_nothing_between_threads_and_ends_with_nothing_held() {
        const THREADS: u64 = 4;
        const COUNT: usize = 4;
        const EACH: u64 = 5_000;
        let (outlet, inbox) = Inbox::pair(Limits { bytes: 4096, items: 50 });
        let mut next = [0; COUNT];

        thread::scope(|scope| {
            for thread in 0..THREADS {
                let outlet = outlet.clone();
                scope.spawn(move || {
                    for count in 0..EACH {
                        while outlet.push(direct(16, thread * EACH + count)) == Err(Full) {
                            thread::yield_now();
                        }
                    }
                });
            }
            while next.iter().sum::<u64>() < THREADS * EACH {
                let commands = taken(&inbox);
                assert!(commands.len() <= 50);
                for born in births(&commands) {
                    let thread = usize::try_from(born / EACH).unwrap();
                    assert_eq!(born % EACH, next[thread], "in the order of its sender");
                    next[thread] += 1;
                }
                thread::yield_now();
            }
        });

        assert_eq!(inbox.shared.lock().held, Amount::default());
    }

    #[test]
    fn the_gate_admits_up_to_its_limit_then_refuses_politely_then_at_once() {
        let gate = Gate::new(2);
        let first = admitted(&gate);
        let _second = admitted(&gate);

        let full: Vec<_> = (0..PLACES_TO_REFUSE).map(|_| gate.admit()).collect();

        assert!(full.iter().all(|admission| matches!(admission, Admission::Full(_))));
        assert!(matches!(gate.admit(), Admission::Refused));
        assert_eq!(gate.open(), 2);
        drop(first);
        let _third = admitted(&gate);
        assert!(matches!(gate.admit(), Admission::Refused));
        drop(full);
        assert!(matches!(gate.admit(), Admission::Full(_)));
    }

    #[test]
    fn the_gate_is_empty_after_many_threads_went_through() {
        let gate = Gate::new(3);

        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let admission = gate.admit();
                        assert!(gate.open() <= 3);
                        drop(admission);
                    }
                });
            }
        });

        assert_eq!(gate.open(), 0);
        assert_eq!(gate.refused.load(Ordering::Relaxed), 0);
    }

    fn direct(payload_bytes: usize, born: u64) -> Command {
        let message = PreparedMessage::text(&vec![b'x'; payload_bytes]);
        Command::Direct { clients: SmallVec::new(), message, born }
    }

    fn accept(gate: &Gate) -> Command {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted_at = test_now();
        Command::Accept { stream, permit: admitted(gate), id: ClientId(1), full: false, accepted_at }
    }

    #[expect(clippy::disallowed_methods, reason = "an instant is needed, whichever it is")]
    fn test_now() -> Instant {
        Instant::now()
    }

    fn admitted(gate: &Gate) -> Permit {
        match gate.admit() {
            Admission::Admitted(permit) => permit,
            other => panic!("not admitted: {other:?}"),
        }
    }

    fn taken(inbox: &Inbox) -> VecDeque<Command> {
        let mut commands = VecDeque::new();
        inbox.take_all(&mut commands);
        commands
    }

    fn births(commands: &VecDeque<Command>) -> Vec<u64> {
        let birth = |command: &Command| match command {
            Command::Direct { born, .. } => *born,
            other => panic!("not a direct message: {other:?}"),
        };
        commands.iter().map(birth).collect()
    }

    fn is_woken(inbox: &Inbox) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(inbox.notified()).poll(&mut context) == Poll::Ready(())
    }
}
