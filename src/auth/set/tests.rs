use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

use super::super::tests::{EC_PRIVATE, ED_PRIVATE, ED_PUBLIC, NOW, RSA_TOKEN, SECRET, verifier, with_secret};
use super::super::{AuthError, KEYS_TRIED_MAX, Verifier};
use super::*;

const RSA_N: &str = "r5G-QScKFv-rng9Axx_7k6gxGIsQilKbjojQi9JcuLQT9ztnRRmy9rfSOx2m1S4kXSKruqvX_apWEz6LK_wLo3JPKOkWw9mFcqswNWHBeAV2GHL4uQPhpWZMW5EOzdFAGiJGeVJqXYDoT8a1LOkudAeU_j993RAUzb24k4dK0abdYOhXwwMcZGtHy2XIKIyIKnqOx45M1TzzxgjmvDfbXsTgxX2wpiE6VGeYv5IUSddUV4nExR_nWDoSQISihC5qjBsw_qi-7JG1XjjvWym6Bts7f3FCMmgFeFxNHD6q63gSAJdk9iBAJTLFdkv0jbZuzL6NDfBok-hoxL8-Rqen8Q";
const RSA_1024_N: &str = "y4thY3kHSHqm6n6rYnHnEfDSyJJsZBtW4PWW5esQZ0iW9iGPImW8KkUg86Ke-Y4Jtn2cILTrmrmSQ_q8BFgb2XhtEPBLoGROMopPfm0ID_cqdpC0b4k_lMXztT1nsCoyikx5gIh5HWr3ZuoHE9WLK2I705dYLcf0e7e5WggbZZc";
const ED_X: &str = "z0hcSEmv5sNlFM6R8IWA8wPVPJMRaG8bFVpj26gHaUE";

#[test]
fn verifies_by_keys_of_every_kind_with_and_without_names() {
    for named in [false, true] {
        let set = json!({"keys": [of("r", named, rsa()), of("e", named, ec()), of("d", named, ed())]});
        let verifier = with_set(&set);
        let kid = |kid| Some(kid).filter(|_| named);

        assert!(check(&verifier, &by_ec(kid("e"))).is_ok());
        assert!(check(&verifier, &by_ed(kid("d"))).is_ok());
        // This one has no name.
        assert!(check(&verifier, RSA_TOKEN).is_ok());
    }
}

#[test]
fn a_token_is_checked_by_the_key_that_it_names_and_no_other() {
    let other = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let verifier = with_set(&json!({"keys": [of("old", true, other), of("new", true, ed())]}));

    assert!(check(&verifier, &by_ed(Some("new"))).is_ok());
    assert!(check(&verifier, &by_ed(None)).is_ok());
    assert_eq!(check(&verifier, &by_ed(Some("old"))), Err(AuthError::BadSignature));
    assert!(!verifier.take_missed_key());
}

#[test]
fn a_key_that_is_in_no_set_is_unknown_and_missed_until_the_set_has_it() {
    let verifier = with_set(&json!({"keys": [of("old", true, ec())]}));
    assert!(!verifier.take_missed_key());

    assert_eq!(check(&verifier, &by_ed(Some("new"))), Err(AuthError::UnknownKey));
    assert_eq!(check(&verifier, &by_ed(None)), Err(AuthError::UnknownKey));

    assert!(verifier.take_missed_key());
    assert!(!verifier.take_missed_key(), "it is said once");
    verifier.replace_set(&text(&json!({"keys": [of("new", true, ed())]}))).unwrap();
    assert!(check(&verifier, &by_ed(Some("new"))).is_ok());
    assert_eq!(check(&verifier, &by_ec(Some("old"))), Err(AuthError::UnknownKey), "rotated out");
}

#[test]
fn before_the_first_set_no_key_is_known() {
    let verifier = verifier(from_address());

    assert_eq!(check(&verifier, RSA_TOKEN), Err(AuthError::UnknownKey));
    assert!(verifier.take_missed_key());
}

#[test]
fn what_no_set_could_ever_have_is_not_missed() {
    let verifier = with_set(&json!({"keys": [of("k", true, ed())]}));
    let forged =
        by(jsonwebtoken::Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), Some("new"));

    assert_eq!(check(&verifier, &forged), Err(AuthError::WrongAlgorithm));
    assert!(!verifier.take_missed_key());
}

#[test]
fn a_named_key_is_never_used_with_an_algorithm_of_another_family() {
    let both = Options { secret: with_secret().secret, ..from_address() };
    let verifier = verifier(both);
    verifier.replace_set(&text(&json!({"keys": [of("r", true, rsa()), of("d", true, ed())]}))).unwrap();
    for secret in [RSA_N, ED_X, ED_PUBLIC, SECRET] {
        let key = EncodingKey::from_secret(secret.as_bytes());
        for kid in ["r", "d"] {
            let forged = by(jsonwebtoken::Algorithm::HS256, &key, Some(kid));
            assert_eq!(check(&verifier, &forged), Err(AuthError::WrongAlgorithm), "{kid}: {secret}");
        }
    }
    assert_eq!(check(&verifier, &by_ec(Some("d"))), Err(AuthError::WrongAlgorithm));
    let named_otherwise = by(
        jsonwebtoken::Algorithm::HS256,
        &EncodingKey::from_secret(SECRET.as_bytes()),
        Some("none of these"),
    );
    assert!(check(&verifier, &named_otherwise).is_ok(), "the configured secret has no name");
}

#[test]
fn secrets_are_taken_from_files_only_and_serve_what_they_are_long_enough_for() {
    let secret = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode([b'k'; 50]), "kid": "s"});
    let set = json!({"keys": [secret, of("d", true, ed())]});
    let key = EncodingKey::from_secret(&[b'k'; 50]);

    let file = with_set_of(from_file(), &set);
    assert!(check(&file, &by(jsonwebtoken::Algorithm::HS256, &key, Some("s"))).is_ok());
    assert!(check(&file, &by(jsonwebtoken::Algorithm::HS384, &key, Some("s"))).is_ok());
    let longer = by(jsonwebtoken::Algorithm::HS512, &key, Some("s"));
    assert_eq!(check(&file, &longer), Err(AuthError::WrongAlgorithm));

    let address = with_set(&set);
    let refused = check(&address, &by(jsonwebtoken::Algorithm::HS256, &key, Some("s")));
    assert_eq!(refused, Err(AuthError::WrongAlgorithm));
}

#[test]
fn keys_that_are_of_no_use_are_skipped_and_named_while_others_serve() {
    let with = |base: Value, name: &str, value: Value| {
        let mut key = base;
        key[name] = value;
        key
    };
    for (key, reason) in [
        (json!(7), Skipped::NotAKey),
        (json!({"kid": "a"}), Skipped::NotAKey),
        (with(ed(), "kid", json!(7)), Skipped::NotAKey),
        (json!({"kty": "RSA2"}), Skipped::OtherKind),
        (json!({"kty": "AKP", "alg": "ML-DSA-44"}), Skipped::OtherKind),
        (with(ec(), "crv", json!("P-384")), Skipped::OtherKind),
        (with(ed(), "crv", json!("X25519")), Skipped::OtherKind),
        (json!({"kty": "oct", "k": "AAAA"}), Skipped::SharedSecret),
        (with(rsa(), "use", json!("enc")), Skipped::OtherUse),
        (with(rsa(), "key_ops", json!(["encrypt"])), Skipped::OtherUse),
        (with(rsa(), "key_ops", json!("verify")), Skipped::OtherUse),
        (with(rsa(), "alg", json!("RS512")), Skipped::OtherAlgorithm),
        (with(rsa(), "alg", json!("HS256")), Skipped::OtherAlgorithm),
        (with(ed(), "alg", json!(["EdDSA"])), Skipped::OtherAlgorithm),
        (with(ed(), "d", json!("AAAA")), Skipped::PrivateKey),
        (with(rsa(), "n", json!(RSA_1024_N)), Skipped::TooShort),
        (with(rsa(), "n", json!("")), Skipped::TooShort),
        (with(rsa(), "n", json!(URL_SAFE_NO_PAD.encode(vec![0xff; 1025]))), Skipped::Unreadable),
        (with(rsa(), "n", json!(URL_SAFE_NO_PAD.encode(vec![0xfe; 256]))), Skipped::Unreadable),
        (with(rsa(), "n", json!("not base64url!")), Skipped::Unreadable),
        (with(rsa(), "e", json!("AQ")), Skipped::Unreadable),
        (with(rsa(), "e", json!("")), Skipped::Unreadable),
        (with(rsa(), "e", json!("AQABAQAB")), Skipped::Unreadable),
        (with(ec(), "x", json!("AAAA")), Skipped::Unreadable),
        (with(ec(), "y", json!(null)), Skipped::Unreadable),
        (with(ed(), "x", json!(format!("{ED_X}AAAA"))), Skipped::Unreadable),
    ] {
        let set = json!({"keys": [key, ed()], "more": true});
        let set = KeySet::parse(&text(&set), &SetRules::of(&from_address())).unwrap();

        assert_eq!((set.len(), set.skipped()), (1, Reasons(vec![(1, reason)])), "{key}");
    }
}

#[test]
fn takes_what_says_no_more_than_it_must_and_numbers_with_leading_zeros() {
    let padded = URL_SAFE_NO_PAD.encode([vec![0], URL_SAFE_NO_PAD.decode(RSA_N).unwrap()].concat());
    let key = json!({
        "kty": "RSA", "n": padded, "e": "AAEAAQ", "use": "sig", "key_ops": ["verify"], "alg": "RS256",
        "x5c": ["AAAA"], "kid": null,
    });

    assert!(check(&with_set(&json!({"keys": [key]})), RSA_TOKEN).is_ok());
}

#[test]
fn a_key_that_only_looks_like_one_verifies_nothing_and_panics_nowhere() {
    let off_curve = json!({"kty": "EC", "crv": "P-256", "x": ED_X, "y": ED_X});
    let zeros = json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode([0; 32])});
    let modulus = json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(vec![0xff; 256]), "e": "Aw"});
    let verifier = with_set(&json!({"keys": [off_curve, zeros, modulus]}));

    for token in [by_ec(None), by_ed(None), RSA_TOKEN.to_owned()] {
        assert_eq!(check(&verifier, &token), Err(AuthError::BadSignature));
    }
}

#[test]
fn refuses_what_is_no_set_and_keeps_the_one_before() {
    let verifier = with_set(&json!({"keys": [ed()]}));
    let deep = format!("{{\"keys\":{}", "[".repeat(100_000));
    for (body, error) in [
        (&b""[..], SetError::NotJson { line: 1, column: 0 }),
        (b"<html>", SetError::NotJson { line: 1, column: 1 }),
        (deep.as_bytes(), SetError::NotJson { line: 1, column: 135 }),
        (b"[]", SetError::NotASet),
        (b"null", SetError::NotASet),
        (b"{\"keys\":{}}", SetError::NotASet),
        (b"{\"keys\":[]}", SetError::NoKey(Reasons(Vec::new()))),
        (b"{\"keys\":[1]}", SetError::NoKey(Reasons(vec![(1, Skipped::NotAKey)]))),
    ] {
        assert_eq!(verifier.replace_set(body).err(), Some(error));
    }
    let many = json!({"keys": vec![ed(); SET_KEYS_MAX + 1]});
    assert_eq!(verifier.replace_set(&text(&many)).err(), Some(SetError::TooManyKeys(101)));

    assert!(check(&verifier, &by_ed(None)).is_ok());
}

#[test]
fn says_why_a_set_has_no_key_without_repeating_what_it_says() {
    let set = json!({"keys": [{"kty": "EC", "crv": "hush", "kid": "hush"}, {"kty": "oct", "k": "hush"}]});

    let error = KeySet::parse(&text(&set), &SetRules::of(&from_address())).unwrap_err().to_string();

    assert!(error.starts_with("has no key that can verify a token: key 1 is of another kind"), "{error}");
    assert!(error.ends_with(", key 2 is a shared secret, which is taken from a file only"), "{error}");
    assert!(!error.contains("hush"), "{error}");
}

#[test]
fn a_token_without_a_name_is_tried_against_a_bounded_number_of_keys() {
    let other = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let behind = |others| {
        let mut keys = vec![other.clone(); others];
        keys.push(of("it", true, ed()));
        with_set(&json!({"keys": keys}))
    };

    assert!(check(&behind(KEYS_TRIED_MAX - 1), &by_ed(None)).is_ok());
    assert_eq!(check(&behind(KEYS_TRIED_MAX), &by_ed(None)), Err(AuthError::BadSignature));
    assert!(check(&behind(KEYS_TRIED_MAX), &by_ed(Some("it"))).is_ok());
}

#[test]
fn the_allow_list_holds_for_sets() {
    let options = Options { algorithms: vec![Algorithm::EdDsa], ..from_address() };
    let verifier = with_set_of(options, &json!({"keys": [of("d", true, ed()), of("e", true, ec())]}));

    assert!(check(&verifier, &by_ed(Some("d"))).is_ok());
    assert_eq!(check(&verifier, &by_ec(Some("e"))), Err(AuthError::WrongAlgorithm));
    let secret = Options { algorithms: vec![Algorithm::Hs256], ..from_address() };
    assert!(Verifier::new(secret).is_err(), "no address gives secrets");
}

#[test]
fn survives_every_cut_and_every_changed_byte_of_a_set() {
    let whole = text(&json!({"keys": [of("r", true, rsa()), of("e", true, ec()), of("d", true, ed())]}));
    let rules = SetRules::of(&from_file());
    for at in 0..whole.len() {
        assert!(KeySet::parse(&whole[..at], &rules).is_err(), "cut at {at}");
        for byte in [0, b'"', b'}', b'9', 0xff] {
            let mut changed = whole.clone();
            changed[at] = byte;
            // Whether it is refused depends on the byte; that it comes back is what counts.
            let _ = KeySet::parse(&changed, &rules);
        }
    }
}

fn rsa() -> Value {
    json!({"kty": "RSA", "n": RSA_N, "e": "AQAB"})
}

fn ec() -> Value {
    json!({
        "kty": "EC", "crv": "P-256",
        "x": "dtdst8RPjvLHkBwNJag2aJLnWNs2cjFdjlyikfSvYW8", "y": "RDK113XHxoAxQZSU34DDGC3G2wwZBzxkDghZoNJclAA",
    })
}

fn ed() -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": ED_X})
}

/// The key with this name, or without one.
fn of(kid: &str, is_named: bool, mut key: Value) -> Value {
    if is_named {
        key["kid"] = kid.into();
    }
    key
}

fn text(set: &Value) -> Vec<u8> {
    set.to_string().into_bytes()
}

fn from_address() -> Options {
    let jwks = Some(JwksSource::Url("https://login.example.org/jwks".into()));
    Options { secret: None, jwks, ..with_secret() }
}

fn from_file() -> Options {
    Options { jwks: Some(JwksSource::File("jwks.json".into())), ..from_address() }
}

fn with_set(set: &Value) -> Verifier {
    with_set_of(from_address(), set)
}

fn with_set_of(options: Options, set: &Value) -> Verifier {
    let verifier = verifier(options);
    verifier.replace_set(&text(set)).unwrap();
    verifier
}

fn check(verifier: &Verifier, token: &str) -> Result<(), AuthError> {
    verifier.verify(token, NOW).map(|_| ())
}

fn by_ec(kid: Option<&str>) -> String {
    by(jsonwebtoken::Algorithm::ES256, &EncodingKey::from_ec_pem(EC_PRIVATE.as_bytes()).unwrap(), kid)
}

fn by_ed(kid: Option<&str>) -> String {
    by(jsonwebtoken::Algorithm::EdDSA, &EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).unwrap(), kid)
}

fn by(algorithm: jsonwebtoken::Algorithm, key: &EncodingKey, kid: Option<&str>) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, &json!({"sub": "a", "exp": NOW + 60}), key).unwrap()
}
