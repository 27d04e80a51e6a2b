//! Accepts connections of operators and scrapers, and speaks HTTP on them.
//!
//! A probe or a scrape is answered soon, whatever others do with their connections: they say nothing, or do not read what
//! they asked for. Whoever comes when all places are taken gets that of the connection on which nothing has moved for
//! longest, and who does not read at all is not kept.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, sleep};

use super::places::{Moving, Places};
use super::{Context, routes};

/// How long a connection may take to send a request, or stay idle between two.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after a failed accept, which may be for want of descriptors and would fail again at once.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);
/// What answers under way may take when the listener stops.
const END_TIME_MAX: Duration = Duration::from_millis(500);

/// Accepts until the context says stop; then answers under way end, or are cut off.
pub(super) async fn serve(listener: TcpListener, context: &Arc<Context>) {
    let clock = context.state.clock;
    let mut places = Places::default();
    let mut next = None;
    let mut stopped = context.stopped.clone();
    let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
    upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if let Some(wait) = places.wait_for_one(clock.now())
            && next.is_some()
        {
            tokio::select! {
                biased;
                () = stopped.stopped() => break,
                () = places.one_ended() => {}
                () = sleep(wait) => places.end_the_stillest(clock.now()),
            }
            continue;
        }
        if let Some(stream) = next.take() {
            places.fill(clock.now(), |moved_at| {
                converse(Moving::new(stream, clock, moved_at), Arc::clone(context))
            });
        }
        tokio::select! {
            biased;
            () = stopped.stopped() => break,
            _ = upkeep.tick() => {
                context.state.recorder.upkeep();
                places.end_the_blocked(clock.now());
            }
            () = places.one_ended() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => next = Some(stream),
                Err(error) => {
                    tracing::debug!(%error, "admin: accept failed");
                    sleep(ACCEPT_BACK_OFF).await;
                }
            },
        }
    }
    drop(listener);
    if tokio::time::timeout(END_TIME_MAX, places.all_ended()).await.is_err() {
        tracing::debug!("admin: answers under way are cut off");
    }
}

async fn converse(stream: Moving<TcpStream>, context: Arc<Context>) {
    let mut stopped = context.stopped.clone();
    let service = service_fn(|request| {
        let context = Arc::clone(&context);
        async move { Ok::<_, Infallible>(routes::answer(&request, &context).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME_MAX)
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
