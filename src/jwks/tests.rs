use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::auth::Mode;
use crate::egress::TrustError;
use crate::metrics::Recorder;
use source::BODY_BYTES_MAX;

const ED: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"z0hcSEmv5sNlFM6R8IWA8wPVPJMRaG8bFVpj26gHaUE"}]}"#;

#[test]
fn tells_files_and_addresses_apart() {
    assert_eq!(locate("keys/jwks.json"), Ok(JwksSource::File("keys/jwks.json".into())));
    let url = "https://login.example.org/jwks?tenant=7";
    assert_eq!(locate(url), Ok(JwksSource::Url(url.to_owned())));
    assert!(["keys/jwks.json", url].iter().all(|given| !is_open_to_others(&locate(given).unwrap())));
    assert!(is_open_to_others(&locate("http://example.org/").unwrap()));
    for wrong in ["ftp://a/b", "https://", "https://a b/", "https://user:pass@a/", "file:///etc/jwks", "://"]
    {
        assert!(locate(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn reads_files_up_to_the_bound_and_nothing_that_is_no_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("jwks.json");
    let read = |bytes: usize| {
        fs::write(&path, vec![b' '; bytes]).unwrap();
        read_file(&path).map(|text| text.len())
    };

    assert_eq!(read(BODY_BYTES_MAX).unwrap(), BODY_BYTES_MAX);
    assert!(matches!(read(BODY_BYTES_MAX + 1), Err(ReadError::TooLong)));
    assert!(matches!(read_file(folder.path()), Err(ReadError::NotAFile)));
    assert!(matches!(read_file(&folder.path().join("none")), Err(ReadError::File(_))));
}

#[test]
fn a_file_must_be_good_at_the_start() {
    let world = World::new("{}");

    assert!(matches!(world.refresher(), Err(SourceError::Set(SetError::NotASet))));
}

#[test]
fn a_bad_file_leaves_the_keys_and_is_counted_and_a_good_one_is_taken_over() {
    let world = World::new(ED);
    let mut refresher = world.refresher().unwrap();
    assert!(refresher.parts.ready.is_ready());

    refresher.take(b"{\"keys\":[]}".to_vec()).unwrap_err();
    refresher.fail("for a test");

    assert_eq!(refresher.text, ED.as_bytes());
    assert!(refresher.parts.ready.is_ready(), "there are keys");
    let shown = world.recorder.render();
    assert!(shown.contains("fanfare_jwks_refreshes_total{result=\"ok\"} 1"), "{shown}");
    assert!(shown.contains("fanfare_jwks_refreshes_total{result=\"error\"} 1"), "{shown}");
    refresher.take(ED.replace("\"kty\"", "\"kid\":\"n\",\"kty\"").into_bytes()).unwrap();
    assert_ne!(refresher.text, ED.as_bytes());
}

#[test]
fn is_not_ready_before_an_address_has_answered_and_says_why() {
    let world = World { given: locate("http://127.0.0.1:1/").unwrap(), ..World::new(ED) };
    let mut refresher = world.refresher().unwrap();
    let reasons = |refresher: &Refresher| refresher.parts.ready.reasons(0);
    assert_eq!(reasons(&refresher)[0].reason, Cause::KeysMissing);

    refresher.fail("the answer is 500, not 200");

    assert_eq!(reasons(&refresher)[0].detail, "`auth.jwks` could not be read: the answer is 500, not 200");
    refresher.take(ED.as_bytes().to_vec()).unwrap();
    assert_eq!(reasons(&refresher), []);
}

#[test]
fn certificates_that_are_none_are_refused_before_anything_is_asked() {
    let auth = auth::Options { jwks: locate("https://localhost/").ok(), ..auth::Options::default() };
    let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for ca in ["", "rubbish", cut] {
        let options = Options { ca: Some(ca.to_owned()), ..Options::default() };

        assert!(matches!(check(&auth, &options), Err(SourceError::Trust(TrustError::Ca))), "{ca}");
    }
}

struct World {
    given: JwksSource,
    recorder: Recorder,
    _folder: TempDir,
}

impl World {
    fn new(text: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let path: PathBuf = folder.path().join("jwks.json");
        fs::write(&path, text).unwrap();
        Self { given: JwksSource::File(path), recorder: Recorder::new(), _folder: folder }
    }

    fn refresher(&self) -> Result<Refresher, SourceError> {
        let options =
            auth::Options { mode: Mode::Jwt, jwks: Some(self.given.clone()), ..auth::Options::default() };
        let parts = Parts {
            verifier: Arc::new(Verifier::new(options).unwrap()),
            metrics: JwksMetrics::new(&self.recorder),
            ready: Readiness::default(),
            clock: Clock::start(),
        };
        Refresher::new(&self.given, &Options::default(), parts)
    }
}
