//! The admin listener: `/metrics`, `/livez`, `/readyz`.
//!
//! It owns a thread with a runtime of its own, so that load on the gateway cannot hide it, and the
//! once-a-second upkeep of the metrics. It is meant for operators and scrapers, never for the world.

mod process;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::clock::Clock;
use crate::metrics::Recorder;
use crate::readiness::Readiness;

/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may take to send a request, or stay idle between two.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after a failed accept, which may be for want of descriptors and would fail again at once.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// What the admin listener shows.
#[derive(Clone)]
pub struct State {
    /// The metrics of the process.
    pub recorder: Recorder,
    /// Whether new connections are welcome.
    pub ready: Readiness,
    /// The process's monotonic time.
    pub clock: Clock,
    /// Called before each scrape, to set gauges that others only count; must not block.
    pub refresh: Arc<dyn Fn() + Send + Sync>,
}

impl State {
    /// A state whose gauges need no refresh.
    pub fn new(recorder: Recorder, ready: Readiness, clock: Clock) -> Self {
        Self { recorder, ready, clock, refresh: Arc::new(|| {}) }
    }
}

/// Why the admin listener did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be bound.
    #[error("`admin_listen`: cannot listen on {addr}: {source}")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system gave no thread or no poller.
    #[error("cannot start the admin thread: {0}")]
    Thread(#[source] io::Error),
}

/// The running admin listener; dropping it stops it without waiting.
pub struct AdminHandle {
    addr: SocketAddr,
    /// The listener stops when this is dropped.
    running: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl AdminHandle {
    /// The address bound, with the real port where 0 was asked for.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops the listener and waits until its thread has ended.
    pub fn stop(mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook and must not end the shutdown.
            let _ = thread.join();
        }
    }
}

/// Binds `addr` and serves it on a thread of its own until the handle is dropped.
///
/// # Errors
///
/// [`StartError`] when the address cannot be bound or the thread cannot be started; nothing runs then.
pub fn start(addr: SocketAddr, state: State) -> Result<AdminHandle, StartError> {
    let bind = |source| StartError::Bind { addr, source };
    let listener = std::net::TcpListener::bind(addr).map_err(bind)?;
    listener.set_nonblocking(true).map_err(bind)?;
    let bound = listener.local_addr().map_err(bind)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
    let listener = {
        let _context = runtime.enter();
        TcpListener::from_std(listener).map_err(StartError::Thread)?
    };
    let (running, stopped) = oneshot::channel();
    let thread = thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || runtime.block_on(serve(listener, state, stopped)))
        .map_err(StartError::Thread)?;
    Ok(AdminHandle { addr: bound, running: Some(running), thread: Some(thread) })
}

/// Accepts until `stopped`; what is open then is dropped with the set.
async fn serve(listener: TcpListener, state: State, mut stopped: oneshot::Receiver<Infallible>) {
    let mut connections = JoinSet::new();
    let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
    upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => return,
            _ = upkeep.tick() => state.recorder.upkeep(),
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, state.clone()));
                }
                Err(error) => {
                    tracing::debug!(%error, "admin: accept failed");
                    tokio::time::sleep(ACCEPT_BACK_OFF).await;
                }
            },
        }
    }
}

async fn converse(stream: TcpStream, state: State) {
    let service = service_fn(|request| {
        let response = answer(&request, &state);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME_MAX)
        .max_headers(64)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "admin: connection ended");
    }
}

fn answer(request: &Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    let route = match request.uri().path() {
        "/metrics" => metrics,
        "/livez" => alive,
        "/readyz" => ready,
        _ => return text(StatusCode::NOT_FOUND, "not found\n"),
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    route(state)
}

fn metrics(state: &State) -> Response<Full<Bytes>> {
    (state.refresh)();
    let mut body = state.recorder.render();
    process::render(&mut body);
    response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
}

fn alive(_: &State) -> Response<Full<Bytes>> {
    text(StatusCode::OK, "alive\n")
}

fn ready(state: &State) -> Response<Full<Bytes>> {
    let reasons = state.ready.reasons(state.clock.now());
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({ "ready": reasons.is_empty(), "reasons": reasons });
    response(status, "application/json", format!("{body}\n"))
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", body)
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
