//! Which path is answered by what.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use crate::metrics::AdminMetrics;

use super::answer::{self, Body, Refusal};
use super::query::Query;
use super::{Context, connections, health, rooms, scrape, tap};

/// One line of the list.
struct Route {
    /// Where it is; what stands in braces is any one segment.
    path: &'static str,
    /// The parameters that it knows; with `None` it looks at none, whatever they are.
    parameters: Option<&'static [&'static str]>,
    /// The statuses of its answers to `GET` and `HEAD`.
    codes: &'static [u16],
    page: Page,
}

#[derive(Clone, Copy)]
enum Page {
    Metrics,
    RoomMetrics,
    Alive,
    Ready,
    Slow,
    ConnectionsOfUser,
    Connection,
    Closed,
    Rooms,
    Tap,
}

const ROUTES: &[Route] = &[
    Route { path: "/metrics", parameters: Some(&[]), codes: &[200, 400], page: Page::Metrics },
    Route { path: "/metrics/rooms", parameters: Some(&["k"]), codes: &[200, 400], page: Page::RoomMetrics },
    Route { path: "/livez", parameters: None, codes: &[200], page: Page::Alive },
    Route { path: "/readyz", parameters: None, codes: &[200, 503], page: Page::Ready },
    Route { path: "/debug/slow", parameters: Some(&["k"]), codes: &[200, 400], page: Page::Slow },
    Route {
        path: "/debug/connections",
        parameters: Some(&["user"]),
        codes: &[200, 400],
        page: Page::ConnectionsOfUser,
    },
    Route {
        path: "/debug/connections/{id}",
        parameters: Some(&[]),
        codes: &[200, 400, 404, 503],
        page: Page::Connection,
    },
    Route { path: "/debug/closed", parameters: Some(&["k"]), codes: &[200, 400], page: Page::Closed },
    Route { path: "/debug/rooms", parameters: Some(&["k"]), codes: &[200, 400], page: Page::Rooms },
    Route {
        path: "/debug/tap",
        parameters: Some(&["room", "connection"]),
        codes: &[200, 400, 404, 429, 503],
        page: Page::Tap,
    },
];

/// Registers the metrics of every kind of request and answer that there can be.
pub(super) fn register(metrics: &AdminMetrics) {
    for route in ROUTES {
        for code in route.codes {
            for method in FETCHES {
                metrics.register(route.path, method_label(method), *code);
            }
        }
        for method in OTHER_METHODS {
            metrics.register(route.path, method, StatusCode::METHOD_NOT_ALLOWED.as_u16());
        }
    }
    for method in FETCHES.iter().map(method_label).chain(OTHER_METHODS) {
        metrics.register(OTHER_ROUTE, method, StatusCode::NOT_FOUND.as_u16());
    }
}

/// Answers a request, and counts it.
pub(super) async fn answer(request: &Request<Incoming>, context: &Arc<Context>) -> Response<Body> {
    let clock = context.state.clock;
    let begun_at = clock.now();
    let found = find(request.uri().path());
    let response = match found {
        None => answer::text(StatusCode::NOT_FOUND, "not found\n"),
        Some(_) if !FETCHES.contains(request.method()) => method_not_allowed(),
        Some((route, segment)) => {
            let page = page(route, segment, request, context).await;
            page.unwrap_or_else(|refusal| refusal.response())
        }
    };
    let seconds = Duration::from_nanos(clock.now().saturating_sub(begun_at)).as_secs_f64();
    let path = found.map_or(OTHER_ROUTE, |(route, _)| route.path);
    debug_assert!(found.is_none_or(|(route, _)| route.may_answer(request.method(), response.status())));
    context.metrics.served(path, method_label(request.method()), response.status().as_u16(), seconds);
    response
}

impl Route {
    /// Whether the metrics of such an answer are registered.
    fn may_answer(&self, method: &Method, status: StatusCode) -> bool {
        if FETCHES.contains(method) {
            self.codes.contains(&status.as_u16())
        } else {
            status == StatusCode::METHOD_NOT_ALLOWED
        }
    }
}

/// The route of a path, with what stands there for the braces.
fn find(path: &str) -> Option<(&'static Route, &str)> {
    ROUTES.iter().find_map(|route| {
        let segment = match route.path.split_once('{') {
            Some((before, _)) => path.strip_prefix(before).filter(|segment| is_segment(segment)),
            None => (path == route.path).then_some(""),
        };
        Some((route, segment?))
    })
}

async fn page(
    route: &Route,
    segment: &str,
    request: &Request<Incoming>,
    context: &Arc<Context>,
) -> Result<Response<Body>, Refusal> {
    let query = match route.parameters {
        Some(allowed) => Query::parse(request.uri().query(), allowed)?,
        None => Query::parse(None, &[])?,
    };
    let state = &context.state;
    match route.page {
        Page::Metrics => Ok(scrape::metrics(state)),
        Page::RoomMetrics => rooms::metrics(state, &query).await,
        Page::Alive => Ok(health::alive()),
        Page::Ready => Ok(health::ready(state)),
        Page::Slow => connections::slow(state, &query).await,
        Page::ConnectionsOfUser => connections::of_user(state, &query).await,
        Page::Connection => connections::one(state, segment).await,
        Page::Closed => connections::closed(state, &query).await,
        Page::Rooms => rooms::json(state, &query).await,
        Page::Tap if *request.method() == Method::HEAD => tap::head(&query),
        Page::Tap => tap::open(context, &query).await,
    }
}

fn method_not_allowed() -> Response<Body> {
    let mut response = answer::text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

const FETCHES: &[Method] = &[Method::GET, Method::HEAD];

/// The labels of all other methods.
const OTHER_METHODS: [&str; 2] = ["POST", "other"];

/// The label of all other paths.
const OTHER_ROUTE: &str = "other";

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        _ => "other",
    }
}

fn is_segment(segment: &str) -> bool {
    !segment.is_empty() && !segment.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_path_as_a_whole_and_what_stands_for_the_braces() {
        let found = |path| find(path).map(|(route, segment)| (route.path, segment));

        assert_eq!(found("/metrics"), Some(("/metrics", "")));
        assert_eq!(found("/metrics/rooms"), Some(("/metrics/rooms", "")));
        assert_eq!(found("/debug/connections"), Some(("/debug/connections", "")));
        assert_eq!(found("/debug/connections/7f"), Some(("/debug/connections/{id}", "7f")));
        for path in ["/", "/metrics/", "/Metrics", "/debug/connections/", "/debug/connections/7/x", "/debug"]
        {
            assert_eq!(found(path), None, "{path}");
        }
    }
}
