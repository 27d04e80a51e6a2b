use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::BodyExt as _;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::metrics::Recorder;

const SECRET: &str = "a secret of more than thirty-two bytes";
/// Nothing here takes as long, unless it is broken.
const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn events_arrive_signed_in_order_and_once() {
    let mut world = World::new([]).await;
    let sender = world.hooks.sender();

    // From any thread, and with a lock held.
    let lock = Mutex::new(());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _held = lock.lock();
            (0..250).for_each(|room| sender.push(joined(room)));
        });
    });

    let rooms = world.rooms(250).await;
    assert_eq!(rooms, (0..250).collect::<Vec<_>>());
    let Answered { sizes, .. } = &world.answered;
    assert!(sizes.len() >= 3 && sizes.iter().all(|size| *size <= 100), "{sizes:?}");
    world.hooks.finish().await;
    let shown = world.recorder.render();
    assert!(shown.contains("fanfare_webhook_events_sent_total 250"), "{shown}");
    assert!(shown.contains("fanfare_webhook_queue_events 0"), "{shown}");
    assert!(shown.contains("fanfare_webhook_queue_limit_bytes 16777216"), "{shown}");
}

#[tokio::test]
async fn what_was_not_taken_is_sent_again_with_the_same_ids_and_before_what_came_later() {
    let busy = Reply { status: 503, retry_after: Some("0"), ..Reply::OK };
    let mut world = World::new([busy, Reply { status: 500, ..Reply::OK }]).await;
    let sender = world.hooks.sender();
    sender.push(joined(1));
    let first = world.next().await;
    sender.push(joined(2));

    let (second, third, fourth) = (world.next().await, world.next().await, world.next().await);

    assert_eq!(first["events"], second["events"]);
    assert_eq!(first["events"], third["events"]);
    assert_eq!(fourth["events"][0]["room_id"], 2);
    let ids = [&first, &fourth].map(|body| body["events"][0]["id"].as_str().unwrap().to_owned());
    assert!(ids[0] != ids[1] && ids[0].ends_with("-1") && ids[1].ends_with("-2"), "{ids:?}");
    world.hooks.finish().await;
    let shown = world.recorder.render();
    assert!(shown.contains("fanfare_webhook_requests_total{result=\"server_error\"} 2"), "{shown}");
    assert!(shown.contains("fanfare_webhook_requests_total{result=\"ok\"} 2"), "{shown}");
    assert!(shown.contains("fanfare_webhook_request_duration_seconds_count 4"), "{shown}");
}

#[tokio::test]
async fn what_is_refused_is_given_up_and_counted() {
    let mut world = World::new([Reply { status: 401, ..Reply::OK }]).await;
    let sender = world.hooks.sender();
    sender.push(joined(1));
    world.next().await;
    sender.push(joined(2));

    assert_eq!(world.next().await["events"][0]["room_id"], 2);

    world.hooks.finish().await;
    let shown = world.recorder.render();
    assert!(shown.contains("fanfare_webhook_events_lost_total{reason=\"rejected\"} 1"), "{shown}");
    assert!(shown.contains("fanfare_webhook_requests_total{result=\"client_error\"} 1"), "{shown}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_costs_the_timeout_and_no_more() {
    let mut world = World::new([Reply { hangs: true, ..Reply::OK }]).await;
    world.hooks.sender().push(joined(1));

    let (first, second) = (world.next().await, world.next().await);

    assert_eq!(first["events"], second["events"]);
    world.hooks.finish().await;
    let shown = world.recorder.render();
    assert!(shown.contains("fanfare_webhook_requests_total{result=\"timeout\"} 1"), "{shown}");
}

#[tokio::test]
async fn what_an_answer_says_beside_its_status_is_read_within_bounds_and_does_not_matter() {
    let (endless, stuck) =
        (Reply { body_bytes: 4 << 20, ..Reply::OK }, Reply { is_stuck: true, ..Reply::OK });
    let mut world = World::new([endless, stuck]).await;
    let sender = world.hooks.sender();

    for room in 0..3 {
        sender.push(joined(room));
        assert_eq!(world.next().await["events"][0]["room_id"], room);
    }

    world.hooks.finish().await;
    assert!(world.recorder.render().contains("fanfare_webhook_events_sent_total 3"));
}

#[tokio::test]
async fn the_end_sends_what_waits_at_once() {
    let mut world = World::new([]).await;
    let sender = world.hooks.sender();
    (0..3).for_each(|room| sender.push(joined(room)));

    let World { hooks, ref mut received, .. } = world;
    hooks.finish().await;

    assert_eq!(received.try_recv().unwrap()["events"].as_array().unwrap().len(), 3);
    sender.push(joined(4));
    sender.refresh();
    let shown = world.recorder.render();
    assert!(shown.contains("fanfare_webhook_events_lost_total{reason=\"shutdown\"} 1"), "{shown}");
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_server_that_is_not_there() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let recorder = Recorder::new();
    let hooks = start(address, &recorder, EventKind::ALL.to_vec());
    (0..1000).for_each(|room| hooks.sender().push(joined(room)));

    tokio::time::timeout(LONG, hooks.finish()).await.unwrap();

    let shown = recorder.render();
    assert!(shown.contains("fanfare_webhook_events_lost_total{reason=\"shutdown\"} 1000"), "{shown}");
    assert!(shown.contains("fanfare_webhook_requests_total{result=\"unreachable\"}"), "{shown}");
    assert!(shown.contains("fanfare_webhook_queue_bytes 0"), "{shown}");
}

#[tokio::test]
async fn only_what_is_wanted_is_sent() {
    let mut world = World::of_kinds([], vec![EventKind::RoomVacated]).await;
    let sender = world.hooks.sender();
    assert!(sender.wants(EventKind::RoomVacated) && !sender.wants(EventKind::MemberJoined));

    sender.push(joined(1));
    sender.push(Event { kind: EventKind::RoomVacated, user: None, ..joined(2) });

    let body = world.next().await;
    assert_eq!(body["events"].as_array().unwrap().len(), 1);
    assert_eq!((&body["events"][0]["type"], body["events"][0].get("user")), (&"room_vacated".into(), None));
}

#[tokio::test]
async fn without_an_address_nothing_is_wanted_and_nothing_waits() {
    let recorder = Recorder::new();
    let hooks = Webhooks::start(&Options::default(), parts(&recorder)).unwrap();
    let sender = hooks.sender();

    sender.push(joined(1));

    assert!(EventKind::ALL.iter().all(|kind| !sender.wants(*kind)));
    assert!(!Sender::default().wants(EventKind::MemberLeft));
    hooks.finish().await;
    assert!(recorder.render().contains("fanfare_webhook_events_sent_total 0"));
}

fn joined(room: u64) -> Event {
    let user = UserId::parse("ann").ok();
    Event { kind: EventKind::MemberJoined, room: RoomId::from_u64(room), user, at: 5 }
}

fn parts(recorder: &Recorder) -> Parts {
    let (node, metrics) = (NodeId::parse("n1").unwrap(), WebhookMetrics::new(recorder));
    // The shortest pauses.
    Parts { node, metrics, clock: Clock::start(), random: || 0 }
}

fn start(address: SocketAddr, recorder: &Recorder, events: Vec<EventKind>) -> Webhooks {
    let options = Options {
        url: Some(format!("http://{address}/hooks?a=b").parse().unwrap()),
        secret: Some(Secret::new(SECRET)),
        events,
        timeout: Duration::from_secs(1),
        ..Options::default()
    };
    Webhooks::start(&options, parts(recorder)).unwrap()
}

/// What a server says.
#[derive(Clone, Copy)]
struct Reply {
    status: u16,
    retry_after: Option<&'static str>,
    hangs: bool,
    body_bytes: usize,
    /// Whether the end of the body never comes.
    is_stuck: bool,
}

impl Reply {
    const OK: Self = Self { status: 200, retry_after: None, hangs: false, body_bytes: 2, is_stuck: false };
}

/// A gateway's webhook, and a server that checks what it gets and passes it on.
struct World {
    hooks: Webhooks,
    recorder: Recorder,
    received: mpsc::Receiver<Value>,
    answered: Answered,
    _server: JoinSet<()>,
}

/// What the server has got.
#[derive(Default)]
struct Answered {
    sizes: Vec<usize>,
}

impl World {
    async fn new(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::of_kinds(replies, EventKind::ALL.to_vec()).await
    }

    /// The server gives these replies, and then takes all.
    async fn of_kinds(replies: impl IntoIterator<Item = Reply>, events: Vec<EventKind>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, received) = mpsc::channel(1000);
        let replies = Arc::new(Mutex::new(replies.into_iter().collect::<VecDeque<_>>()));
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (sender, replies) = (sender.clone(), Arc::clone(&replies));
                let answer = service_fn(move |request| answer(request, sender.clone(), Arc::clone(&replies)));
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        let recorder = Recorder::new();
        let hooks = start(address, &recorder, events);
        Self { hooks, recorder, received, answered: Answered::default(), _server: server }
    }

    /// The body of the next request.
    async fn next(&mut self) -> Value {
        tokio::time::timeout(LONG, self.received.recv()).await.unwrap().unwrap()
    }

    /// The rooms of the next so many events.
    async fn rooms(&mut self, events: usize) -> Vec<u64> {
        let mut rooms = Vec::new();
        while rooms.len() < events {
            let body = self.next().await;
            let events = body["events"].as_array().unwrap();
            self.answered.sizes.push(events.len());
            rooms.extend(events.iter().map(|event| event["room_id"].as_u64().unwrap()));
        }
        rooms
    }
}

/// A body that never comes.
struct Stuck;

impl Body for Stuck {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

async fn answer(
    request: Request<Incoming>,
    sender: mpsc::Sender<Value>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    assert_eq!((request.method().as_str(), request.uri().to_string().as_str()), ("POST", "/hooks?a=b"));
    let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/json");
    assert!(header("user-agent").starts_with("fanfare/"));
    let signature = header("fanfare-signature");
    let unix: u64 = signature.strip_prefix("t=").unwrap().split(',').next().unwrap().parse().unwrap();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(signature, Key::new(&Secret::new(SECRET)).sign(unix, &body));
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&body["node"], body["sent_at"].as_u64().unwrap() / 1000), (&"n1".into(), unix));
    sender.try_send(body).unwrap();
    let reply = replies.lock().unwrap().pop_front().unwrap_or(Reply::OK);
    if reply.hangs {
        std::future::pending::<()>().await;
    }
    let mut response = Response::builder().status(reply.status);
    if let Some(text) = reply.retry_after {
        response = response.header("retry-after", text);
    }
    let body = Full::new(Bytes::from(vec![b' '; reply.body_bytes]));
    let body = if reply.is_stuck { BoxBody::new(Stuck) } else { body.boxed() };
    Ok(response.body(body).unwrap())
}
