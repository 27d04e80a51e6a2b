"""`/api/v1` on the admin listener: who is disconnected, which tokens count no more, and the drain."""

import asyncio
import json
import selectors
import socket
import struct
import time
import unittest
import urllib.error
import urllib.request
from collections import Counter

import jwt
from support import DEADLINE, SECRET, Client, Gateway, fetch, poll, poll_async


def call(gateway, method, path, body=None, **headers):
    """Status and JSON of an answer."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    request = urllib.request.Request(gateway.admin + path, data=data, headers=headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=DEADLINE) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            text = error.read()
            return error.code, json.loads(text) if text.startswith(b"{") else text.decode()


async def acall(*args, **options):
    return await asyncio.to_thread(call, *args, **options)


class Requests(unittest.TestCase):
    def setUp(self):
        self.gateway = self.enterContext(Gateway())

    def test_what_cannot_be_understood_is_refused_and_named(self):
        path = "/api/v1/disconnect"
        for body, status, part in [
            (b"{", 400, "line 1 column 1"),
            ({"usr": 7}, 400, "unknown field `usr`, expected one of `user`, `client_id`, `reason`"),
            ({}, 400, "exactly one of `user` and `client_id`"),
            ({"user": 7, "client_id": "0000000000000001"}, 400, "exactly one"),
            ({"user": ""}, 400, "1 to 128 bytes"),
            ({"user": -1}, 400, "unsigned integer"),
            ({"client_id": "7"}, 400, "16 hexadecimal digits"),
            ({"user": 7, "reason": "x" * 124}, 400, "at most 123"),
            (b'{"user": "' + b"x" * 70_000 + b'"}', 413, "65536 bytes"),
        ]:
            found, answer = call(self.gateway, "POST", path, body)
            self.assertEqual(found, status, answer)
            self.assertIn(part, answer["message"])
        found, answer = call(self.gateway, "POST", path, {"user": 7}, Content_Type="text/plain")
        self.assertEqual((found, answer["error"]), (415, "not_json"))
        found, answer = call(self.gateway, "POST", path, {"user": 7}, Origin="https://evil.example")
        self.assertEqual((found, answer["error"]), (403, "forbidden"))
        found, answer = call(self.gateway, "GET", path)
        self.assertEqual((found, answer["error"]), (405, "method_not_allowed"))
        found, answer = call(self.gateway, "POST", "/api/v1/nothing", {})
        self.assertEqual((found, answer["error"]), (404, "not_found"))
        self.assertEqual(call(self.gateway, "POST", "/api/v1/revoke", {"user": 7})[0], 409, "there are no tokens")
        series = 'fanfare_http_requests_total{route="/api/v1/disconnect",method="POST",code="413"}'
        self.assertEqual(self.gateway.scrape()[series], 1)


class Disconnecting(unittest.IsolatedAsyncioTestCase):
    async def test_a_user_and_a_single_connection_are_closed_with_4501_and_nobody_else(self):
        with Gateway() as gateway:
            ann = [await Client.open(gateway, "user=ann") for _ in range(4)]
            seven = await Client.open(gateway, "user=7")
            ben = await Client.open(gateway, "user=ben")
            status, answer = await acall(gateway, "POST", "/api/v1/disconnect", {"user": "ann", "reason": "banned"})
            self.assertEqual((status, answer), (200, {"closed": 4, "missing_shards": []}))
            for client in ann:
                self.assertEqual(await client.closed(), 4501)
                self.assertEqual(client.connection.close_reason, "banned")
            await acall(gateway, "POST", "/api/v1/disconnect", {"client_id": seven.welcome["client_id"]})
            self.assertEqual(await seven.closed(), 4501)
            self.assertEqual((await acall(gateway, "POST", "/api/v1/disconnect", {"user": 7}))[1]["closed"], 0)
            self.assertEqual((await ben.request(type="join", room_id=1))["type"], "ack")
            await ben.close()
            again = await Client.open(gateway, "user=ann")
            await again.close()


class Revoking(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.gateway = self.enterContext(Gateway("--auth", "jwt", AUTH__SECRET=SECRET))

    def token(self, user, **claims):
        now = int(time.time())
        return jwt.encode({"sub": user, "exp": now + 600, "iat": now - 60, **claims}, SECRET, algorithm="HS256")

    async def status(self, token):
        return (await asyncio.to_thread(fetch, f"{self.gateway.base}/ws?token={token}"))[0]

    async def enter(self, token):
        return await Client.open(self.gateway, f"token={token}")

    async def refused(self, token):
        """Whether the handshake with this token is answered 401."""
        try:
            client = await self.enter(token)
        except Exception as error:
            self.assertIn("401", str(error))
            return True
        await client.close()
        return False

    async def test_a_token_is_revoked_by_its_id(self):
        stolen, other = self.token("ann", jti="t1"), self.token("ann", jti="t2")
        victims = [await self.enter(stolen) for _ in range(3)]
        spared = await self.enter(other)
        renewed = await self.enter(other)
        self.assertEqual((await renewed.request(type="auth", token=stolen))["type"], "ack")
        status, answer = await acall(self.gateway, "POST", "/api/v1/revoke", {"token_id": "t1"})
        self.assertEqual((status, answer["closed"]), (200, 4))
        for client in [*victims, renewed]:
            self.assertEqual(await client.closed(), 4500)
        self.assertTrue(await self.refused(stolen))
        self.assertFalse(await self.refused(other))
        answer = await spared.request(type="auth", token=stolen)
        self.assertEqual((answer["type"], answer["code"]), ("error", "forbidden"))
        self.assertIn("revoked", answer["content"])
        await spared.close()
        samples = self.gateway.scrape()
        self.assertEqual(samples['fanfare_auth_attempts_total{result="revoked"}'], 1)
        self.assertEqual(samples['fanfare_connections_closed_total{reason="token_revoked"}'], 4)

    async def test_all_tokens_of_a_user_up_to_now_are_revoked_and_newer_ones_count(self):
        old, timeless = self.token(7), jwt.encode({"sub": 7, "exp": 2**33}, SECRET, algorithm="HS256")
        clients = [await self.enter(old), await self.enter(timeless)]
        ben = await self.enter(self.token("ben"))
        status, answer = await acall(self.gateway, "POST", "/api/v1/revoke", {"user": 7})
        self.assertEqual((status, answer["closed"]), (200, 2))
        for client in clients:
            self.assertEqual(await client.closed(), 4500)
        self.assertTrue(await self.refused(old))
        self.assertTrue(await self.refused(timeless))
        self.assertFalse(await self.refused(self.token(7, iat=int(time.time()) + 2)))
        self.assertEqual((await ben.request(type="join", room_id=1))["type"], "ack")
        await ben.close()

    async def test_a_full_list_refuses_rather_than_forgets(self):
        with Gateway("--auth", "jwt", AUTH__SECRET=SECRET, AUTH__REVOCATIONS="2") as gateway:
            for number in range(2):
                self.assertEqual((await acall(gateway, "POST", "/api/v1/revoke", {"token_id": f"t{number}"}))[0], 200)
            status, answer = await acall(gateway, "POST", "/api/v1/revoke", {"token_id": "t2"})
            self.assertEqual((status, answer["error"]), (507, "no_room"))
            self.assertEqual((await acall(gateway, "POST", "/api/v1/revoke", {"token_id": "t1"}))[0], 200)


class Crowd:
    """Many clients that only wait to be closed."""

    def __init__(self, gateway, count):
        self.selector = selectors.DefaultSelector()
        self.pings = 0
        for number in range(count):
            sock = socket.create_connection((gateway.host, gateway.port))
            sock.sendall(
                f"GET /ws?user={number} HTTP/1.1\r\nHost: {gateway.host}:{gateway.port}\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
            )
            self.selector.register(sock, selectors.EVENT_READ, bytearray())

    def until_closed(self, at_most):
        """When each was closed, in seconds from now, with its code and advice; within `at_most` seconds."""
        begin, closed = time.monotonic(), []
        while self.selector.get_map() and time.monotonic() < begin + at_most:
            for key, _ in self.selector.select(timeout=0.05):
                data = key.fileobj.recv(65536)
                key.data.extend(data)
                if data:
                    continue
                at = time.monotonic() - begin
                code = struct.unpack("!H", key.data[-2 - len(b"the gateway is shutting down"):][:2])[0]
                advice = key.data.rindex(b'{"type":"reconnect"')
                after = json.loads(key.data[advice:key.data.index(b"}", advice) + 1])["after_ms"]
                closed.append((at, code, after))
                self.selector.unregister(key.fileobj)
                key.fileobj.close()
        return closed

    def close(self):
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()


class Draining(unittest.TestCase):
    def test_five_thousand_clients_are_closed_evenly_and_none_is_left_at_the_deadline(self):
        clients, window = 5000, 5
        with Gateway() as gateway:
            crowd = Crowd(gateway, clients)
            self.addCleanup(crowd.close)
            poll("connected", lambda: gateway.scrape()['fanfare_connections{transport="ws"}'] == clients)
            status, answer = call(gateway, "POST", "/api/v1/drain", {"window_seconds": window})
            self.assertEqual((status, answer["state"], answer["of"]), (200, "draining", clients))
            self.assertEqual(fetch(gateway.admin + "/readyz")[0], 503)
            self.assertEqual(fetch(gateway.base + "/ws")[0], 503)
            closed = crowd.until_closed(window + 2)
            self.assertEqual(len(closed), clients)
            self.assertEqual({code for _, code, _ in closed}, {1001})
            self.assertLess(max(at for at, _, _ in closed), window + 1)
            a_second = Counter(int(at) for at, _, _ in closed)
            self.assertLessEqual(max(a_second.values()), 1.2 * clients / window, a_second)
            after = sorted(after for _, _, after in closed)
            self.assertLess(after[clients // 10], 1000 * window / 5)
            self.assertGreater(after[-clients // 10], 1000 * window / 2)
            poll("drained", lambda: call(gateway, "GET", "/api/v1/drain")[1]["state"] == "drained")
            self.assertEqual(call(gateway, "GET", "/api/v1/drain")[1]["progress"], 1)
            self.assertEqual(gateway.scrape()["fanfare_drain_progress_ratio"], 1)
            self.assertIsNone(gateway.process.poll(), "it stays until it is told to end")
            self.assertEqual(gateway.stop(), 0)

    def test_a_drain_that_is_aborted_keeps_who_is_left(self):
        with Gateway() as gateway:
            crowd = Crowd(gateway, 200)
            self.addCleanup(crowd.close)
            poll("connected", lambda: gateway.scrape()['fanfare_connections{transport="ws"}'] == 200)
            call(gateway, "POST", "/api/v1/drain", {"window_seconds": 60})
            poll("under way", lambda: call(gateway, "GET", "/api/v1/drain")[1]["connections"] < 199)
            status, answer = call(gateway, "DELETE", "/api/v1/drain")
            self.assertEqual((status, answer["state"], answer["progress"]), (200, "running", 0))
            left = call(gateway, "GET", "/api/v1/drain")[1]["connections"]
            self.assertGreater(left, 150)
            poll("ready", lambda: fetch(gateway.admin + "/readyz")[0] == 200)
            self.assertEqual(gateway.scrape()["fanfare_draining"], 0)
            newcomer = Crowd(gateway, 1)
            self.addCleanup(newcomer.close)
            poll("one more", lambda: gateway.scrape()['fanfare_connections{transport="ws"}'] == left + 1)

    def test_the_end_of_the_process_cannot_be_aborted_and_wants_a_window_that_can_be(self):
        with Gateway(DRAIN__WINDOW="60s") as gateway:
            crowd = Crowd(gateway, 10)
            self.addCleanup(crowd.close)
            poll("connected", lambda: gateway.scrape()['fanfare_connections{transport="ws"}'] == 10)
            for window in [-1, 1e9]:
                status, answer = call(gateway, "POST", "/api/v1/drain", {"window_seconds": window})
                self.assertEqual((status, answer["error"]), (400, "bad_request"))
            gateway.signal(15)
            poll("ending", lambda: call(gateway, "GET", "/api/v1/drain")[1]["state"] == "ending")
            status, answer = call(gateway, "DELETE", "/api/v1/drain")
            self.assertEqual((status, answer["error"]), (409, "conflict"))
            gateway.signal(15)
            self.assertEqual(gateway.wait(), 0)
