use super::*;

#[test]
fn tells_every_mistake_at_once_with_place_key_and_reason() {
    let file =
        "listen = \"nowhere\"\n\n[limits]\nmesage_bytes = 5\nhandshake = 5\n\n[heartbeat]\nping = \"70s\"\n";
    let environment = [("FANFARE_LISTN", "x"), ("FANFARE_SHARDS", "0"), ("HOME", "/")];

    let lines = mistakes(file, &environment, &[("--log-level", "log.level", "inof")]);

    for (line, part) in lines.iter().zip([
        "conf.toml:4: limits.mesage_bytes: unknown key; the nearest one is `limits.message_bytes`",
        "FANFARE_LISTN: unknown key; the nearest one is `FANFARE_LISTEN`",
        "conf.toml:1: listen: expected a host or IP address and port, such as 127.0.0.1:8080",
        "conf.toml:5: limits.handshake: expected a duration with its unit",
        "FANFARE_SHARDS: shards: expected a number of at least 1, got `0`",
        "--log-level: log.level: `inof` has no level",
        "conf.toml:8: heartbeat.timeout: must be longer than `heartbeat.ping`",
    ]) {
        assert!(line.contains(part), "`{line}` has no `{part}`");
    }
    assert_eq!(lines.len(), 7, "{lines:#?}");
}

#[test]
fn a_mistake_is_one_line_whatever_was_written() {
    let found = mistakes(
        "\"new\\nline\" = 1\norigins = [\"a\\u001b[31m\\n\"]",
        &[("FANFARE_NEW\nLINE", ""), ("FANFARE_LOG__LEVEL", "very\nloud")],
        &[],
    );

    assert_eq!(found.len(), 4);
    assert!(found.iter().all(|line| !line.contains(char::is_control)), "{found:?}");
    assert!(found.iter().any(|line| line.contains(r"FANFARE_NEW\nLINE")), "{found:?}");
}

#[test]
fn names_the_nearest_key_also_from_another_section() {
    for (file, nearest) in [
        ("lisen = 1", "`listen`"),
        ("message_bytes = 1", "`limits.message_bytes`"),
        ("[limit]\nrooms = 1", "`limits.rooms`"),
        ("[heartbeats]", "`heartbeat."),
        ("limits = 5", "is a section"),
        ("[listen]\nport = 1", "unknown key"),
        ("[history]\nbyte = 1", "`history.bytes`"),
        ("[sessions]\nbites = 1", "`sessions.bytes`"),
        ("[presence]\nanounced = 1", "`presence.announced`"),
        ("[limits]\nkeep = \"1s\"", "`sessions.keep`"),
        ("limits = 5", "`limits."),
        ("tls = 5", "`tls."),
    ] {
        let lines = mistakes(file, &[], &[]);
        assert!(lines.len() == 1 && lines[0].contains(nearest), "{file}: {lines:?}");
    }
}

#[test]
fn names_no_key_that_is_hardly_meant() {
    for file in ["zzz = 1", "[listen]\nport = 1", "[webhooks]\nxyzzy = 1"] {
        let lines = mistakes(file, &[], &[]);
        assert!(lines.len() == 1 && lines[0].ends_with("unknown key"), "{file}: {lines:?}");
    }
}

#[test]
fn tells_where_it_is_said_what_a_room_keeps() {
    for (file, part) in [
        ("[history]\nmessages = 5", "belongs into a table of [[rooms]], such as `history = {"),
        ("[history]\nage = \"5m\"", "belongs into a table of [[rooms]], such as `history = {"),
        ("[presence]\nmode = \"list\"", "belongs into a table of [[rooms]], such as `presence = \"events\"`"),
        ("presence = true", "belongs into a table of [[rooms]]"),
        ("history = { messages = 5 }", "belongs into a table of [[rooms]]"),
    ] {
        let lines = mistakes(file, &[], &[]);
        assert!(lines.len() == 1 && lines[0].contains(part), "{file}: {lines:?}");
    }
    let lines = mistakes("", &[("FANFARE_HISTORY__MESSAGES", "5")], &[]);
    assert!(lines.len() == 1 && lines[0].contains("[[rooms]]"), "{lines:?}");
}

#[test]
fn tells_all_that_is_no_toml_with_its_lines() {
    let lines = mistakes("listen = \n\nshards = = 2\necho = true\n", &[], &[]);

    assert!(lines.iter().any(|line| line.contains("conf.toml:1:")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("conf.toml:3:")), "{lines:?}");
}

#[test]
fn refuses_anonymous_clients_from_elsewhere_unless_told_to_be_insecure() {
    for address in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80"] {
        let listen = ("--listen", "listen", address);
        let lines = mistakes("", &[], &[listen]);
        assert!(lines.len() == 1 && lines[0].contains("--insecure"), "{lines:?}");
        assert!(load("", &[], &[listen, ("--insecure", "insecure", "true")]).is_ok());
    }
    for address in ["127.9.9.9:80", "[::1]:80", "[::ffff:127.0.0.1]:80", "localhost:80"] {
        assert!(load("", &[], &[("--listen", "listen", address)]).is_ok(), "{address}");
    }
}

#[test]
fn refuses_settings_that_do_not_fit_each_other() {
    for (file, part) in [
        ("auth.mode = \"jwt\"", "auth.mode: tokens are required, but neither"),
        ("auth.mode = \"jwt\"\nauth.public_key = \"/no/such/file\"", "auth.public_key: cannot read"),
        ("auth.mode = \"jwt\"\nauth.public_key = [\"/no/such/file\"]", "auth.public_key: cannot read"),
        ("auth.mode = \"jwt\"\nauth.public_key = []\n", "auth.mode: tokens are required"),
        (
            "auth.mode = \"jwt\"\nauth.jwks = \"/no/such/file\"",
            "auth.jwks: cannot be used: the file cannot be read",
        ),
        (
            "auth.mode = \"jwt\"\nauth.jwks = \"ftp://a/\"",
            "auth.jwks: must be the path of a file, or begin with https://",
        ),
        (
            "auth.mode = \"jwt\"\nauth.jwks = \"http://example.org/\"",
            "auth.jwks: is read over http:// from another",
        ),
        ("auth.jwks_refresh = \"500ms\"", "auth.jwks_refresh: is less than 1s"),
        ("auth.mode = \"jwt\"\nauth.public_key = \"-----BEGIN X\"", "auth.public_key: key 1 is not a PEM"),
        (
            "auth.mode = \"jwt\"\nauth.secret = \"s\"\nauth.algorithms = [\"RS256\"]",
            "auth.algorithms: `RS256` needs",
        ),
        ("auth.algorithms = [\"none\"]", "`none` is not accepted"),
        ("heartbeat.timeout = \"54s\"", "heartbeat.timeout: must be longer"),
        ("limits.message_bytes = \"2MiB\"", "limits.outbound_bytes: is less than"),
        ("admin_listen = \"127.0.0.1:8080\"", "admin_listen: is the address of"),
        ("engine.kind = \"nats\"", "`nats` is not available in this version"),
        ("engine.nats.url = \"nats://x\"", "not available in this version"),
        ("rooms = [\"chat\"]", "rooms: must be tables"),
        ("[[rooms]]\noverflow = \"latest\"", "rule 1: `match` is missing"),
        (
            "[[rooms]]\nmatch = \"*\"\n[[rooms]]\nmatch = \"a\"\noverflow = \"lates\"",
            "rule 2 (`a`): `overflow`: expected",
        ),
        (
            "[[rooms]]\nmatch = \"a\"\nhist = 1",
            "rule 1 (`a`): unknown key `hist`; known are `match`, `overflow`, `history`,",
        ),
        ("[[rooms]]\nmatch = \"a\"\nhistory = 5", "rule 1 (`a`): `history`: expected a table"),
        (
            "[[rooms]]\nmatch = \"a\"\npresence = \"on\"",
            "`presence`: expected \"off\" or \"list\" or \"events\"",
        ),
        ("[[rooms]]\nmatch = \"a\"\njoin = true", "`join`: expected \"everyone\" or"),
        ("origins = [\"https://a.example/path\"]", "is not an origin"),
        ("auth.secret = \"\"", "auth.secret: must be text that is not empty"),
        ("shards = 70000", "shards: is more than"),
        ("limits.bad_messages = 70000", "is too large"),
    ] {
        let lines = mistakes(file, &[], &[]);
        assert!(lines.len() == 1 && lines[0].contains(part), "{file}: {lines:?}");
    }
}

#[test]
fn mistakes_in_lists_of_tables_are_a_line_each_with_that_of_their_table() {
    let file = r#"echo = true
[[rooms]]
match = "chat.*"
history = { messages = 0, age = "1ms", many = 1 }

[[rooms]]
match = 5
hist = 1
[[rooms]]
match = "sound"

[[api.keys]]
name = "backend"
key = "short"
scopes = ["write"]
[[api.keys]]
"#;
    let expected = [
        "2: rooms: rule 1 (`chat.*`): `history`: `messages`: expected a number of at least 1, got 0",
        "2: rooms: rule 1 (`chat.*`): `history`: unknown key `many`; known are `messages`, `age`, `bytes`",
        "2: rooms: rule 1 (`chat.*`): `history`: `age`: is less than 1s",
        "6: rooms: rule 2: `match`: expected text, got 5",
        "6: rooms: rule 2: unknown key `hist`; known are",
        "12: api.keys: key 1 (`backend`): `key`: has 5 bytes",
        "12: api.keys: key 1 (`backend`): `scopes`: expected",
        "16: api.keys: key 2: `name` is missing",
        "16: api.keys: key 2: `key` is missing",
        "16: api.keys: key 2: `scopes` is missing",
    ];
    let lines = mistakes(file, &[], &[]);

    for part in expected {
        assert!(lines.iter().any(|line| line.contains(&format!("conf.toml:{part}"))), "{part}: {lines:#?}");
    }
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    let inline = "\nrooms = [\n    { match = \"a\" },\n    { match = \"b\", join = 1 },\n]";
    let lines = mistakes(inline, &[], &[]);
    assert!(lines.len() == 1 && lines[0].contains("conf.toml:4: rooms: rule 2 (`b`): `join`: "), "{lines:?}");
    let lines = mistakes("", &[("FANFARE_ROOMS", "[{ join = 1, read = 1, match = \"a\" }]")], &[]);
    let place = "FANFARE_ROOMS: rooms: rule 1 (`a`): `";
    assert!(lines.len() == 2 && lines.iter().all(|line| line.starts_with(place)), "{lines:?}");
}

#[test]
fn a_mistake_of_one_auth_key_hides_no_mistake_of_another() {
    for (file, parts) in [
        (
            "mode = \"jwt\"\nalgorithms = [\"HS25\"]",
            &["auth.algorithms: `HS25`", "auth.mode: tokens are"][..],
        ),
        ("mode = \"jwt\"\nleeway = 5", &["auth.leeway: expected", "auth.mode: tokens are"]),
        (
            "mode = \"jwt\"\nalgorithms = [\"HS25\"]\npublic_key = \"-----BEGIN X\"",
            &["auth.algorithms: `HS25`", "auth.public_key: key 1 is not a PEM"],
        ),
        (
            "mode = \"jwt\"\nalgorithms = [\"RS256\"]\npublic_key = \"/no/such/file\"",
            &["auth.public_key: cannot read"],
        ),
        ("mode = \"jwt\"\nsecret = \"\"", &["auth.secret: must be text"]),
    ] {
        let lines = mistakes(&format!("[auth]\n{file}"), &[], &[]);
        assert_eq!(lines.len(), parts.len(), "{file}: {lines:?}");
        for part in parts {
            assert!(lines.iter().any(|line| line.contains(part)), "{file}: {lines:?}");
        }
    }
}

#[test]
fn a_message_too_long_for_several_limits_is_one_mistake() {
    let lines = mistakes("limits.message_bytes = \"4GiB\"", &[], &[]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("conf.toml:1: limits.outbound_bytes: is less than"), "{lines:?}");

    let lines = mistakes("limits.outbound_bytes = 9\nlimits.inbox_bytes = 9", &[], &[]);
    assert_eq!(lines.len(), 2, "each was given: {lines:?}");
}
