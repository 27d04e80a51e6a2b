use super::*;

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
fn only_warns_of_rules_for_rooms_that_are_hardly_meant() {
    let warnings = |file: &str| {
        let loaded = load(file, &[("FANFARE_AUTH__SECRET", &"x".repeat(32))], &[]).unwrap();
        loaded.warnings.iter().map(Mistake::to_string).collect::<Vec<_>>()
    };
    let rules = |patterns: &[&str]| {
        let rule = |pattern: &&str| format!("[[rooms]]\nmatch = \"{pattern}\"\n");
        patterns.iter().map(rule).collect::<String>()
    };
    for (patterns, number) in [
        (&["*", "chat.*"][..], "rule 2 (`chat.*`)"),
        (&["a", "chat.*", "b", "chat.*.x"], "rule 4 (`chat.*.x`)"),
        (&["a", "a"], "rule 2 (`a`)"),
        (&["*a*", "b*a"], "rule 2 (`b*a`)"),
    ] {
        let found = warnings(&rules(patterns));
        assert!(found.len() == 1 && found[0].contains("conf.toml:1: rooms: "), "{found:?}");
        assert!(found[0].contains(number) && found[0].contains("fits first"), "{found:?}");
    }
    assert_eq!(warnings(&rules(&["chat.*", "*"])), [""; 0]);
    assert_eq!(warnings(&rules(&["a*b", "a*", "*b"])), [""; 0]);

    let guarded = "[[rooms]]\nmatch = \"a\"\njoin = \"token\"\nread = \"token\"\n";
    let found = warnings(guarded);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("rule 1 (`a`): `join` is \"token\""), "{found:?}");
    assert!(found[1].contains("rule 1 (`a`): `read` is \"token\""), "{found:?}");
    assert_eq!(warnings(&format!("auth.mode = \"jwt\"\n{guarded}")), [""; 0]);

    assert_eq!(warnings("history.bytes = \"1KiB\""), [""; 0], "of what nobody has written");
    let large = "history.bytes = \"1MiB\"\n[[rooms]]\nmatch = \"a\"\nhistory = { bytes = \"2MiB\" }\n\
                 [[rooms]]\nmatch = \"b\"\nhistory = { bytes = \"1MiB\" }\n";
    let found = warnings(large);
    assert!(found.len() == 1 && found[0].contains("rule 1 (`a`): `history` may take \"2MiB\""), "{found:?}");
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
