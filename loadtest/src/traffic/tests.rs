use super::load::{Pace, Share};
use super::schedule::Arrivals;
use super::*;
use crate::frames;

/// A run with its clients' seats, and the texts of what was published.
struct Run {
    traffic: Traffic,
    seats: Vec<Vec<Seat>>,
}

impl Run {
    fn new(layout: Layout, load: Load) -> Self {
        let dialect = Rc::new(Dialect::load("fanfare").unwrap());
        let mut traffic = Traffic::new(layout, dialect, 1, Clock::start()).unwrap();
        let seats = (0..layout.clients)
            .map(|client| {
                let rooms = (0..layout.rooms).map(Seat::new);
                let mut seats: Vec<Seat> = rooms.chain(traffic.personal_seats(client)).collect();
                for seat in &mut seats {
                    traffic.admit(client, seat);
                }
                traffic.is_ready(client);
                seats
            })
            .collect();
        traffic.begin(load);
        Self { traffic, seats }
    }

    fn room_of(clients: u32, window: u32) -> Self {
        let pace = Pace::Window(window);
        Self::new(Layout { clients, rooms: 1, ..Layout::default() }, Load { pace, ..Load::default() })
    }

    /// What is due, as the texts of the frames.
    fn published(&mut self) -> Vec<Vec<u8>> {
        let mut bytes = Vec::new();
        while self.traffic.next_due(&mut bytes).is_some() {}
        unmasked(&bytes)
    }

    /// What the first audience is sent when its window grows to so many.
    fn widened(&mut self, window: u32) -> Vec<Vec<u8>> {
        self.traffic.load.pace = Pace::Window(window);
        self.traffic.due.push(0);
        self.published()
    }

    fn deliver(&mut self, client: usize, text: &[u8]) {
        self.traffic.bytes_arrived();
        assert!(self.traffic.deliver(u32::try_from(client).unwrap(), &mut self.seats[client], text));
    }

    fn deliver_to_all(&mut self, text: &[u8]) {
        for client in 0..self.seats.len() {
            self.deliver(client, text);
        }
    }

    /// The first message, after which the window is open.
    fn learn(&mut self) -> Vec<Vec<u8>> {
        let first = self.published();
        assert_eq!(first.len(), 1);
        self.deliver_to_all(&first[0]);
        self.published()
    }

    fn lost(&mut self) -> u64 {
        let seats = (0..).zip(&mut self.seats);
        seats.map(|(client, seats)| self.traffic.settle(client, seats)).sum()
    }
}

fn unmasked(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut texts = Vec::new();
    while let [_, short, rest @ ..] = bytes {
        let (length, rest) = match short & 0x7F {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            length => (usize::from(length), rest),
        };
        let (mask, rest) = rest.split_at(4);
        texts.push(rest[..length].iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect());
        bytes = &rest[length..];
    }
    texts
}

#[test]
fn the_first_message_teaches_the_padding_and_opens_the_window() {
    let mut run = Run::room_of(2, 4);
    let more = run.learn();
    assert_eq!(more.iter().map(Vec::len).collect::<Vec<_>>(), [128; 4]);
    assert_eq!((run.traffic.tally.deliveries, run.traffic.tally.completed), (2, 1));
}

#[test]
fn a_message_passed_over_is_lost_and_does_not_stop_the_loop() {
    let mut run = Run::room_of(2, 2);
    let texts = run.learn();
    run.deliver(0, &texts[1]);
    run.deliver(1, &texts[0]);
    run.deliver(1, &texts[1]);
    assert_eq!((run.traffic.outstanding(), run.lost()), (0, 1));
    run.deliver(0, &texts[0]);
    assert_eq!((run.traffic.tally.reordered, run.lost()), (1, 0));
    run.deliver(0, &texts[0]);
    assert_eq!(run.traffic.tally.duplicates, 1);
    assert_eq!(run.published().len(), 2);
}

#[test]
fn what_nobody_has_got_at_the_end_is_lost_for_each_who_was_owed_it() {
    let mut run = Run::room_of(3, 2);
    let texts = run.learn();
    run.deliver(0, &texts[0]);
    assert_eq!(run.lost(), 5);
}

#[test]
fn a_gap_that_names_what_is_missing_is_no_loss_and_one_that_names_more_is_false() {
    for (named, lost, falsely) in [(2, 0, 0), (3, 0, 1), (1, 2, 1)] {
        let mut run = Run::room_of(1, 4);
        let texts = run.learn();
        run.traffic.gap(0, 0, named);
        run.deliver(0, &texts[2]);
        run.deliver(0, &texts[3]);
        assert_eq!((run.lost(), run.traffic.false_gaps()), (lost, falsely), "{named} named");
    }
}

#[test]
fn a_gap_at_the_end_counts_as_well() {
    let mut run = Run::room_of(1, 4);
    let texts = run.learn();
    run.deliver(0, &texts[0]);
    run.traffic.gap(0, 0, 3);
    assert_eq!((run.lost(), run.traffic.false_gaps()), (0, 0));
}

#[test]
fn one_that_leaves_is_waited_for_no_longer() {
    let mut run = Run::room_of(2, 1);
    let first = run.published();
    run.deliver(0, &first[0]);
    assert_eq!(run.traffic.outstanding(), 1);
    let Run { traffic, seats } = &mut run;
    traffic.depart(1, &mut seats[1]);
    assert_eq!((run.traffic.outstanding(), run.traffic.abandoned), (0, 1));
    assert_eq!(run.lost(), 0);
    let more = run.published();
    assert_eq!(more.len(), 1, "the other one goes on");
}

#[test]
fn one_that_enters_while_messages_are_under_way_may_get_them_but_is_not_owed_them() {
    let mut run = Run::room_of(1, 4);
    let texts = run.learn();
    let mut seat = Seat::new(0);
    run.traffic.admit(7, &mut seat);
    let mut newcomer = [seat];
    for text in &texts[2..] {
        assert!(run.traffic.deliver(7, &mut newcomer, text));
    }
    assert_eq!(run.traffic.settle(7, &mut newcomer), 0);
    for text in &texts {
        run.deliver(0, text);
    }
    assert_eq!((run.traffic.outstanding(), run.traffic.tally.completed), (0, 5));
}

#[test]
fn one_that_enters_is_owed_what_is_sent_afterwards_from_the_first_message_on() {
    let mut run = Run::room_of(1, 1);
    let second = run.learn();
    run.deliver(0, &second[0]);
    let mut seat = Seat::new(0);
    run.traffic.admit(7, &mut seat);
    let mut newcomer = [seat];
    let third = run.published();
    run.deliver(0, &third[0]);
    run.traffic.dismiss(0, &mut run.seats[0][0]);
    assert_eq!(run.traffic.settle(7, &mut newcomer), 1);
}

#[test]
fn what_was_never_sent_or_is_for_another_room_is_foreign() {
    let mut run = Run::room_of(2, 1);
    let first = run.published();
    let text = String::from_utf8(first[0].clone()).unwrap();
    run.deliver(0, text.replace("lt#0:0000000000", "lt#0:5000000000").as_bytes());
    run.deliver(0, text.replace("lt#0:", "lt#1:").as_bytes());
    run.seats[1][0].inside = false;
    run.deliver(1, text.as_bytes());
    assert_eq!(run.traffic.tally.foreign, 3);
    assert!(!run.traffic.deliver(0, &mut run.seats[0], b"{\"type\":\"welcome\"}"));
}

#[test]
fn messages_of_several_publishers_must_come_in_one_order_to_all() {
    let load = Load { pace: Pace::Window(1), publishers: Share::Count(2), ..Load::default() };
    let mut run = Run::new(Layout { clients: 2, rooms: 1, ..Layout::default() }, load);
    let second = run.learn();
    run.deliver_to_all(&second[0]);
    run.traffic.load.pace = Pace::Window(3);
    // One publisher fills the window, then the other gets it widened.
    let mut texts = run.published();
    texts.extend(run.widened(6));
    let order = [3, 0, 4, 1, 5, 2];
    for index in order {
        run.deliver(0, &texts[index]);
    }
    for index in order {
        run.deliver(1, &texts[index]);
    }
    assert_eq!((run.traffic.tally.reordered, run.lost()), (0, 0), "any order, if all have the same");

    let mut texts = run.widened(2);
    texts.extend(run.widened(3));
    for index in [2, 0, 1] {
        run.deliver(0, &texts[index]);
    }
    for index in [0, 1, 2] {
        run.deliver(1, &texts[index]);
    }
    assert_eq!(run.traffic.tally.reordered, 1, "the second member saw another order");
}

#[test]
fn one_that_enters_among_several_publishers_is_owed_the_first_message_as_well() {
    let load = Load { pace: Pace::Window(1), publishers: Share::Count(2), ..Load::default() };
    let mut run = Run::new(Layout { clients: 2, rooms: 1, ..Layout::default() }, load);
    let second = run.learn();
    let third = run.widened(2);
    let mut newcomer = [Seat::new(0)];
    run.traffic.admit(7, &mut newcomer[0]);
    let last = run.widened(4);
    for text in second.iter().chain(&third).chain(&last) {
        run.deliver_to_all(text);
    }
    assert!(run.traffic.deliver(7, &mut newcomer, &last[1]));
    assert_eq!((run.traffic.outstanding(), run.traffic.settle(7, &mut newcomer), run.lost()), (0, 1, 0));
}

#[test]
fn one_who_has_just_entered_does_not_settle_the_order_of_what_was_sent_before() {
    let load = Load { pace: Pace::Window(1), publishers: Share::Count(2), ..Load::default() };
    let mut run = Run::new(Layout { clients: 2, rooms: 1, ..Layout::default() }, load);
    let before = run.learn();
    let other = run.widened(2);
    let mut newcomer = [Seat::new(0)];
    run.traffic.admit(7, &mut newcomer[0]);
    let after = run.widened(3);
    assert!(run.traffic.deliver(7, &mut newcomer, &after[0]));
    for text in before.iter().chain(&other).chain(&after) {
        run.deliver_to_all(text);
    }
    let tally = run.traffic.tally;
    assert_eq!((tally.reordered, tally.duplicates, run.lost()), (0, 0, 0));
    assert_eq!((run.traffic.settle(7, &mut newcomer), run.traffic.unverified), (0, 1));
}

#[test]
fn a_late_message_does_not_stand_for_one_that_another_member_never_gets() {
    let mut run = Run::room_of(2, 2);
    let texts = run.learn();
    for index in [1, 0] {
        run.deliver(0, &texts[index]);
    }
    assert_eq!((run.traffic.outstanding(), run.traffic.tally.reordered), (2, 1));
    assert_eq!(run.lost(), 2, "the second member got neither");
}

#[test]
fn a_gap_forgives_what_is_missing_for_one_who_reads_again_when_all_others_are_done() {
    let mut run = Run::room_of(2, 1);
    let second = run.learn();
    run.deliver_to_all(&second[0]);
    run.traffic.dismiss(1, &mut run.seats[1][0]);
    let mut missed = Vec::new();
    for _ in 0..100 {
        missed.extend(run.published());
        run.deliver(0, &missed[missed.len() - 1]);
    }
    run.traffic.admit(1, &mut run.seats[1][0]);
    run.deliver(1, &missed[0]);
    run.traffic.gap(1, 0, 50);
    for text in &missed[51..] {
        run.deliver(1, text);
    }
    assert_eq!((run.lost(), run.traffic.false_gaps()), (0, 0));
}

#[test]
fn a_message_that_came_twice_is_found_also_among_several_publishers_and_long_after() {
    let load = Load { pace: Pace::Window(1), publishers: Share::Count(2), ..Load::default() };
    let mut run = Run::new(Layout { clients: 2, rooms: 1, ..Layout::default() }, load);
    let second = run.learn();
    let third = run.widened(2);
    run.deliver_to_all(&second[0]);
    run.deliver_to_all(&third[0]);
    for _ in 0..100 {
        for text in run.published() {
            run.deliver_to_all(&text);
        }
    }
    run.deliver(1, &second[0]);
    assert_eq!((run.traffic.tally.duplicates, run.traffic.unverified, run.lost()), (1, 0, 0));
}

#[test]
fn every_kind_of_address_reaches_those_that_it_names() {
    let layout = Layout { clients: 3, rooms: 0, users: true, own: true, everyone: true };
    for (operation, copies) in [(Operation::Direct, 1), (Operation::Echo, 1), (Operation::Everyone, 3)] {
        let load = Load { pace: Pace::Window(1), mix: vec![(operation, 1)], ..Load::default() };
        let mut run = Run::new(layout, load);
        let first = run.published();
        assert_eq!(first.len(), 1, "the first is alone: it shows what the server adds");
        let taken = (0..3).filter(|client| {
            let before = run.traffic.tally.deliveries;
            run.deliver(*client, &first[0]);
            run.traffic.tally.deliveries > before
        });
        assert_eq!(taken.count(), copies, "{operation:?}");
        assert_eq!(run.published().len(), if copies == 3 { 1 } else { 3 });
    }
}

#[test]
fn an_open_loop_counts_from_the_moment_that_was_planned() {
    let pace = Pace::Rate(100_000.0, Arrivals::Constant);
    let layout = Layout { clients: 1, rooms: 1, ..Layout::default() };
    let mut run = Run::new(layout, Load { pace, ..Load::default() });
    let first = run.published();
    run.deliver_to_all(&first[0]);
    let mut texts = Vec::new();
    while texts.len() < 50 {
        texts.extend(run.published());
    }
    for text in &texts {
        run.deliver(0, text);
    }
    let figures = run.traffic.latencies.end_phase(true);
    assert!(figures["delivery_max_us"] >= figures["service_max_us"]);
    assert!(figures["lag_count"] >= 50.0);
}

#[test]
fn what_cannot_be_sent_is_counted() {
    let pace = Pace::Rate(1e6, Arrivals::Constant);
    let layout = Layout { clients: 1, rooms: 1, ..Layout::default() };
    let mut run = Run::new(layout, Load { pace, ..Load::default() });
    let first = run.published();
    run.deliver_to_all(&first[0]);
    let Run { traffic, seats } = &mut run;
    traffic.depart(0, &mut seats[0]);
    while run.traffic.unsent == 0 {
        assert!(run.published().is_empty());
    }
}

#[test]
fn frames_are_masked_as_a_client_must() {
    let mut bytes = Vec::new();
    frames::write_text(b"hello", &mut bytes);
    assert_eq!(unmasked(&bytes), [b"hello"]);
}
