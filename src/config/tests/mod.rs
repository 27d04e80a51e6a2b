mod mistakes;
mod warnings;

use std::ffi::OsString;
use std::io::Write as _;

use super::table::settings;
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
    for setting in settings() {
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
fn sizes_are_shown_alike() {
    let text =
        load("limits.message_bytes = 1500\nlimits.header_bytes = \"48KiB\"", &[], &[]).unwrap().to_toml();

    for line in ["message_bytes = \"1500B\"", "header_bytes = \"48KiB\""] {
        assert!(text.contains(line), "{text}");
    }
    for setting in
        settings().filter(|setting| setting.key.ends_with("bytes") || setting.key.contains("memory"))
    {
        let shown = (setting.print)(&Config::default()).unwrap();
        assert!(
            shown.ends_with("iB\"") || setting.key == "limits.bytes_per_second",
            "{}: {shown}",
            setting.key
        );
    }
    let again = load("limits.message_bytes = \"1500B\"", &[], &[]).unwrap().config;
    assert_eq!(again.shard.message_bytes, 1500);
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
    for setting in settings() {
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
    let masked = settings().filter(|setting| (setting.print)(&one).is_some_and(|text| text.contains("***")));
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

    let found = [named(), named()];

    assert!(found.iter().all(|name| name.len() == 32), "{found:?}");
    assert_ne!(found[0], found[1]);
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
