//! TLS over loopback sockets, with rustls' client at the other end.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use socket2::SockRef;
use tempfile::TempDir;

use super::super::{Certificates, File, Files, Options, READ_BYTES_MIN, Transport, held};

const BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// More than a record, and than both sockets hold.
const LONG: usize = 300_000;

#[test]
fn carries_every_byte_both_ways_however_they_are_cut() {
    for version in BOTH {
        for cut in [1, 2, 5, 7, 64, 1000, 20_000] {
            let mut pair = Pair::new(version);
            pair.cut = cut;
            let question = pattern(40 * cut.min(1000) + 3);
            pair.client.writer().write_all(&question).unwrap();
            let mut heard = Vec::new();
            pair.until(|pair| {
                pair.receive(&mut heard);
                heard.len() == question.len()
            });
            assert!(heard == question, "{version:?} in pieces of {cut}");

            let answer = pattern(50_000);
            let mut said = 0;
            let mut got = Vec::new();
            pair.until(|pair| {
                said += pair.say(&answer[said..]);
                pair.client_takes(&mut got);
                got.len() == answer.len()
            });
            assert!(got == answer, "{version:?} in pieces of {cut}");
        }
    }
}

#[test]
fn one_read_hands_out_all_records_that_have_come() {
    for version in BOTH {
        let mut pair = Pair::open(version);
        for record in ["one ", "two ", "three"] {
            pair.client.writer().write_all(record.as_bytes()).unwrap();
        }
        let mut segment = Vec::new();
        pair.client.write_tls(&mut segment).unwrap();
        let (first, last) = segment.split_at(segment.len() - 3);

        pair.socket.write_all(first).unwrap();
        let mut into = vec![0; READ_BYTES_MIN];
        let received = pair.read_some(&mut into);
        assert_eq!(&into[..received.bytes], b"one two ");
        assert!(received.is_dry, "nothing is left that could be handed out");
        pair.socket.write_all(last).unwrap();
        let received = pair.read_some(&mut into);
        assert_eq!(&into[..received.bytes], b"three");
    }
}

#[test]
fn what_the_socket_does_not_take_is_little_and_goes_first() {
    for version in BOTH {
        let mut pair = Pair::open(version);
        let text = pattern(4 * LONG);
        let idle = held();
        let mut said = 0;
        while said < text.len() {
            match pair.server.write(&text[said..]) {
                Ok(count) => said += count,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    break;
                }
            }
        }
        assert!(said < text.len(), "the socket is full");
        assert!(pair.server.wants_flush());
        let waiting = held() - idle;
        assert!((1..80_000).contains(&waiting), "{waiting}");
        let full = pair.server.write_vectored(&[IoSlice::new(b"more")]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(held() - idle, waiting, "which adds nothing");

        // The end waits behind it, and it needs nothing but flushing.
        pair.server.shutdown_write().unwrap();
        let mut got = Vec::new();
        pair.until(|pair| {
            pair.server.flush().unwrap();
            pair.client_takes(&mut got);
            pair.has_ended
        });
        assert!(got == text[..said], "all that was taken");
        assert!(pair.client_was_told, "and then close_notify");
        assert!(!pair.server.wants_flush());
        assert_eq!(held(), idle);
    }
}

#[test]
fn small_slices_share_a_record_and_large_ones_fill_theirs() {
    let mut pair = Pair::open(&TLS13);
    let small = pattern(10);
    let slices: Vec<_> = (0..60).map(|_| IoSlice::new(&small)).collect();
    assert_eq!(pair.server.write_vectored(&slices).unwrap(), 600);
    assert_eq!(pair.records(), [600 + 22], "a header, the type and a tag");

    let large = pattern(20_000);
    let slices = [IoSlice::new(&small), IoSlice::new(&large), IoSlice::new(&small)];
    assert_eq!(pair.server.write_vectored(&slices).unwrap(), 20_020);
    assert_eq!(pair.records(), [16_384 + 22, 20_020 - 16_384 + 22]);
}

#[test]
fn an_end_that_was_announced_is_an_end_and_another_is_an_error() {
    for version in BOTH {
        let mut pair = Pair::open(version);
        pair.client.writer().write_all(b"bye").unwrap();
        pair.client.send_close_notify();
        pair.push();
        let mut into = vec![0; READ_BYTES_MIN];
        let received = pair.read_some(&mut into);
        assert_eq!(&into[..received.bytes], b"bye");
        assert!(!received.is_dry, "the end is still to be read");
        assert_eq!(pair.read_some(&mut into).bytes, 0);
        assert_eq!(pair.server.write(b"still here").unwrap(), 10, "the other way is open");

        let mut pair = Pair::open(version);
        pair.client.writer().write_all(b"by").unwrap();
        pair.push();
        pair.socket.shutdown(Shutdown::Write).unwrap();
        assert_eq!(pair.read_some(&mut into).bytes, 2);
        assert_eq!(pair.failure().kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[test]
fn goes_on_when_the_peer_changes_its_keys_and_wants_others() {
    let mut pair = Pair::open(&TLS13);
    let mut heard = Vec::new();
    for round in 0..5 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.client.writer().write_all(b"new keys ").unwrap();
        pair.until(|pair| {
            pair.receive(&mut heard);
            heard.len() == 9 * (round + 1)
        });
        let mut got = Vec::new();
        assert_eq!(pair.server.write(b"here too").unwrap(), 8);
        pair.until(|pair| {
            pair.client_takes(&mut got);
            got == b"here too"
        });
    }
}

#[test]
fn a_peer_that_breaks_the_protocol_is_told_and_not_listened_to() {
    let record_of_another_key = [&b"\x17\x03\x03\x00\x20"[..], &[7; 32]].concat();
    for (garbage, is_open) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), false),
        (record_of_another_key.clone(), true),
        (vec![0; 40], true),
    ] {
        let mut pair = if is_open { Pair::open(&TLS13) } else { Pair::new(&TLS13) };
        pair.socket.write_all(&garbage).unwrap();
        assert_eq!(pair.failure().kind(), io::ErrorKind::InvalidData);
        assert_eq!(pair.failure().kind(), io::ErrorKind::InvalidData, "for good");
        assert!(!pair.server.wants_flush());
        assert!(pair.server.write(b"text").is_err());
        pair.server.shutdown_write().unwrap();
        let mut answer = Vec::new();
        pair.socket.set_nonblocking(false).unwrap();
        pair.socket.read_to_end(&mut answer).unwrap();
        assert!(!answer.is_empty(), "an alert");
    }

    // Also when our side has ended.
    let mut pair = Pair::open(&TLS13);
    pair.server.shutdown_write().unwrap();
    pair.socket.write_all(&record_of_another_key).unwrap();
    assert_eq!(pair.failure().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_handshake_that_never_becomes_whole_does_not_grow_without_bound() {
    let mut pair = Pair::new(&TLS13);
    let idle = held();
    // A ClientHello that says that it is 65,535 bytes long, in records of 16 KiB.
    let first = [&b"\x16\x03\x01\x40\x00\x01\x00\xff\xff"[..], &[0; 16_380]].concat();
    let next = [&b"\x16\x03\x01\x40\x00"[..], &[0; 16_384]].concat();
    let mut stream = [first, next.clone(), next].concat();
    let mut most = 0;
    let error = loop {
        if let Ok(count @ 1..) = pair.socket.write(&stream[..stream.len().min(4000)]) {
            stream.drain(..count);
        }
        let mut into = vec![0; READ_BYTES_MIN];
        match pair.server.read(&mut into) {
            Err(error) if is_for_later(&error) => most = most.max(held() - idle),
            Err(error) => break error,
            Ok(received) => panic!("{received:?}"),
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    pair.server.shutdown_write().unwrap();
    assert!((10_000..40_000).contains(&most), "{most} {error}");
}

#[test]
fn an_idle_session_holds_no_buffer_and_one_that_is_gone_nothing() {
    let before = held();
    let mut pair = Pair::open(&TLS13);
    let idle = held() - before;
    assert!(idle < 8_000, "{idle}");

    pair.client.writer().write_all(&pattern(10_000)).unwrap();
    let mut record = Vec::new();
    pair.client.write_tls(&mut record).unwrap();
    pair.socket.write_all(&record[..9_000]).unwrap();
    let mut into = vec![0; READ_BYTES_MIN];
    while held() - before == idle {
        assert!(is_for_later(&pair.server.read(&mut into).unwrap_err()));
    }
    assert!(held() - before >= idle + 9_000, "a record that is not whole");
    pair.socket.write_all(&record[9_000..]).unwrap();
    assert_eq!(pair.read_some(&mut into).bytes, 10_000);
    assert_eq!(held() - before, idle);

    drop(pair);
    assert_eq!(held(), before);
}

#[test]
fn a_new_certificate_is_for_new_connections_and_a_wrong_key_for_none() {
    let first = files();
    let certificates = Certificates::new(first.load().unwrap());
    let mut old = Pair::with(&certificates, first, &TLS13);
    old.shake_hands();

    let folder = TempDir::new().unwrap();
    let second = make(folder.path());
    certificates.replace(second.load().unwrap());

    Pair::with(&certificates, &second, &TLS13).shake_hands();
    assert_eq!(old.server.write(b"lives on").unwrap(), 8);
    let mixed = Options {
        certificate: Some(first.certificate.clone()),
        key: Some(second.key.clone()),
        client_ca: None,
    };
    let error = mixed.files().unwrap().load().unwrap_err();
    assert_eq!(error.file, File::Key);
    assert!(error.to_string().contains("does not fit the certificate"), "{error}");
}

#[test]
fn what_is_wrong_with_a_key_is_said_without_a_word_of_it() {
    let good = files();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("key");
    let pem = std::fs::read_to_string(&good.key).unwrap();
    let secret = pem.lines().nth(1).unwrap();
    for broken in [
        pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
        pem.replace("-----END", ""),
        pem.replace(secret, &secret[1..]),
    ] {
        std::fs::write(&path, broken).unwrap();
        let files = Files { key: path.clone(), ..good.clone() };

        let error = files.load().unwrap_err();

        assert_eq!(error.file, File::Key);
        let said = format!("{error} {error:?}");
        assert!(!said.contains(&secret[1..20]), "{said}");
    }
}

/// Both ends of a connection, whose sockets hold little.
struct Pair {
    server: Transport,
    client: ClientConnection,
    socket: TcpStream,
    /// What the client has received.
    taken: Vec<u8>,
    /// What it writes and reads at once.
    cut: usize,
    /// The client has seen the end of the socket.
    has_ended: bool,
    /// And `close_notify` before that.
    client_was_told: bool,
}

impl Pair {
    fn new(version: &'static SupportedProtocolVersion) -> Self {
        static CERTIFICATES: OnceLock<Certificates> = OnceLock::new();
        let certificates = CERTIFICATES.get_or_init(|| Certificates::new(files().load().unwrap()));
        Self::with(certificates, files(), version)
    }

    fn open(version: &'static SupportedProtocolVersion) -> Self {
        let mut pair = Self::new(version);
        pair.shake_hands();
        pair
    }

    fn with(
        certificates: &Certificates,
        trusted: &Files,
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&trusted.certificate).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        SockRef::from(&listener).set_send_buffer_size(4096).unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        SockRef::from(&socket).set_recv_buffer_size(4096).unwrap();
        socket.set_nodelay(true).unwrap();
        let stream = listener.accept().unwrap().0;
        for stream in [&socket, &stream] {
            stream.set_nonblocking(true).unwrap();
        }
        let server = Transport::tls(stream, certificates).unwrap();
        Self {
            server,
            client,
            socket,
            taken: Vec::new(),
            cut: usize::MAX,
            has_ended: false,
            client_was_told: false,
        }
    }

    fn shake_hands(&mut self) {
        self.client.writer().write_all(b"!").unwrap();
        let mut heard = Vec::new();
        self.until(|pair| {
            pair.receive(&mut heard);
            heard == b"!"
        });
        // The tickets, if any.
        self.client_takes(&mut Vec::new());
    }

    /// Moves bytes until the condition is met.
    fn until(&mut self, mut condition: impl FnMut(&mut Self) -> bool) {
        while !condition(self) {
            self.push();
            self.pull();
        }
    }

    /// Writes what the client has to say, some of it at once.
    fn push(&mut self) {
        let cut = self.cut;
        while self.client.wants_write() {
            match self.client.write_tls(&mut Cut(&self.socket, cut)) {
                Ok(_) if cut == usize::MAX => {}
                _ => return,
            }
        }
    }

    fn pull(&mut self) {
        match self.client.read_tls(&mut Cut(&self.socket, self.cut)) {
            Ok(0) => self.has_ended = true,
            Ok(_) => {
                let state = self.client.process_new_packets().unwrap();
                self.client_was_told |= state.peer_has_closed();
                let mut part = vec![0; state.plaintext_bytes_to_read()];
                self.client.reader().read_exact(&mut part).unwrap();
                self.taken.append(&mut part);
            }
            Err(error) => assert!(is_for_later(&error), "{error}"),
        }
    }

    fn client_takes(&mut self, into: &mut Vec<u8>) {
        self.pull();
        into.append(&mut self.taken);
    }

    fn receive(&mut self, into: &mut Vec<u8>) {
        let mut part = vec![0; READ_BYTES_MIN];
        match self.server.read(&mut part) {
            Ok(received) => into.extend_from_slice(&part[..received.bytes]),
            Err(error) => assert!(is_for_later(&error), "{error}"),
        }
        self.server.flush().unwrap();
    }

    /// What the server reads next, whatever comes.
    fn next(&mut self, into: &mut [u8]) -> io::Result<super::Received> {
        loop {
            match self.server.read(into) {
                Err(error) if is_for_later(&error) => {}
                other => return other,
            }
        }
    }

    fn read_some(&mut self, into: &mut [u8]) -> super::Received {
        self.next(into).unwrap()
    }

    fn failure(&mut self) -> io::Error {
        self.next(&mut vec![0; READ_BYTES_MIN]).unwrap_err()
    }

    fn say(&mut self, text: &[u8]) -> usize {
        match self.server.write(text) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        }
    }

    /// The lengths of the records that the server has written, to the last one.
    fn records(&mut self) -> Vec<usize> {
        let mut stream = Vec::new();
        while self.server.wants_flush() || stream.is_empty() {
            self.server.flush().unwrap();
            let mut part = vec![0; 70_000];
            if let Ok(count) = self.socket.read(&mut part) {
                stream.extend_from_slice(&part[..count]);
            }
        }
        let mut records = Vec::new();
        loop {
            let mut rest = &stream[..];
            records.clear();
            while let [_, _, _, high, low, ..] = rest {
                let length = 5 + usize::from(u16::from_be_bytes([*high, *low]));
                records.push(length);
                rest = rest.get(length..).unwrap_or(&[]);
            }
            if records.iter().sum::<usize>() == stream.len() {
                return records;
            }
            let mut part = vec![0; 70_000];
            if let Ok(count) = self.socket.read(&mut part) {
                stream.extend_from_slice(&part[..count]);
            }
        }
    }
}

/// A socket that takes and gives no more than so much at once.
struct Cut<'a>(&'a TcpStream, usize);

impl io::Read for Cut<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(self.1);
        self.0.read(&mut into[..most])
    }
}

impl io::Write for Cut<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(self.1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

/// A certificate for `localhost` that all tests share.
fn files() -> &'static Files {
    static MADE: OnceLock<(TempDir, Files)> = OnceLock::new();
    let (_, files) = MADE.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let files = make(folder.path());
        (folder, files)
    });
    files
}

fn make(folder: &Path) -> Files {
    let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-out"])
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .expect("the tests need the program `openssl`");
    assert!(made.status.success(), "{made:?}");
    Options { certificate: Some(certificate), key: Some(key), client_ca: None }.files().unwrap()
}
