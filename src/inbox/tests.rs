use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread;

use tokio::sync::oneshot;

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

    assert_eq!(outlet.push(direct(1, 3)), Err(Full));
    assert_eq!(births(&taken(&inbox)), [1, 2]);
    drop(outlet.reserve(frame * 2).expect("all of it is free again"));
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
    outlet.push(Command::Stop).unwrap();

    assert_eq!(taken(&inbox).len(), 3);
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

fn direct(payload_bytes: usize, born: u64) -> Command {
    let message = PreparedMessage::text(&vec![b'x'; payload_bytes]);
    let origin = Origin { source: Source::Client, read_at: born, dispatched_at: born };
    Command::Direct { clients: SmallVec::new(), message, origin }
}

fn accept(gate: &Gate) -> Command {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (peer, accepted_at) = (stream.peer_addr().unwrap(), test_now());
    let Admission::Admitted(permit) = gate.admit() else { panic!("not admitted") };
    Command::Accept { stream, peer, permit, id: ClientId(1), refuse: None, accepted_at }
}

#[test]
fn questions_that_nobody_answers_do_not_pile_up() {
    let (outlet, inbox) = Inbox::pair(Limits::default());
    let ask = || outlet.push(Command::Ask(Question::Closed { limit: 1, answer: oneshot::channel().0 }));

    let asked = (0..1000).take_while(|_| ask().is_ok()).count();
    assert_eq!(asked, QUESTIONS_MAX);
    taken(&inbox);

    assert_eq!(ask(), Ok(()));
}

#[expect(clippy::disallowed_methods, reason = "an instant is needed, whichever it is")]
fn test_now() -> Instant {
    Instant::now()
}

fn taken(inbox: &Inbox) -> VecDeque<Command> {
    let mut commands = VecDeque::new();
    inbox.take_all(&mut commands);
    commands
}

fn births(commands: &VecDeque<Command>) -> Vec<u64> {
    let birth = |command: &Command| match command {
        Command::Direct { origin, .. } => origin.read_at,
        other => panic!("not a direct message: {other:?}"),
    };
    commands.iter().map(birth).collect()
}

fn is_woken(inbox: &Inbox) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    pin!(inbox.notified()).poll(&mut context) == Poll::Ready(())
}
