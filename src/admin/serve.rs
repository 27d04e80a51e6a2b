//! Accepts connections of operators and scrapers, and speaks HTTP on them.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::{Context, routes};

/// Connections served at once; more wait in the kernel's queue.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// How long a connection may take to send a request, or stay idle between two.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after a failed accept, which may be for want of descriptors and would fail again at once.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);
/// What answers under way may take when the listener stops.
const END_TIME_MAX: Duration = Duration::from_millis(500);

/// Accepts until the context says stop; then answers under way end, or are cut off.
pub(super) async fn serve(listener: TcpListener, context: &Arc<Context>) {
    let mut connections = JoinSet::new();
    let mut stopped = context.stopped.clone();
    let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
    upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stopped.stopped() => break,
            _ = upkeep.tick() => context.state.recorder.upkeep(),
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, Arc::clone(context)));
                }
                Err(error) => {
                    tracing::debug!(%error, "admin: accept failed");
                    tokio::time::sleep(ACCEPT_BACK_OFF).await;
                }
            },
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(END_TIME_MAX, ended).await.is_err() {
        tracing::debug!("admin: answers under way are cut off");
    }
}

async fn converse(stream: TcpStream, context: Arc<Context>) {
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
