//! All routes. What they take and answer is told here once: for the requests, for their metrics, and for the description.

use super::super::keys::Scope;
use super::{Act, Content, Page, Route, Takes};

const READ: Option<Scope> = Some(Scope::Read);
const MANAGE: Option<Scope> = Some(Scope::Manage);

/// In the order of the description; those at one path stand together.
pub(in super::super) const ROUTES: &[Route] = &[
    Route {
        summary: "All metrics, in the Prometheus text format.",
        parameters: Some(&[]),
        answer: Content::Metrics,
        ..Route::page("/metrics", Page::Metrics)
    },
    Route {
        summary: "The hottest rooms, in the Prometheus text format.",
        parameters: Some(&["k"]),
        answer: Content::Metrics,
        ..Route::page("/metrics/rooms", Page::RoomMetrics)
    },
    Route {
        summary: "Whether the process serves at all.",
        answer: Content::Text,
        ..Route::page("/livez", Page::Alive)
    },
    Route {
        summary: "Whether new connections are welcome, and if not, why.",
        answer: Content::Json("Readiness"),
        codes: &[503],
        ..Route::page("/readyz", Page::Ready)
    },
    Route {
        summary: "The connections for which most bytes wait.",
        parameters: Some(&["k"]),
        answer: Content::Json("Connections"),
        ..Route::page("/debug/slow", Page::Slow)
    },
    Route {
        summary: "The connections of a user, at most 1000 of them.",
        parameters: Some(&["user"]),
        answer: Content::Json("Connections"),
        ..Route::page("/debug/connections", Page::ConnectionsOfUser)
    },
    Route {
        summary: "One connection.",
        parameters: Some(&[]),
        answer: Content::Json("OneConnection"),
        codes: &[404, 503],
        ..Route::page("/debug/connections/{id}", Page::Connection)
    },
    Route {
        summary: "The connections that ended last.",
        parameters: Some(&["k"]),
        answer: Content::Json("Closed"),
        ..Route::page("/debug/closed", Page::Closed)
    },
    Route {
        summary: "The hottest rooms.",
        parameters: Some(&["k"]),
        answer: Content::Json("HotRooms"),
        ..Route::page("/debug/rooms", Page::HotRooms)
    },
    Route {
        summary: "A live look at one room or connection, as server-sent events.",
        parameters: Some(&["room", "connection"]),
        answer: Content::Events,
        codes: &[404, 429, 503],
        ..Route::page("/debug/tap", Page::Tap)
    },
    Route {
        summary: "Says something to a room, a user or everyone; many messages as lines.",
        takes: Some(Takes::Lines("Publish")),
        answer: Content::Lines("Published"),
        scope: Some(Scope::Publish),
        codes: &[429, 503],
        ..Route::post("/api/v1/publish", Act::Publish)
    },
    Route {
        summary: "The rooms, in the order of their names.",
        parameters: Some(&["match", "limit", "after"]),
        answer: Content::Json("Rooms"),
        scope: READ,
        ..Route::page("/api/v1/rooms", Page::Rooms)
    },
    Route {
        summary: "One room.",
        parameters: Some(&[]),
        answer: Content::Json("OneRoom"),
        scope: READ,
        codes: &[404],
        ..Route::page("/api/v1/rooms/{room}", Page::Room)
    },
    Route {
        summary: "Who is in a room, in the order of their names.",
        parameters: Some(&["limit", "after"]),
        answer: Content::Json("Presence"),
        scope: READ,
        codes: &[404],
        ..Route::page("/api/v1/rooms/{room}/presence", Page::Presence)
    },
    Route {
        summary: "What was said in a room: the last messages, or the first behind a position.",
        parameters: Some(&["epoch", "offset", "limit"]),
        answer: Content::Json("History"),
        scope: READ,
        codes: &[404],
        ..Route::page("/api/v1/rooms/{room}/history", Page::History)
    },
    Route {
        summary: "The connections of a user, at most 1000 of them.",
        parameters: Some(&[]),
        answer: Content::Json("Connections"),
        scope: READ,
        ..Route::page("/api/v1/users/{user}/connections", Page::UserConnections)
    },
    Route {
        summary: "The gateway in a few numbers.",
        parameters: Some(&[]),
        answer: Content::Json("Stats"),
        scope: READ,
        ..Route::page("/api/v1/stats", Page::Stats)
    },
    Route {
        summary: "Takes all connections of a user, or one, out of a room, and tells them.",
        takes: Some(Takes::Json("Unsubscribe")),
        answer: Content::Json("Unsubscribed"),
        scope: MANAGE,
        ..Route::post("/api/v1/unsubscribe", Act::Unsubscribe)
    },
    Route {
        summary: "Closes all connections of a user, or one, with 4501.",
        takes: Some(Takes::Json("Disconnect")),
        answer: Content::Json("ClosedCount"),
        scope: MANAGE,
        ..Route::post("/api/v1/disconnect", Act::Disconnect)
    },
    Route {
        summary: "Has a token, or all that a user has, count no more; connections by them are closed with 4500.",
        takes: Some(Takes::Json("Revoke")),
        answer: Content::Json("ClosedCount"),
        scope: MANAGE,
        codes: &[409, 507],
        ..Route::post("/api/v1/revoke", Act::Revoke)
    },
    Route {
        summary: "How far a drain is.",
        parameters: Some(&[]),
        answer: Content::Json("Drain"),
        scope: READ,
        codes: &[503],
        ..Route::page("/api/v1/drain", Page::Drain)
    },
    Route {
        summary: "Sends all clients away while the process lives on; given anew, over another window.",
        takes: Some(Takes::Json("BeginDrain")),
        answer: Content::Json("Drain"),
        scope: MANAGE,
        codes: &[503],
        ..Route::post("/api/v1/drain", Act::BeginDrain)
    },
    Route {
        summary: "Keeps the clients that are left, and takes new ones.",
        answer: Content::Json("Drain"),
        scope: MANAGE,
        codes: &[409, 503],
        ..Route::delete("/api/v1/drain", Act::AbortDrain)
    },
    Route {
        summary: "This description.",
        parameters: Some(&[]),
        answer: Content::Json("Description"),
        ..Route::page("/api/v1/openapi.json", Page::Description)
    },
];
