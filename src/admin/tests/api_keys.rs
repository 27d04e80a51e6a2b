use super::*;

const PUBLISHER: &str = "a key to publish, of more than 32 characters";
const READER: &str = "a key to read, of more than 32 characters";

fn guarded() -> World {
    let key = |name: &str, secret, scope| ApiKey::new(name.to_owned(), secret, vec![scope]);
    let keys = ApiKeys([key("one", PUBLISHER, Scope::Publish), key("two", READER, Scope::Read)].into());
    gateway_with(Vec::new(), Options { keys, ..Options::default() })
}

#[test]
fn asks_for_a_key_and_says_which() {
    let world = guarded();
    let read = |headers: &str| world.send("GET", "/api/v1/drain", headers, "");

    let (status, answer) = read("");
    assert_eq!(status, 401);
    assert!(answer.contains("www-authenticate: Bearer realm=\"fanfare\"\r\n"), "{answer}");
    assert!(answer.contains("{\"error\":\"unauthorized\",\"message\":"), "{answer}");
    let (status, answer) = read("Authorization: Bearer of-bad-news\r\n");
    assert_eq!(status, 401);
    assert!(answer.contains("Bearer realm=\"fanfare\", error=\"invalid_token\"\r\n"), "{answer}");
    let (status, answer) = read(&format!("Authorization: Bearer {PUBLISHER}\r\n"));
    assert_eq!(status, 403);
    assert!(answer.contains("error=\"insufficient_scope\", scope=\"read\"\r\n"), "{answer}");
    // Nobody drains here.
    assert_eq!(read(&format!("Authorization: Bearer {READER}\r\n")).0, 503);

    for (result, count) in [("ok", 1), ("missing", 1), ("unknown", 1), ("forbidden", 1)] {
        assert!(
            world.shows(&format!("fanfare_api_key_checks_total{{result=\"{result}\"}} {count}")),
            "{result}"
        );
    }
}

#[test]
fn every_route_of_the_api_but_its_description_wants_a_key_and_no_other_does() {
    let world = guarded();
    for route in routes::ROUTES {
        let path = route.path.replace(['{', '}'], "");
        for method in route.method.methods() {
            let (status, answer) = world.send(method.as_str(), &path, "", "");
            let is_guarded = path.starts_with("/api/v1/") && path != "/api/v1/openapi.json";
            assert_eq!(status == 401, is_guarded, "{method} {path}: {answer}");
        }
    }
}

#[test]
fn without_keys_nobody_is_asked_and_nothing_is_counted() {
    let world = gateway();

    assert_eq!(world.ask("GET", "/api/v1/drain").0, 503);

    assert!(world.shows("fanfare_api_key_checks_total{result=\"ok\"} 0"));
}
