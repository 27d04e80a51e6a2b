use std::ffi::OsString;
use std::io::Write as _;

use super::table::SETTINGS;
use super::*;
use crate::auth::Algorithm;
use crate::hub::RoomOptions;
use crate::id::RoomId;

#[test]
fn nothing_configured_is_development_mode_on_this_machine() {
    let config = load("", &[], &[]).unwrap().config;

    assert_eq!(config.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(config.admin_listen, "127.0.0.1:9090".parse().unwrap());
    assert_eq!(config.auth.mode, Mode::None);
    assert!(config.http.demo && config.http.allow_loopback_origins);
    assert_eq!(config.shard.session.broadcast, Broadcast::Everyone);
}

#[test]
fn flags_win_over_the_environment_that_wins_over_the_file() {
    let file = "listen = \"127.0.0.1:1\"\nadmin_listen = \"127.0.0.1:2\"\nshards = 3";
    let environment = [("FANFARE_LISTEN", "127.0.0.1:11"), ("FANFARE_ADMIN_LISTEN", "127.0.0.1:12")];

    let config = load(file, &environment, &[("--listen", "listen", "127.0.0.1:21")]).unwrap().config;

    assert_eq!((config.listen.port(), config.admin_listen.port(), config.shards), (21, 12, 3));
}

#[test]
fn every_key_can_be_given_in_the_file_and_in_the_environment() {
    let default = Config::default();
    for setting in SETTINGS {
        let literal = (setting.print)(&default).or(setting.example.map(str::to_owned)).unwrap();
        // Their examples are files, or go only with another key.
        if matches!(setting.key, "auth.public_key" | "auth.jwks_ca" | "webhooks.ca" | "webhooks.url")
            || setting.key.starts_with("tls.")
        {
            continue;
        }
        load(&format!("{} = {literal}", setting.key), &[], &[]).unwrap();
        // A list of tables is as in the file; all else loses what makes it TOML.
        let is_tables = matches!(setting.key, "rooms" | "api.keys");
        let text = if is_tables { literal } else { literal.replace(['"', '[', ']'], "") };
        load("", &[(&sources::variable(setting.key), &text)], &[]).unwrap();
    }
}

#[test]
fn reads_the_rules_for_rooms_in_their_order() {
    let file = "[[rooms]]\nmatch = \"ticker.*\"\noverflow = \"latest\"\n[[rooms]]\nmatch = \"*\"";
    let inline = "[{ match = \"ticker.*\", overflow = \"latest\" }, { match = \"*\" }]";
    for loaded in [load(file, &[], &[]), load("", &[("FANFARE_ROOMS", inline)], &[])] {
        let loaded = loaded.unwrap();
        let overflow = |name| loaded.config.hub.rooms.of(&RoomId::parse(name).unwrap()).overflow;
        assert_eq!((overflow("ticker.EUR"), overflow("chat")), (OnOverflow::Latest, OnOverflow::Disconnect));
        let shown = "rooms = [{ match = \"ticker.*\", overflow = \"latest\" }, { match = \"*\", overflow = \"disconnect\" }]";
        assert!(loaded.to_toml().contains(shown), "{}", loaded.to_toml());
    }
    assert!(load("", &[("FANFARE_ROOMS", "")], &[]).is_err());
}

#[test]
fn reads_what_rooms_keep_and_who_may_do_what_there() {
    let file = r#"
        [[rooms]]
        match = "chat.*"
        history = { messages = 7, age = "1h" }
        presence = true
        join = "token"
        publish = "nobody"
        [[rooms]]
        match = "log"
        history = true
        presence = "list"
        read = "token"
    "#;
    let loaded = load(file, &[], &[]).unwrap();
    let of = |name: &str| loaded.config.hub.rooms.of(&RoomId::parse(name).unwrap());

    let usual = crate::history::Limits::default();
    let limits = crate::history::Limits { messages: 7, age: Duration::from_secs(3600), ..usual };
    let chat = RoomOptions {
        history: Some(limits),
        presence: PresenceMode::Events,
        join: Access::Token,
        publish: Access::Nobody,
        ..RoomOptions::default()
    };
    assert_eq!(of("chat.a"), chat);
    let log = RoomOptions {
        history: Some(usual),
        presence: PresenceMode::List,
        read: Access::Token,
        ..RoomOptions::default()
    };
    assert_eq!(of("log"), log);
    assert_eq!(load(&loaded.to_toml(), &[], &[]).unwrap().config.hub.rooms, loaded.config.hub.rooms);
}

#[test]
fn reads_values_as_people_write_them() {
    let file = r#"
        origins = ["https://a.example", "https://*.b.example:8443"]
        [limits]
        message_bytes = "32KiB"
        outbound_bytes = 2_000_000
        [heartbeat]
        ping = "1m 30s"
        timeout = "2min"
        [auth]
        mode = "jwt"
        secret = "a secret of more than thirty-two bytes"
        algorithms = ["HS512"]
    "#;

    let config = load(file, &[], &[]).unwrap().config;

    assert_eq!(config.http.origins.len(), 2);
    assert_eq!((config.shard.message_bytes, config.shard.outbound_bytes), (32 << 10, 2_000_000));
    assert_eq!(config.shard.heartbeat.ping, Duration::from_secs(90));
    assert_eq!(config.auth.algorithms, [Algorithm::Hs512]);
    assert_eq!(config.shard.session.broadcast, Broadcast::Token);
    assert!(!config.http.demo && !config.http.allow_loopback_origins);
}

#[test]
fn takes_lists_by_commas_from_the_environment() {
    let config = load("", &[("FANFARE_ORIGINS", "https://a.example, http://b.example")], &[]).unwrap().config;

    assert_eq!(config.http.origins, ["https://a.example", "http://b.example"]);
}

#[test]
fn takes_auth_alone_for_its_mode() {
    let secret = ("FANFARE_AUTH__SECRET", "a secret of more than thirty-two bytes");

    assert_eq!(load("auth = \"jwt\"", &[secret], &[]).unwrap().config.auth.mode, Mode::Jwt);
    assert_eq!(load("", &[secret, ("FANFARE_AUTH", "jwt")], &[]).unwrap().config.auth.mode, Mode::Jwt);
}

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
    ] {
        let lines = mistakes(file, &[], &[]);
        assert!(lines.len() == 1 && lines[0].contains(nearest), "{file}: {lines:?}");
    }
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

#[test]
fn leaves_space_for_the_envelope_of_the_longest_message() {
    let mut file = "limits.message_bytes = 65536\nlimits.outbound_bytes = 68607".to_owned();

    let lines = mistakes(&file, &[], &[]);

    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("conf.toml:2: limits.outbound_bytes: is less than"), "{lines:?}");
    assert!(lines[0].contains("would be closed as too slow"), "{lines:?}");
    file = file.replace("68607", "68608");
    assert!(load(&file, &[], &[]).is_ok());
}

#[test]
fn batches_are_a_quarter_of_what_may_wait_but_not_too_large() {
    let batch_bytes = |outbound: &str| {
        load(&format!("limits.outbound_bytes = \"{outbound}\""), &[], &[]).unwrap().config.shard.batch_bytes
    };

    assert_eq!(Config::default().shard.batch_bytes, 256 << 10);
    assert_eq!(batch_bytes("256KiB"), 64 << 10);
    assert_eq!(batch_bytes("1MiB"), 256 << 10);
    assert_eq!(batch_bytes("64MiB"), 256 << 10);
}

#[test]
fn times_are_longer_than_nothing_and_at_most_a_day() {
    let longest = "limits.handshake = \"24h\"\ndrain.window = \"24h\"\n[heartbeat]\nping = \"23h\"\n\
                   timeout = \"24h\"\nwrite = \"24h\"";
    assert!(load(longest, &[], &[]).is_ok());
    for key in ["limits.handshake", "heartbeat.ping", "heartbeat.timeout", "heartbeat.write", "drain.window"]
    {
        for time in ["24h 1ns", "1000000 years"] {
            let lines = mistakes(&format!("{key} = \"{time}\""), &[], &[]);
            let expected = format!("conf.toml:1: {key}: must be at most 24h");
            assert!(lines.len() == 1 && lines[0].contains(&expected), "{time}: {lines:?}");
        }
        let none = load(&format!("{key} = \"0s\""), &[], &[]);
        if key == "drain.window" {
            assert_eq!(none.unwrap().config.drain_window, Duration::ZERO);
        } else {
            let lines: Vec<_> = none.unwrap_err().0.iter().map(Mistake::to_string).collect();
            let expected = format!("{key}: must be longer than nothing");
            assert!(lines.len() == 1 && lines[0].contains(&expected), "{lines:?}");
        }
    }
}

#[test]
fn only_warns_of_a_short_secret() {
    let loaded = load("auth.mode = \"jwt\"\nauth.secret = \"short\"", &[], &[]).unwrap();

    assert!(loaded.warnings[0].to_string().contains("conf.toml:2: auth.secret: has 5 bytes"));
    assert!(!loaded.warnings[0].to_string().contains("short"));
}

#[test]
fn only_warns_of_operators_from_elsewhere() {
    for address in ["0.0.0.0:9090", "10.0.0.1:9090", "[::]:9090"] {
        let loaded = load("", &[], &[("--admin-listen", "admin_listen", address)]).unwrap();
        let warnings: Vec<_> = loaded.warnings.iter().map(Mistake::to_string).collect();
        assert!(warnings.len() == 1, "{address}: {warnings:?}");
        assert!(warnings[0].starts_with("--admin-listen: admin_listen: is not a loopback"), "{warnings:?}");
    }
    let keys = "[{ name = \"a\", key = \"0123456789-0123456789-0123456789\", scopes = [\"read\"] }]";
    let warned = |environment: &[(&str, &str)]| {
        let loaded = load("", environment, &[("--admin-listen", "admin_listen", "0.0.0.0:9090")]).unwrap();
        loaded.warnings[0].to_string()
    };
    let (open, guarded) = (warned(&[]), warned(&[("FANFARE_API__KEYS", keys)]));
    for part in ["publish in anybody's name", "close connections", "revoke tokens", "give `api.keys`"] {
        assert!(open.contains(part), "{open}");
        assert!(!guarded.contains(part), "{guarded}");
    }
    assert!(
        guarded.contains("read the names of users") && guarded.contains("/api/v1 needs a key"),
        "{guarded}"
    );
    for address in ["127.0.0.1:9090", "[::1]:9090", "localhost:9090"] {
        let loaded = load("", &[], &[("--admin-listen", "admin_listen", address)]).unwrap();
        assert_eq!(loaded.warnings, [], "{address}");
    }
}

#[test]
fn proxies_are_networks_or_addresses_and_there_are_some_where_they_are_meant() {
    let trusted = |text: &str| {
        let environment = [("FANFARE_PROXY__TRUSTED", text), ("FANFARE_PROXY__PROTOCOL", "true")];
        load("", &environment, &[]).map(|loaded| loaded.config.admission.proxies.trusted)
    };
    let networks = trusted("10.0.0.0/8, 192.0.2.1,2001:db8::/32").unwrap();
    let texts: Vec<_> = networks.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]);

    for (text, reason) in [
        ("10.0.0.0/33", "`10.0.0.0/33` is no network"),
        ("proxy.example", "`proxy.example` is no network"),
        ("::ffff:10.0.0.0/104", "write it as such"),
        ("", "is empty, so that no proxy is believed"),
    ] {
        let mistakes = trusted(text).unwrap_err().to_string();
        assert!(mistakes.contains("proxy.trusted") && mistakes.contains(reason), "{mistakes}");
    }
}

#[test]
fn only_warns_of_proxies_that_are_not_used_or_are_everybody() {
    let warnings = |file: &str| {
        let loaded = load(file, &[], &[]).unwrap();
        loaded.warnings.iter().map(Mistake::to_string).collect::<Vec<_>>()
    };
    let unused = warnings("proxy.trusted = [\"10.0.0.0/8\"]");
    assert!(unused.len() == 1 && unused[0].contains("proxy.trusted: is not used"), "{unused:?}");
    let all = warnings("proxy.trusted = [\"::1\", \"0.0.0.0/0\"]\nproxy.forwarded_for = true");
    assert!(all.len() == 1 && all[0].contains("holds all addresses"), "{all:?}");
    assert_eq!(warnings("proxy.trusted = [\"::1\"]\nproxy.protocol = true"), [""; 0]);
}

#[test]
fn a_rate_of_nothing_is_no_limit() {
    let rates = |file: &str| load(file, &[], &[]).unwrap().config.shard.rates;

    assert_eq!(rates("limits.messages_per_second = 50").messages, Some(50));
    assert_eq!(rates("limits.messages_per_second = 0").messages, None);
    assert_eq!(rates("limits.bytes_per_second = \"64KiB\"").bytes, Some(65_536));
    assert_eq!(rates("").bytes, None);
}

#[test]
fn names_a_file_that_cannot_be_read() {
    let sources = Sources { file: Some("/no/such/file.toml".into()), ..Sources::default() };

    assert!(Config::load(&sources).unwrap_err().to_string().contains("/no/such/file.toml"));
}

#[test]
fn the_default_file_parses_back_to_the_defaults() {
    let text = default_file();

    let loaded = load(&text, &[], &[]).unwrap();

    assert_eq!(format!("{:?}", loaded.config), format!("{:?}", Config::default()));
    for setting in SETTINGS {
        assert!(text.contains(setting.doc.lines().next().unwrap()), "{}", setting.key);
        assert!(loaded.origins.contains_key(setting.key) || setting.example.is_some(), "{}", setting.key);
    }
}

#[test]
fn the_default_file_does_not_fix_what_follows_from_other_settings() {
    let environment =
        [("FANFARE_AUTH", "jwt"), ("FANFARE_AUTH__SECRET", "a secret of more than thirty-two bytes")];

    let config = load(&default_file(), &environment, &[]).unwrap().config;

    assert_eq!(config.shard.session.broadcast, Broadcast::Token);
}

#[test]
fn shows_what_is_in_force_with_origins_and_without_secrets() {
    let secret = ("FANFARE_AUTH__SECRET", "a secret of more than thirty-two bytes");

    let text = load("shards = 3", &[secret], &[("--auth", "auth.mode", "jwt")]).unwrap().to_toml();

    assert!(text.contains("listen = \"127.0.0.1:8080\"  # default"), "{text}");
    assert!(text.contains("shards = 3  # /") && text.contains("conf.toml:1"), "{text}");
    assert!(text.contains("mode = \"jwt\"  # --auth"), "{text}");
    assert!(text.contains("secret = \"********\"  # FANFARE_AUTH__SECRET"), "{text}");
    assert!(text.parse::<toml::Table>().is_ok(), "{text}");
    assert!(!text.contains(secret.1));
}

#[test]
fn names_every_key_that_has_changed_also_where_nothing_of_it_is_shown() {
    let file = |auth: &str, hooks: &str, key: &str, scope: &str| {
        let text = format!(
            "auth.secret = \"{auth}-0123456789-0123456789-0123456789\"\n\
             [webhooks]\nsecret = \"{hooks}-0123456789-0123456789-0123456789\"\n\
             [[api.keys]]\nname = \"a\"\nkey = \"{key}-0123456789-0123456789-0123456789\"\nscopes = [\"{scope}\"]\n"
        );
        load(&text, &[], &[]).unwrap().config
    };
    let one = file("a", "b", "c", "read");

    assert_eq!(one.changed_from(&file("a", "b", "c", "read")), [""; 0]);
    assert_eq!(file("x", "b", "c", "read").changed_from(&one), ["auth.secret"]);
    assert_eq!(file("a", "x", "c", "read").changed_from(&one), ["webhooks.secret"]);
    assert_eq!(file("a", "b", "x", "read").changed_from(&one), ["api.keys"]);
    assert_eq!(file("a", "b", "c", "manage").changed_from(&one), ["api.keys"]);
    assert_eq!(one.changed_from(&Config::default()), ["auth.secret", "webhooks.secret", "api.keys"]);
    // Whatever is masked is compared by what is behind the mask.
    let masked =
        SETTINGS.iter().filter(|setting| (setting.print)(&one).is_some_and(|text| text.contains("***")));
    let masked: Vec<_> = masked.map(|setting| setting.key).collect();
    assert_eq!(masked, ["auth.secret", "webhooks.secret", "api.keys"]);
}

#[test]
fn tells_what_of_the_file_something_else_wins_over() {
    let file = "shards = 3\necho = true\n[[rooms]]\nmatch = \"a\"\n";
    let environment = [("FANFARE_ROOMS", "[{ match = \"b\" }]"), ("FANFARE_LOG__LEVEL", "debug")];

    let loaded =
        load(file, &environment, &[("--shards", "shards", "2"), ("--log-level", "log.level", "info")]);

    let told: Vec<_> = loaded.unwrap().overridden.iter().map(Mistake::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].ends_with("conf.toml:3: rooms: has no effect, since FANFARE_ROOMS is given and wins"),
        "{told:?}"
    );
    assert!(
        told[1].ends_with("conf.toml:1: shards: has no effect, since --shards is given and wins"),
        "{told:?}"
    );
}

#[test]
fn each_token_that_it_signs_has_a_name_of_its_own() {
    let config = load("auth = \"jwt\"", &[("FANFARE_AUTH__SECRET", &"x".repeat(32))], &[]).unwrap().config;
    let verifier = auth::Verifier::new(config.auth.clone()).unwrap();
    let named = || {
        let (rooms, publish, broadcast) = (None, None, false);
        let grant = |user| Grant { user, ttl: Duration::from_secs(60), rooms, publish, broadcast };
        let token = config.issue_token("7", grant, 1000).unwrap();
        verifier.verify(&token, 1000).unwrap().token_id.unwrap()
    };

    let names = [named(), named()];

    assert!(names.iter().all(|name| name.len() == 32), "{names:?}");
    assert_ne!(names[0], names[1]);
}

#[test]
fn debug_output_keeps_the_secret() {
    let config = load("auth.secret = \"a secret of more than thirty-two bytes\"", &[], &[]).unwrap().config;

    assert!(!format!("{config:?}").contains("thirty-two"));
}

pub(super) fn load(
    file: &str,
    environment: &[(&str, &str)],
    flags: &[(&'static str, &'static str, &str)],
) -> Result<Loaded, Mistakes> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("conf.toml");
    std::fs::File::create(&path).unwrap().write_all(file.as_bytes()).unwrap();
    let flag = |&(name, key, value): &(_, _, &str)| Flag { name, key, value: value.to_owned() };
    Config::load(&Sources {
        file: Some(path),
        environment: environment.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))).collect(),
        flags: flags.iter().map(flag).collect(),
    })
}

pub(super) fn mistakes(
    file: &str,
    environment: &[(&str, &str)],
    flags: &[(&'static str, &'static str, &str)],
) -> Vec<String> {
    load(file, environment, flags).unwrap_err().0.iter().map(Mistake::to_string).collect()
}
