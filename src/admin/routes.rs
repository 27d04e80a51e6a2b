//! Which path is answered by what.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use crate::metrics::AdminMetrics;

use super::answer::{self, Body, Refusal};
use super::api::{self, ACTIONS, Action};
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
    Drain,
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
    Route { path: "/api/v1/drain", parameters: Some(&[]), codes: &[200, 400, 503], page: Page::Drain },
];

/// Registers the metrics of every kind of request and answer that there can be.
pub(super) fn register(metrics: &AdminMetrics) {
    for route in ROUTES {
        for (code, method) in
            route.codes.iter().flat_map(|code| FETCHES.iter().map(move |method| (code, method)))
        {
            metrics.register(route.path, method_label(method), *code);
        }
    }
    for action in ACTIONS {
        action.codes.iter().for_each(|code| metrics.register(action.path, action.method.as_str(), *code));
    }
    let paths = ROUTES.iter().map(|route| route.path).chain(ACTIONS.iter().map(|action| action.path));
    for path in paths {
        let allowed = allowed(path);
        for method in METHODS.iter().filter(|method| !allowed.contains(method)) {
            metrics.register(path, method, StatusCode::METHOD_NOT_ALLOWED.as_u16());
        }
    }
    for method in METHODS {
        metrics.register(OTHER_ROUTE, method, StatusCode::NOT_FOUND.as_u16());
    }
}

/// Answers a request, and counts it.
pub(super) async fn answer(request: Request<Incoming>, context: &Arc<Context>) -> Response<Body> {
    let clock = context.state.clock;
    let begun_at = clock.now();
    let method = method_label(request.method());
    let path = request.uri().path().to_owned();
    let (label, response) = match find(request.method(), &path) {
        Found::Nothing => (OTHER_ROUTE, answer::text(StatusCode::NOT_FOUND, "not found\n")),
        Found::OtherMethod(path) => (path, method_not_allowed(path)),
        Found::Page(route, segment) => {
            let page = page(route, segment, &request, context).await;
            let response = page.unwrap_or_else(|refusal| refusal.response());
            debug_assert!(route.codes.contains(&response.status().as_u16()), "{}", route.path);
            (route.path, response)
        }
        Found::Action(action) => {
            let done = api::act(action, request, context).await;
            let response = done.unwrap_or_else(|refusal| refusal.response());
            debug_assert!(action.codes.contains(&response.status().as_u16()), "{}", action.path);
            (action.path, response)
        }
    };
    let seconds = Duration::from_nanos(clock.now().saturating_sub(begun_at)).as_secs_f64();
    context.metrics.served(label, method, response.status().as_u16(), seconds);
    response
}

/// What there is for a method at a path.
enum Found<'a> {
    /// With what stands in the path for the braces.
    Page(&'static Route, &'a str),
    Action(&'static Action),
    /// Only for other methods, at this path of the lists.
    OtherMethod(&'static str),
    Nothing,
}

fn find<'a>(method: &Method, path: &'a str) -> Found<'a> {
    let page = find_page(path);
    let mut actions = ACTIONS.iter().filter(|action| action.path == path).peekable();
    let known = page.map(|(route, _)| route.path).or(actions.peek().map(|action| action.path));
    let Some(known) = known else { return Found::Nothing };
    match page.filter(|_| FETCHES.contains(method)) {
        Some((route, segment)) => Found::Page(route, segment),
        None => {
            actions.find(|action| action.method == *method).map_or(Found::OtherMethod(known), Found::Action)
        }
    }
}

/// The route of a path, with what stands there for the braces.
fn find_page(path: &str) -> Option<(&'static Route, &str)> {
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
        Page::Drain => api::drain::look(state).await,
    }
}

fn method_not_allowed(path: &str) -> Response<Body> {
    let allowed = allowed(path).join(", ");
    let mut response = answer::text(StatusCode::METHOD_NOT_ALLOWED, "use another method, see Allow\n");
    let allowed = HeaderValue::from_str(&allowed).expect("names of methods are visible ASCII");
    response.headers_mut().insert(ALLOW, allowed);
    response
}

/// The methods that there are at a path of the lists.
fn allowed(path: &str) -> Vec<&'static str> {
    let has_page = ROUTES.iter().any(|route| route.path == path);
    let fetches = FETCHES.iter().filter(|_| has_page);
    let actions = ACTIONS.iter().filter(|action| action.path == path).map(|action| &action.method);
    fetches.chain(actions).map(Method::as_str).collect()
}

const FETCHES: &[Method] = &[Method::GET, Method::HEAD];

/// The labels of methods.
const METHODS: [&str; 5] = ["GET", "HEAD", "POST", "DELETE", "other"];

/// The label of all other paths.
const OTHER_ROUTE: &str = "other";

fn method_label(method: &Method) -> &'static str {
    METHODS.into_iter().find(|label| *label == method.as_str()).unwrap_or("other")
}

fn is_segment(segment: &str) -> bool {
    !segment.is_empty() && !segment.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_path_as_a_whole_and_what_stands_for_the_braces() {
        let found = |path| find_page(path).map(|(route, segment)| (route.path, segment));

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
