//! The settings of the webhook: kinds of values of its own, and what does not fit together.

use std::time::Duration;

use hyper::Uri;

use crate::auth::Secret;
use crate::egress;
use crate::webhooks::{self, EventKind, Options, QUEUE_BYTES_MIN, TIMEOUT_MAX};

use super::check::{Complaint, SECRET_BYTES_MIN};
use super::value::{Value, list, quoted, text};

/// An address that can be asked, or nothing at all.
pub(super) mod url {
    use super::{Uri, Value, egress, quoted, text};

    pub(in super::super) fn parse(value: &Value) -> Result<Option<Uri>, String> {
        let given = text::parse(value)?;
        given.map(|given| egress::address(&given).map_err(|error| error.to_string())).transpose()
    }

    #[expect(clippy::ref_option, reason = "all kinds look the same")]
    pub(in super::super) fn print(value: &Option<Uri>) -> Option<String> {
        value.as_ref().map(|uri| quoted(&uri.to_string()))
    }
}

/// Kinds of events.
pub(super) mod events {
    use super::{EventKind, Value, list};

    pub(in super::super) fn parse(value: &Value) -> Result<Vec<EventKind>, String> {
        list::parse(value)?.iter().map(|name| event(name)).collect()
    }

    pub(in super::super) fn print(value: &[EventKind]) -> Option<String> {
        let names: Vec<_> = value.iter().map(|kind| kind.as_str().to_owned()).collect();
        list::print(&names)
    }

    fn event(name: &str) -> Result<EventKind, String> {
        let found = EventKind::ALL.into_iter().find(|kind| kind.as_str() == name);
        found.ok_or_else(|| {
            let known = EventKind::ALL.map(EventKind::as_str).join(", ");
            format!("`{name}` is no event; known are {known}")
        })
    }
}

/// Everything that does not fit together; `is_given` tells whether there is a value, which perhaps could not be read.
pub(super) fn complaints(options: &Options, is_given: impl Fn(&str) -> bool) -> Vec<Complaint> {
    let mut found = Vec::new();
    let mut refuse = |is_wrong: bool, key: &'static str, reason: &str| {
        if is_wrong {
            found.push((key, reason.to_owned()));
        }
    };
    refuse(
        options.queue_bytes < QUEUE_BYTES_MIN,
        "webhooks.queue_bytes",
        "is less than 64KiB, which a batch may take already",
    );
    refuse(
        options.timeout > TIMEOUT_MAX || options.timeout < TIMEOUT_MIN,
        "webhooks.timeout",
        "must be from 100ms to 1m: a batch is tried again and again for five minutes",
    );
    if !is_given("webhooks.url") {
        return found;
    }
    refuse(
        options.secret.is_none(),
        "webhooks.secret",
        "is missing: what is sent to `webhooks.url` is signed with it, so that its server can tell it from what anybody \
         else may send",
    );
    refuse(
        options.events.is_empty(),
        "webhooks.events",
        "is empty, so that nothing would be sent; leave `webhooks.url` out instead",
    );
    let Some(url) = &options.url else { return found };
    refuse(
        egress::is_open_to_others(url) && !options.allow_http,
        "webhooks.url",
        "goes over http:// to another machine: who stands between reads the names of users and rooms, and can hold \
         events back; give an https:// address, or say `webhooks.allow_http = true` for a network of your own",
    );
    found.extend(of_trust(url, options));
    found
}

/// What works but is hardly meant.
pub(super) fn warnings(options: &Options) -> Vec<Complaint> {
    let mut found = Vec::new();
    let secret_bytes = options.secret.as_ref().map(|secret| secret.as_bytes().len());
    if options.url.is_none() {
        let is_given = [
            ("webhooks.secret", options.secret.is_some()),
            ("webhooks.ca", options.ca.is_some()),
            ("webhooks.allow_http", options.allow_http),
        ];
        let unused = is_given.into_iter().filter(|(_, is_given)| *is_given);
        found.extend(unused.map(|(key, _)| (key, "is not used: `webhooks.url` is not set".to_owned())));
    } else if let Some(bytes) = secret_bytes.filter(|bytes| *bytes < SECRET_BYTES_MIN) {
        let reason = format!("has {bytes} bytes; fewer than {SECRET_BYTES_MIN} can be guessed");
        found.push(("webhooks.secret", reason));
    }
    found
}

/// Whether somebody could be trusted to be the server; nothing is asked.
fn of_trust(url: &Uri, options: &Options) -> Option<Complaint> {
    let error = webhooks::check(url, options.ca.as_deref()).err()?;
    let key = if matches!(error, egress::TrustError::Ca) { "webhooks.ca" } else { "webhooks.url" };
    Some((key, error.to_string()))
}

/// The secret, which no reason repeats and nothing shows.
pub(super) mod secret {
    use super::{Secret, Value, text};

    pub(in super::super) fn parse(value: &Value) -> Result<Option<Secret>, String> {
        // The usual reason would repeat the value.
        let secret = text::parse(value).map_err(|_| "must be text that is not empty".to_owned())?;
        Ok(secret.map(Secret::new))
    }

    #[expect(clippy::ref_option, reason = "all kinds look the same")]
    pub(in super::super) fn print(value: &Option<Secret>) -> Option<String> {
        value.as_ref().map(|_| "\"********\"".to_owned())
    }
}

const TIMEOUT_MIN: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use crate::config::tests::{load, mistakes};
    use crate::config::{Config, Mistake};
    use crate::webhooks::EventKind;

    const SOUND: &str = "[webhooks]\nurl = \"https://a.example/hooks?of=fanfare\"\n\
                         secret = \"a secret of more than thirty-two bytes\"\n";

    #[test]
    fn is_off_until_there_is_an_address_and_then_tells_all_there_is() {
        assert_eq!(Config::default().webhooks.url, None);

        let loaded = load(SOUND, &[], &[]).unwrap();

        let options = &loaded.config.webhooks;
        assert_eq!(options.url.as_ref().unwrap().to_string(), "https://a.example/hooks?of=fanfare");
        assert_eq!(options.events, EventKind::ALL);
        assert_eq!(loaded.warnings, []);
        assert!(loaded.to_toml().contains("secret = \"********\"  # "), "{}", loaded.to_toml());
        assert!(!format!("{:?}{}", loaded.config, loaded.to_toml()).contains("thirty-two"));
    }

    #[test]
    fn rooms_are_looked_at_only_for_who_wants_to_know_of_them() {
        let looks = |file: &str| load(file, &[], &[]).unwrap().config.hub.presence.tells_of_rooms;

        assert!(!looks(""));
        assert!(!looks(&format!("{SOUND}events = [\"member_left\"]")));
        assert!(looks(&format!("{SOUND}events = [\"member_left\", \"room_vacated\"]")));
    }

    #[test]
    fn names_each_mistake() {
        for (more, part) in [
            (
                "events = [\"room_ocupied\"]",
                "webhooks.events: `room_ocupied` is no event; known are room_occupied,",
            ),
            ("events = []", "webhooks.events: is empty"),
            ("queue_bytes = \"1KiB\"", "webhooks.queue_bytes: is less than 64KiB"),
            ("timeout = \"2m\"", "webhooks.timeout: must be from 100ms to 1m"),
            ("timeout = \"1ms\"", "webhooks.timeout: must be from 100ms to 1m"),
            ("ca = \"-----BEGIN rubbish\"", "webhooks.ca: is not a PEM text"),
            ("ca = \"/no/such/file\"", "webhooks.ca: cannot read `/no/such/file`"),
            ("uri = 5", "webhooks.uri: unknown key; the nearest one is `webhooks.url`"),
        ] {
            let lines = mistakes(&format!("{SOUND}{more}"), &[], &[]);
            assert!(lines.len() == 1 && lines[0].contains(part), "{more}: {lines:?}");
        }
        for (url, part) in [
            ("ftp://a/", "webhooks.url: must begin with https:// or http://"),
            ("https://user:pass@a/", "webhooks.url: must have a host, and no name or password"),
            ("http://a.example/", "webhooks.url: goes over http:// to another machine"),
            ("http://10.0.0.7/", "say `webhooks.allow_http = true`"),
        ] {
            let lines = mistakes(&SOUND.replace("https://a.example/hooks?of=fanfare", url), &[], &[]);
            assert!(lines.len() == 1 && lines[0].contains(part), "{url}: {lines:?}");
        }
        let lines = mistakes("[webhooks]\nurl = \"https://a.example/\"", &[], &[]);
        assert!(
            lines.len() == 1 && lines[0].contains("conf.toml:2: webhooks.secret: is missing"),
            "{lines:?}"
        );
        let broken = "[webhooks]\nurl = \"ftp://a/\"\nevents = [\"x\"]\nqueue_bytes = \"1KiB\"";
        let lines = mistakes(broken, &[], &[]);
        let keys = [
            "webhooks.url: must",
            "webhooks.events: `x`",
            "webhooks.queue_bytes: is",
            "webhooks.secret: is missing",
        ];
        assert!(keys.iter().all(|key| lines.iter().any(|line| line.contains(key))), "all at once: {lines:?}");
        assert!(
            lines.len() == keys.len() && lines[2..].iter().all(|line| line.contains("conf.toml:")),
            "{lines:?}"
        );
        let lines = mistakes(&broken.replace("\"x\"", ""), &[], &[]);
        assert!(lines.iter().any(|line| line.contains("webhooks.events: is empty")), "{lines:?}");
        let lines = mistakes(&SOUND.replace("\"a secret of more than thirty-two bytes\"", "5"), &[], &[]);
        assert!(lines.len() == 1 && lines[0].ends_with("must be text that is not empty"), "{lines:?}");
    }

    #[test]
    fn plain_http_goes_to_this_machine_and_where_it_is_allowed() {
        for (url, more) in [
            ("http://127.0.0.1:8000/", ""),
            ("http://localhost/hooks", ""),
            ("http://[::1]:8000/", ""),
            ("http://10.0.0.7/", "allow_http = true"),
        ] {
            let file = SOUND.replace("https://a.example/hooks?of=fanfare", url) + more;
            assert!(load(&file, &[], &[]).is_ok(), "{url}");
        }
    }

    #[test]
    fn only_warns_of_what_is_not_used_and_of_a_short_secret() {
        let warned = |file: &str| {
            let loaded = load(file, &[], &[]).unwrap();
            loaded.warnings.iter().map(Mistake::to_string).collect::<Vec<_>>()
        };

        let unused = warned("webhooks.secret = \"x\"\nwebhooks.allow_http = true");
        assert!(unused.len() == 2 && unused[0].contains("webhooks.secret: is not used"), "{unused:?}");
        let short = warned(&SOUND.replace("a secret of more than thirty-two bytes", "short"));
        assert!(short.len() == 1 && short[0].contains("webhooks.secret: has 5 bytes"), "{short:?}");
    }
}
