"""Keys that rotate: several public keys, and sets of keys (JWKS) from a file and from an address."""

import asyncio
import contextlib
import datetime
import ipaddress
import json
import os
import ssl
import subprocess
import tempfile
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from support import BINARY, DEADLINE, Client, Gateway, Served, clean_environment, fetch, poll_async
from test_api import acall
from websockets.exceptions import InvalidStatus

KINDS = {
    "RS256": (lambda: rsa.generate_private_key(65537, 2048), RSAAlgorithm),
    "ES256": (lambda: ec.generate_private_key(ec.SECP256R1()), ECAlgorithm),
    "EdDSA": (ed25519.Ed25519PrivateKey.generate, OKPAlgorithm),
}


class Key:
    """A private key of an issuer, and its public half as the gateway may be given it."""

    def __init__(self, algorithm, kid=None):
        make, self.kind = KINDS[algorithm]
        self.algorithm, self.kid, self.private = algorithm, kid, make()

    def token(self, user="ann", ttl=600, kid=None, **claims):
        headers = {"kid": kid or self.kid} if kid or self.kid else None
        claims = {"sub": user, "exp": int(time.time()) + ttl, **claims}
        return jwt.encode(claims, self.private, algorithm=self.algorithm, headers=headers)

    def jwk(self, **more):
        names = {"kid": self.kid} if self.kid else {}
        return {**self.kind.to_jwk(self.private.public_key(), as_dict=True), **names, "use": "sig", **more}

    def pem(self):
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.private.public_key().public_bytes(serialization.Encoding.PEM, form)


def jwks(*keys):
    return json.dumps({"keys": [key.jwk() if isinstance(key, Key) else key for key in keys]}).encode()


class Issuer(Served):
    """An address that answers with a set of keys, or with what a test wants to see go wrong."""

    def __init__(self, body, port=0, tls=None):
        self.body, self.status, self.headers = body, 200, {}
        self.asked = 0
        self.over = threading.Event()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                issuer.asked += 1
                self.send_response(issuer.status)
                body = issuer.body
                known = {"Content-Length": str(len(body))} if isinstance(body, bytes) else {}
                for name, value in {**known, **issuer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):
                    for part in [body] if isinstance(body, bytes) else body():
                        self.wfile.write(part)

            def log_message(self, *_):
                pass

        super().__init__(Handler, "/jwks.json", port, tls)

    def endless(self):
        while not self.over.is_set():
            yield b" " * 65536

    def dribble(self):
        while not self.over.wait(0.2):
            yield b" "

    def close(self):
        self.over.set()
        super().close()


async def enters(gateway, token):
    """Whether a client with this token is let in; no other refusal than 401 will do."""
    try:
        client = await Client.open(gateway, f"token={token}")
    except InvalidStatus as refused:
        assert refused.response.status_code == 401, refused
        return False
    await client.close()
    return True


async def entering(gateway, token):
    """Waits until the token is good."""
    end = time.monotonic() + DEADLINE
    while not await enters(gateway, token):
        assert time.monotonic() < end, f"still 401; log: {''.join(gateway.log)}"
        await asyncio.sleep(0.05)


def counted(gateway, result):
    return gateway.scrape()[f'fanfare_jwks_refreshes_total{{result="{result}"}}']


async def another(gateway, result):
    """Waits for one more reading that ends so."""
    before = counted(gateway, result)
    await poll_async(f"refreshes: {result}", lambda: counted(gateway, result) > before)


class Keys(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def file(self, name, content):
        """Written beside and put in its place, as whoever changes it while it is read should."""
        path = self.folder / name
        beside = self.folder / f".{name}"
        beside.write_bytes(content)
        beside.rename(path)
        return str(path)

    def gateway(self, **settings):
        gateway = Gateway("--auth", "jwt", **{f"AUTH__{key}": value for key, value in settings.items()})
        return self.enterContext(gateway)

    def issuer(self, *arguments, **options):
        issuer = Issuer(*arguments, **options)
        self.addCleanup(issuer.close)
        return issuer


class PublicKeys(Keys):
    async def test_any_of_several_keys_may_have_signed(self):
        keys = [Key("RS256"), Key("EdDSA"), Key("EdDSA"), Key("ES256")]
        paths = [self.file(f"{number}.pem", key.pem()) for number, key in enumerate(keys)]
        gateway = self.gateway(PUBLIC_KEY=",".join(paths))
        for key in keys:
            self.assertTrue(await enters(gateway, key.token()), key.algorithm)
            self.assertTrue(await enters(gateway, key.token(kid="whatever")), key.algorithm)
        self.assertFalse(await enters(gateway, Key("EdDSA").token()))
        self.assertEqual(gateway.scrape()['fanfare_auth_attempts_total{result="bad_signature"}'], 1)

    async def test_one_key_alone_still_works(self):
        key = Key("ES256")
        self.assertTrue(await enters(self.gateway(PUBLIC_KEY=self.file("one.pem", key.pem())), key.token()))


class Files(Keys):
    async def test_keys_of_every_kind_verify_and_odd_ones_are_skipped(self):
        keys = [Key("RS256", "r"), Key("ES256", "e"), Key("EdDSA", "d")]
        hidden = Key("EdDSA", "enc")
        odd = [{"kty": "what"}, 7, hidden.jwk(use="enc"), {"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}]
        gateway = self.gateway(JWKS=self.file("jwks.json", jwks(*odd, *keys)))
        for key in keys:
            self.assertTrue(await enters(gateway, key.token()), key.algorithm)
        self.assertFalse(await enters(gateway, hidden.token()))
        named_wrongly = keys[1].token(kid="r")
        self.assertFalse(await enters(gateway, named_wrongly), "an ES256 token by an RSA key")
        samples = gateway.scrape()
        self.assertEqual(samples['fanfare_auth_attempts_total{result="unknown_key"}'], 1)
        self.assertEqual(samples['fanfare_auth_attempts_total{result="wrong_algorithm"}'], 1)

    async def test_a_changed_file_is_taken_over_and_a_broken_one_is_not(self):
        old, new = Key("RS256", "1"), Key("ES256", "2")
        path = self.file("jwks.json", jwks(old))
        gateway = self.gateway(JWKS=path)
        self.assertTrue(await enters(gateway, old.token()))
        self.file("jwks.json", jwks(old, new))
        await entering(gateway, new.token())
        self.assertTrue(await enters(gateway, old.token()), "they overlap")
        for broken in (b'{"keys": [{"kty": "hush"', b'{"keys": []}', b""):
            self.file("jwks.json", broken)
            await another(gateway, "error")
            self.assertTrue(await enters(gateway, new.token()), broken)
        os.unlink(path)
        await another(gateway, "error")
        self.assertTrue(await enters(gateway, new.token()), "the file is gone")
        self.file("jwks.json", jwks(new))
        await another(gateway, "ok")
        self.assertFalse(await enters(gateway, old.token()), "rotated out")
        self.assertNotIn("hush", "".join(gateway.log))

    async def test_live_connections_renew_expire_and_are_revoked_whatever_becomes_of_their_key(self):
        old, new = Key("EdDSA", "1"), Key("EdDSA", "2")
        gateway = self.gateway(JWKS=self.file("jwks.json", jwks(old)))
        renewing = await Client.open(gateway, f"token={old.token(ttl=12, jti='a')}")
        expiring = await Client.open(gateway, f"token={old.token(ttl=12, jti='b')}")
        revoked = await Client.open(gateway, f"token={old.token(jti='c')}")
        answer = await renewing.request(type="auth", token=new.token())
        self.assertEqual((answer["type"], answer["code"]), ("error", "forbidden"), answer)
        self.file("jwks.json", jwks(new))
        await entering(gateway, new.token())
        self.assertEqual((await revoked.request(type="ping"))["type"], "pong", "its key is gone, its token counts")
        answer = await renewing.request(type="auth", token=old.token())
        self.assertEqual((answer["type"], answer["code"]), ("error", "forbidden"), answer)
        answer = await renewing.request(type="auth", token=new.token(ttl=300))
        self.assertEqual(answer["type"], "ack", answer)
        self.assertGreater(answer["expires_in"], 200)
        await acall(gateway, "POST", "/api/v1/revoke", {"token_id": "c"})
        self.assertEqual(await revoked.closed(), 4500)
        self.assertEqual(await expiring.closed(), 4500)
        self.assertEqual((await renewing.request(type="ping"))["type"], "pong")
        await renewing.close()

    async def test_secrets_in_a_file_are_used_and_public_keys_never_are_secrets(self):
        secret, key = os.urandom(32), Key("RS256", "r")
        encoded = jwt.utils.base64url_encode(secret).decode()
        path = self.file("jwks.json", jwks(key, {"kty": "oct", "k": encoded, "kid": "s"}))
        gateway = self.gateway(JWKS=path)
        claims = {"sub": "ann", "exp": int(time.time()) + 600}
        self.assertTrue(await enters(gateway, jwt.encode(claims, secret, headers={"kid": "s"})))
        # PyJWT refuses to sign with the text of a key, an attacker would not: the modulus serves as well.
        modulus = jwt.utils.base64url_decode(key.jwk()["n"])
        for stolen in (modulus, key.jwk()["n"].encode()):
            self.assertFalse(await enters(gateway, jwt.encode(claims, stolen, headers={"kid": "r"})))
            self.assertFalse(await enters(gateway, jwt.encode(claims, stolen)))

    def test_a_file_that_cannot_be_used_stops_the_start(self):
        for name, content, reason in [
            ("none.json", None, "cannot be read"),
            ("broken.json", b"{", "is not JSON"),
            ("empty.json", b'{"keys":[]}', "no key that can verify"),
            ("large.json", b" " * (512 * 1024 + 1), "longer than"),
        ]:
            path = str(self.folder / name) if content is None else self.file(name, content)
            settings = clean_environment(AUTH__MODE="jwt", AUTH__JWKS=path, LISTEN="127.0.0.1:0", ADMIN_LISTEN="127.0.0.1:0")
            done = subprocess.run([BINARY], env=settings, capture_output=True, text=True, timeout=DEADLINE, check=False)
            self.assertEqual(done.returncode, 2, name)
            self.assertIn("auth.jwks: ", done.stderr)
            self.assertIn(reason, done.stderr)


class Addresses(Keys):
    async def test_an_unknown_key_has_the_set_asked_for_anew(self):
        old, new = Key("RS256", "1"), Key("ES256", "2")
        issuer = self.issuer(jwks(old))
        gateway = self.gateway(JWKS=issuer.url)
        await entering(gateway, old.token())
        self.assertEqual(issuer.asked, 1)
        issuer.body = jwks(old, new)
        self.assertFalse(await enters(gateway, new.token()), "nobody waits in the handshake")
        await entering(gateway, new.token())
        self.assertTrue(await enters(gateway, old.token()))
        for number in range(20):
            self.assertFalse(await enters(gateway, new.token(kid=f"made-up-{number}")))
        self.assertEqual(issuer.asked, 2, "not once more within thirty seconds")
        self.assertGreaterEqual(gateway.scrape()['fanfare_auth_attempts_total{result="unknown_key"}'], 21)

    async def test_what_came_over_the_network_holds_no_secrets(self):
        secret, key = os.urandom(32), Key("EdDSA", "d")
        encoded = jwt.utils.base64url_encode(secret).decode()
        gateway = self.gateway(JWKS=self.issuer(jwks(key, {"kty": "oct", "k": encoded, "kid": "s"})).url)
        await entering(gateway, key.token())
        claims = {"sub": "ann", "exp": int(time.time()) + 600}
        self.assertFalse(await enters(gateway, jwt.encode(claims, secret, headers={"kid": "s"})))

    async def test_a_gateway_without_keys_says_so_and_is_ready_when_it_has_them(self):
        key = Key("EdDSA", "1")
        first = Issuer(jwks(key))
        first.close()
        gateway = self.gateway(JWKS=first.url)
        status, body = await asyncio.to_thread(fetch, gateway.admin + "/readyz")
        self.assertEqual((status, json.loads(body)["reasons"][0]["reason"]), (503, "keys_missing"))
        self.assertFalse(await enters(gateway, key.token()))
        await poll_async("an error", lambda: counted(gateway, "error"))
        status, body = await asyncio.to_thread(fetch, gateway.admin + "/readyz")
        self.assertIn("Connection refused", json.loads(body)["reasons"][0]["detail"])
        self.issuer(jwks(key), port=first.port)
        await entering(gateway, key.token())
        self.assertEqual((await asyncio.to_thread(fetch, gateway.admin + "/readyz"))[0], 200)
        self.assertLess(abs(gateway.scrape()["fanfare_jwks_last_success_timestamp_seconds"] - time.time()), DEADLINE)

    async def test_the_keys_outlive_an_issuer_that_is_gone_or_talks_rubbish(self):
        key = Key("ES256", "1")
        issuer = self.issuer(jwks(key))
        elsewhere = self.issuer(jwks(Key("ES256", "1")))
        gateway = self.gateway(JWKS=issuer.url, JWKS_REFRESH="1s")
        await entering(gateway, key.token())
        for what, body, status, headers in [
            ("broken", b'{"keys": [{"hush": 7]}', 200, {}),
            ("not a set", b'"hush"', 200, {}),
            ("no keys", b'{"keys": []}', 200, {}),
            ("cut short", b'{"keys":', 200, {"Content-Length": "100"}),
            ("an error", jwks(Key("ES256", "1")), 500, {}),
            ("a redirection", b"", 302, {"Location": elsewhere.url}),
            ("too long", issuer.endless, 200, {}),
            ("too long a head", jwks(Key("ES256", "1")), 200, {"X-Long": "x" * 60_000}),
            ("too slow", issuer.dribble, 200, {}),
        ]:
            issuer.body, issuer.status, issuer.headers = body, status, headers
            await another(gateway, "error")
            self.assertTrue(await enters(gateway, key.token()), what)
            issuer.body, issuer.status, issuer.headers = jwks(key), 200, {}
            await another(gateway, "ok")
        self.assertEqual(elsewhere.asked, 0, "redirections are not followed")
        issuer.close()
        await another(gateway, "error")
        self.assertTrue(await enters(gateway, key.token()), "the issuer is gone")
        self.assertEqual((await asyncio.to_thread(fetch, gateway.admin + "/readyz"))[0], 200)
        log = "".join(gateway.log)
        self.assertIn("`auth.jwks` could not be read", log)
        self.assertNotIn("hush", log)
        self.issuer(jwks(key), port=issuer.port)
        await another(gateway, "ok")

    async def test_an_address_with_tls_must_have_a_certificate_that_is_trusted(self):
        key = Key("RS256", "1")
        certificate, private = self.certificate()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, private)
        issuer = self.issuer(jwks(key), tls=context)
        await entering(self.gateway(JWKS=issuer.url, JWKS_CA=certificate), key.token())
        # So that there is a list of trusted certificates, whatever the system has.
        other, _ = self.certificate()
        distrustful = self.gateway(JWKS=issuer.url, JWKS_CA=other)
        await poll_async("an error", lambda: counted(distrustful, "error"))
        self.assertFalse(await enters(distrustful, key.token()))
        status, body = await asyncio.to_thread(fetch, distrustful.admin + "/readyz")
        self.assertIn("certificate", json.loads(body)["reasons"][0]["detail"])

    def certificate(self):
        """Paths of a certificate for 127.0.0.1 that certifies itself, and of its private key."""
        private = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, os.urandom(4).hex())])
        now = datetime.datetime.now(datetime.timezone.utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .sign(private, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        form = serialization.PrivateFormat.PKCS8
        stem = certificate.serial_number
        return (
            self.file(f"{stem}.pem", certificate.public_bytes(pem)),
            self.file(f"{stem}.key", private.private_bytes(pem, form, serialization.NoEncryption())),
        )
