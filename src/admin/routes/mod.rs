//! Which path is answered by what.

mod table;

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use crate::metrics::{AdminMetrics, ApiAuth};

use super::answer::{self, Body, Refusal};
use super::keys::{Caller, Denied, Scope};
use super::query::Query;
use super::{Context, api, connections, health, openapi, rooms, scrape, tap};

pub(super) use self::table::ROUTES;

/// What one method does at one path.
pub(super) struct Route {
    pub(super) method: Verb,
    /// Where it is; what stands in braces is any one segment.
    pub(super) path: &'static str,
    /// One sentence for people.
    pub(super) summary: &'static str,
    /// The parameters that it knows; with `None` it looks at none, whatever they are.
    pub(super) parameters: Option<&'static [&'static str]>,
    /// What it takes as a body, if it takes one.
    pub(super) takes: Option<Takes>,
    /// What it answers when all is well.
    pub(super) answer: Content,
    /// What a key has to be for; without it nobody is asked for a key.
    pub(super) scope: Option<Scope>,
    /// The statuses of its answers that do not follow from the rest.
    codes: &'static [u16],
    does: Does,
}

/// A method; to fetch is `GET` and `HEAD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Fetch,
    Post,
    Delete,
}

/// What a body is, by the name of its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Json(&'static str),
    /// Or many of it, on lines.
    Lines(&'static str),
}

/// What an answer is; of JSON with the name of its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Text,
    Metrics,
    Events,
    Json(&'static str),
    /// Of lines, where lines were sent.
    Lines(&'static str),
}

#[derive(Clone, Copy)]
enum Does {
    Page(Page),
    Act(Act),
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
    HotRooms,
    Tap,
    Drain,
    Stats,
    Rooms,
    Room,
    Presence,
    History,
    UserConnections,
    Description,
}

/// What changes something.
#[derive(Clone, Copy)]
pub(super) enum Act {
    Publish,
    Disconnect,
    Revoke,
    Unsubscribe,
    BeginDrain,
    AbortDrain,
}

impl Route {
    const fn page(path: &'static str, page: Page) -> Self {
        Self::of(Verb::Fetch, path, Does::Page(page))
    }

    const fn post(path: &'static str, act: Act) -> Self {
        Self::of(Verb::Post, path, Does::Act(act))
    }

    const fn delete(path: &'static str, act: Act) -> Self {
        Self::of(Verb::Delete, path, Does::Act(act))
    }

    const fn of(method: Verb, path: &'static str, does: Does) -> Self {
        let (parameters, takes, scope, answer) = (None, None, None, Content::Text);
        Self { method, path, summary: "", parameters, takes, answer, scope, codes: &[], does }
    }

    /// The statuses of its answers, in their order.
    pub(super) fn codes(&self) -> Vec<u16> {
        let mut codes = vec![200];
        if self.parameters.is_some() {
            codes.push(400);
        }
        if self.scope.is_some() {
            codes.extend([401, 403]);
        }
        if self.takes.is_some() {
            codes.extend([400, 408, 413, 415]);
        }
        codes.extend(self.codes);
        codes.sort_unstable();
        codes.dedup();
        codes
    }

    /// What stands in this path for the braces of the route's; nothing when the route has none.
    fn segment<'a>(&self, path: &'a str) -> Option<&'a str> {
        let braces =
            self.path.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?.1)));
        match braces {
            Some((before, after)) => {
                path.strip_prefix(before)?.strip_suffix(after).filter(|segment| is_segment(segment))
            }
            None => (path == self.path).then_some(""),
        }
    }
}

impl Verb {
    pub(super) const fn methods(self) -> &'static [Method] {
        match self {
            Self::Fetch => &[Method::GET, Method::HEAD],
            Self::Post => &[Method::POST],
            Self::Delete => &[Method::DELETE],
        }
    }
}

/// Registers the metrics of every kind of request and answer that there can be; but of the API only what goes well, since it has
/// so many ways to say no that they would be most of a scrape.
pub(super) fn register(metrics: &AdminMetrics) {
    for route in ROUTES {
        for method in route.method.methods() {
            route
                .codes()
                .into_iter()
                .filter(|code| !is_api(route.path) || *code < 400)
                .for_each(|code| metrics.register(route.path, method_label(method), code));
        }
        let allowed = allowed(route.path);
        for method in METHODS.iter().filter(|method| !allowed.contains(method) && !is_api(route.path)) {
            metrics.register(route.path, method, StatusCode::METHOD_NOT_ALLOWED.as_u16());
        }
    }
    for method in METHODS {
        metrics.register(OTHER_ROUTE, method, StatusCode::NOT_FOUND.as_u16());
    }
}

fn is_api(path: &str) -> bool {
    path.starts_with("/api/")
}

/// Answers a request, and counts it.
pub(super) async fn answer(request: Request<Incoming>, context: &Arc<Context>) -> Response<Body> {
    let clock = context.state.clock;
    let begun_at = clock.now();
    let method = method_label(request.method());
    let path = request.uri().path().to_owned();
    let (label, response) = match find(request.method(), &path) {
        Found::Nothing => (OTHER_ROUTE, not_found(&path)),
        Found::OtherMethod(path) => (path, method_not_allowed(path)),
        Found::Route(route, segment) => {
            let done = route_answer(route, segment, request, context).await;
            let response = done.unwrap_or_else(|refusal| refusal.response());
            debug_assert!(route.codes().contains(&response.status().as_u16()), "{}", route.path);
            (route.path, response)
        }
    };
    let seconds = Duration::from_nanos(clock.now().saturating_sub(begun_at)).as_secs_f64();
    context.metrics.served(label, method, response.status().as_u16(), seconds);
    response
}

/// What there is for a method at a path.
enum Found<'a> {
    /// With what stands in the path for the braces.
    Route(&'static Route, &'a str),
    /// Only for other methods, at this path of the list.
    OtherMethod(&'static str),
    Nothing,
}

fn find<'a>(method: &Method, path: &'a str) -> Found<'a> {
    let mut known = None;
    for route in ROUTES {
        let Some(segment) = route.segment(path) else { continue };
        if route.method.methods().contains(method) {
            return Found::Route(route, segment);
        }
        known = Some(route.path);
    }
    known.map_or(Found::Nothing, Found::OtherMethod)
}

async fn route_answer(
    route: &Route,
    segment: &str,
    request: Request<Incoming>,
    context: &Arc<Context>,
) -> Result<Response<Body>, Refusal> {
    let caller = route.scope.map_or(Ok(Caller::default()), |scope| admit(&request, scope, context))?;
    match route.does {
        Does::Act(act) => api::act(act, caller, request, context).await,
        Does::Page(page) => {
            let query = match route.parameters {
                Some(allowed) => Query::parse(request.uri().query(), allowed)?,
                None => Query::parse(None, &[])?,
            };
            answer_page(page, segment, &query, &request, context).await
        }
    }
}

/// Lets in who may do what the scope allows.
fn admit(request: &Request<Incoming>, scope: Scope, context: &Context) -> Result<Caller, Refusal> {
    let keys = context.state.keys.keys();
    let checked = keys.check(request.headers(), scope);
    if keys.is_required() {
        let result = match checked {
            Ok(_) => ApiAuth::Ok,
            Err(Denied::Missing) => ApiAuth::Missing,
            Err(Denied::Unknown) => ApiAuth::Unknown,
            Err(Denied::Forbidden(_)) => ApiAuth::Forbidden,
        };
        context.metrics.keys[result].increment(1);
    }
    checked.map_err(Refusal::denied)
}

async fn answer_page(
    page: Page,
    segment: &str,
    query: &Query<'_>,
    request: &Request<Incoming>,
    context: &Arc<Context>,
) -> Result<Response<Body>, Refusal> {
    let state = &context.state;
    match page {
        Page::Metrics => Ok(scrape::metrics(state)),
        Page::RoomMetrics => rooms::metrics(state, query).await,
        Page::Alive => Ok(health::alive()),
        Page::Ready => Ok(health::ready(state)),
        Page::Slow => connections::slow(state, query).await,
        Page::ConnectionsOfUser => connections::of_user(state, query).await,
        Page::Connection => connections::one(state, segment).await,
        Page::Closed => connections::closed(state, query).await,
        Page::HotRooms => rooms::json(state, query).await,
        Page::Tap if *request.method() == Method::HEAD => tap::head(query),
        Page::Tap => tap::open(context, query).await,
        Page::Drain => api::drain::look(state).await,
        Page::Stats => Ok(api::stats::look(context)),
        Page::Rooms => api::rooms::list(state, query).await,
        Page::Room => api::rooms::one(state, segment).await,
        Page::Presence => api::records::presence(state, segment, query),
        Page::History => api::records::history(state, segment, query),
        Page::Description => Ok(openapi::look()),
        Page::UserConnections => connections::of_user_in_path(state, segment).await,
    }
}

/// Whether applications ask there, who understand all answers alike.
fn is_of_api(path: &str) -> bool {
    path.strip_prefix(API).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn not_found(path: &str) -> Response<Body> {
    if is_of_api(path) {
        let message = "there is nothing at this path: see /api/v1/openapi.json for what there is".to_owned();
        return Refusal::not_found(message).response();
    }
    answer::text(StatusCode::NOT_FOUND, "not found\n")
}

fn method_not_allowed(path: &str) -> Response<Body> {
    let allowed = allowed(path).join(", ");
    if is_of_api(path) {
        return Refusal::method_not_allowed(allowed).response();
    }
    let mut response = answer::text(StatusCode::METHOD_NOT_ALLOWED, "use another method, see Allow\n");
    let allowed = HeaderValue::from_str(&allowed).expect("names of methods are visible ASCII");
    response.headers_mut().insert(ALLOW, allowed);
    response
}

/// The methods that there are at a path of the list.
fn allowed(path: &str) -> Vec<&'static str> {
    let there = ROUTES.iter().filter(|route| route.path == path);
    there.flat_map(|route| route.method.methods()).map(Method::as_str).collect()
}

const API: &str = "/api/v1";

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
        let found = |path| match find(&Method::GET, path) {
            Found::Route(route, segment) => Some((route.path, segment)),
            Found::OtherMethod(_) | Found::Nothing => None,
        };

        assert_eq!(found("/metrics"), Some(("/metrics", "")));
        assert_eq!(found("/metrics/rooms"), Some(("/metrics/rooms", "")));
        assert_eq!(found("/debug/connections"), Some(("/debug/connections", "")));
        assert_eq!(found("/debug/connections/7f"), Some(("/debug/connections/{id}", "7f")));
        for path in ["/", "/metrics/", "/Metrics", "/debug/connections/", "/debug/connections/7/x", "/debug"]
        {
            assert_eq!(found(path), None, "{path}");
        }
    }

    #[test]
    fn no_method_stands_twice_at_a_path_and_each_has_a_sentence() {
        let mut seen = Vec::new();
        for route in ROUTES {
            for method in route.method.methods() {
                assert!(!seen.contains(&(method, route.path)), "{method} {}", route.path);
                seen.push((method, route.path));
            }
            assert!(route.summary.ends_with('.'), "{}", route.path);
        }
    }
}
