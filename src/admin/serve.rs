//! Accepts connections of operators and scrapers, and speaks HTTP on them.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::MissedTickBehavior;

use super::activity::Activity;
use super::places::Places;
use super::{Context, routes};

/// Applications ask for many small things, one after the other, on connections that they keep. Who asks for anything else, which
/// may be much, must come again for each, behind the others.
const API: &str = "/api/v1/";

const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after a failed accept, which may be for want of descriptors and would fail again at once.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);
/// What answers under way may take when the listener stops.
const END_TIME_MAX: Duration = Duration::from_millis(500);

/// Accepts until the context says stop; then answers under way end, or are cut off.
pub(super) async fn serve(listener: TcpListener, context: &Arc<Context>) {
    let mut places = Places::new(context.state.clock);
    let mut newcomer = None;
    let mut stopped = context.stopped.clone();
    let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
    upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stopped.stopped() => break,
            _ = upkeep.tick() => {
                context.state.recorder.upkeep();
                places.close_after(context.state.options.peer);
            }
            () = places.changed() => {}
            stream = accept(&listener), if newcomer.is_none() => newcomer = Some(stream),
        }
        if let Some(stream) = newcomer.take_if(|_| places.make_room()) {
            places.give(|activity| converse(stream, activity, Arc::clone(context)));
            // Many newcomers must not close each other before they were listened to.
            tokio::task::yield_now().await;
        }
    }
    drop(listener);
    if tokio::time::timeout(END_TIME_MAX, places.ended()).await.is_err() {
        tracing::debug!("admin: answers under way are cut off");
    }
}

/// The next connection. Safe to cancel.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::debug!(%error, "admin: accept failed");
                tokio::time::sleep(ACCEPT_BACK_OFF).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, activity: Arc<Activity>, context: Arc<Context>) {
    let mut stopped = context.stopped.clone();
    let stream = activity.watch(stream);
    let service = service_fn(|request| {
        let (context, answering) = (Arc::clone(&context), activity.begin_answer());
        let may_ask_again = request.uri().path().starts_with(API);
        async move {
            let mut response = routes::answer(request, &context).await;
            if !may_ask_again {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response.map(|body| answering.until_the_end_of(body)))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(context.state.options.peer)
        .max_headers(64)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stopped.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "admin: connection ended");
    }
}
