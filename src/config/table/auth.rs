//! Who may come in: `auth` and `tls`.

use crate::auth::{Algorithm, JwksSource, Secret};
use crate::jwks;

use super::super::check;
use super::super::value::{choice, count, duration, flag, leeway, list, one_or_list, path, quoted, text};
use super::{Setting, setting};

/// `auth` and `tls`.
pub(super) static AUTH: &[Setting] = &[
    setting!(
        "auth.mode",
        choice,
        auth.mode,
        "\"none\": everyone is who they say, for development. \"jwt\": a valid token, or 401."
    ),
    Setting {
        key: "auth.secret",
        doc: "The shared secret of HS256, HS384 and HS512, of at least 32 bytes. Best given as FANFARE_AUTH__SECRET.",
        example: Some("\"...\""),
        parse: |config, value| {
            // The usual reason would repeat the value.
            let secret = text::parse(value).map_err(|_| "must be text that is not empty".to_owned())?;
            config.auth.secret = secret.map(Secret::new);
            Ok(())
        },
        print: |config| config.auth.secret.as_ref().map(|_| "\"********\"".to_owned()),
    },
    Setting {
        key: "auth.public_key",
        doc: "The public key of RS256, ES256 or EdDSA: PEM text, or the path of a PEM file; or a list of those, at most\n8 keys, of which any may have signed a token.",
        example: Some("\"/etc/fanfare/jwt.pem\""),
        parse: |config, value| {
            let given = one_or_list::parse(value)?;
            config.auth.public_keys = given.into_iter().map(check::pem).collect::<Result<_, _>>()?;
            Ok(())
        },
        print: |config| one_or_list::print(&config.auth.public_keys),
    },
    Setting {
        key: "auth.jwks",
        doc: "A set of keys (JWKS) that may change while the gateway runs: the path of a file, or an https:// address.\nhttp:// only on this machine, or with `insecure`.",
        example: Some("\"https://login.example.org/.well-known/jwks.json\""),
        parse: |config, value| {
            config.auth.jwks = text::parse(value)?.map(|given| jwks::locate(&given)).transpose()?;
            Ok(())
        },
        print: |config| {
            config.auth.jwks.as_ref().map(|source| match source {
                JwksSource::File(path) => quoted(&path.display().to_string()),
                JwksSource::Url(url) => quoted(url),
            })
        },
    },
    setting!(
        "auth.jwks_refresh",
        duration,
        jwks.refresh,
        "How often the address is asked anew; a file is looked at every two seconds. At least 1s."
    ),
    Setting {
        key: "auth.jwks_ca",
        doc: "Who may have certified that address, beside those whom the system trusts: PEM text, or the path of a PEM\nfile.",
        example: Some("\"/etc/fanfare/ca.pem\""),
        parse: |config, value| {
            config.jwks.ca = text::parse(value)?.map(check::pem).transpose()?;
            Ok(())
        },
        print: |config| text::print(&config.jwks.ca),
    },
    Setting {
        key: "auth.algorithms",
        doc: "The accepted algorithms, of HS256, HS384, HS512, RS256, ES256, EdDSA.\nEmpty: HS256 for the secret, and those that fit the other keys.",
        example: None,
        parse: |config, value| {
            config.auth.algorithms =
                list::parse(value)?.iter().map(|name| check::algorithm(name)).collect::<Result<_, _>>()?;
            Ok(())
        },
        print: |config| {
            let names: Vec<_> =
                config.auth.algorithms.iter().copied().map(Algorithm::as_str).map(str::to_owned).collect();
            list::print(&names)
        },
    },
    setting!(
        "auth.issuer",
        text,
        auth.issuer,
        "The only accepted `iss`. Default: any.",
        "\"https://login.example.org\""
    ),
    setting!(
        "auth.audience",
        list,
        auth.audience,
        "A token must name one of these as `aud`; empty: `aud` is not looked at."
    ),
    setting!(
        "auth.leeway",
        leeway,
        auth.leeway,
        "How far the clocks of issuer and gateway may be apart; 0s is strict."
    ),
    setting!(
        "auth.revocation_ttl",
        duration,
        auth.revocations.ttl,
        "How long a revocation is kept: at least as long as a token lives."
    ),
    setting!(
        "auth.revocations",
        count,
        auth.revocations.entries,
        "The most revocations that are kept at once; more are refused with 507."
    ),
    setting!("auth.require_exp", flag, auth.require_exp, "Refuses tokens that never expire."),
    setting!(
        "tls.certificate",
        path,
        tls.certificate,
        "The certificate by which clients connect with wss:// only, and those that vouch for it: a PEM file, read again\nwhen it changes and on SIGHUP. Default: no TLS.",
        "\"/etc/fanfare/tls.crt\""
    ),
    setting!("tls.key", path, tls.key, "Its private key: a PEM file.", "\"/etc/fanfare/tls.key\""),
    setting!(
        "tls.client_ca",
        path,
        tls.client_ca,
        "Clients need a certificate that one of these has signed: a PEM file. Default: they need none.",
        "\"/etc/fanfare/clients.crt\""
    ),
];
