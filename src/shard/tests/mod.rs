//! A shard without sockets or sleep: bytes, commands and the time go in, frames come out.

mod compression;
mod overflow;
mod recovery;
mod resume;
mod wires;
mod world;

use std::time::Duration;

use bytes::Bytes;

use crate::hub;
use crate::id::ClientKey;
use crate::metrics::DropReason;

use super::backlog::Lane;
use super::queue::Load;
use super::wheel::TICK;

pub(super) use world::{World, counted, frame, masked};

#[test]
fn a_message_to_a_room_reaches_every_member_and_its_sender_once() {
    let mut world = World::new();
    let (ann, ben, cat) = (world.enter("ann"), world.enter("ben"), world.enter("cat"));
    world.say(ann, r#"{"type":"join","room_id":5}"#);
    world.say(ben, r#"{"type":"join","room_id":"5"}"#);
    world.say(ann, r#"{"type":"message","room_id":5,"content":"hello"}"#);
    let deliveries = world.deliver();
    assert_eq!(count(&deliveries, ann, "hello"), 1);
    assert_eq!(count(&deliveries, ben, "hello"), 1);
    assert_eq!(count(&deliveries, cat, "hello"), 0);
}

#[test]
fn messages_of_one_turn_leave_in_one_write_per_member() {
    let mut world = World::new();
    let ann = world.enter("ann");
    world.say(ann, r#"{"type":"join","room_id":5}"#);
    for number in 0..3 {
        world.say(ann, &format!(r#"{{"type":"message","room_id":5,"content":"m{number}"}}"#));
    }
    let deliveries = world.deliver();
    assert_eq!(deliveries.len(), 1);
    assert_eq!(["m0", "m1", "m2"].map(|text| count(&deliveries, ann, text)), [1, 1, 1]);
}

#[test]
fn who_leaves_between_two_slices_gets_nothing_more_and_nobody_is_skipped() {
    let mut world = World::new();
    let members: Vec<_> = (0..5).map(|number| world.enter(&format!("user-{number}"))).collect();
    for member in &members {
        world.say(*member, r#"{"type":"join","room_id":5}"#);
    }
    world.say(members[0], r#"{"type":"message","room_id":5,"content":"hello"}"#);
    world.apply();
    let mut served = vec![world.deliver_one().unwrap()];
    world.say(members[1], r#"{"type":"leave","room_id":5}"#);
    world.say(served[0], r#"{"type":"leave","room_id":5}"#);
    while let Some(client) = world.deliver_one() {
        served.push(client);
    }
    served.sort_unstable();
    let mut expected: Vec<_> = members.iter().copied().filter(|member| *member != members[1]).collect();
    expected.sort_unstable();
    assert_eq!(served, expected);
}

#[test]
fn what_was_on_its_way_to_a_member_that_is_closed_counts_as_dropped_but_not_for_one_that_leaves() {
    let mut world = World::new();
    let members = ["ann", "ben", "cat", "dan"].map(|user| world.enter(user));
    for member in members {
        world.say(member, r#"{"type":"join","room_id":5}"#);
    }
    for _ in 0..3 {
        world.say(members[0], r#"{"type":"message","room_id":5,"content":"hello"}"#);
    }
    world.apply();
    let served = world.deliver_one().unwrap();
    let mut others = members.into_iter().filter(|member| *member != served);
    world.leave(others.next().unwrap());
    world.leave(served);
    world.say(others.next().unwrap(), r#"{"type":"leave","room_id":5}"#);
    let last = others.next().unwrap();
    assert_eq!(world.deliver_one(), Some(last));
    assert_eq!(world.deliver_one(), None);

    assert_eq!(counted(&mut world.shard.core.counts.dropped), [(DropReason::Closing, 3)]);
}

#[test]
fn who_says_more_than_the_rates_allow_is_told_and_in_the_end_closed_with_4029() {
    let mut world = World::new();
    let mut options = super::Options::clone(&world.shard.core.options);
    options.rates.messages = Some(10);
    world.shard.core.options = options.into();
    let (ann, ben) = (world.enter("ann"), world.enter("ben"));
    world.notices();
    let ping = r#"{"type":"ping","id":"mine"}"#;
    let answers: Vec<_> = (0..25).map(|_| world.replies(ann, ping)).collect();

    assert!(answers[..20].iter().all(|answer| answer.contains(r#""type":"pong""#)));
    let refusal = r#""type":"error","id":"mine","code":"rate_limited""#;
    assert!(answers[20..].iter().all(|answer| answer.contains(refusal)), "{answers:?}");
    assert!(world.replies(ben, ping).contains("pong"), "each has its own");
    world.tick(Duration::from_secs(1));
    assert!(world.replies(ann, ping).contains("pong"));

    for _ in 0..100 {
        world.say(ann, ping);
    }
    assert_eq!(close_code(&world.notices()[0].1), 4029);
}

#[test]
fn pings_are_spread_but_go_out_in_groups() {
    let mut world = World::new();
    for number in 0..500 {
        world.enter(&format!("user-{number}"));
    }
    world.notices();
    let mut groups = Vec::new();
    for tick in 0..=844 {
        world.tick(TICK * tick);
        groups.extend(Some(world.notices().len()).filter(|pings| *pings > 0));
    }
    assert_eq!(groups.iter().sum::<usize>(), 500, "each once in the interval");
    assert!(groups.len() > 100 && groups.len() <= 212, "{} groups", groups.len());
    assert!(groups.iter().all(|pings| *pings < 20), "{groups:?}");
}

#[test]
fn a_large_room_gives_way_to_a_small_one_and_to_whoever_wants_something() {
    let mut world = World::new();
    let many: Vec<_> = (0..100).map(|number| world.enter(&format!("user-{number}"))).collect();
    for member in &many {
        world.say(*member, r#"{"type":"join","room_id":"large"}"#);
    }
    let few = [world.enter("ann"), world.enter("ben")];
    for member in few {
        world.say(member, r#"{"type":"join","room_id":"small"}"#);
    }
    world.say(many[0], r#"{"type":"message","room_id":"large","content":"hello"}"#);
    world.say(few[0], r#"{"type":"message","room_id":"small","content":"hello"}"#);
    world.apply();

    let mut slices = Vec::new();
    while world.shard.core.has_deliveries() {
        let mut slice = Vec::new();
        while let Some(delivery) = world.shard.core.next_delivery(&mut 1000) {
            slice.push(delivery.client);
        }
        slices.push(slice);
    }

    assert!(slices.iter().all(|slice| slice.len() <= 32), "the driver can look in between");
    let until_small_is_served = slices.concat().iter().position(|client| *client == few[1]).unwrap();
    assert!(until_small_is_served < 32, "{until_small_is_served} came first");
    assert_eq!(slices.concat().len(), 102);
}

#[test]
fn a_silent_client_is_pinged_and_then_closed_with_4009() {
    let mut world = World::new();
    let ann = world.enter("ann");
    world.notices();
    world.tick(Duration::from_secs(55));
    let pings = world.notices();
    assert_eq!((pings.len(), pings[0].0, pings[0].1[0]), (1, ann, 0x89));
    world.tick(Duration::from_secs(61));
    let close = world.notices().pop().unwrap().1;
    assert_eq!(close_code(&close), 4009);
}

#[test]
fn a_client_that_answers_pings_stays() {
    let mut world = World::new();
    let ann = world.enter("ann");
    world.notices();
    for second in 1..=600 {
        world.tick(Duration::from_secs(second));
        for (client, frames) in world.notices() {
            assert_eq!(frames[0], 0x89, "only pings are sent");
            world.receive(client, &masked(0x8a, &frames[2..]));
        }
    }
    assert!(world.shard.core.clients[ann].is_open());
}

#[test]
fn pings_of_a_crowd_are_spread_over_the_interval() {
    let mut world = World::new();
    for number in 0..540 {
        world.enter(&format!("user-{number}"));
    }
    world.notices();
    let mut most = 0;
    for second in 1..=54 {
        world.tick(Duration::from_secs(second));
        most = most.max(world.notices().len());
    }
    assert!(most < 40, "{most} of 540 pings in one of 54 seconds");
}

#[test]
fn a_full_queue_closes_its_client_with_4008_and_costs_the_others_nothing() {
    let mut world = World::new();
    let (slow, fast) = (world.enter("slow"), world.enter("fast"));
    for client in [slow, fast] {
        world.say(client, r#"{"type":"join","room_id":5}"#);
    }
    world.notices();
    let begun = frame("begun");
    world.shard.core.blocked(slow, &begun, 1, Lane::Bulk, None);
    let padding = "x".repeat(1000);
    let (mut received, mut owed) = (0, 0);
    for _ in 0..1200 {
        owed += u64::from(world.shard.core.clients[slow].is_open());
        world.say(fast, &format!(r#"{{"type":"message","room_id":5,"content":"{padding}"}}"#));
        received += count(&world.deliver(), fast, "content");
    }
    assert_eq!(received, 1200);
    assert_eq!(counted(&mut world.shard.core.counts.dropped), [(DropReason::BytesLimit, owed)]);
    assert!(!world.shard.core.clients[slow].is_open());
    assert!(
        world.notices().iter().all(|(client, _)| *client == fast),
        "its Close waits behind what was begun"
    );
    let mut slices = [std::io::IoSlice::new(&[]); 8];
    let (slots, _) = world.shard.core.backlog_slices(slow, &mut slices);
    assert_eq!(slices[0][..], begun[1..], "the frame that was begun is ended");
    assert_eq!(close_code(&slices[slots - 1]), 4008);
    assert_eq!(
        world.shard.core.counts.queues.bytes,
        slices[..slots].iter().map(|slice| slice.len()).sum::<usize>()
    );
}

#[test]
fn a_close_is_said_even_when_what_goes_before_it_would_block() {
    let mut world = World::new();
    let ann = world.enter("ann");
    world.notices();
    world.receive(ann, &[0x81, 1, b'x']);
    // The driver writes the replies of a read first, and they do not all fit.
    let reply = frame("reply");
    world.shard.core.blocked(ann, &reply, 1, Lane::Control, None);
    assert_eq!(world.notices(), []);
    let mut slices = [std::io::IoSlice::new(&[]); 8];
    let (slots, _) = world.shard.core.backlog_slices(ann, &mut slices);
    assert_eq!(slices[0][..], reply[1..]);
    assert_eq!(close_code(&slices[slots - 1]), 1002);
}

#[test]
fn answers_to_what_came_before_a_close_go_out_before_it() {
    let mut world = World::new();
    let ann = world.enter("ann");
    world.notices();
    world.shard.core.blocked(ann, &frame("begun"), 1, Lane::Bulk, None);
    let mut input = masked(0x81, br#"{"type":"ping","id":1}"#);
    input.extend_from_slice(&masked(0x88, &1000_u16.to_be_bytes()));
    let mut replies = Vec::new();
    world.shard.receive(ann, &mut input, 0, &mut replies);
    world.shard.core.enqueue(ann, replies.into(), Lane::Control, None);
    world.notices();
    let mut slices = [std::io::IoSlice::new(&[]); 8];
    let (slots, _) = world.shard.core.backlog_slices(ann, &mut slices);
    assert_eq!(slots, 3);
    assert!(String::from_utf8_lossy(&slices[1]).contains("pong"));
    assert_eq!(close_code(&slices[2]), 1000);
}

#[test]
fn a_process_that_stood_still_blames_nobody_for_silence() {
    let mut world = World::new();
    let ann = world.enter("ann");
    world.shard.core.excuse(super::wheel::ticks_passed(Duration::from_secs(100)));
    world.tick(Duration::from_secs(100));
    assert!(world.shard.core.clients[ann].is_open());
}

#[test]
fn a_process_that_stood_still_blames_nobody_for_what_it_did_not_write_meanwhile() {
    let mut world = World::new();
    let (behind, leaving) = (world.enter("behind"), world.enter("leaving"));
    world.shard.core.blocked(behind, &frame("begun"), 1, Lane::Bulk, None);
    world.receive(leaving, &masked(0x88, &1000_u16.to_be_bytes()));
    world.shard.core.excuse(super::wheel::ticks_passed(Duration::from_secs(100)));
    world.tick(Duration::from_secs(100));
    assert!(world.shard.core.clients[behind].is_open());
    assert!(world.shard.core.clients.contains_key(leaving), "it still has its time to end the stream");
}

#[test]
fn to_join_again_takes_no_further_place() {
    let mut world = World::new();
    let ann = world.enter("ann");
    for room in 0..128 {
        world.say(ann, &format!(r#"{{"type":"join","room_id":{room},"id":1}}"#));
    }
    let mut replies = Vec::new();
    world.shard.receive(ann, &mut masked(0x81, br#"{"type":"join","room_id":5,"id":1}"#), 0, &mut replies);
    assert!(String::from_utf8_lossy(&replies).contains(r#""type":"ack""#));
    replies.clear();
    world.shard.receive(ann, &mut masked(0x81, br#"{"type":"join","room_id":999,"id":1}"#), 0, &mut replies);
    assert!(String::from_utf8_lossy(&replies).contains("too_many_rooms"));
}

#[test]
fn a_write_that_stays_blocked_closes_its_client() {
    let mut world = World::new();
    let ann = world.enter("ann");
    world.shard.core.blocked(ann, &frame("waiting"), 0, Lane::Bulk, None);
    world.tick(Duration::from_secs(9));
    assert!(world.shard.core.clients[ann].is_open());
    world.tick(Duration::from_secs(11));
    assert!(!world.shard.core.clients[ann].is_open());
}

#[test]
fn input_that_a_room_refuses_is_held_and_taken_later_in_order() {
    let mut world = World::with(hub::Options { room_pending_bytes: 300, ..hub::Options::default() });
    let ann = world.enter("ann");
    world.say(ann, r#"{"type":"join","room_id":5}"#);
    let mut input = Vec::new();
    for number in 0..20 {
        let text = format!(r#"{{"type":"message","room_id":5,"content":"<{number}>"}}"#);
        input.extend_from_slice(&masked(0x81, text.as_bytes()));
    }
    world.receive(ann, &input);
    assert!(world.shard.core.reads_are_paused(ann));
    let mut heard = Vec::new();
    for _ in 0..20 {
        for (_, frames) in world.deliver() {
            heard.extend_from_slice(&frames);
        }
        world.retry();
    }
    let heard = String::from_utf8_lossy(&heard).into_owned();
    let places: Vec<_> = (0..20).map(|number| heard.find(&format!("<{number}>")).unwrap()).collect();
    assert!(places.is_sorted());
    assert!(!world.shard.core.reads_are_paused(ann));
}

#[test]
fn coming_and_going_in_any_order_leaves_nothing_behind() {
    let mut world = World::new();
    let mut seed = 7_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut here = Vec::new();
    for _ in 0..20_000 {
        let pick = |here: &[ClientKey], number: u64| here[usize::try_from(number).unwrap() % here.len()];
        match random(8) {
            0..=1 => here.push(world.enter(&format!("user-{}", random(50)))),
            _ if here.is_empty() => {}
            2..=3 => world
                .say(pick(&here, random(1 << 30)), &format!(r#"{{"type":"join","room_id":{}}}"#, random(9))),
            4 => world
                .say(pick(&here, random(1 << 30)), &format!(r#"{{"type":"leave","room_id":{}}}"#, random(9))),
            5 => {
                let text =
                    format!(r#"{{"type":"message","room_id":{},"content":"x","echo":false}}"#, random(9));
                world.say(pick(&here, random(1 << 30)), &text);
            }
            6 => {
                world.deliver_one();
            }
            _ => {
                let at = usize::try_from(random(1 << 30)).unwrap() % here.len();
                world.leave(here.swap_remove(at));
            }
        }
        world.apply();
    }
    for client in here {
        world.leave(client);
    }
    world.deliver();
    let core = &world.shard.core;
    assert_eq!((world.hub.rooms(), world.hub.users()), (0, 0));
    assert_eq!((core.clients.len(), core.names.len(), core.rooms.len()), (0, 0, 1));
    assert_eq!((core.counts.memberships, core.counts.queues), (0, Load::default()));
    assert_eq!((core.meter.bytes(), core.counts.input), (0, 0));
    assert_eq!(world.gate.open(), 0);
}

#[test]
fn draining_closes_all_with_1001_evenly_over_the_window() {
    let mut world = World::new();
    for number in 0..100 {
        world.enter(&format!("user-{number}"));
    }
    world.notices();
    world.shard.core.apply(crate::inbox::Command::Drain { window: Duration::from_secs(10) });
    let mut closed = 0;
    for second in 0..=10 {
        world.tick(Duration::from_secs(second));
        let mut notices = world.notices();
        notices.retain(|(_, frame)| frame[0] != 0x89);
        assert!(notices.len() <= 2 * 12, "{} closed in second {second}", notices.len() / 2);
        for pair in notices.chunks(2) {
            let [(advised, advice), (client, close)] = pair else { panic!("advice goes before each close") };
            assert_eq!((advised, close_code(close)), (client, 1001));
            assert!(String::from_utf8_lossy(advice).contains(r#""type":"reconnect","after_ms":"#));
            closed += 1;
        }
    }
    assert_eq!(closed, 100);
}

#[test]
fn a_binary_message_is_refused_with_1003_and_an_unmasked_frame_with_1002() {
    for (input, code) in [(masked(0x82, b"x"), 1003), (vec![0x81, 1, b'x'], 1002)] {
        let mut world = World::new();
        let ann = world.enter("ann");
        world.notices();
        world.receive(ann, &input);
        assert_eq!(close_code(&world.notices()[0].1), code);
    }
}

fn count(deliveries: &[(ClientKey, Bytes)], client: ClientKey, text: &str) -> usize {
    let mine = deliveries.iter().filter(|(to, _)| *to == client);
    mine.map(|(_, frames)| String::from_utf8_lossy(frames).matches(text).count()).sum()
}

pub(super) fn close_code(frame: &[u8]) -> u16 {
    assert_eq!(frame[0], 0x88, "a Close frame");
    u16::from_be_bytes([frame[2], frame[3]])
}
