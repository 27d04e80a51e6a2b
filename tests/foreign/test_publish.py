"""What applications do by `/api/v1`: publish, look, take out of rooms; with keys, as the API describes itself."""

import asyncio
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest

from faults import StoppedThread
from openapi import Description
from support import BINARY, DEADLINE, Client, Gateway, clean_environment, fetch, poll, poll_async
from test_api import acall, call

PUBLISHER = "publisher-0123456789-0123456789-0123"
READER = "reader-0123456789-0123456789-0123456"
MANAGER = "manager-0123456789-0123456789-012345"
# Rooms of which nothing is kept.
PLAIN = '[{ match = "*" }]'
KEYS = f"""
[[api.keys]]
name = "shop-backend"
key = "{PUBLISHER}"
scopes = ["publish"]
[[api.keys]]
name = "reader"
key = "{READER}"
scopes = ["read"]
[[api.keys]]
name = "manager"
key = "{MANAGER}"
scopes = ["manage"]
"""


def configured(test, text):
    """The path of a file with this text."""
    folder = test.enterContext(tempfile.TemporaryDirectory())
    path = os.path.join(folder, "fanfare.toml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


async def publish(gateway, body, **headers):
    return await acall(gateway, "POST", "/api/v1/publish", body, **headers)


class Connections(unittest.TestCase):
    def test_applications_keep_their_connections_and_scrapers_come_again(self):
        with Gateway() as gateway:
            host, port = gateway.admin.removeprefix("http://").split(":")
            kept = http.client.HTTPConnection(host, int(port), timeout=DEADLINE)
            kept.connect()
            socket = kept.sock
            for _ in range(100):
                body = json.dumps({"room_id": 5, "content": "x"})
                kept.request("POST", "/api/v1/publish", body, {"Content-Type": "application/json"})
                self.assertEqual(kept.getresponse().read().strip()[:1], b"{")
                self.assertIs(kept.sock, socket)
            kept.request("GET", "/livez")
            answer = kept.getresponse()
            answer.read()
            self.assertEqual(answer.getheader("Connection"), "close")
            self.assertIsNone(kept.sock)



class Lines:
    """A request of many lines that is under way."""

    def __init__(self, gateway, **headers):
        host, port = gateway.admin.removeprefix("http://").split(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=DEADLINE)
        self.connection.putrequest("POST", "/api/v1/publish")
        for name, value in {"Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked", **headers}.items():
            self.connection.putheader(name, value)
        self.connection.endheaders()
        # The library lets go of the connection when the answer begins, since it closes in the end.
        self.socket = self.connection.sock
        self.response = None

    def send(self, *messages):
        self.send_text("".join(json.dumps(message) + "\n" for message in messages))

    def send_text(self, text):
        data = text.encode()
        self.socket.sendall(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self):
        self.socket.sendall(b"0\r\n\r\n")

    def answer(self):
        """The next line of the answer; None behind the last."""
        if self.response is None:
            self.response = self.connection.getresponse()
            assert self.response.status == 200, self.response.status
            assert self.response.getheader("content-type") == "application/x-ndjson"
        line = self.response.readline()
        return json.loads(line) if line else None

    def close(self):
        self.socket.close()
        self.connection.close()
        if self.response:
            self.response.close()


class Keys(unittest.TestCase):
    def setUp(self):
        self.config = configured(self, KEYS)

    def test_each_key_opens_what_it_is_for_and_metrics_need_none(self):
        with Gateway("--config", self.config) as gateway:
            body = {"room_id": 1, "content": "x"}
            ask = [
                ("POST", "/api/v1/publish", body, PUBLISHER),
                ("GET", "/api/v1/rooms", None, READER),
                ("GET", "/api/v1/stats", None, READER),
                ("GET", "/api/v1/drain", None, READER),
                ("POST", "/api/v1/disconnect", {"user": 7}, MANAGER),
                ("POST", "/api/v1/unsubscribe", {"user": 7, "room_id": 1}, MANAGER),
            ]
            description = Description(call(gateway, "GET", "/api/v1/openapi.json")[1])
            for method, path, body, right in ask:
                status, answer = call(gateway, method, path, body)
                self.assertEqual((status, answer["error"]), (401, "unauthorized"))
                description.check(method, path, status, answer)
                for key in (PUBLISHER, READER, MANAGER):
                    status, answer = call(gateway, method, path, body, Authorization=f"Bearer {key}")
                    self.assertEqual(status, 200 if key == right else 403, answer)
                    description.check(method, path, status, answer)
                status, _ = call(gateway, method, path, body, Authorization="Bearer " + right[:-1])
                self.assertEqual(status, 401)
            for path in ["/metrics", "/livez", "/readyz", "/debug/rooms"]:
                self.assertEqual(fetch(gateway.admin + path)[0], 200, path)
            samples = gateway.scrape()
            results = {r: samples[f'fanfare_api_key_checks_total{{result="{r}"}}'] for r in ("ok", "missing", "unknown", "forbidden")}
            self.assertEqual(results, {"ok": 6, "missing": 6, "unknown": 6, "forbidden": 12})
            self.assertNotIn("shop-backend", fetch(gateway.admin + "/metrics")[1], "no name of a key is a label")

    def test_keys_are_changed_without_a_restart(self):
        with Gateway("--config", self.config) as gateway:
            def status(key):
                return call(gateway, "GET", "/api/v1/stats", Authorization=f"Bearer {key}")[0]

            self.assertEqual((status(READER), status("new-" + READER)), (200, 401))
            with open(self.config, "w", encoding="utf-8") as file:
                file.write(KEYS.replace(READER, "new-" + READER))
            gateway.signal(signal.SIGHUP)
            poll("the new key", lambda: status("new-" + READER) == 200)
            self.assertEqual(status(READER), 401)
            with open(self.config, "w", encoding="utf-8") as file:
                file.write(KEYS.replace(READER, "short"))
            gateway.signal(signal.SIGHUP)
            poll("the mistake", lambda: gateway.scrape()["fanfare_config_last_reload_successful"] == 0)
            self.assertEqual(status("new-" + READER), 200, "the old ones stay")
            self.assertIn("api.keys", "".join(gateway.log))
            self.assertNotIn(READER, "".join(gateway.log))

    def test_what_sighup_changes_is_told_with_what_it_does_not(self):
        rooms = '[[rooms]]\nmatch = "a"\n'
        path = configured(self, rooms + KEYS)
        hooks = "webhooks.secret = "
        with Gateway("--config", path, AUTH__SECRET="x" * 32, ROOMS='[{ match = "b" }]') as overridden:
            with Gateway("--config", path, AUTH__SECRET="x" * 32) as gateway:

                def log_after(text, part, of=gateway):
                    with open(path, "w", encoding="utf-8") as file:
                        file.write(text)
                    before = len(of.log)
                    of.signal(signal.SIGHUP)
                    poll(part, lambda: part in "".join(of.log[before:]))
                    return "".join(of.log[before:])

                changed = rooms.replace('"a"', '"c*"') + KEYS
                log = log_after(changed, "was read again; `overflow` and `presence` hold for rooms that begin from now on")
                self.assertNotIn("wins", log)
                log = log_after(f'{hooks}"{"a" * 32}"\n{changed}', "need a restart")
                self.assertIn("webhooks.secret", log)
                self.assertNotIn("a" * 32, log)
                log = log_after(rooms, "/api/v1 is open to whoever reaches `admin_listen`")
                self.assertIn("api.keys", log)
                self.assertEqual(call(gateway, "GET", "/api/v1/stats")[0], 200)
            log = log_after(rooms, "rooms: has no effect, since FANFARE_ROOMS is given and wins", overridden)
            self.assertIn(f"{path}:1: rooms", log)

    def test_secrets_are_shown_to_nobody(self):
        shown = self.run_binary("config", "--config", self.config)
        self.assertEqual(shown.returncode, 0, shown.stderr)
        self.assertIn('{ name = "shop-backend", key = "********", scopes = ["publish"] }', shown.stdout)
        for secret in (PUBLISHER, READER, MANAGER):
            self.assertNotIn(secret, shown.stdout)

    def test_mistakes_are_told_by_their_place_and_all_at_once(self):
        text = KEYS + f'[[api.keys]]\nname = "reader"\nkey = "short"\nscopes = ["write"]\n[[api.keys]]\nname = "x"\nkey = "{READER}"\nscopes = ["read"]\n'
        checked = self.run_binary("check", "--config", configured(self, text))
        self.assertEqual(checked.returncode, 2)
        for part in [
            "api.keys: key 4 (`reader`): `key`: has 5 bytes: at least 32",
            'api.keys: key 4 (`reader`): `scopes`: expected "publish" or "read" or "manage", got `write`',
            "api.keys: key 5 (`x`): `key`: is that of `reader` as well",
        ]:
            self.assertIn(part, checked.stdout + checked.stderr)

    @staticmethod
    def run_binary(*args):
        return subprocess.run(
            [BINARY, *args], env=clean_environment(), capture_output=True, text=True, timeout=DEADLINE, check=False
        )


class Publishing(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        rooms = '[[rooms]]\nmatch = "ticker.*"\noverflow = "latest"\n[[rooms]]\nmatch = "*"\n'
        self.gateway = self.enterContext(Gateway("--config", configured(self, rooms)))
        self.description = Description(call(self.gateway, "GET", "/api/v1/openapi.json")[1])

    async def enter(self, query, *rooms):
        client = await Client.open(self.gateway, query)
        self.addAsyncCleanup(client.close)
        self.acks = [await client.request(type="join", room_id=room) for room in rooms]
        return client

    async def publish(self, body, status=200, **headers):
        """The answer, which is as it is described; and so is what was asked when it was understood."""
        found, answer = await publish(self.gateway, body, **headers)
        self.assertEqual(found, status, answer)
        self.description.check("POST", "/api/v1/publish", found, answer)
        self.assertTrue(status != 200 or self.description.accepts("Publish", body), body)
        return answer

    async def test_members_get_what_they_would_get_from_a_client(self):
        ann, ben = await self.enter("user=ann", 5), await self.enter("user=ben", 5)
        epoch = self.acks[0]["epoch"]
        said = {"room_id": 5, "content": "h\u00e9\n\"", "data": {"n": 2**63, "list": [1, None]}, "key": "k"}
        answer = await self.publish({**said, "from": "ann"})
        self.assertEqual(answer, {"offset": 1, "epoch": epoch})
        by_api = [await client.next_of("message") for client in (ann, ben)]
        ack = await ann.request(type="message", **said)
        self.assertEqual(ack["offset"], 2, "one order for all")
        by_client = [await client.next_of("message") for client in (ann, ben)]
        for one, other in zip(by_api, by_client, strict=True):
            one.pop("timestamp"), other.pop("timestamp")
            self.assertEqual(json.dumps(one), json.dumps(other))
        await self.publish({"room_id": "5", "content": "nobody's"})
        self.assertNotIn("from", await ann.next_of("message"))

    async def test_messages_of_a_room_that_numbers_them_carry_their_offset(self):
        ann = await self.enter("user=ann", "ticker.EUR")
        answer = await self.publish({"room_id": "ticker.EUR", "content": "1.1", "key": "bid"})
        message = await ann.next_of("message")
        self.assertEqual((message["offset"], answer["offset"]), (1, 1))

    async def test_a_room_without_members_a_user_and_everyone(self):
        self.assertEqual(await self.publish({"room_id": "empty", "content": "x"}), {})
        ann = [await self.enter("user=ann") for _ in range(3)]
        ben = await self.enter("user=ben")
        self.assertEqual(await self.publish({"to": "ann", "data": [1], "from": 7}), {"delivered": 3})
        for client in ann:
            message = await client.next_of("message")
            self.assertEqual((message["to"], message["from"], message["data"]), ("ann", 7, [1]))
        self.assertEqual(await self.publish({"to": "nobody", "content": "x"}), {"delivered": 0})
        self.assertEqual(await self.publish({"everyone": True, "content": "all"}), {})
        for client in [*ann, ben]:
            self.assertEqual((await client.next_of("message"))["content"], "all")

    async def test_one_connection_is_left_out_of_a_room_of_a_user_and_of_everyone(self):
        clients = [await self.enter("user=ann", "room") for _ in range(4)]
        left_out = clients[2]
        exclude = left_out.welcome["client_id"]
        for target in [{"room_id": "room"}, {"to": "ann"}, {"everyone": True}]:
            answer = await self.publish({**target, "content": "not for one", "exclude": exclude})
            if "to" in target:
                self.assertEqual(answer, {"delivered": 3})
            for client in clients:
                if client is not left_out:
                    self.assertEqual((await client.next_of("message"))["content"], "not for one")
            await self.publish({**target, "content": "for all", "exclude": "00000000000000ff"})
            for client in clients:
                self.assertEqual((await client.next_of("message"))["content"], "for all")

    async def test_a_repeat_gets_the_first_answer_and_is_not_published(self):
        ann = await self.enter("user=ann", 5)
        body = {"room_id": 5, "content": "once"}
        answers = [await self.publish(body, Idempotency_Key="order-7") for _ in range(3)]
        answers.append(await self.publish({**body, "idempotency_key": "order-7"}))
        self.assertEqual(len({json.dumps(answer) for answer in answers}), 1, answers)
        together = await asyncio.gather(*(publish(self.gateway, body, Idempotency_Key="order-8") for _ in range(10)))
        self.assertEqual({(status, answer["offset"]) for status, answer in together}, {(200, 2)})
        messages = [message for message in await ann.settled() if message["type"] == "message"]
        self.assertEqual(len(messages), 2)
        samples = self.gateway.scrape()
        self.assertEqual(samples['fanfare_api_publishes_total{result="repeated"}'], 12)
        self.assertEqual(samples['fanfare_broadcasts_total{source="api"}'], 2)

    async def test_what_cannot_be_understood_is_refused_and_named(self):
        for body, status, part in [
            (b"{", 400, "is not valid JSON"),
            (b'"text"', 400, "must be a JSON object"),
            ({"room_id": 5}, 400, "`content` is missing"),
            ({"content": "x"}, 400, "exactly one of `room_id`, `to` and `everyone`"),
            ({"room_id": 5, "content": 7}, 400, "`content` must be a string"),
            ({"room_id": 5, "content": "x", "type": "message"}, 400, '"type" is not known here'),
            ({"room_id": 5, "content": "x", "exclude": "7"}, 400, "16 hexadecimal digits"),
            (b'{"room_id":5,"data":' + b"[" * 10_000 + b"]" * 10_000 + b"}", 400, "nested too deep"),
            (b'{"room_id":5,"data":1e999}', 400, "`data` has a number"),
            (b'{"room_id":5,"content":"\\ud800"}', 400, "`content` has text that is not Unicode"),
            ({"room_id": 5, "content": "x" * 70_000}, 413, "more than"),
        ]:
            answer = await self.publish(body, status)
            self.assertIn(part, answer["message"])
        answer = await self.publish({"room_id": 5, "content": "x"}, 415, Content_Type="text/plain")
        self.assertEqual(answer["error"], "not_json")
        answer = await self.publish({"room_id": 5, "content": "x"}, 403, Origin="https://evil.example")
        self.assertEqual((await acall(self.gateway, "GET", "/api/v1/publish"))[0], 405)

    async def test_the_longest_message_passes(self):
        ann = await self.enter("user=ann", 5)
        await self.publish({"room_id": 5, "content": "x" * 65_536})
        self.assertEqual(len((await ann.next_of("message"))["content"]), 65_536)


class ManyLines(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.gateway = self.enterContext(Gateway(LIMITS__ROOM_PENDING_BYTES="64KiB", ROOMS=PLAIN))

    def lines(self, **headers):
        lines = Lines(self.gateway, **headers)
        self.addCleanup(lines.close)
        return lines

    async def test_lines_are_published_as_they_come_and_answered_in_their_order(self):
        description = Description(call(self.gateway, "GET", "/api/v1/openapi.json")[1])
        ann = await Client.open(self.gateway, "user=ann")
        self.addAsyncCleanup(ann.close)
        await ann.request(type="join", room_id=5)
        lines = self.lines()
        for number in range(1, 4):
            lines.send({"room_id": 5, "content": f"m{number}"})
            self.assertEqual((await asyncio.to_thread(lines.answer))["offset"], number, "before the next is sent")
            self.assertEqual((await ann.next_of("message"))["content"], f"m{number}")
        lines.send_text('\n{"room_id":5,"con')
        lines.send_text('tent":"cut"}\r\nnonsense\n{"room_id":9,"content":"nobody"}\n')
        lines.send({"to": "ann", "content": "x"}, {"room_id": 5, "content": "x" * 70_000}, {"everyone": True, "data": 1})
        lines.send_text('{"room_id":5,"content":"last"}')
        lines.end()
        answers = []
        while (answer := await asyncio.to_thread(lines.answer)) is not None:
            self.assertTrue(description.accepts("Published", answer) or description.accepts("Error", answer), answer)
            answers.append(answer)
        told = [answer.get("offset", answer.get("delivered", answer.get("error"))) for answer in answers]
        self.assertEqual(told, [4, "bad_request", None, 1, "too_long", None, 5])

    async def test_ten_thousand_lines_arrive_whole_and_in_order(self):
        count, rooms = 10_000, 10
        clients = []
        for room in range(rooms):
            client = await Client.open(self.gateway, f"user={room}", max_queue=None)
            self.addAsyncCleanup(client.close)
            await client.request(type="join", room_id=room)
            clients.append(client)
        lines = self.lines()

        def speak():
            for begin in range(0, count, 500):
                lines.send(*({"room_id": n % rooms, "content": str(n)} for n in range(begin, begin + 500)))
                for number in range(begin, begin + 500):
                    answer = lines.answer()
                    assert answer["offset"] == number // rooms + 1, answer
            lines.end()
            assert lines.answer() is None

        async def listen(room, client):
            got = [int((await client.next_of("message"))["content"]) for _ in range(count // rooms)]
            self.assertEqual(got, list(range(room, count, rooms)))

        begin = time.monotonic()
        await asyncio.gather(asyncio.to_thread(speak), *(listen(*pair) for pair in enumerate(clients)))
        self.assertLess(time.monotonic() - begin, DEADLINE)

    async def test_a_full_room_holds_the_caller_back_and_then_says_so(self):
        shards = [int(s.split('"')[1]) for s in self.gateway.scrape() if s.startswith("fanfare_shard_connections{")]
        client = await Client.open(self.gateway, "user=ann", max_queue=None)
        self.addAsyncCleanup(client.close)
        await client.request(type="join", room_id="full")
        (ours,) = call(self.gateway, "GET", "/api/v1/users/ann/connections")[1]["connections"]
        self.assertIn(ours["shard"], shards)
        body = {"room_id": "full", "content": "x" * 20_000}
        lines = self.lines()
        # The tracer must be one thread: everything is asked from this one.
        with StoppedThread(self.gateway.process.pid, f"shard-{ours['shard']}"):
            offsets = []
            while (found := call(self.gateway, "POST", "/api/v1/publish", body))[0] == 200:
                offsets.append(found[1]["offset"])
            self.assertEqual((found[0], found[1]["error"]), (503, "unavailable"))
            self.assertEqual(offsets, [1, 2, 3], "as much as may be on its way")
            begin = time.monotonic()
            lines.send(body, {"room_id": "other", "content": "x"})
            self.assertEqual(lines.answer()["error"], "unavailable")
            self.assertGreater(time.monotonic() - begin, 0.9)
            self.assertEqual(lines.answer(), {})
            lines.send(body)
            time.sleep(0.1)
        self.assertEqual(lines.answer()["offset"], 4, "the line waited until there was room")
        got = [len((await client.next_of("message"))["content"]) for _ in range(4)]
        self.assertEqual(got, [20_000] * 4)

    async def test_who_does_not_read_its_answers_is_not_read_from(self):
        lines = self.lines()
        lines.socket.settimeout(2)
        text = '{"room_id":"nobody","content":"x"}\n' * 1000
        sent = 0
        with self.assertRaises(OSError):
            while sent < 2_000_000:
                lines.send_text(text)
                sent += 1000
        resident = call(self.gateway, "GET", "/api/v1/stats")[1]["resident_bytes"]
        self.assertLess(resident, 200 << 20)

    async def test_callers_that_break_off_leave_nothing_behind(self):
        before = self.gateway.scrape()["process_open_fds"]
        for number in range(200):
            lines = Lines(self.gateway)
            lines.send({"room_id": 1, "content": "x"})
            if number % 3:
                lines.answer()
            lines.send_text('{"room_id":1,"cont')
            lines.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            lines.close()
        await poll_async("descriptors", lambda: self.gateway.scrape()["process_open_fds"] <= before)
        opened = [self.lines() for _ in range(32)]
        for lines in opened:
            lines.send({"room_id": 1, "content": "x"})
            self.assertEqual(await asyncio.to_thread(lines.answer), {}, "all places are free")

    async def test_requests_of_many_lines_leave_places_for_others(self):
        opened = [self.lines() for _ in range(32)]
        for lines in opened:
            lines.send({"room_id": 1, "content": "x"})
            self.assertEqual(await asyncio.to_thread(lines.answer), {})
        status, answer = await publish(self.gateway, b"{}\n", Content_Type="application/x-ndjson")
        self.assertEqual((status, answer["error"]), (429, "too_many"))
        self.assertEqual((await publish(self.gateway, {"room_id": 1, "content": "x"}))[0], 200)
        opened[0].end()
        self.assertIsNone(await asyncio.to_thread(opened[0].answer))

        def is_free():
            status, _ = call(self.gateway, "POST", "/api/v1/publish", b"{}\n", Content_Type="application/x-ndjson")
            return status == 200

        await poll_async("a place", is_free)


class Looking(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.gateway = self.enterContext(Gateway(ROOMS=PLAIN))
        self.description = Description(call(self.gateway, "GET", "/api/v1/openapi.json")[1])

    async def ask(self, method, path, body=None, status=200):
        found, answer = await acall(self.gateway, method, path, body)
        self.assertEqual(found, status, answer)
        self.description.check(method, path, found, answer)
        return answer

    async def test_rooms_users_and_numbers(self):
        ann = [await Client.open(self.gateway, "user=a%2Fb") for _ in range(2)]
        for client in ann:
            for room in ("chat/1", "chat/2", 7):
                await client.request(type="join", room_id=room)
        await ann[0].request(type="message", room_id="chat/1", content="hi")
        listed = await self.ask("GET", "/api/v1/rooms?limit=2")
        self.assertEqual([room["room_id"] for room in listed["rooms"]], [7, "chat/1"])
        listed = await self.ask("GET", f"/api/v1/rooms?limit=2&after={listed['next'].replace('/', '%2F')}")
        self.assertEqual([room["room_id"] for room in listed["rooms"]], ["chat/2"])
        self.assertNotIn("next", listed)
        listed = await self.ask("GET", "/api/v1/rooms?match=chat*")
        self.assertEqual([(room["room_id"], room["members"]) for room in listed["rooms"]], [("chat/1", 2), ("chat/2", 2)])
        room = await self.ask("GET", "/api/v1/rooms/chat%2F1")
        self.assertEqual((room["members"], room["messages"], room["offset"]), (2, 1, 1))
        await self.ask("GET", "/api/v1/rooms/nothing", status=404)
        await self.ask("GET", "/api/v1/rooms?limit=0", status=400)
        found = await self.ask("GET", "/api/v1/users/a%2Fb/connections")
        ids = {connection["client_id"] for connection in found["connections"]}
        self.assertEqual((ids, found["total"]), ({client.welcome["client_id"] for client in ann}, 2))
        await poll_async("counted", lambda: call(self.gateway, "GET", "/api/v1/stats")[1]["messages_received"] >= 7)
        stats = await self.ask("GET", "/api/v1/stats")
        self.assertEqual((stats["connections"], stats["rooms"], stats["users"]), (2, 3, 1))
        for path in ["/readyz", "/debug/slow", "/debug/connections?user=x", "/debug/rooms", "/api/v1/drain"]:
            await self.ask("GET", path)
        one = ann[0].welcome["client_id"]
        await self.ask("GET", f"/debug/connections/{one}")
        await self.ask("POST", "/api/v1/disconnect", {"client_id": one})
        await self.ask("POST", "/api/v1/disconnect", {}, status=400)
        await self.ask("POST", "/api/v1/revoke", {"user": 1}, status=409)
        self.assertEqual(await ann[0].closed(), 4501)
        await self.ask("GET", "/debug/closed")
        await self.ask("POST", "/api/v1/drain", {"window_seconds": 0})
        await self.ask("DELETE", "/api/v1/drain")
        await ann[1].close()

    async def test_every_route_that_answers_is_described(self):
        for path, operations in self.description.document["paths"].items():
            for method in operations:
                url = self.gateway.admin + path.replace("{", "").replace("}", "")
                status, _ = await asyncio.to_thread(fetch, url, method=method.upper())
                self.assertIn(str(status), operations[method]["responses"], f"{method} {path}")
        for path in ["/api/v1/nothing", "/api/v1"]:
            self.assertEqual((await acall(self.gateway, "GET", path))[0], 404)


class Keeping(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        rooms = '[[rooms]]\nmatch = "kept*"\nhistory = { messages = 100 }\npresence = "list"\n[[rooms]]\nmatch = "*"\n'
        self.gateway = self.enterContext(Gateway("--config", configured(self, rooms)))
        self.description = Description(call(self.gateway, "GET", "/api/v1/openapi.json")[1])

    async def ask(self, path, status=200):
        found, answer = await acall(self.gateway, "GET", f"/api/v1/rooms/{path}")
        self.assertEqual(found, status, answer)
        self.description.check("GET", f"/api/v1/rooms/{path}", found, answer)
        return answer

    async def test_what_is_said_while_nobody_is_there_is_kept_and_recovered(self):
        answers = [(await publish(self.gateway, {"room_id": "kept", "content": str(n)}))[1] for n in range(1, 151)]
        self.assertEqual([answer["offset"] for answer in answers], list(range(1, 151)))
        epoch = answers[0]["epoch"]
        self.assertEqual({answer["epoch"] for answer in answers}, {epoch})
        ann = await Client.open(self.gateway, "user=ann")
        self.addAsyncCleanup(ann.close)
        ack = await ann.request(type="join", room_id="kept", recover={"epoch": epoch, "offset": 60})
        self.assertEqual((ack["recovered"], ack["offset"]), (True, 150))
        got = [await ann.next_of("message") for _ in range(90)]
        self.assertEqual([message["content"] for message in got], [str(n) for n in range(61, 151)])
        history = await self.ask("kept/history?limit=90")
        self.assertEqual([json.dumps(m) for m in history["messages"]], [json.dumps(m) for m in got])
        behind = await self.ask(f"kept/history?epoch={epoch}&offset=148")
        self.assertEqual(([m["offset"] for m in behind["messages"]], behind["complete"]), ([149, 150], True))
        self.assertFalse((await self.ask(f"kept/history?epoch={epoch}&offset=1"))["complete"])
        self.assertFalse((await self.ask(f"kept/history?epoch={'0' * 16}&offset=150"))["complete"])
        await self.ask("kept/history?offset=150", status=400)
        await self.ask("other/history", status=404)
        listed = (await acall(self.gateway, "GET", "/api/v1/rooms"))[1]["rooms"]
        self.assertEqual([(r["room_id"], r["members"], r["messages"]) for r in listed], [("kept", 1, 150)])

    async def test_who_is_there_is_told_page_by_page(self):
        for number in range(30):
            client = await Client.open(self.gateway, f"user=u{number // 2:02}")
            self.addAsyncCleanup(client.close)
            await client.request(type="join", room_id="kept")
        seen, after = [], ""
        while True:
            page = await self.ask(f"kept/presence?limit=4{after}")
            self.assertEqual((page["users"], page["connections"]), (15, 30))
            seen += page["members"]
            if "next" not in page:
                break
            after = f"&after={page['next']}"
        self.assertEqual(seen, [{"user": f"u{n:02}", "connections": 2} for n in range(15)])
        self.assertEqual((await self.ask("kept-empty/presence"))["members"], [])
        await self.ask("other/presence", status=404)
        status, answer = await acall(self.gateway, "POST", "/api/v1/unsubscribe", {"room_id": "kept", "user": "u03"})
        self.assertEqual((status, answer["unsubscribed"]), (200, 2))
        await poll_async("out", lambda: call(self.gateway, "GET", "/api/v1/rooms/kept/presence")[1]["users"] == 14)


class Unsubscribing(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.gateway = self.enterContext(Gateway(ROOMS=PLAIN))

    async def enter(self, user, *rooms):
        client = await Client.open(self.gateway, f"user={user}")
        self.addAsyncCleanup(client.close)
        for room in rooms:
            await client.request(type="join", room_id=room)
        return client

    async def unsubscribe(self, **body):
        status, answer = await acall(self.gateway, "POST", "/api/v1/unsubscribe", body)
        self.assertEqual((status, answer["missing_shards"]), (200, []))
        return answer["unsubscribed"]

    async def test_who_is_taken_out_is_told_and_gets_nothing_more_and_nobody_else_notices(self):
        ann = [await self.enter("ann", 5, 6) for _ in range(3)]
        ben = await self.enter("ben", 5)
        self.assertEqual(await self.unsubscribe(room_id="5", user="ann"), 3)
        for client in ann:
            notice = await client.next_of("leave")
            timestamp = notice.pop("timestamp")
            self.assertAlmostEqual(timestamp, time.time(), delta=60)
            self.assertEqual(notice, {"type": "leave", "room_id": 5, "reason": "unsubscribed"})
        await publish(self.gateway, {"room_id": 5, "content": "without ann"})
        await publish(self.gateway, {"room_id": 6, "content": "with ann"})
        self.assertEqual((await ben.next_of("message"))["content"], "without ann")
        for client in ann:
            self.assertEqual([m["content"] for m in await client.settled() if m["type"] == "message"], ["with ann"])
        answer = await ann[0].request(type="message", room_id=5, content="x")
        self.assertEqual(answer["code"], "not_a_member")
        self.assertEqual((await ann[0].request(type="join", room_id=5))["type"], "ack", "it may come back")
        one = ann[0].welcome["client_id"]
        self.assertEqual(await self.unsubscribe(room_id=5, client_id=one), 1)
        self.assertEqual(await self.unsubscribe(room_id=5, client_id=one), 0)
        self.assertEqual(await self.unsubscribe(room_id="nothing", user="ann"), 0)
        self.assertEqual(await self.unsubscribe(room_id=5, user="ben"), 1)
        await poll_async("room 5 is over", lambda: call(self.gateway, "GET", "/api/v1/rooms/5")[0] == 404)


if __name__ == "__main__":
    unittest.main()
