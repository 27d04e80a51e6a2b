"""Nothing missed: history, recovery, sessions that go on, and who is there."""

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import struct
import tempfile
import threading
import time
import unittest
from pathlib import Path

import jwt

from support import SECRET, Client, Gateway, RawClient, clean_environment, fetch, masked, poll, poll_async

MESSAGES = int(os.environ.get("FANFARE_RECOVERED_MESSAGES", "1000000"))
SEED = int(os.environ.get("FANFARE_SEED", random.randrange(1 << 32)))
HISTORY = '{ match = "chat*", history = { messages = 1000000, age = "10m", bytes = "512MiB" }, presence = true }'


def rules(*tables):
    return {"ROOMS": "[" + ", ".join(tables) + "]"}


def position(ack):
    return {"epoch": ack["epoch"], "offset": ack["offset"]}


def post(url, body):
    import urllib.request

    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method="POST")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=20) as response:
        return json.loads(response.read())


class Recovery(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway(HISTORY__BYTES="1GiB", **rules(HISTORY, '{ match = "short", history = { messages = 5 } }'))

    @classmethod
    def tearDownClass(cls):
        assert cls.gateway.stop() == 0, "".join(cls.gateway.log)

    async def asyncSetUp(self):
        self.clients = []
        self.room = f"chat-{self.id()}"[-100:]

    async def asyncTearDown(self):
        for client in self.clients:
            await client.close()

    async def open(self, user, gateway=None, **options):
        client = await Client.open(gateway or self.gateway, f"user={user}", **options)
        self.clients.append(client)
        return client

    async def say(self, client, room, *contents):
        for content in contents:
            await client.request(type="message", room_id=room, content=content)

    async def test_who_comes_back_gets_what_was_missed_and_nothing_twice(self):
        ann, ben = await self.open("ann"), await self.open("ben")
        await ann.request(type="join", room_id=self.room)
        await ben.request(type="join", room_id=self.room)
        await self.say(ann, self.room, "one")
        last = await ben.next_of("message")
        epoch = (await ben.request(type="join", room_id=self.room))["epoch"]
        ben.abort()
        await self.say(ann, self.room, "two", "three")

        ben = await self.open("ben")
        recover = {"epoch": epoch, "offset": last["offset"]}
        ack = await ben.request(type="join", room_id=self.room, recover=recover)
        await self.say(ann, self.room, "four")

        self.assertTrue(ack["recovered"])
        got = [await ben.next() for _ in range(3)]
        self.assertEqual([message["content"] for message in got], ["two", "three", "four"])
        offsets = [message["offset"] for message in got]
        self.assertEqual(offsets, list(range(last["offset"] + 1, last["offset"] + 4)))
        self.assertEqual(ack["offset"], offsets[1])

    async def test_recovery_is_refused_honestly_when_something_is_gone(self):
        ann = await self.open("ann")
        begin = position(await ann.request(type="join", room_id="short"))
        await self.say(ann, "short", *"abcdefgh")
        for offset, recovered in [(2, False), (3, True), (8, True), (9, False)]:
            with self.subTest(offset=offset):
                ben = await self.open("ben")
                recover = {"epoch": begin["epoch"], "offset": begin["offset"] + offset}
                ack = await ben.request(type="join", room_id="short", recover=recover)
                self.assertEqual(ack["recovered"], recovered)
                messages = [message for message in await ben.settled() if message["type"] == "message"]
                self.assertEqual(len(messages), 8 - offset if recovered else 0)

    async def test_a_killed_gateway_does_not_pretend_to_know_what_was_said(self):
        gateway = Gateway(**rules(HISTORY))
        ann = await self.open("ann", gateway)
        begin = position(await ann.request(type="join", room_id=self.room))
        await self.say(ann, self.room, "lost")
        gateway.signal(signal.SIGKILL)
        gateway.wait()
        for stream in (gateway.process.stdout, gateway.process.stderr):
            stream.close()
        with Gateway(**rules(HISTORY)) as gateway:
            ann = await self.open("ann", gateway)
            ack = await ann.request(type="join", room_id=self.room, recover=begin)
            self.assertFalse(ack["recovered"])
            self.assertNotEqual(ack["epoch"], begin["epoch"])
            self.assertEqual([message["type"] for message in await ann.settled()], ["join"])
            await ann.close()

    async def test_history_is_read_by_pages_and_with_a_join(self):
        ann = await self.open("ann")
        await ann.request(type="join", room_id="short")
        await self.say(ann, "short", *"ABCDEFG")
        page = await ann.request(type="history", room_id="short", limit=2)
        self.assertEqual([message["content"] for message in page["messages"]], ["F", "G"])
        since = {"epoch": page["epoch"], "offset": page["offset"] - 4}
        page = await ann.request(type="history", room_id="short", since=since, limit=3)
        self.assertEqual([message["content"] for message in page["messages"]], ["D", "E", "F"])
        self.assertTrue(page["complete"])
        ben = await self.open("ben")
        await ben.request(type="join", room_id="short", history=3)
        got = [message["content"] for message in await ben.settled()]
        self.assertEqual(got, ["E", "F", "G"])
        refused = await ben.request(type="history", room_id="elsewhere")
        self.assertEqual(refused["code"], "unavailable")

    async def test_one_resume_restores_all_rooms_with_what_was_missed(self):
        ann, ben = await self.open("ann"), await self.open("ben")
        rooms = [f"{self.room}-{number}"[-100:] for number in range(5)]
        rooms = [f"chat-{number}-{room}"[:100] for number, room in enumerate(rooms)]
        for room in rooms:
            await ann.request(type="join", room_id=room)
        positions = []
        for room in rooms:
            ack = await ben.request(type="join", room_id=room)
            positions.append({"room_id": room, **position(ack)})
        await ben.settled()
        session = ben.welcome["session"]
        ben.abort()
        for room in rooms:
            await self.say(ann, room, f"in {room}")
        # Another connection may be another shard's: try until both have been met.
        ben = await self.open(f"ben&session={session}")
        ack = await ben.request(type="resume", session=session, rooms=positions[:3])
        self.assertTrue(ack["resumed"])
        self.assertEqual({row["room_id"] for row in ack["rooms"]}, set(rooms))
        self.assertTrue(all(row["recovered"] for row in ack["rooms"][:3]))
        got = [message for message in await ben.settled() if message["type"] == "message"]
        self.assertEqual([message["content"] for message in got], [f"in {room}" for room in rooms[:3]])
        for room in rooms:
            await self.say(ann, room, "live")
        for _ in rooms:
            self.assertEqual((await ben.next_of("message"))["content"], "live")

    async def test_an_open_connection_is_taken_over_and_told_so(self):
        old = await self.open("ann")
        await old.request(type="join", room_id=self.room)
        new = await self.open("ann")
        ack = await new.request(type="resume", session=old.welcome["session"])
        self.assertEqual([row["room_id"] for row in ack["rooms"]], [self.room])
        self.assertEqual(await old.closed(), 1000)
        other = await self.open("eve")
        ack = await other.request(type="resume", session=new.welcome["session"], rooms=[{"room_id": 5}])
        self.assertEqual((ack["resumed"], len(ack["rooms"])), (False, 1))

    def test_no_message_is_lost_or_doubled_over_repeated_kicks_under_a_saturating_publisher(self):
        chaos = random.Random(SEED)
        room = f"chat-{SEED}"
        publisher = RawClient(self.gateway, "user=publisher")
        publisher.send(type="join", room_id=room, id=1)
        epoch = publisher.next_of("ack")["epoch"]

        def publish():
            text = json.dumps({"type": "message", "room_id": room, "content": "x" * 50, "echo": False}).encode()
            frames = masked(0x81, text) * 100
            for _ in range(MESSAGES // 100):
                publisher.socket.sendall(frames)

        publisher.socket.settimeout(None)

        def read_away():
            with contextlib.suppress(OSError):
                while publisher.socket.recv(1 << 16):
                    pass

        threading.Thread(target=read_away, daemon=True).start()
        writer = threading.Thread(target=publish)
        writer.start()
        marks = re.compile(rb'"type":"(message|join|leave)"[^}]*"offset":(\d+)}')
        # The offset up to which all was read, and how many messages that were; the rest are readers that come and go.
        seen, heard, kicks, began = 0, 0, 0, time.monotonic()
        while heard < MESSAGES:
            reader = RawClient(self.gateway, f"user=reader-{SEED}", subprotocol="fanfare.v1.ndjson")
            reader.send(type="join", room_id=room, id=1, recover={"epoch": epoch, "offset": seen})
            self.assertTrue(reader.next_of("ack")["recovered"], f"seed {SEED}, at {seen}")
            until = heard + chaos.randrange(1, MESSAGES // 5)
            how = chaos.randrange(3)
            data = reader.buffer
            while True:
                found = list(marks.finditer(data))
                offsets = [int(match[2]) for match in found]
                self.assertNotIn(b'"type":"gap"', data)
                expected = list(range(seen + 1, seen + 1 + len(offsets)))
                self.assertEqual(offsets, expected, f"seed {SEED}, after {kicks} kicks")
                if found:
                    seen = offsets[-1]
                    heard += sum(match[1] == b"message" for match in found)
                    data = data[found[-1].end():]
                if heard >= min(until, MESSAGES):
                    break
                try:
                    more = reader.socket.recv(1 << 18)
                except ConnectionResetError:
                    break
                if not more:
                    break
                data += more
            kicks += 1
            if how == 0:
                post(self.gateway.admin + "/api/v1/disconnect", {"user": f"reader-{SEED}"})
            elif how == 1:
                reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            reader.close()
        self.assertEqual(heard, MESSAGES)
        writer.join()
        publisher.close()
        rate = MESSAGES / (time.monotonic() - began)
        print(f"{MESSAGES} messages over {kicks} connections, {rate:.0f}/s", end=" ... ", flush=True)
        self.assertGreater(kicks, 3)


class Presence(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.gateway = Gateway(
            PRESENCE__DAMPING="1s", **rules('{ match = "p", presence = true }', '{ match = "l", presence = "list" }')
        )
        self.watcher = await Client.open(self.gateway, "user=watcher")
        await self.watcher.request(type="join", room_id="p")
        self.assertEqual((await self.watcher.next())["from"], "watcher", "it hears of itself")

    async def asyncTearDown(self):
        await self.watcher.close()
        self.assertEqual(self.gateway.stop(), 0)

    async def enter(self, user):
        client = await Client.open(self.gateway, f"user={user}")
        await client.request(type="join", room_id="p")
        return client

    async def test_each_user_comes_and_goes_once_whatever_its_connections_do(self):
        first, second = await self.enter("ann"), await self.enter("ann")
        self.assertEqual((await self.watcher.next())["type"], "join")
        answer = await self.watcher.request(type="presence", room_id="p")
        members = [{"user": "ann", "connections": 2}, {"user": "watcher", "connections": 1}]
        self.assertEqual((answer["users"], answer["connections"], answer["members"]), (2, 3, members))
        await first.close()
        await second.request(type="leave", room_id="p")
        said = await self.watcher.next()
        self.assertEqual((said["type"], said["from"]), ("leave", "ann"))
        self.assertEqual(await self.watcher.settled(), [])
        await second.close()

    async def test_nobody_hears_of_a_short_break_and_everybody_of_a_long_one(self):
        ann = await self.enter("ann")
        self.assertEqual((await self.watcher.next())["type"], "join")
        for _ in range(3):
            ann.abort()
            ann = await self.enter("ann")
        self.assertEqual(await self.watcher.settled(), [])
        began = time.monotonic()
        ann.abort()
        self.assertEqual((await self.watcher.next())["type"], "leave")
        self.assertGreater(time.monotonic() - began, 0.5)

    async def test_large_rooms_are_listed_by_pages(self):
        clients = []
        for number in range(25):
            client = await Client.open(self.gateway, f"user=u{number:02}")
            await client.request(type="join", room_id="l")
            clients.append(client)
        users, after = [], {}
        while True:
            page = await clients[0].request(type="presence", room_id="l", limit=10, **after)
            self.assertEqual((page["users"], page["connections"]), (25, 25))
            users += [member["user"] for member in page["members"]]
            if "next" not in page:
                break
            after = {"after": page["next"]}
        self.assertEqual(users, [f"u{number:02}" for number in range(25)])
        self.assertEqual(await clients[0].settled(), [], "a list only sends no events")
        for client in clients:
            await client.close()


class Rules(unittest.IsolatedAsyncioTestCase):
    async def test_who_may_join_publish_and_read_is_the_rooms_and_the_tokens_to_say(self):
        tables = [
            '{ match = "closed", join = "token", history = true, read = "token" }',
            '{ match = "news", publish = "token", history = true, read = "nobody" }',
            '{ match = "board", publish = "nobody" }',
        ]
        with Gateway("--auth", "jwt", AUTH__SECRET=SECRET, **rules(*tables)) as gateway:

            async def enter(**claims):
                claims = {"sub": "ann", "exp": int(time.time()) + 60, **claims}
                token = jwt.encode(claims, SECRET, algorithm="HS256")
                return await Client.open(gateway, f"token={token}")

            anyone = await enter()
            named = await enter(rooms=["closed", "news"], publish=["news"])
            self.assertEqual((await anyone.request(type="join", room_id="closed"))["code"], "forbidden")
            self.assertEqual((await anyone.request(type="history", room_id="closed"))["code"], "forbidden")
            self.assertEqual((await named.request(type="join", room_id="closed"))["type"], "ack")
            self.assertEqual((await named.request(type="history", room_id="closed"))["type"], "history")
            said = await named.request(type="message", room_id="closed", content="x")
            self.assertEqual(said["code"], "forbidden", "`publish` of the token does not name it")
            for client, kind in [(anyone, "error"), (named, "ack")]:
                await client.request(type="join", room_id="news")
                said = await client.request(type="message", room_id="news", content="x")
                self.assertEqual(said["type"], kind)
            self.assertEqual((await named.request(type="history", room_id="news"))["code"], "forbidden")
            await anyone.request(type="join", room_id="board")
            said = await anyone.request(type="message", room_id="board", content="x")
            self.assertEqual(said["code"], "forbidden")
            await anyone.close()
            await named.close()

    async def test_rules_are_read_again_on_sighup_and_mistakes_change_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "fanfare.toml"
            file.write_text('[[rooms]]\nmatch = "a"\n')
            with Gateway("--config", str(file)) as gateway:
                client = await Client.open(gateway, "user=ann")
                await client.request(type="join", room_id="a")
                self.assertEqual((await client.request(type="history", room_id="a"))["code"], "unavailable")
                file.write_text('[[rooms]]\nmatch = "a"\nhistory = { messages = 3 }\n')
                gateway.signal(signal.SIGHUP)

                async def has_history():
                    return (await client.request(type="history", room_id="a"))["type"] == "history"

                for _ in range(200):
                    if await has_history():
                        break
                    await asyncio.sleep(0.05)
                for content in "abcde":
                    await client.request(type="message", room_id="a", content=content)
                page = await client.request(type="history", room_id="a")
                self.assertEqual([message["content"] for message in page["messages"]], ["c", "d", "e"])
                file.write_text('[[rooms]]\nhistory = "much"\n[limits]\nroom = 3\n')
                gateway.signal(signal.SIGHUP)
                name = "fanfare_config_last_reload_successful"
                await poll_async("the gauge", lambda: gateway.scrape()[name] == 0)
                self.assertTrue(await has_history(), "the old rules stay")
                log = "".join(gateway.log)
                self.assertIn("`match` is missing", log)
                self.assertIn("limits.room", log)
                await client.close()

    def test_what_is_too_old_is_forgotten_with_its_room_and_every_gauge_is_back(self):
        tables = '{ match = "*", history = { age = "1s" }, presence = true }'
        with Gateway(PRESENCE__DAMPING="100ms", **rules(tables)) as gateway:
            for number in range(20):
                client = RawClient(gateway, f"user=u{number}")
                client.send(type="join", room_id=number, id=1)
                client.next_of("ack")
                client.send(type="message", room_id=number, content="x", id=2)
                client.next_of("ack")
                client.close()
            self.assertGreater(gateway.scrape()["fanfare_history_messages"], 0)
            names = ["fanfare_history_messages", "fanfare_history_bytes", "fanfare_rooms", "fanfare_users"]
            poll("gauges", lambda: all(gateway.scrape()[name] == 0 for name in names))


if __name__ == "__main__":
    unittest.main()
