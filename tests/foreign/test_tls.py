"""TLS, as Python's own sees it: versions, certificates and their reload, and the same promises as on a plain socket."""

import asyncio
import json
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import time
import unittest
import warnings
from pathlib import Path

from certificates import Authority
from websockets.exceptions import InvalidMessage

from support import (
    BINARY,
    DEADLINE,
    Client,
    Gateway,
    RawClient,
    clean_environment,
    masked,
    poll,
    poll_async,
)

FAILED = 'fanfare_handshake_failures_total{reason="tls"}'
TIMEOUT = 'fanfare_handshake_failures_total{reason="timeout"}'
RELOADED = 'fanfare_tls_reloads_total{result="ok"}'
REFUSED = 'fanfare_tls_reloads_total{result="error"}'
NOT_AFTER = "fanfare_tls_certificate_not_after_timestamp_seconds"
DAY = 24 * 60 * 60


class TlsTest(unittest.IsolatedAsyncioTestCase):
    """Certificates for a gateway in a folder of their own."""

    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.authority = Authority(cls.folder)
        cls.first = cls.authority.issue("first")
        cls.second = cls.authority.issue("second", days=10)

    def setUp(self):
        self.certificate, self.key = self.folder / "tls.crt", self.folder / "tls.key"
        self.put(self.first)

    def put(self, pair):
        shutil.copy(pair[0], self.certificate)
        shutil.copy(pair[1], self.key)

    def gateway(self, *args, **settings):
        gateway = Gateway(*args, TLS__CERTIFICATE=str(self.certificate), TLS__KEY=str(self.key), **settings)
        self.addCleanup(gateway.stop)
        return gateway

    def context(self, version=None, protocols=("http/1.1",), pair=None):
        context = ssl.create_default_context(cafile=self.authority.certificate)
        if version:
            context.minimum_version = context.maximum_version = version
        if protocols:
            context.set_alpn_protocols(list(protocols))
        if pair:
            context.load_cert_chain(*pair)
        return context

    def open(self, gateway, query="", **options):
        options.setdefault("ssl", self.context())
        return Client.open(gateway, query, server_hostname="localhost", **options)

    def name(self, gateway):
        """Whose certificate a new connection is shown."""
        with socket.create_connection((gateway.host, gateway.port), DEADLINE) as sock:
            with self.context().wrap_socket(sock, server_hostname="localhost") as tls:
                return dict(field for (field,) in tls.getpeercert()["subject"])["commonName"]

    def counted(self, gateway, series, count):
        poll(series, lambda: gateway.scrape()[series] == count)


class Handshakes(TlsTest):
    async def test_both_versions_carry_a_conversation_and_are_told_http_1_1(self):
        gateway = self.gateway()
        self.assertTrue(gateway.url.startswith("wss://"), gateway.url)
        for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
            client = await self.open(gateway, "user=7", ssl=self.context(version))
            tls = client.connection.transport.get_extra_info("ssl_object")
            self.assertEqual((tls.version(), tls.selected_alpn_protocol()), (name, "http/1.1"))
            self.assertEqual((await client.request(type="join", room_id=5))["type"], "ack")
            await client.send(type="message", room_id=5, content=name)
            self.assertEqual((await client.next_of("message"))["content"], name)
            await client.close()
            self.assertEqual(client.connection.close_code, 1000)
        samples = gateway.scrape()
        self.assertEqual((samples[FAILED], samples[RELOADED], samples[REFUSED]), (0, 0, 0))
        self.assertAlmostEqual(samples[NOT_AFTER], time.time() + 20 * DAY, delta=DAY / 10)

    async def test_a_client_without_alpn_is_served_and_one_for_http_2_alone_is_not(self):
        gateway = self.gateway()
        client = await self.open(gateway, ssl=self.context(protocols=()))
        await client.close()
        with self.assertRaises(ssl.SSLError):
            await self.open(gateway, ssl=self.context(protocols=["h2"]))
        await asyncio.to_thread(self.counted, gateway, FAILED, 1)

    async def test_old_versions_are_refused(self):
        gateway = self.gateway()
        context = self.context()
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            await self.open(gateway, ssl=context)
        await asyncio.to_thread(self.counted, gateway, FAILED, 1)

    async def test_a_session_is_resumed_by_its_ticket(self):
        gateway = self.gateway()
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.context(version)
            client = await asyncio.to_thread(RawClient, gateway, "user=1", context=context)
            await asyncio.to_thread(client.next_of, "welcome")
            session = client.socket.session
            client.close()
            with socket.create_connection((gateway.host, gateway.port), DEADLINE) as sock:
                with context.wrap_socket(sock, server_hostname="localhost", session=session) as tls:
                    self.assertTrue(tls.session_reused, version)

    async def test_client_certificates_are_required_where_an_authority_is_named(self):
        stranger = Authority(self.folder, "stranger").issue("impostor", usage="clientAuth")
        known = self.authority.issue("client", usage="clientAuth")
        gateway = self.gateway(TLS__CLIENT_CA=str(self.authority.certificate))
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            client = await self.open(gateway, ssl=self.context(version, pair=known))
            await client.close()
            for pair in (None, stranger):
                # With TLS 1.3 the client is done when it is refused, and sees that only by reading.
                with self.assertRaises((ssl.SSLError, ConnectionError, InvalidMessage)):
                    await self.open(gateway, ssl=self.context(version, pair=pair))
        await asyncio.to_thread(self.counted, gateway, FAILED, 4)

    async def test_plain_http_on_the_tls_port_is_gone_and_counted(self):
        gateway = self.gateway(LIMITS__HANDSHAKE="10s")
        with socket.create_connection((gateway.host, gateway.port), DEADLINE) as sock:
            sock.sendall(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while more := sock.recv(1000):
                answer += more
        self.assertEqual(answer[:1], b"\x15", "an alert, and no HTTP")
        self.counted(gateway, FAILED, 1)

    async def test_tls_on_a_plain_port_is_gone_and_counted(self):
        with Gateway(LIMITS__HANDSHAKE="10s") as gateway:
            with self.assertRaises((ssl.SSLError, ConnectionError)):
                self.name(gateway)
            self.counted(gateway, FAILED, 1)

    async def test_stalled_handshakes_are_gone_in_time(self):
        gateway = self.gateway(LIMITS__HANDSHAKE="1s")
        hello = ssl.MemoryBIO()
        try:
            self.context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost").do_handshake()
        except ssl.SSLWantReadError:
            pass
        hello = hello.read()
        begun = time.monotonic()
        socks = []
        for said in (b"", hello[:1], hello[:100], hello):
            sock = socket.create_connection((gateway.host, gateway.port), DEADLINE)
            sock.sendall(said)
            socks.append(sock)
        silent = self.context().wrap_socket(
            socket.create_connection((gateway.host, gateway.port), DEADLINE), server_hostname="localhost"
        )
        for sock in [*socks, silent]:
            try:
                while sock.recv(10_000):
                    pass
            except (ssl.SSLError, ConnectionError):
                pass
            sock.close()
        self.assertLess(time.monotonic() - begun, 5)
        self.counted(gateway, TIMEOUT, 5)
        self.assertEqual(sum(value for name, value in gateway.scrape().items() if name.startswith("fanfare_handshakes{")), 0)

    async def test_what_a_proxy_says_comes_before_tls(self):
        gateway = self.gateway(PROXY__TRUSTED="127.0.0.0/8", PROXY__PROTOCOL="true")
        header = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n"
        for is_one_segment in (True, False):
            # What TLS says goes through memory, so that its first bytes can follow the header in one write.
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = self.context().wrap_bio(incoming, outgoing, server_hostname="localhost")
            with socket.create_connection((gateway.host, gateway.port), DEADLINE) as sock:
                if not is_one_segment:
                    sock.sendall(header)
                ahead = header if is_one_segment else b""
                while True:
                    try:
                        tls.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        sock.sendall(ahead + outgoing.read())
                        ahead = b""
                        incoming.write(sock.recv(65536))
                tls.write(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
                sock.sendall(outgoing.read())
                answer = b""
                while b"404" not in answer:
                    incoming.write(sock.recv(65536))
                    try:
                        answer += tls.read()
                    except ssl.SSLWantReadError:
                        pass
        with socket.create_connection((gateway.host, gateway.port), DEADLINE) as sock:
            sock.sendall(b"\x16\x03\x01")
            self.assertEqual(sock.recv(100), b"", "TLS where the header should be: gone without a word")
        self.counted(gateway, 'fanfare_handshake_failures_total{reason="proxy"}', 1)

    async def test_pages_of_the_gateway_itself_may_connect_and_others_may_not(self):
        gateway = self.gateway()
        own = f"https://localhost:{gateway.port}"
        client = await self.open(gateway, origin=own)
        await client.close()
        with self.assertRaisesRegex(Exception, "403"):
            await self.open(gateway, origin="https://elsewhere.example")


class Reloads(TlsTest):
    async def test_sighup_takes_a_new_certificate_and_old_connections_live_on(self):
        gateway = self.gateway()
        old = await self.open(gateway, "user=1")
        self.put(self.second)
        gateway.signal(signal.SIGHUP)
        await asyncio.to_thread(self.counted, gateway, RELOADED, 1)
        self.assertEqual(self.name(gateway), "second")
        self.assertAlmostEqual(gateway.scrape()[NOT_AFTER], time.time() + 10 * DAY, delta=DAY / 10)
        new = await self.open(gateway, "user=2")
        for client in (old, new):
            self.assertEqual((await client.request(type="join", room_id=5))["type"], "ack")
        await new.send(type="message", room_id=5, content="over both")
        self.assertEqual((await old.next_of("message"))["content"], "over both")

    async def test_files_that_change_are_taken_by_themselves(self):
        gateway = self.gateway()
        self.assertEqual(self.name(gateway), "first")
        self.put(self.second)
        await asyncio.to_thread(self.counted, gateway, RELOADED, 1)
        self.assertEqual(self.name(gateway), "second")
        self.assertEqual(gateway.scrape()[REFUSED], 0)

    async def test_broken_files_are_refused_and_counted_once_and_the_old_certificate_stays(self):
        gateway = self.gateway()
        shutil.copy(self.second[0], self.certificate)
        await asyncio.to_thread(self.counted, gateway, REFUSED, 1)
        self.certificate.write_text("no certificate at all\n")
        gateway.signal(signal.SIGHUP)
        await asyncio.to_thread(self.counted, gateway, REFUSED, 2)
        self.certificate.unlink()
        await asyncio.to_thread(self.counted, gateway, REFUSED, 3)
        self.assertEqual(self.name(gateway), "first")
        client = await self.open(gateway)
        await client.close()
        self.put(self.second)
        await asyncio.to_thread(self.counted, gateway, RELOADED, 1)
        self.assertEqual(self.name(gateway), "second")
        gateway.stop()
        log = "".join(gateway.log)
        self.assertEqual(log.count("a new certificate is no good"), 3, log)
        for line in self.first[1].read_text().splitlines() + self.second[1].read_text().splitlines():
            self.assertNotIn(line, log)

    def test_sighup_without_tls_ends_nothing(self):
        with Gateway() as gateway:
            gateway.signal(signal.SIGHUP)
            poll("the line", lambda: any("the configuration was read again" in line for line in gateway.log))
            gateway.scrape()


class Configuration(TlsTest):
    def run_fanfare(self, *args, **settings):
        done = subprocess.run(
            [BINARY, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", *args],
            env=clean_environment(**settings), capture_output=True, text=True, timeout=DEADLINE, check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def test_bad_files_are_named_with_their_key_and_nothing_starts(self):
        garbage, missing = self.folder / "garbage", self.folder / "missing"
        garbage.write_text("garbage\n")
        certificate, key = str(self.first[0]), str(self.first[1])
        rows = [
            ({"TLS__CERTIFICATE": certificate}, "tls.certificate: needs `tls.key`"),
            ({"TLS__KEY": key}, "tls.key: needs `tls.certificate`"),
            ({"TLS__CLIENT_CA": certificate}, "tls.client_ca: needs `tls.certificate`"),
            ({"TLS__CERTIFICATE": missing, "TLS__KEY": key}, "tls.certificate: `{missing}`: cannot be read"),
            ({"TLS__CERTIFICATE": garbage, "TLS__KEY": key}, "tls.certificate: `{garbage}`: holds no certificate"),
            ({"TLS__CERTIFICATE": certificate, "TLS__KEY": garbage}, "tls.key: `{garbage}`: holds no private key"),
            ({"TLS__CERTIFICATE": certificate, "TLS__KEY": self.second[1]}, "tls.key: `{second}`: does not fit"),
            (
                {"TLS__CERTIFICATE": certificate, "TLS__KEY": key, "TLS__CLIENT_CA": garbage},
                "tls.client_ca: `{garbage}`: holds no certificate",
            ),
        ]
        for settings, reason in rows:
            reason = reason.format(missing=missing, garbage=garbage, second=self.second[1])
            for command in ("check", "serve"):
                code, text = self.run_fanfare(command, **{name: str(path) for name, path in settings.items()})
                self.assertEqual(code, 2, text)
                self.assertIn(reason, text)
                self.assertNotIn("listening", text)

    def test_the_key_is_not_shown(self):
        settings = {"TLS__CERTIFICATE": str(self.first[0]), "TLS__KEY": str(self.first[1])}
        code, text = self.run_fanfare("config", **settings)
        self.assertEqual(code, 0, text)
        self.assertIn(f'key = "{self.first[1]}"', text)
        for line in self.first[1].read_text().splitlines():
            self.assertNotIn(line, text)


class Promises(TlsTest):
    async def test_frames_right_behind_the_request_are_processed(self):
        gateway = self.gateway()
        ahead = b"".join(masked(0x81, json.dumps({"type": "ping", "id": str(n)}).encode()) for n in range(1000))
        client = await asyncio.to_thread(RawClient, gateway, "user=1", ahead=ahead, context=self.context())
        for number in range(1000):
            self.assertEqual((await asyncio.to_thread(client.next_of, "pong"))["id"], str(number))
        client.close()

    async def test_a_big_room_gets_every_message_of_any_size_in_order(self):
        gateway = self.gateway()
        clients = [await self.open(gateway, f"user={number}", max_size=None) for number in range(60)]
        for client in clients:
            await client.request(type="join", room_id=5)
        sizes = [1, 100, 16_000, 16_384, 17_000, 60_000] * 8
        texts = [f"{number}:" + chr(97 + number % 26) * size for number, size in enumerate(sizes)]

        async def collect(client):
            return [(await client.next_of("message"))["content"] for _ in texts]

        collecting = [asyncio.create_task(collect(client)) for client in clients]
        for text in texts:
            await clients[0].send(type="message", room_id=5, content=text)
        for got in await asyncio.gather(*collecting):
            self.assertEqual(got, texts)

    async def test_a_message_of_64_kib_is_taken_and_a_longer_one_closes(self):
        gateway = self.gateway("--echo")
        client = await self.open(gateway, path="/echo", welcome=False, max_size=None)
        for size in (65_536, 65_537):
            await client.connection.send("x" * size)
            if size == 65_536:
                self.assertEqual(len(await client.connection.recv()), size)
        self.assertEqual(await client.closed(), 1009)

    async def test_a_slow_reader_is_closed_with_4008_and_others_get_everything(self):
        gateway = self.gateway(LIMITS__OUTBOUND_BYTES="256KiB")
        slow = await asyncio.to_thread(RawClient, gateway, "user=slow", receive_buffer=4096, context=self.context())
        await asyncio.to_thread(slow.send, type="join", room_id=5, id="joined")
        await asyncio.to_thread(slow.next_of, "ack")
        ann, ben = await self.open(gateway, "user=ann"), await self.open(gateway, "user=ben", max_size=None)
        for client in (ann, ben):
            await client.request(type="join", room_id=5)
        closed = 'fanfare_connections_closed_total{reason="slow_consumer"}'
        sent = 0
        while gateway.scrape()[closed] == 0:
            await ann.send(type="message", room_id=5, content=f"{sent}:" + "x" * 30_000)
            self.assertTrue((await ben.next_of("message"))["content"].startswith(f"{sent}:"))
            await ann.next_of("message")
            sent += 1
            self.assertLess(sent, 2000)
        messages, code = await asyncio.to_thread(slow.until_close)
        numbers = [int(message["content"].split(":")[0]) for message in messages if message["type"] == "message"]
        self.assertEqual(numbers, list(range(len(numbers))), "nothing is missing before the end")
        self.assertEqual(code, 4008)
        slow.close()

    async def test_close_notify_comes_before_the_end_and_ends_a_connection(self):
        gateway = self.gateway()
        # Without the flag, Python tells of an end that was not announced.
        context = self.context()
        context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
        client = await asyncio.to_thread(RawClient, gateway, "user=1", context=context)
        client.send_frame(0x88, struct.pack("!H", 1000))
        self.assertEqual((await asyncio.to_thread(client.until_close))[1], 1000)
        client.socket.suppress_ragged_eofs = False
        self.assertEqual(await asyncio.to_thread(client.socket.recv, 100), b"")
        client.close()

        half = await asyncio.to_thread(RawClient, gateway, "user=2", context=context)
        await asyncio.to_thread(half.next_of, "welcome")
        # Says close_notify, and waits for the other side's.
        plain = await asyncio.to_thread(half.socket.unwrap)
        self.assertEqual(await asyncio.to_thread(plain.recv, 100), b"")
        plain.close()
        ended = 'fanfare_connections_closed_total{reason="client"}'
        await poll_async("both ended", lambda: gateway.scrape()[ended] == 2)

    async def test_an_end_without_close_notify_is_an_error_of_the_connection(self):
        gateway = self.gateway()
        client = await asyncio.to_thread(RawClient, gateway, "user=1", context=self.context())
        await asyncio.to_thread(client.next_of, "welcome")
        client.close()
        cut = 'fanfare_connections_closed_total{reason="io_error"}'
        await poll_async("it is cut", lambda: gateway.scrape()[cut] == 1)

    async def test_a_drain_closes_connections_as_on_plain_sockets(self):
        gateway = self.gateway()
        client = await self.open(gateway)
        gateway.signal(signal.SIGTERM)
        self.assertEqual(await client.closed(), 1001)
        self.assertEqual(gateway.wait(), 0)


if __name__ == "__main__":
    unittest.main()
