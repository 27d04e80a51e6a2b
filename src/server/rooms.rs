//! What goes on in rooms beside the shards: users that come and go are told of, and what is too old is forgotten.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{spawn_blocking, yield_now};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::clock::Clock;
use crate::hub::{Found, Hub, Room, Said, Text, Tidings, Told};
use crate::id::{RoomId, UserId};
use crate::metrics::Source;
use crate::protocol;
use crate::webhooks::{Event, EventKind, Sender};
use crate::ws::{Draft, PreparedMessage};

/// So many looks are taken before others on the control thread have their turn.
const LOOKS_PER_TURN: usize = 64;

/// How often all rooms are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How long nothing is looked for when nothing is due.
const IDLE: Duration = Duration::from_secs(60);

/// Tells the members of rooms, and the application, who comes and goes. Never ends.
pub(super) async fn tell(hub: Arc<Hub>, hook: Sender, clock: Clock) {
    loop {
        let mut looks = 0;
        while let Some(found) = hub.look(|room, user, has_come| said(room, (user, has_come), clock)) {
            if let Found::Tidings(Tidings { room, told }) = found
                && let Some(id) = room.id().filter(|_| hook.wants(kind(&told)))
            {
                hook.push(event(id.clone(), told));
            }
            looks += 1;
            if looks % LOOKS_PER_TURN == 0 {
                yield_now().await;
            }
        }
        let next =
            hub.next_tidings_at().map_or(IDLE, |at| Duration::from_nanos(at.saturating_sub(clock.now())));
        tokio::select! {
            () = hub.tidings() => {}
            () = sleep(next) => {}
        }
    }
}

/// Has rooms forget what is too old. Never ends.
pub(super) async fn sweep(hub: Arc<Hub>) {
    let mut looks = interval(SWEEP_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let hub = Arc::clone(&hub);
        // There may be very many rooms, and the control thread accepts connections.
        if spawn_blocking(move || hub.sweep()).await.is_err() {
            tracing::error!("forgetting what is too old in rooms has failed");
        }
    }
}

fn kind(told: &Told) -> EventKind {
    match told {
        Told::Joined(_) => EventKind::MemberJoined,
        Told::Left(_) => EventKind::MemberLeft,
        Told::Occupied => EventKind::RoomOccupied,
        Told::Vacated => EventKind::RoomVacated,
    }
}

fn event(room: RoomId, told: Told) -> Event {
    let kind = kind(&told);
    let user = match told {
        Told::Joined(user) | Told::Left(user) => Some(user),
        Told::Occupied | Told::Vacated => None,
    };
    let at = u64::try_from(Clock::since_epoch().as_millis()).unwrap_or(u64::MAX);
    Event { kind, room, user, at }
}

fn said(room: &Room, (user, has_come): (&UserId, bool), clock: Clock) -> Said {
    let name = room.id().expect("nobody is told of in the room of everyone").as_ref();
    let user = user.as_ref();
    let (mut json, timestamp) = (Vec::new(), Clock::unix());
    let text = if room.options().is_numbered() {
        protocol::write_movement_up_to_offset(has_come, user, name, timestamp, &mut json);
        Text::Numbered(Draft::new(&json, b"}"))
    } else {
        protocol::write_movement(has_come, user, name, timestamp, &mut json);
        Text::Whole(PreparedMessage::text(&json))
    };
    Said { text, key: None, exclude: None, source: Source::Client, read_at: clock.now() }
}
