use super::*;
use crate::id::{RoomId, UserId};
use crate::webhooks::EventKind;

const TAKEN: Verdict = Verdict::Taken;
const FAILED: Verdict = Verdict::Failed { retry_after: None };
/// The largest random number, for the longest pause.
const MOST: u64 = u64::MAX;

#[test]
fn collects_for_a_tenth_of_a_second_after_the_first_event() {
    let mut outbox = Outbox::new(1 << 20);
    assert_eq!(outbox.poll_timeout(), None);

    assert!(outbox.push(event(1), 7), "whoever waits has to know when to come back");
    assert!(!outbox.push(event(2), 8 + 99 * MILLISECOND));

    assert_eq!(outbox.poll_timeout(), Some(7 + 100 * MILLISECOND));
    assert_eq!(outbox.next_batch(6 + 100 * MILLISECOND), None);
    assert_eq!(rooms(&outbox.next_batch(7 + 100 * MILLISECOND).unwrap()), [1, 2]);
}

#[test]
fn a_hundred_events_do_not_wait_for_more() {
    let mut outbox = Outbox::new(1 << 20);
    let woken: Vec<_> = (0..250).filter(|room| outbox.push(event(*room), 0)).collect();
    assert_eq!(woken, [0, 99]);

    let mut sizes = Vec::new();
    for now in [0, 0, 100 * MILLISECOND] {
        sizes.push(outbox.next_batch(now).unwrap().len());
        outbox.answered(TAKEN, now, 0);
    }

    assert_eq!(sizes, [100, 100, 50]);
    assert_eq!(outbox.take_counts(), Counts { sent: 250, ..Counts::default() });
    assert_eq!(outbox.vitals(0), Vitals { events: 0, bytes: 0, oldest: Duration::ZERO });
}

#[test]
fn one_batch_is_out_at_a_time_and_keeps_its_place_until_it_is_taken() {
    let mut outbox = Outbox::new(1 << 20);
    (0..150).for_each(|room| _ = outbox.push(event(room), 0));
    let first = outbox.next_batch(0).unwrap();
    assert_eq!((outbox.next_batch(SECOND), outbox.poll_timeout()), (None, None));

    outbox.answered(FAILED, SECOND, MOST);

    assert_eq!(outbox.next_batch(SECOND + 1), None, "it waits");
    let again = outbox.next_batch(2 * SECOND).unwrap();
    assert_eq!(first, again);
    assert_eq!(numbers(&again), (1..=100).collect::<Vec<_>>());
    outbox.answered(TAKEN, 2 * SECOND, 0);
    assert_eq!(numbers(&outbox.next_batch(2 * SECOND).unwrap()), (101..=150).collect::<Vec<_>>());
}

#[test]
fn pauses_are_anything_up_to_a_bound_that_doubles_and_begin_anew_after_a_success() {
    let pauses = |random| {
        let mut outbox = Outbox::new(1 << 20);
        let mut pause = |_| {
            outbox.push(event(1), 0);
            outbox.next_batch(SECOND).unwrap();
            outbox.answered(FAILED, SECOND, random);
            let pause = std::mem::take(&mut outbox.resume_at) - SECOND;
            pause.div_ceil(MILLISECOND)
        };
        (0..9).map(&mut pause).collect::<Vec<_>>()
    };
    assert_eq!(pauses(0), [0; 9]);
    assert_eq!(pauses(MOST), [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
    assert_eq!(pauses(MOST / 2)[..3], [250, 500, 1000]);

    let mut outbox = waiting(1);
    for verdict in [FAILED, FAILED, TAKEN, FAILED] {
        outbox.push(event(2), 0);
        outbox.resume_at = 0;
        outbox.next_batch(SECOND).unwrap();
        outbox.answered(verdict, SECOND, MOST);
    }
    assert_eq!(outbox.resume_at.div_ceil(MILLISECOND), 1500);
}

#[test]
fn obeys_the_server_up_to_two_minutes_and_spreads_what_comes_back() {
    let resume_at = |seconds, random| {
        let mut outbox = waiting(1);
        outbox.next_batch(SECOND).unwrap();
        outbox.answered(Verdict::Failed { retry_after: Some(Duration::from_secs(seconds)) }, SECOND, random);
        outbox.poll_timeout().unwrap().div_ceil(MILLISECOND)
    };

    assert_eq!(resume_at(20, 0), 21_000);
    assert_eq!(resume_at(20, MOST), 21_500);
    assert_eq!(resume_at(u64::MAX, 0), 121_000);
}

#[test]
fn gives_a_batch_up_after_five_minutes_and_its_last_attempt_and_goes_on_with_the_next() {
    let mut outbox = Outbox::new(1 << 20);
    (0..101).for_each(|room| _ = outbox.push(event(room), 0));
    let mut now = 0;
    let mut attempts = 0;
    while outbox.next_batch(now).is_some_and(|batch| batch[0].number == 1) {
        attempts += 1;
        outbox.answered(FAILED, now, MOST);
        now = outbox.poll_timeout().unwrap();
    }

    assert_eq!(attempts, 16, "pauses of half a second up to 30 s, then one at the end");
    assert!(
        now > 300 * SECOND && now <= 330 * SECOND,
        "the next one waits as long as this would have: {now}"
    );
    assert_eq!(lost(&mut outbox), [(WebhookLoss::Expired, 100)]);
    assert_eq!(outbox.vitals(now).events, 1);
}

#[test]
fn what_would_be_refused_again_is_given_up_at_once() {
    let mut outbox = waiting(150);
    outbox.next_batch(0).unwrap();

    outbox.answered(Verdict::Refused, 0, MOST);

    assert_eq!(lost(&mut outbox), [(WebhookLoss::Rejected, 100)]);
    assert_eq!(numbers(&outbox.next_batch(100 * MILLISECOND).unwrap()).first(), Some(&101));
}

#[test]
fn the_oldest_make_room_but_not_those_under_way() {
    let one = waiting(1).vitals(0).bytes;
    let mut outbox = Outbox::new(5 * one);
    outbox.push(event(1), 0);
    outbox.next_batch(SECOND).unwrap();

    (2..=7).for_each(|room| _ = outbox.push(event(room), SECOND));

    assert_eq!(lost(&mut outbox), [(WebhookLoss::QueueFull, 2)]);
    let vitals = outbox.vitals(2 * SECOND);
    assert_eq!(vitals, Vitals { events: 5, bytes: 5 * one, oldest: Duration::from_secs(2) });
    outbox.answered(TAKEN, SECOND, 0);
    assert_eq!(
        numbers(&outbox.next_batch(2 * SECOND).unwrap()),
        [4, 5, 6, 7],
        "a hole tells of what is missing"
    );
}

#[test]
fn what_is_never_going_to_fit_is_left_out_itself() {
    let mut outbox = Outbox::new(100);

    assert!(!outbox.push(long(), 0));

    assert_eq!(lost(&mut outbox), [(WebhookLoss::QueueFull, 1)]);
    assert_eq!(outbox.vitals(0).events, 0);
}

#[test]
fn names_count_with_their_bytes() {
    let bytes = |event| {
        let mut outbox = Outbox::new(1 << 20);
        outbox.push(event, 0);
        outbox.vitals(0).bytes
    };

    assert_eq!(bytes(long()), bytes(event(1)) + 256);
    assert_eq!(bytes(event(1)), size_of::<Entry>());
    assert!(100 * bytes(long()) <= crate::webhooks::QUEUE_BYTES_MIN, "a batch fits, and more");
}

#[test]
fn closing_sends_what_waits_at_once_and_ends_with_the_first_failure() {
    let mut outbox = waiting(150);
    outbox.next_batch(0).unwrap();
    outbox.answered(FAILED, 0, MOST);

    outbox.close();

    assert!(!outbox.is_done());
    assert_eq!(outbox.next_batch(1).unwrap().len(), 100, "it does not wait for its time");
    outbox.answered(TAKEN, 1, 0);
    assert_eq!(outbox.next_batch(1).unwrap().len(), 50, "nor to be full");
    outbox.push(event(1), 1);
    outbox.answered(FAILED, 2, 0);
    assert!(outbox.is_done());
    assert_eq!(lost(&mut outbox), [(WebhookLoss::Shutdown, 51)]);
    assert!(!outbox.push(event(1), 3));
    assert_eq!(lost(&mut outbox), [(WebhookLoss::Shutdown, 1)]);
}

#[test]
fn an_answer_after_the_end_changes_nothing() {
    let mut outbox = waiting(1);
    outbox.next_batch(SECOND).unwrap();
    outbox.abandon();

    outbox.answered(TAKEN, SECOND, 0);

    assert!(outbox.is_done());
    assert_eq!(lost(&mut outbox), [(WebhookLoss::Shutdown, 1)]);
    assert_eq!(outbox.vitals(SECOND), Vitals { events: 0, bytes: 0, oldest: Duration::ZERO });
}

/// Any order of pushes, answers and time: each event is sent or lost once, in order, and the bound holds.
#[test]
fn accounts_for_every_event_whatever_happens() {
    for seed in 0..200 {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed + 1);
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let mut outbox = Outbox::new(150 * size_of::<Entry>());
        let (mut now, mut pushed, mut sent) = (0, 0, Vec::new());
        let mut counts = [0; WebhookLoss::ALL.len()];
        let mut out = None;
        for _ in 0..2000 {
            match next() % 8 {
                0..=4 => {
                    outbox.push(event(1), now);
                    pushed += 1;
                }
                5 => now += next() % (10 * SECOND),
                6 if out.is_none() => out = outbox.next_batch(now),
                _ => {
                    let verdict = [TAKEN, FAILED, FAILED, Verdict::Refused][(next() % 4) as usize];
                    if let Some(batch) = out.take() {
                        if verdict == TAKEN {
                            sent.extend(batch.iter().map(|entry| entry.number));
                        }
                        outbox.answered(verdict, now, next());
                    }
                }
            }
            assert!(outbox.vitals(now).bytes <= 150 * size_of::<Entry>(), "seed {seed}");
        }
        let taken = outbox.take_counts();
        counts.iter_mut().zip(taken.lost()).for_each(|(sum, (_, lost))| *sum += lost);
        assert!(sent.is_sorted_by(|one, other| one < other), "seed {seed}");
        assert_eq!(taken.sent, sent.len() as u64);
        let left = outbox.vitals(now).events as u64;
        assert_eq!(pushed, taken.sent + left + counts.iter().sum::<u64>(), "seed {seed}");
        assert_eq!(outbox.vitals(now).bytes, outbox.vitals(now).events * size_of::<Entry>());
    }
}

fn event(room: u64) -> Event {
    Event { kind: EventKind::RoomOccupied, room: RoomId::from_u64(room), user: None, at: 0 }
}

/// With the longest names.
fn long() -> Event {
    let name = "n".repeat(128);
    let (room, user) = (RoomId::parse(&name).unwrap(), UserId::parse(&name).ok());
    Event { kind: EventKind::MemberJoined, room, user, at: 0 }
}

fn waiting(events: u64) -> Outbox {
    let mut outbox = Outbox::new(1 << 20);
    (0..events).for_each(|room| _ = outbox.push(event(room), 0));
    outbox
}

fn rooms(batch: &Batch) -> Vec<u64> {
    batch.iter().map(|entry| entry.event.room.to_string().parse().unwrap()).collect()
}

fn numbers(batch: &Batch) -> Vec<u64> {
    batch.iter().map(|entry| entry.number).collect()
}

fn lost(outbox: &mut Outbox) -> Vec<(WebhookLoss, u64)> {
    outbox.take_counts().lost().filter(|(_, lost)| *lost > 0).collect()
}
