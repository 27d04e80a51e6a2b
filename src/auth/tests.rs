use std::time::Duration;

use super::*;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

pub(super) const NOW: u64 = 1_800_000_000;
pub(super) const SECRET: &str = "a secret of more than thirty-two bytes";
const RSA_PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr5G+QScKFv+rng9Axx/7\n\
k6gxGIsQilKbjojQi9JcuLQT9ztnRRmy9rfSOx2m1S4kXSKruqvX/apWEz6LK/wL\n\
o3JPKOkWw9mFcqswNWHBeAV2GHL4uQPhpWZMW5EOzdFAGiJGeVJqXYDoT8a1LOku\n\
dAeU/j993RAUzb24k4dK0abdYOhXwwMcZGtHy2XIKIyIKnqOx45M1TzzxgjmvDfb\n\
XsTgxX2wpiE6VGeYv5IUSddUV4nExR/nWDoSQISihC5qjBsw/qi+7JG1XjjvWym6\n\
Bts7f3FCMmgFeFxNHD6q63gSAJdk9iBAJTLFdkv0jbZuzL6NDfBok+hoxL8+Rqen\n\
8QIDAQAB\n\
-----END PUBLIC KEY-----\n";
/// Signed with the private half, which is not kept.
pub(super) const RSA_TOKEN: &str = "\
eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIiwiZXhwIjoxODAwMDAwMDYwfQ.SbTYD6YWyQ7D-OCKCmEBdX4Kzg3zdL2u-kbTPd-a\
ab2Dr0hONUpDHdFVvyJ2vkZhesyD1ezoIjsWyzFoPldN6p5nZkdrO72pm4E8vs8eaPDHpVPuqbgMzpI9ZhGSYn1HLu906_MISZ_o\
hhXuLfbC3_0W8FuPLTqXXlYopFE9B7P2UF9I7wABrfSpLMAAl0iLjktc0y3arxqEiE6hMSVB832JrLa7GQ0Y5jXLiTSV2YTT8qJG\
CKnX-GB6-ff0O3IRdhtueOoEnM0NXQ1aiA9QJ1vKhIy3D6JIovrt22PKKEArL4I3hDb5Rtx-WVoYYdPJW_6x0wCT90gEJnlz_AFB\
nw";
pub(super) const EC_PRIVATE: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgXmvuzDsZaVk/Mxtg\n\
EpLaCmKr2tI2787pCngShGXTAe+hRANCAAR212y3xE+O8seQHA0lqDZokudY2zZy\n\
MV2OXKKR9K9hb0Qytdd1x8aAMUGUlN+AwxgtxtsMGQc8ZA4IWaDSXJQA\n\
-----END PRIVATE KEY-----\n";
const EC_PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEdtdst8RPjvLHkBwNJag2aJLnWNs2\n\
cjFdjlyikfSvYW9EMrXXdcfGgDFBlJTfgMMYLcbbDBkHPGQOCFmg0lyUAA==\n\
-----END PUBLIC KEY-----\n";
pub(super) const ED_PRIVATE: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MC4CAQAwBQYDK2VwBCIEIMQob+LJaAhppX1vXBMmZu+ccoNKWyoBvZnKYvrJANLC\n\
-----END PRIVATE KEY-----\n";
pub(super) const ED_PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MCowBQYDK2VwAyEAz0hcSEmv5sNlFM6R8IWA8wPVPJMRaG8bFVpj26gHaUE=\n\
-----END PUBLIC KEY-----\n";
const ED_OTHER_PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MCowBQYDK2VwAyEA7q+NHj/VdaG/gC9I/cvswK/iN6QJQQ0/z5u9OS6tb3o=\n\
-----END PUBLIC KEY-----\n";
const P384_PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAES42cLN+QNPiFSBI2NHJlf7P15bV5GMQF\n\
UmTqj4gdFgdY2U++yxocKljJ6eIpNeV8jBeOEYGcCoFkWO8jbb5zAuFj/DAanFJs\n\
A6gTyxrTo+DcnEKcY7xRP8FjhoLyLNDz\n\
-----END PUBLIC KEY-----\n";
const RSA_1024_PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDLi2FjeQdIeqbqfqticecR8NLI\n\
kmxkG1bg9Zbl6xBnSJb2IY8iZbwqRSDzop75jgm2fZwgtOuauZJD+rwEWBvZeG0Q\n\
8EugZE4yik9+bQgP9yp2kLRviT+UxfO1PWewKjKKTHmAiHkdavdm6gcT1YsrYjvT\n\
l1gtx/R7t7laCBtllwIDAQAB\n\
-----END PUBLIC KEY-----\n";

#[test]
fn accepts_its_own_token_with_user_rooms_and_expiry() {
    let options = with_secret();
    let grant = Grant {
        user: UserId::parse("7").unwrap(),
        ttl: Duration::from_secs(3600),
        rooms: Some(vec!["5".into(), "lobby".into()]),
        publish: Some(vec!["5".into()]),
        broadcast: true,
    };

    let claims = verifier(options.clone()).verify(&options.issue(&grant, NOW).unwrap(), NOW).unwrap();

    assert_eq!(claims.user, UserId::from_u64(7));
    assert_eq!((claims.rooms, claims.publish), (grant.rooms, grant.publish));
    assert_eq!(claims.expires_at, Some(NOW + 3600));
    assert!(claims.broadcast);
}

#[test]
fn its_own_token_has_the_name_that_it_is_given() {
    let options = with_secret();
    let verify = |token: String| verifier(options.clone()).verify(&token, NOW).unwrap().token_id;

    assert_eq!(verify(options.issue_named(&grant(), "a1", NOW).unwrap()).as_deref(), Some("a1"));
    assert_eq!(verify(options.issue(&grant(), NOW).unwrap()), None);
}

#[test]
fn accepts_its_own_token_where_issuer_and_audience_are_required() {
    let options =
        Options { issuer: Some("us".into()), audience: vec!["chat".into(), "news".into()], ..with_secret() };

    let token = options.issue(&grant(), NOW).unwrap();

    assert!(verifier(options).verify(&token, NOW).is_ok());
}

#[test]
fn takes_a_subject_as_number_or_text_for_the_same_user() {
    let number = verify(&json!({"sub": 7, "exp": NOW + 60})).unwrap();
    let text = verify(&json!({"sub": "7", "exp": NOW + 60})).unwrap();

    assert_eq!(number.user, text.user);
}

#[test]
fn names_the_claim_that_is_not_valid_or_missing() {
    let exp = NOW + 60;
    for (claims, error) in [
        (json!({"exp": exp}), AuthError::MissingClaim("sub")),
        (json!({"sub": null, "exp": exp}), AuthError::MissingClaim("sub")),
        (json!({"sub": "", "exp": exp}), AuthError::BadClaim("sub")),
        (json!({"sub": "x".repeat(129), "exp": exp}), AuthError::BadClaim("sub")),
        (json!({"sub": -1, "exp": exp}), AuthError::BadClaim("sub")),
        (json!({"sub": 1.5, "exp": exp}), AuthError::BadClaim("sub")),
        (json!({"sub": ["a"], "exp": exp}), AuthError::BadClaim("sub")),
        (json!({"sub": "a"}), AuthError::MissingClaim("exp")),
        (json!({"sub": "a", "exp": "tomorrow"}), AuthError::BadClaim("exp")),
        (json!({"sub": "a", "exp": -5}), AuthError::BadClaim("exp")),
        (json!({"sub": "a", "exp": exp, "nbf": "x"}), AuthError::BadClaim("nbf")),
        (json!({"sub": "a", "exp": exp, "rooms": "lobby"}), AuthError::BadClaim("rooms")),
        (json!({"sub": "a", "exp": exp, "rooms": [-1]}), AuthError::BadClaim("rooms")),
        (json!({"sub": "a", "exp": exp, "publish": 5}), AuthError::BadClaim("publish")),
        (json!({"sub": "a", "exp": exp, "broadcast": "yes"}), AuthError::BadClaim("broadcast")),
    ] {
        assert_eq!(verify(&claims), Err(error), "{claims}");
    }
}

#[test]
fn honours_a_token_from_nbf_to_exp_and_by_the_leeway_beyond_on_both_sides() {
    let token = sign(&json!({"sub": "a", "nbf": NOW, "exp": NOW + 60}));
    assert_eq!(verifier(with_secret()).verify(&token, NOW - 1), Err(AuthError::NotYetValid));
    assert_eq!(verifier(with_secret()).verify(&token, NOW + 60), Err(AuthError::Expired));
    let verifier = verifier(Options { leeway: Duration::from_secs(5), ..with_secret() });

    assert_eq!(verifier.verify(&token, NOW - 6), Err(AuthError::NotYetValid));
    assert!(verifier.verify(&token, NOW - 5).is_ok());
    assert!(verifier.verify(&token, NOW + 64).is_ok());
    assert_eq!(verifier.verify(&token, NOW + 65), Err(AuthError::Expired));
}

#[test]
fn survives_dates_at_the_ends_of_the_numbers() {
    assert!(verify(&json!({"sub": "a", "exp": u64::MAX})).is_ok());
    assert!(verify(&json!({"sub": "a", "exp": 1e300})).is_ok());
    assert_eq!(verify(&json!({"sub": "a", "exp": 0})), Err(AuthError::Expired));
    assert_eq!(verify(&json!({"sub": "a", "exp": NOW + 9, "nbf": u64::MAX})), Err(AuthError::NotYetValid));
}

#[test]
fn lets_a_token_without_expiry_in_only_where_that_is_configured() {
    let options = Options { require_exp: false, ..with_secret() };

    let claims = verifier(options).verify(&sign(&json!({"sub": "a"})), NOW).unwrap();

    assert_eq!(claims.expires_at, None);
}

#[test]
fn refuses_another_issuer_or_audience() {
    let verifier =
        verifier(Options { issuer: Some("us".into()), audience: vec!["chat".into()], ..with_secret() });
    let check = |iss: Value, aud: Value| {
        verifier.verify(&sign(&json!({"sub": "a", "exp": NOW + 60, "iss": iss, "aud": aud})), NOW).map(|_| ())
    };

    assert_eq!(check("us".into(), "chat".into()), Ok(()));
    assert_eq!(check("us".into(), json!(["mail", "chat"])), Ok(()));
    assert_eq!(check("them".into(), "chat".into()), Err(AuthError::WrongIssuer));
    assert_eq!(check(Value::Null, "chat".into()), Err(AuthError::MissingClaim("iss")));
    assert_eq!(check("us".into(), "mail".into()), Err(AuthError::WrongAudience));
    assert_eq!(check("us".into(), Value::Null), Err(AuthError::MissingClaim("aud")));
}

#[test]
fn never_accepts_an_unsigned_token_however_none_is_spelt() {
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let token =
            format!("{}.{}.", part(&json!({"alg": alg})), part(&json!({"sub": "a", "exp": NOW + 60})));
        assert_eq!(verifier(with_secret()).verify(&token, NOW), Err(AuthError::WrongAlgorithm), "{alg}");
    }
}

#[test]
fn refuses_a_changed_token_and_one_of_another_secret() {
    let token = sign(&json!({"sub": "a", "exp": NOW + 60}));
    let (head, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let forged = format!("{header}.{}.{signature}", part(&json!({"sub": "root", "exp": NOW + 60})));
    let other = Options { secret: Some(Secret::new("x".repeat(32))), ..with_secret() };

    assert_eq!(verifier(with_secret()).verify(&forged, NOW), Err(AuthError::BadSignature));
    assert_eq!(verifier(other).verify(&token, NOW), Err(AuthError::BadSignature));
    assert_eq!(verifier(with_secret()).verify(&format!("{head}."), NOW), Err(AuthError::BadSignature));
}

#[test]
fn a_public_key_is_never_taken_for_a_shared_secret() {
    let options = Options { secret: None, public_keys: vec![ED_PUBLIC.into()], ..with_secret() };
    let forged = sign_with(
        jsonwebtoken::Algorithm::HS256,
        &EncodingKey::from_secret(ED_PUBLIC.as_bytes()),
        &json!({"sub": "root", "exp": NOW + 60}),
    );

    assert_eq!(verifier(options).verify(&forged, NOW), Err(AuthError::WrongAlgorithm));
}

#[test]
fn refuses_an_algorithm_that_is_not_on_the_list() {
    let options = Options { algorithms: vec![Algorithm::Hs512], ..with_secret() };

    let result = verifier(options).verify(&sign(&json!({"sub": "a", "exp": NOW + 60})), NOW);

    assert_eq!(result, Err(AuthError::WrongAlgorithm));
}

#[test]
fn calls_what_is_no_token_malformed_and_never_panics() {
    let token = sign(&json!({"sub": "a", "exp": NOW + 60}));
    let verifier = verifier(with_secret());
    for cut in 0..token.len() {
        assert!(verifier.verify(&token[..cut], NOW).is_err(), "cut at {cut}");
    }
    for bad in ["", ".", "..", "a.b.c", "a.b.c.d", "é.é.é", &format!("{token}.x")] {
        assert_eq!(verifier.verify(bad, NOW), Err(AuthError::Malformed), "{bad}");
    }
    let critical = format!("{}.{}.c2ln", part(&json!({"alg": "HS256", "crit": ["b64"]})), part(&json!({})));
    assert_eq!(verifier.verify(&critical, NOW), Err(AuthError::Malformed));
}

#[test]
fn verifies_signatures_by_public_keys_of_both_curves() {
    let claims = json!({"sub": "a", "exp": NOW + 60});
    for (public, algorithm, key) in [
        (EC_PUBLIC, jsonwebtoken::Algorithm::ES256, EncodingKey::from_ec_pem(EC_PRIVATE.as_bytes())),
        (ED_PUBLIC, jsonwebtoken::Algorithm::EdDSA, EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes())),
    ] {
        let options = Options { secret: None, public_keys: vec![public.into()], ..with_secret() };
        let token = sign_with(algorithm, &key.unwrap(), &claims);
        assert!(verifier(options).verify(&token, NOW).is_ok(), "{algorithm:?}");
    }
}

#[test]
fn verifies_a_signature_by_an_rsa_key() {
    let options = Options { secret: None, public_keys: vec![RSA_PUBLIC.into()], ..with_secret() };

    assert!(verifier(options).verify(RSA_TOKEN, NOW).is_ok());
}

#[test]
fn any_of_several_public_keys_may_have_signed_whether_in_one_text_or_in_more() {
    let claims = json!({"sub": "a", "exp": NOW + 60});
    let by_second = sign_with(
        jsonwebtoken::Algorithm::EdDSA,
        &EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).unwrap(),
        &claims,
    );
    let together = format!("{ED_OTHER_PUBLIC}{ED_PUBLIC}{RSA_PUBLIC}");
    for texts in [vec![together], vec![ED_OTHER_PUBLIC.into(), RSA_PUBLIC.into(), ED_PUBLIC.into()]] {
        let verifier = verifier(Options { secret: None, public_keys: texts, ..with_secret() });

        assert!(verifier.verify(&by_second, NOW).is_ok());
        assert!(verifier.verify(RSA_TOKEN, NOW).is_ok());
    }
    let first = Options { secret: None, public_keys: vec![ED_OTHER_PUBLIC.into()], ..with_secret() };
    assert_eq!(verifier(first).verify(&by_second, NOW), Err(AuthError::BadSignature));
}

#[test]
fn names_the_one_of_several_public_keys_that_is_none_and_bounds_them() {
    let error = |public_keys| Verifier::new(Options { public_keys, ..with_secret() }).err();

    assert_eq!(error(vec![ED_PUBLIC.into(), "x".into()]), Some(KeyError::PublicKey(2)));
    assert_eq!(error(vec![format!("{ED_PUBLIC}{EC_PRIVATE}")]), Some(KeyError::PrivateKey(2)));
    assert_eq!(error(vec![ED_PUBLIC.repeat(8)]), None);
    assert_eq!(error(vec![ED_PUBLIC.repeat(8), RSA_PUBLIC.into()]), Some(KeyError::TooManyKeys(9)));
}

#[test]
fn refuses_keys_that_cannot_verify_anything() {
    let key = |pem: &str| {
        let public_keys = vec![pem.to_owned()];
        Verifier::new(Options { secret: None, public_keys, ..with_secret() }).err()
    };

    assert_eq!(Verifier::new(Options { secret: None, ..with_secret() }).err(), Some(KeyError::NoKey));
    assert_eq!(key("rubbish"), Some(KeyError::PublicKey(1)));
    assert_eq!(key(P384_PUBLIC), Some(KeyError::PublicKey(1)));
    assert_eq!(key(EC_PRIVATE), Some(KeyError::PrivateKey(1)));
    assert_eq!(key(RSA_1024_PUBLIC), Some(KeyError::ShortKey(1)));
}

#[test]
fn refuses_an_allow_list_that_no_key_serves() {
    let with = |algorithm| Verifier::new(Options { algorithms: vec![algorithm], ..with_secret() }).err();
    let public = Options {
        secret: None,
        public_keys: vec![ED_PUBLIC.into()],
        algorithms: vec![Algorithm::EdDsa, Algorithm::Es256],
        ..with_secret()
    };

    assert_eq!(with(Algorithm::Rs256), Some(KeyError::NoKeyFor("RS256", false)));
    assert_eq!(Verifier::new(public).err(), Some(KeyError::NoKeyFor("ES256", false)));
}

#[test]
fn a_token_allows_broadcasts_only_when_it_says_so() {
    let may = |claims: Value| verify(&claims).unwrap().broadcast;

    assert!(may(json!({"sub": "a", "exp": NOW + 60, "broadcast": true})));
    assert!(!may(json!({"sub": "a", "exp": NOW + 60, "broadcast": false})));
    assert!(!may(json!({"sub": "a", "exp": NOW + 60})));
}

#[test]
fn cannot_sign_without_a_secret_or_an_algorithm_for_it() {
    let without = Options { secret: None, ..with_secret() };
    let elliptic = Options { algorithms: vec![Algorithm::Es256], ..with_secret() };

    assert_eq!(without.issue(&grant(), NOW), Err(IssueError::NoSecret));
    assert_eq!(elliptic.issue(&grant(), NOW), Err(IssueError::NoAlgorithm));
}

#[test]
fn debug_output_keeps_the_secret() {
    let options = with_secret();

    let text = format!("{options:?} {:?}", verifier(options.clone()));

    assert!(!text.contains(SECRET), "{text}");
}

pub(super) fn with_secret() -> Options {
    Options { mode: Mode::Jwt, secret: Some(Secret::new(SECRET)), ..Options::default() }
}

fn grant() -> Grant {
    Grant {
        user: UserId::parse("ada").unwrap(),
        ttl: Duration::from_secs(60),
        rooms: None,
        publish: None,
        broadcast: false,
    }
}

pub(super) fn verifier(options: Options) -> Verifier {
    Verifier::new(options).unwrap()
}

fn verify(claims: &Value) -> Result<Claims, AuthError> {
    verifier(with_secret()).verify(&sign(claims), NOW)
}

fn sign(claims: &Value) -> String {
    sign_with(jsonwebtoken::Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), claims)
}

fn sign_with(algorithm: jsonwebtoken::Algorithm, key: &EncodingKey, claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, key).unwrap()
}

fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}
