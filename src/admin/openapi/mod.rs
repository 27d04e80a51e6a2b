//! `/api/v1/openapi.json`: what there is on this listener, told from the table of routes as `OpenAPI` 3.1.
//!
//! What bodies and answers look like stands beside it, by the names that the table gives them.

use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::answer::{self, Body};
use super::routes::{Content, ROUTES, Route, Takes, Verb};

const COMPONENTS: &str = include_str!("components.json");

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";

/// `GET`.
pub(super) fn look() -> Response<Body> {
    answer::json(StatusCode::OK, &document())
}

fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let operations = paths.entry(route.path).or_insert_with(|| json!({}));
        operations[verb(route)] = operation(route);
    }
    let components: Value = serde_json::from_str(COMPONENTS).expect("a test reads it");
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Fanfare",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The admin listener of a WebSocket gateway. What takes `GET` takes `HEAD` as well.",
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": components,
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "operationId": name(route),
        "summary": route.summary,
        "responses": responses(route),
    });
    let parameters = parameters(route);
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(takes) = route.takes {
        operation["requestBody"] = json!({ "required": true, "content": body(takes) });
    }
    if let Some(scope) = route.scope {
        operation["security"] = json!([{ "key": [scope.as_str()] }]);
    }
    operation
}

/// The method and the words of the path.
fn name(route: &Route) -> String {
    let words = route.path.trim_start_matches("/api/v1").split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    format!("{}_{}", verb(route), words.join("_"))
}

fn verb(route: &Route) -> &'static str {
    match route.method {
        Verb::Fetch => "get",
        Verb::Post => "post",
        Verb::Delete => "delete",
    }
}

fn parameters(route: &Route) -> Vec<Value> {
    let in_path = route.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path.map(|name| format!("path.{name}"));
    let in_query = route.parameters.unwrap_or(&[]).iter().map(|name| format!("query.{name}"));
    let in_head = matches!(route.takes, Some(Takes::Lines(_))).then(|| "header.idempotency-key".to_owned());
    in_path.chain(in_query).chain(in_head).map(|key| reference("parameters", &key)).collect()
}

fn body(takes: Takes) -> Value {
    match takes {
        Takes::Json(schema) => json!({ JSON: { "schema": reference("schemas", schema) } }),
        Takes::Lines(schema) => json!({
            JSON: { "schema": reference("schemas", schema) },
            LINES: { "schema": { "type": "string", "description": format!("On each line one {schema}.") } },
        }),
    }
}

fn responses(route: &Route) -> Value {
    let mut responses = Map::new();
    for code in route.codes() {
        let is_answer = code == 200 || route.answer == Content::Json("Readiness") && code == 503;
        let content = if is_answer { content(route.answer) } else { json(&reference("schemas", "Error")) };
        let mut response = json!({ "description": meaning(code), "content": content });
        let header = match code {
            401 => Some("WWW-Authenticate"),
            503 if matches!(route.answer, Content::Lines(_)) => Some("Retry-After"),
            _ => None,
        };
        if let Some(header) = header {
            response["headers"] = json!({ header: { "schema": { "type": "string" } } });
        }
        responses.insert(code.to_string(), response);
    }
    responses.into()
}

fn content(answer: Content) -> Value {
    let text = json!({ "schema": { "type": "string" } });
    match answer {
        Content::Text | Content::Metrics => json!({ "text/plain": text }),
        Content::Events => json!({ "text/event-stream": text }),
        Content::Json(schema) => json(&reference("schemas", schema)),
        Content::Lines(schema) => {
            let description = format!("On each line one {schema}, or one Error.");
            json!({
                JSON: { "schema": reference("schemas", schema) },
                LINES: { "schema": { "type": "string", "description": description } },
            })
        }
    }
}

fn json(schema: &Value) -> Value {
    json!({ JSON: { "schema": schema } })
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

/// What the status means here.
fn meaning(code: u16) -> &'static str {
    match code {
        200 => "As asked.",
        400 => "Something is not as it should be; the message names it.",
        401 => "A key is needed, or another one.",
        403 => "The key is not for this, or a page in a browser asks.",
        404 => "There is no such thing.",
        408 => "The body did not come in time.",
        409 => "It cannot be done as things are.",
        413 => "The body is longer than it may be.",
        415 => "The body is of another type.",
        429 => "As many are under way as may be.",
        503 => "Not at this time.",
        507 => "A list is full.",
        _ => "See the message.",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// All references anywhere in it.
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_route_is_told_with_all_its_statuses() {
        let document = document();
        let mut names = BTreeSet::new();
        for route in ROUTES {
            let operation = &document["paths"][route.path][verb(route)];
            assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{operation}");
            for code in route.codes() {
                assert_ne!(meaning(code), meaning(0), "{code}");
                assert!(operation["responses"][code.to_string()].is_object(), "{} {code}", route.path);
            }
            assert_eq!(operation["security"].is_array(), route.scope.is_some(), "{}", route.path);
        }
        let told: usize =
            document["paths"].as_object().unwrap().values().map(|at| at.as_object().unwrap().len()).sum();
        assert_eq!(told, ROUTES.len());
    }

    #[test]
    fn every_reference_leads_somewhere_and_nothing_is_told_in_vain() {
        let document = document();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in &found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        for kind in ["schemas", "parameters"] {
            for name in document["components"][kind].as_object().unwrap().keys() {
                let reference = format!("#/components/{kind}/{name}");
                assert!(found.contains(&reference), "nobody says {reference}");
            }
        }
    }
}
