"""What the gateway promises, asked of a running one through the Python `websockets` library."""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import time
import unittest
from http.client import HTTPConnection

import jwt
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support import BINARY, DEADLINE, ROOT, SECRET, Client, Gateway, RawClient, clean_environment, fetch, poll_async

SHARED = None


def setUpModule():
    global SHARED
    SHARED = Gateway("--echo")


def tearDownModule():
    code = SHARED.stop()
    assert code == 0, f"exit code {code}: {''.join(SHARED.log)}"


class Case(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.clients = []
        self.room = f"room-{self.id()}"[-100:]

    async def asyncTearDown(self):
        for client in self.clients:
            await client.close()

    async def client(self, query="", gateway=None, **options):
        client = await Client.open(gateway or SHARED, query, **options)
        self.clients.append(client)
        return client

    async def member(self, query="", room=None, **options):
        client = await self.client(query, **options)
        ack = await client.request(type="join", room_id=room or self.room)
        self.assertEqual(ack["type"], "ack", ack)
        return client

    def gateway(self, *args, **settings):
        gateway = Gateway(*args, **settings)
        self.addCleanup(gateway.stop)
        return gateway


class Conversation(Case):
    async def test_welcomes_a_named_client_with_what_it_needs_to_know(self):
        client = await self.client("user=ann")
        welcome = client.welcome
        self.assertEqual(welcome["user"], "ann")
        self.assertIsInstance(welcome["client_id"], str)
        self.assertIsInstance(welcome["session"], str)
        self.assertIsInstance(welcome["node"], str)
        self.assertEqual(welcome["heartbeat_seconds"], 54)
        self.assertLess(abs(welcome["timestamp"] - time.time()), 60)

    async def test_gives_a_nameless_client_a_name_of_its_own(self):
        first, second = await self.client(), await self.client()
        self.assertTrue(first.welcome["user"].startswith("anon-"))
        self.assertNotEqual(first.welcome["user"], second.welcome["user"])
        self.assertNotEqual(first.welcome["client_id"], second.welcome["client_id"])

    async def test_answers_a_ping_with_its_id_and_data(self):
        client = await self.client()
        data = {"n": 9007199254740993, "list": [1, "zwei", None]}
        for mark in (7, -7, "seven", 18446744073709551615):
            await client.send(type="ping", id=mark, data=data)
            pong = await client.next()
            self.assertEqual((pong["type"], pong["id"], pong["data"]), ("pong", mark, data))
        await client.send(type="ping")
        pong = await client.next()
        self.assertEqual(pong["type"], "pong")
        self.assertNotIn("id", pong)
        self.assertIsInstance(pong["timestamp"], int)

    async def test_acknowledges_a_join_with_the_place_in_the_room(self):
        client = await self.client()
        ack = await client.request(type="join", room_id=self.room)
        self.assertEqual(ack["type"], "ack")
        self.assertEqual(ack["room_id"], self.room)
        self.assertIsInstance(ack["offset"], int)
        self.assertIn("epoch", ack)
        self.assertIs(ack["recovered"], False)

    async def test_gives_a_message_to_all_members_and_nobody_else(self):
        ann, bob = await self.member("user=ann"), await self.member("user=bob")
        stranger = await self.client("user=eve")
        ack = await ann.request(type="message", room_id=self.room, content="hello", data=[1], **{"from": "bob", "timestamp": 1})
        self.assertEqual(ack["type"], "ack")
        self.assertIsInstance(ack["offset"], int)
        for member in (ann, bob):
            message = await member.next_of("message")
            self.assertEqual(message["from"], "ann")
            self.assertEqual(message["room_id"], self.room)
            self.assertEqual(message["content"], "hello")
            self.assertEqual(message["data"], [1])
            self.assertLess(abs(message["timestamp"] - time.time()), 60)
            self.assertNotIn("id", message)
        self.assertEqual(await stranger.settled(), [])

    async def test_leaves_out_only_this_connection_of_the_sender_without_echo(self):
        ann, again, bob = await self.member("user=ann"), await self.member("user=ann"), await self.member("user=bob")
        await ann.request(type="message", room_id=self.room, content="quiet", echo=False)
        self.assertEqual((await again.next_of("message"))["content"], "quiet")
        self.assertEqual((await bob.next_of("message"))["content"], "quiet")
        self.assertEqual(await ann.settled(), [])
        await bob.request(type="message", room_id=self.room, content="loud")
        self.assertEqual((await ann.next_of("message"))["content"], "loud")

    async def test_takes_a_number_and_its_text_for_one_room(self):
        number = random.randrange(10**9, 2**53)
        ann = await self.member("user=5", room=number)
        bob = await self.member("user=bob", room=str(number))
        self.assertEqual(ann.welcome["user"], 5)
        await bob.request(type="message", room_id=str(number), content="x")
        message = await ann.next_of("message")
        self.assertEqual(message["room_id"], number)
        padded = await self.member("user=eve", room=f"0{number}")
        await ann.request(type="message", room_id=number, content="y")
        self.assertEqual(await padded.settled(), [])

    async def test_sends_to_every_connection_of_a_user(self):
        name = f"carl-{time.time_ns()}"
        first, second = await self.client(f"user={name}"), await self.client(f"user={name}")
        ann = await self.client("user=ann")
        ack = await ann.request(type="message", to=name, content="psst")
        self.assertEqual((ack["type"], ack["delivered"]), ("ack", 2))
        for connection in (first, second):
            message = await connection.next_of("message")
            self.assertEqual((message["from"], message["to"], message["content"]), ("ann", name, "psst"))
        self.assertEqual(await ann.settled(), [])
        ack = await ann.request(type="message", to="nobody-at-all", content="hello?")
        self.assertEqual((ack["type"], ack["delivered"]), ("ack", 0))

    async def test_sends_to_everyone_in_development_mode(self):
        gateway = self.gateway()
        everyone = [await self.client(f"user={name}", gateway=gateway) for name in "abc"]
        ack = await everyone[0].request(type="message", content="all")
        self.assertEqual(ack["type"], "ack")
        for client in everyone:
            message = await client.next_of("message")
            self.assertEqual((message["from"], message["content"]), ("a", "all"))
            self.assertNotIn("room_id", message)
            self.assertNotIn("to", message)

    async def test_gives_nothing_more_after_a_leave(self):
        ann, bob = await self.member("user=ann"), await self.member("user=bob")
        ack = await bob.request(type="leave", room_id=self.room)
        self.assertEqual((ack["type"], ack["room_id"]), ("ack", self.room))
        await ann.request(type="message", room_id=self.room, content="gone?")
        self.assertEqual(await bob.settled(), [])
        answer = await bob.request(type="message", room_id=self.room, content="still here")
        self.assertEqual((answer["type"], answer["code"]), ("error", "not_a_member"))

    async def test_shows_all_members_one_order(self):
        members = [await self.member(f"user=m{n}") for n in range(4)]
        rounds = 50

        async def talk(member):
            for n in range(rounds):
                await member.send(type="message", room_id=self.room, content=str(n))

        await asyncio.gather(*(talk(member) for member in members))

        async def listen(member):
            return [
                (message["from"], message["content"])
                for message in [await member.next_of("message") for _ in range(rounds * len(members))]
            ]

        heard = await asyncio.gather(*(listen(member) for member in members))
        for other in heard[1:]:
            self.assertEqual(other, heard[0])
        for n in range(len(members)):
            own = [content for name, content in heard[0] if name == f"m{n}"]
            self.assertEqual(own, [str(n) for n in range(rounds)])

    async def test_answers_no_ack_to_a_request_without_an_id(self):
        client = await self.client()
        await client.send(type="join", room_id=self.room)
        await client.send(type="message", room_id=self.room, content="x")
        got = await client.settled()
        self.assertEqual([message["type"] for message in got], ["message"])

    async def test_names_the_mistake_and_stays_connected(self):
        client = await self.client()
        cases = [
            ({"type": "dance"}, "unknown_type", "type"),
            ({}, "missing_field", "type"),
            ({"type": "join"}, "missing_field", "room_id"),
            ({"type": "join", "room_id": ""}, "bad_message", "room_id"),
            ({"type": "join", "room_id": "x" * 129}, "bad_message", "room_id"),
            ({"type": "join", "room_id": -1}, "bad_message", "room_id"),
            ({"type": "join", "room_id": 1.5}, "bad_message", "room_id"),
            ({"type": "join", "room_id": [1]}, "bad_message", "room_id"),
            ({"type": "message", "room_id": "a", "to": "b", "content": ""}, "bad_message", "room_id"),
            ({"type": "message", "room_id": "a"}, "missing_field", "content"),
            ({"type": "message", "room_id": "a", "content": 1}, "bad_message", "content"),
            ({"type": "message", "room_id": "a", "content": "x", "echo": "no"}, "bad_message", "echo"),
            ({"type": "message", "room_id": "not entered", "content": "x"}, "not_a_member", ""),
        ]
        for message, code, names in cases:
            with self.subTest(message=message):
                error = await client.request(**message)
                self.assertEqual((error["type"], error["code"]), ("error", code), error)
                self.assertIn(names, error["content"])

    async def test_answers_what_is_not_json_with_an_error_and_goes_on(self):
        client = await self.client()
        for text in ("", "{", "nonsense", "[]", "null", '"x"', '{"type":"ping","type":"ping"}', "[" * 10000,
                     '{"type":"ping","data":1e999999}', '{"type":"ping","data":"\\ud800"}'):
            await client.connection.send(text)
            error = await client.next()
            self.assertEqual((error["type"], error["code"]), ("error", "bad_message"), text[:40])
        self.assertEqual(await client.settled(), [])

    async def test_closes_a_client_that_sends_nothing_but_nonsense(self):
        client = await self.client()
        try:
            for _ in range(1000):
                await client.connection.send("nonsense")
        except ConnectionClosed:
            pass
        self.assertEqual(await client.closed(), 1008)

    async def test_stops_a_client_at_its_limit_of_rooms(self):
        client = await self.client()
        for n in range(128):
            self.assertEqual((await client.request(type="join", room_id=f"{self.room[-80:]}-{n}"))["type"], "ack")
        error = await client.request(type="join", room_id="one more")
        self.assertEqual((error["type"], error["code"]), ("error", "too_many_rooms"))

    async def test_refuses_binary_frames_and_messages_over_the_limit(self):
        client = await self.client()
        await client.connection.send(b"\x00")
        self.assertEqual(await client.closed(), 1003)
        client = await self.client()
        await client.connection.send("x" * 65537)
        self.assertEqual(await client.closed(), 1009)

    async def test_keeps_integers_of_64_bits_and_any_text_as_they_are(self):
        client = await self.member()
        data = {"big": 18446744073709551615, "low": -9223372036854775808, "text": "\u0000 \u2028 \U0001f3ba \" \\ /"}
        await client.request(type="message", room_id=self.room, data=data, content="\n\U0001f3ba\u0000")
        message = await client.next_of("message")
        self.assertEqual((message["data"], message["content"]), (data, "\n\U0001f3ba\u0000"))


class Upgrade(Case):
    async def refused(self, query="", gateway=None, path="/ws", **options):
        with self.assertRaises(InvalidStatus) as caught:
            await Client.open(gateway or SHARED, query, path, **options)
        response = caught.exception.response
        return response.status_code, response.headers, response.body

    async def test_chooses_a_subprotocol_that_was_offered_and_is_known(self):
        for offered, chosen in (
            (None, None),
            (["fanfare.v1"], "fanfare.v1"),
            (["other", "fanfare.v1.ndjson"], "fanfare.v1.ndjson"),
            (["other"], None),
        ):
            client = await self.client(subprotocols=offered)
            self.assertEqual(client.connection.subprotocol, chosen)

    async def test_joins_lines_only_for_clients_that_ask_for_it(self):
        lines = await self.member("user=lines", subprotocols=["fanfare.v1.ndjson"])
        plain = await self.member("user=plain", subprotocols=["fanfare.v1"])
        rounds = 300
        for n in range(rounds):
            await plain.send(type="message", room_id=self.room, content=f"line\n{n}")
        for member in (lines, plain):
            got = [(await member.next_of("message"))["content"] for _ in range(rounds)]
            self.assertEqual(got, [f"line\n{n}" for n in range(rounds)])

    async def test_compresses_long_messages_for_clients_that_offer_it(self):
        gateway = self.gateway("--echo")
        plain = await self.member("user=plain", gateway=gateway)
        packed = [await self.member(f"user={number}", gateway=gateway, compression="deflate") for number in range(3)]
        for member in packed:
            self.assertEqual([extension.name for extension in member.connection.protocol.extensions], ["permessage-deflate"])
        self.assertEqual(plain.connection.protocol.extensions, [])
        texts = ["short", "\u00fc and more of it " * 200, "x" * 60000]
        for sender in (plain, packed[0]):
            for text in texts:
                await sender.request(type="message", room_id=self.room, content=text, data=len(text))
        for member in (plain, *packed):
            for text in texts * 2:
                message = await member.next_of("message")
                self.assertEqual((message["content"], message["data"]), (text, len(text)))
        samples = await asyncio.to_thread(gateway.scrape)
        self.assertEqual(samples['fanfare_connections_opened_total{transport="ws",compression="deflate"}'], 3)
        sizes = [samples[f"fanfare_compression_{way}_bytes_total"] for way in ("input", "output")]
        self.assertGreater(sizes[0], 20 * sizes[1])
        echo = await self.client(gateway=gateway, path="/echo", welcome=False, compression="deflate")
        for message in ("", "x" * 65536, bytes(65536)):
            await echo.connection.send(message)
            self.assertEqual(await asyncio.wait_for(echo.connection.recv(), DEADLINE), message)

    async def test_compresses_nothing_when_told_not_to(self):
        gateway = self.gateway(COMPRESSION__ENABLED="false")
        client = await self.client(gateway=gateway, compression="deflate")
        self.assertEqual(client.connection.protocol.extensions, [])

    async def test_bounds_what_a_compressed_message_becomes(self):
        packed = await self.client(compression="deflate")
        with self.assertRaises(ConnectionClosed):
            await packed.connection.send("x" * (1 << 20))
            await packed.closed()
            await packed.connection.send("after")
        self.assertEqual(packed.connection.close_code, 1009)

    async def test_echoes_every_message_unchanged(self):
        client = await self.client(path="/echo", welcome=False)
        for message in ("", "text \U0001f3ba", b"\x00\xff", "x" * 65536):
            await client.connection.send(message)
            self.assertEqual(await asyncio.wait_for(client.connection.recv(), DEADLINE), message)
        await client.connection.send(["in ", "three ", "fragments"])
        self.assertEqual(await asyncio.wait_for(client.connection.recv(), DEADLINE), "in three fragments")
        waiter = await client.connection.ping(b"data")
        await asyncio.wait_for(waiter, DEADLINE)

    async def test_has_no_echo_unless_asked_for(self):
        status, *_ = await self.refused(gateway=self.gateway(), path="/echo")
        self.assertEqual(status, 404)

    async def test_refuses_what_is_not_an_upgrade(self):
        connection = HTTPConnection(SHARED.host, SHARED.port, timeout=DEADLINE)
        connection.request("GET", "/ws")
        response = connection.getresponse()
        self.assertEqual(response.status, 426)
        self.assertEqual(response.headers["Upgrade"], "websocket")
        self.assertEqual(response.headers["Sec-WebSocket-Version"], "13")
        response.read()
        connection.close()
        self.assertEqual((await asyncio.to_thread(fetch, SHARED.base + "/nothing"))[0], 404)
        self.assertEqual((await self.refused(path="/nothing"))[0], 404)

    async def test_refuses_pages_of_other_origins(self):
        status, *_ = await self.refused(origin="https://elsewhere.example")
        self.assertEqual(status, 403)
        await self.client(origin=SHARED.base)

    async def test_serves_the_demo_page_in_development_mode_only(self):
        status, body = await asyncio.to_thread(fetch, SHARED.base + "/")
        self.assertEqual(status, 200)
        self.assertIn("<title>Fanfare</title>", body)
        gateway = self.gateway(AUTH__MODE="jwt", AUTH__SECRET=SECRET)
        self.assertEqual((await asyncio.to_thread(fetch, gateway.base + "/"))[0], 404)

    async def test_answers_503_when_it_is_full(self):
        gateway = self.gateway(LIMITS__CONNECTIONS="1")
        client = await self.client(gateway=gateway)
        status, headers, _ = await self.refused(gateway=gateway)
        self.assertEqual(status, 503)
        self.assertGreater(int(headers["Retry-After"]), 0)
        await client.close()
        await poll_async("one closed", lambda: gateway.scrape()['fanfare_connections{transport="ws"}'] == 0)

        async def again():
            try:
                return await self.client(gateway=gateway)
            except InvalidStatus:
                return None

        end = time.monotonic() + DEADLINE
        while await again() is None:
            self.assertLess(time.monotonic(), end)


class Tokens(Case):
    @classmethod
    def setUpClass(cls):
        cls.secured = Gateway(AUTH__MODE="jwt", AUTH__SECRET=SECRET)
        cls.addClassCleanup(cls.secured.stop)

    @staticmethod
    def token(key=SECRET, algorithm="HS256", **claims):
        return jwt.encode({"sub": "ann", "exp": int(time.time()) + 600, **claims}, key, algorithm=algorithm)

    async def test_takes_the_token_from_header_subprotocol_and_query(self):
        token = self.token()
        header = await self.client(gateway=self.secured, additional_headers={"Authorization": f"Bearer {token}"})
        query = await self.client(f"token={token}", gateway=self.secured)
        protocol = await self.client(gateway=self.secured, subprotocols=["fanfare.v1", f"fanfare.token.{token}"])
        self.assertEqual(protocol.connection.subprotocol, "fanfare.v1")
        for client in (header, query, protocol):
            self.assertEqual(client.welcome["user"], "ann")

    async def test_takes_the_user_from_the_token_whatever_the_query_says(self):
        client = await self.client(f"user=eve&token={self.token(sub='7')}", gateway=self.secured)
        self.assertEqual(client.welcome["user"], 7)

    async def test_lets_a_client_stay_that_renews_its_token_in_time(self):
        soon = self.token(exp=int(time.time()) + 3)
        stays, goes = [await self.client(f"token={soon}", gateway=self.secured) for _ in range(2)]
        refused = await stays.request(type="auth", token=self.token(sub="ben"))
        self.assertEqual((refused["type"], refused["code"]), ("error", "forbidden"))
        ack = await stays.request(type="auth", token=self.token(exp=int(time.time()) + 60))
        self.assertEqual(ack["type"], "ack")
        self.assertAlmostEqual(ack["expires_in"], 60, delta=2)
        self.assertEqual(await goes.closed(), 4500)
        self.assertEqual((await stays.request(type="ping"))["type"], "pong")

    async def test_refuses_tokens_that_are_missing_or_not_good(self):
        now = int(time.time())
        bad = {
            "missing": None,
            "garbage": "garbage",
            "expired": self.token(exp=now - 3600),
            "not yet valid": self.token(nbf=now + 3600),
            "wrongly signed": self.token(key="another secret that is long enough for the algorithm"),
            "unsigned": jwt.encode({"sub": "ann", "exp": now + 600}, None, algorithm="none"),
            "no user": jwt.encode({"exp": now + 600}, SECRET, algorithm="HS256"),
            "no expiry": jwt.encode({"sub": "ann"}, SECRET, algorithm="HS256"),
        }
        for name, token in bad.items():
            with self.subTest(name), self.assertRaises(InvalidStatus) as caught:
                await Client.open(self.secured, f"token={token}" if token else "user=ann")
            response = caught.exception.response
            self.assertEqual(response.status_code, 401, name)
            body = json.loads(response.body)
            self.assertEqual(body["error"], "unauthorized")
            self.assertTrue(body["message"])

    async def test_keeps_a_client_to_the_rooms_of_its_token(self):
        token = self.token(rooms=["lobby", "team-*"])
        client = await self.client(f"token={token}", gateway=self.secured)
        for room, answer in (("lobby", "ack"), ("team-7", "ack"), ("secret", "error"), ("lobby-2", "error")):
            self.assertEqual((await client.request(type="join", room_id=room))["type"], answer, room)
        error = await client.request(type="message", content="to everyone")
        self.assertEqual((error["type"], error["code"]), ("error", "forbidden"))

    async def test_accepts_what_the_token_command_prints(self):
        printed = await asyncio.to_thread(
            subprocess.run,
            [BINARY, "token", "--user", "7", "--ttl", "1h", "--rooms", "5,lobby"],
            env=clean_environment(AUTH__MODE="jwt", AUTH__SECRET=SECRET),
            capture_output=True, text=True, timeout=DEADLINE, check=True,
        )
        client = await self.client(f"token={printed.stdout.strip()}", gateway=self.secured)
        self.assertEqual(client.welcome["user"], 7)
        self.assertEqual((await client.request(type="join", room_id="5"))["type"], "ack")
        self.assertEqual((await client.request(type="join", room_id="6"))["code"], "forbidden")


class Life(Case):
    async def test_closes_a_client_that_never_answers_and_keeps_the_one_that_does(self):
        gateway = self.gateway(HEARTBEAT__PING="200ms", HEARTBEAT__TIMEOUT="800ms")
        polite = await self.client(gateway=gateway)
        silent = await asyncio.to_thread(RawClient, gateway)
        self.addCleanup(silent.close)
        started = time.monotonic()
        _, code = await asyncio.to_thread(silent.until_close)
        self.assertEqual(code, 4009)
        self.assertGreater(time.monotonic() - started, 0.5)
        self.assertEqual(await polite.settled(), [])
        samples = await asyncio.to_thread(gateway.scrape)
        self.assertEqual(samples["fanfare_ping_timeouts_total"], 1)

    async def test_closes_a_client_that_does_not_read_and_delays_nobody_else(self):
        gateway = self.gateway(LIMITS__OUTBOUND_BYTES="128KiB")
        slow = await asyncio.to_thread(RawClient, gateway, "user=slow", 4096)
        self.addCleanup(slow.close)
        slow.send(type="join", room_id="busy", id=1)
        self.assertEqual((await asyncio.to_thread(slow.next_of, "ack"))["id"], 1)
        sender = await self.member("user=sender", room="busy", gateway=gateway)
        reader = await self.member("user=reader", room="busy", gateway=gateway)
        content, rounds = "x" * 32768, 400

        async def read():
            return [(await reader.next_of("message"))["data"] for _ in range(rounds)]

        reading = asyncio.create_task(read())
        for n in range(rounds):
            ack = await sender.request(type="message", room_id="busy", content=content, data=n, echo=False)
            self.assertEqual(ack["type"], "ack", ack)
        self.assertEqual(await reading, list(range(rounds)))
        messages, code = await asyncio.to_thread(slow.until_close)
        self.assertEqual(code, 4008)
        got = [message["data"] for message in messages if message["type"] == "message"]
        self.assertEqual(got, list(range(len(got))), "without a hole up to the close")
        self.assertLess(len(got), rounds)
        slow_total = 'fanfare_connections_closed_total{reason="slow_consumer"}'
        await poll_async("counted", lambda: gateway.scrape()[slow_total] == 1)

    async def test_says_goodbye_on_sigterm_and_exits_with_0(self):
        gateway = self.gateway(DRAIN__WINDOW="500ms")
        clients = [await self.member(f"user={n}", gateway=gateway) for n in range(20)]
        self.assertEqual((await asyncio.to_thread(fetch, gateway.admin + "/readyz"))[0], 200)
        gateway.signal(signal.SIGTERM)
        codes = await asyncio.gather(*(client.closed() for client in clients))
        self.assertEqual(set(codes), {1001})
        self.assertEqual(await asyncio.to_thread(gateway.wait), 0)

    async def test_serves_and_ends_when_nobody_takes_its_log_any_more(self):
        reader, writer = os.pipe()
        gateway = self.gateway(LOG__LEVEL="debug", log=writer)
        os.close(writer)
        os.close(reader)
        for _ in range(3):
            client = await Client.open(gateway)
            self.assertEqual((await client.request(type="ping"))["type"], "pong")
            await client.close()
        self.assertEqual(await asyncio.to_thread(gateway.stop), 0)

    async def test_advises_each_client_when_to_come_back_before_it_says_goodbye(self):
        gateway = self.gateway(DRAIN__WINDOW="500ms")
        clients = [await self.client(gateway=gateway) for _ in range(20)]
        gateway.signal(signal.SIGTERM)
        delays = set()
        for client in clients:
            advice = await client.next_of("reconnect")
            self.assertTrue(advice["reason"])
            delays.add(advice["after_ms"])
            self.assertEqual(await client.closed(), 1001)
        self.assertGreater(len(delays), 10, "each has a delay of its own")
        self.assertEqual(await asyncio.to_thread(gateway.wait), 0)

    async def test_answers_everybody_while_some_flood_it(self):
        gateway = self.gateway("--shards", "1")
        pongs = b"\x8a\x80\0\0\0\0" * 20_000

        def flood(client):
            try:
                while True:
                    client.socket.sendall(pongs)
            except OSError:
                pass  # The test has ended.

        victim = await self.client(gateway=gateway)
        flooders = [await asyncio.to_thread(RawClient, gateway) for _ in range(6)]
        floods = [asyncio.create_task(asyncio.to_thread(flood, client)) for client in flooders]
        try:
            async with asyncio.timeout(DEADLINE):
                for _ in range(50):
                    self.assertEqual((await victim.request(type="ping"))["type"], "pong")
        finally:
            for client in flooders:
                client.socket.shutdown(socket.SHUT_RDWR)
            await asyncio.gather(*floods)
            for client in flooders:
                client.close()

    async def test_is_not_ready_and_lets_nobody_in_while_draining(self):
        gateway = self.gateway(DRAIN__WINDOW="3s")
        clients = [await self.client(gateway=gateway) for _ in range(50)]
        gateway.signal(signal.SIGTERM)

        def draining():
            status, body = fetch(gateway.admin + "/readyz")
            return status == 503 and json.loads(body)["ready"] is False

        await poll_async("not ready", draining)
        for _ in range(20):
            with self.assertRaises(InvalidStatus) as caught:
                await Client.open(gateway)
            self.assertEqual(caught.exception.response.status_code, 503)
        self.assertEqual({await client.closed() for client in clients}, {1001})
        self.assertEqual(await asyncio.to_thread(gateway.wait), 0)

    async def test_leaves_nothing_behind_after_hundreds_of_clients_that_come_and_go_at_random(self):
        gateway = self.gateway()
        before = await asyncio.to_thread(gateway.scrape)
        chance = random.Random(20261123)

        async def visit(n):
            client = await Client.open(gateway, f"user=u{chance.randrange(30)}")
            try:
                for _ in range(chance.randrange(6)):
                    kind = chance.choice(["join", "join", "leave", "message"])
                    message = {"type": kind, "room_id": chance.randrange(10)}
                    if kind == "message":
                        message["content"] = f"from {n}"
                    await client.send(**message)
                    if chance.random() < 0.5:
                        await client.settled()
            finally:
                if chance.random() < 0.5:
                    client.abort()
                await client.close()

        for start in range(0, 600, 40):
            await asyncio.gather(*(visit(n) for n in range(start, start + 40)))

        gauges = ("fanfare_connections", "fanfare_rooms", "fanfare_users", "fanfare_room_memberships",
                  "fanfare_shard_connections", "fanfare_slow_connections", "fanfare_outbound_queue_bytes")

        def left_over():
            samples = gateway.scrape()
            return {
                series: value for series, value in samples.items()
                if series.split("{")[0] in gauges and value != 0
            }

        await poll_async("gauges at zero", lambda: not left_over() or None)
        await poll_async(
            "descriptors back", lambda: gateway.scrape()["process_open_fds"] <= before["process_open_fds"] + 1
        )
        after = await asyncio.to_thread(gateway.scrape)
        opened = after['fanfare_connections_opened_total{transport="ws",compression="none"}']
        closed = sum(value for series, value in after.items() if series.startswith("fanfare_connections_closed_total"))
        self.assertEqual((opened, closed), (600, 600))


class Operations(Case):
    async def test_counts_what_happens(self):
        gateway = self.gateway()
        ann = await self.member("user=ann", gateway=gateway)
        bob = await self.member("user=bob", gateway=gateway)
        await ann.request(type="message", room_id=self.room, content="x")
        await bob.next_of("message")
        with self.assertRaises(InvalidStatus):
            await Client.open(gateway, path="/nothing")
        expected = {
            'fanfare_connections{transport="ws"}': 2,
            "fanfare_rooms": 1,
            "fanfare_users": 2,
            "fanfare_room_memberships": 2,
            'fanfare_accepted_connections_total{listener="public"}': 3,
            'fanfare_handshake_failures_total{reason="not_found"}': 1,
            'fanfare_handshake_duration_seconds_count{stage="total"}': 2,
            'fanfare_messages_received_total{type="join"}': 2,
            'fanfare_messages_received_total{type="message"}': 1,
            'fanfare_messages_sent_total{type="message"}': 2,
            'fanfare_messages_sent_total{type="welcome"}': 2,
            'fanfare_broadcasts_total{source="client"}': 1,
            "fanfare_draining": 0,
        }

        def differing():
            samples = gateway.scrape()
            return {series: samples.get(series) for series, value in expected.items() if samples.get(series) != value}

        try:
            await poll_async("the counts", lambda: not differing())
        except AssertionError:
            self.fail(f"got {differing()}, expected {expected}")
        samples = await asyncio.to_thread(gateway.scrape)
        self.assertGreaterEqual(samples['fanfare_delivery_duration_seconds_count{source="client"}'], 1)
        self.assertGreater(samples['fanfare_received_bytes_total{layer="wire"}'],
                           samples['fanfare_received_bytes_total{layer="payload"}'])
        self.assertGreater(samples["process_resident_memory_bytes"], 0)

    async def test_answers_health_checks_and_nothing_of_the_public_side(self):
        for path, status in (("/livez", 200), ("/readyz", 200), ("/metrics", 200), ("/ws", 404), ("/", 404)):
            self.assertEqual((await asyncio.to_thread(fetch, SHARED.admin + path))[0], status, path)
        self.assertEqual((await asyncio.to_thread(fetch, SHARED.base + "/metrics"))[0], 404)

    async def test_runs_by_cargo_as_the_readme_says(self):
        command = ["cargo", "run", "--quiet", "--", "check"]
        done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (0, "the configuration is sound\n"), done.stderr)

    async def test_reports_every_mistake_of_the_configuration_at_once(self):
        for command in ("check", "serve"):
            done = await asyncio.to_thread(
                subprocess.run,
                [BINARY, command],
                env=clean_environment(LISTEN="nowhere", LIMITS__OUTBOUND_BYTES="much", HEARTBEAT__PING="soon"),
                capture_output=True, text=True, timeout=DEADLINE,
            )
            self.assertEqual(done.returncode, 2, done)
            said = (done.stdout + done.stderr).lower()
            for key in ("listen", "outbound_bytes", "ping"):
                self.assertIn(key, said)

    async def test_refuses_the_world_without_tokens(self):
        done = await asyncio.to_thread(
            subprocess.run,
            [BINARY, "--listen", "0.0.0.0:0", "--admin-listen", "127.0.0.1:0"],
            env=clean_environment(), capture_output=True, text=True, timeout=DEADLINE,
        )
        self.assertEqual(done.returncode, 2, done)
        self.assertIn("insecure", done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
