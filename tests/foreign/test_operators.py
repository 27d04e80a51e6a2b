"""What an operator asks of a running gateway: who is slow, why was one closed, what happens in a room."""

import asyncio
import contextlib
import http.client
import json
import re
import socket
import time
import unittest
from urllib.parse import quote

from faults import StoppedThread
from support import DEADLINE, Client, Gateway, RawClient, fetch, poll_async

STAGES = "fanfare_delivery_stage_duration_seconds"


def ask(gateway, path):
    status, body = fetch(gateway.admin + path)
    return status, json.loads(body)


def above(samples, name, labels, seconds):
    """How many observations of a histogram were longer."""
    buckets = {}
    for series, count in samples.items():
        match = re.fullmatch(rf'{name}_bucket\{{(.*),?le="(.+)"\}}', series)
        if match and match[1].rstrip(",") == labels:
            buckets[float(match[2])] = count
    return buckets[float("inf")] - max(count for bound, count in buckets.items() if bound <= seconds)


class Events:
    """The server-sent events of a live tap."""

    def __init__(self, gateway, query):
        host, port = gateway.admin.removeprefix("http://").split(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=DEADLINE)
        # A small buffer, so that it does not take thousands of events before one is lost.
        self.connection.sock = socket.socket()
        self.connection.sock.settimeout(DEADLINE)
        self.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.connection.sock.connect((host, int(port)))
        self.connection.request("GET", f"/debug/tap?{query}")
        self.response = self.connection.getresponse()
        self.kind = self.response.getheader("content-type")

    def next(self):
        """The next event: its name and data."""
        name = None
        while True:
            line = self.response.readline().decode()
            assert line, "the stream ended"
            if line.startswith("event:"):
                name = line.removeprefix("event:").strip()
            elif line.startswith("data:"):
                return name, json.loads(line.removeprefix("data:"))

    def until(self, name):
        """The data of the next event of this name, and the names of those before it."""
        before = []
        while True:
            got, data = self.next()
            if got == name:
                return data, before
            before.append(got)

    def close(self):
        # The socket of an answer that ends with its connection belongs to the response.
        self.response.close()
        self.connection.close()


async def room_of(gateway, room, *users):
    clients = []
    for user in users:
        client = await Client.open(gateway, f"user={user}")
        assert (await client.request(type="join", room_id=room))["type"] == "ack"
        clients.append(client)
    return clients


class SlowClients(unittest.IsolatedAsyncioTestCase):
    async def test_a_client_that_stalls_is_named_and_its_wait_is_in_the_client_queue_only(self):
        with Gateway("--shards", "1") as gateway:
            publisher, reader = await room_of(gateway, "news", "ann", "ben")
            slow = await asyncio.to_thread(RawClient, gateway, "user=slow", 4096)
            client_id = slow.next_of("welcome")["client_id"]
            slow.send(type="join", room_id="news", id=1)
            slow.next_of("ack")

            async def publish_until_it_waits():
                content = "x" * 30_000
                while True:
                    await publisher.request(type="message", room_id="news", content=content)
                    await publisher.settled()
                    await reader.settled()
                    listed = (await asyncio.to_thread(ask, gateway, "/debug/slow?k=3"))[1]["connections"]
                    if listed and listed[0]["queue"]["messages"] > 3:
                        return listed

            listed = await asyncio.wait_for(publish_until_it_waits(), DEADLINE)
            self.assertEqual([connection["user"] for connection in listed], ["slow"])
            self.assertEqual(listed[0]["client_id"], client_id)
            self.assertEqual(listed[0]["rooms"], ["news"])
            self.assertGreater(listed[0]["queue"]["bytes"], 90_000)
            self.assertTrue(listed[0]["peer"].startswith("127.0.0.1:"), listed[0])

            def oldest():
                status, found = ask(gateway, f"/debug/connections/{client_id}")
                self.assertEqual(status, 200)
                return found["connection"]["queue"]["oldest_seconds"] > 1.5 and found["connection"]

            waited = (await poll_async("the stall", oldest))["queue"]["oldest_seconds"]
            samples = await asyncio.to_thread(gateway.scrape)
            self.assertEqual(samples['fanfare_backlogged_connections{shard="0"}'], 1)
            self.assertGreater(samples['fanfare_outbound_queue_messages{shard="0"}'], 3)
            self.assertGreater(samples['fanfare_outbound_queue_oldest_age_seconds{shard="0"}'], 1)

            def read_all():
                with contextlib.suppress(TimeoutError, EOFError):
                    while ask(gateway, "/debug/slow")[1]["connections"]:
                        slow.frame()

            await asyncio.wait_for(asyncio.to_thread(read_all), DEADLINE)
            samples = await asyncio.to_thread(gateway.scrape)
            stage = lambda name: f'source="client",stage="{name}"'
            self.assertGreater(above(samples, STAGES, stage("client_queue"), 1), 0, f"it waited {waited} s")
            for name in ("ingress", "inbox", "fan_out"):
                self.assertEqual(above(samples, STAGES, stage(name), 1), 0, name)
            self.assertEqual(above(samples, "fanfare_delivery_duration_seconds", 'source="client"', 1), 0)
            self.assertEqual(samples['fanfare_outbound_queue_messages{shard="0"}'], 0)
            self.assertGreater(samples["fanfare_outbound_queue_flush_bytes_count"], 0)
            slow.close()

    async def test_the_stages_of_delivery_add_up(self):
        with Gateway() as gateway:
            clients = await room_of(gateway, "lobby", *(f"user-{number}" for number in range(8)))
            for number in range(50):
                await clients[number % 8].request(type="message", room_id="lobby", content="x")
            for client in clients:
                await client.settled()

            def settled():
                samples = gateway.scrape()
                name = "fanfare_delivery_duration_seconds"
                return samples[f'{name}_count{{source="client"}}'] >= 100 and samples

            samples = await poll_async("the counts", settled)
            total = samples['fanfare_delivery_duration_seconds_sum{source="client"}']
            stages = [samples[f'{STAGES}_sum{{source="client",stage="{name}"}}'] for name in ("ingress", "inbox", "fan_out")]
            self.assertAlmostEqual(sum(stages), total, delta=1e-6)
            self.assertTrue(all(seconds > 0 for seconds in stages), stages)


class WhoWasClosed(unittest.IsolatedAsyncioTestCase):
    async def test_the_last_closed_connections_are_listed_with_their_cause(self):
        with Gateway() as gateway:
            rude = await Client.open(gateway, "user=rude")
            await rude.connection.send(b"binary")
            self.assertEqual(await rude.closed(), 1003)
            polite = await Client.open(gateway, "user=polite")
            await polite.close()

            def both():
                closed = ask(gateway, "/debug/closed?k=10")[1]["closed"]
                return len(closed) == 2 and closed

            last, first = await poll_async("both are listed", both)
            self.assertEqual((first["user"], first["reason"], first["code"]), ("rude", "invalid_payload", 1003))
            self.assertIn("binary", first["detail"])
            self.assertEqual((last["user"], last["reason"], last["code"]), ("polite", "client", None))
            self.assertAlmostEqual(last["closed_at"], time.time(), delta=60)
            samples = await asyncio.to_thread(gateway.scrape)
            self.assertEqual(samples['fanfare_close_frames_sent_total{code="1003"}'], 1)
            self.assertEqual(samples['fanfare_close_frames_sent_total{code="reply"}'], 1)
            self.assertEqual(samples['fanfare_close_frames_received_total{class="normal"}'], 1)
            self.assertEqual(samples["fanfare_connection_duration_seconds_count"], 2)

    async def test_a_connection_that_was_reset_is_listed_with_where_it_came_from(self):
        with Gateway() as gateway:
            torn = await Client.open(gateway, "user=torn")
            host, port = torn.connection.local_address[:2]
            torn.abort()
            (closed,) = await poll_async("it is listed", lambda: ask(gateway, "/debug/closed")[1]["closed"])
            self.assertEqual((closed["user"], closed["peer"]), ("torn", f"{host}:{port}"))

    async def test_a_connection_is_found_by_its_number_and_by_its_user(self):
        with Gateway() as gateway:
            phone, desk = await room_of(gateway, 5, "ann", "ann")
            await room_of(gateway, 5, "ben")
            status, found = await asyncio.to_thread(ask, gateway, f"/debug/connections/{phone.welcome['client_id']}")
            found = found["connection"]
            self.assertEqual((status, found["user"], found["rooms"], found["queue"]), (200, "ann", [5], None))
            status, found = await asyncio.to_thread(ask, gateway, "/debug/connections?user=ann")
            numbers = {connection["client_id"] for connection in found["connections"]}
            self.assertEqual(numbers, {client.welcome["client_id"] for client in (phone, desk)})
            status, answer = await asyncio.to_thread(ask, gateway, "/debug/connections/00000000000000ff")
            self.assertEqual(status, 404)
            for query in ("k=0", "k=1001", "k=x", "k=1&k=2", "size=3"):
                status, answer = await asyncio.to_thread(ask, gateway, f"/debug/slow?{query}")
                self.assertEqual((status, answer["error"]), (400, "bad_request"), query)

    async def test_pings_tell_the_round_trip(self):
        with Gateway(HEARTBEAT__PING="200ms") as gateway:
            await Client.open(gateway, "user=ann")
            samples = await poll_async("round trips", lambda: (s := gateway.scrape())["fanfare_ping_rtt_seconds_count"] > 2 and s)
            self.assertEqual(above(samples, "fanfare_ping_rtt_seconds", "", 5), 0)


class Taps(unittest.IsolatedAsyncioTestCase):
    async def test_a_room_can_be_watched_while_it_lives(self):
        with Gateway() as gateway:
            events = await asyncio.to_thread(Events, gateway, "room=caf%C3%A9%20%26%20bar")
            self.assertEqual(events.kind.split(";")[0], "text/event-stream")
            name, _ = await asyncio.to_thread(events.next)
            self.assertEqual(name, "tapped")
            (ann,) = await room_of(gateway, "café & bar", "ann")
            joined, _ = await asyncio.to_thread(events.until, "joined")
            self.assertEqual((joined["user"], joined["client_id"]), ("ann", ann.welcome["client_id"]))
            await ann.request(type="message", room_id="café & bar", content="hello")
            message, _ = await asyncio.to_thread(events.until, "message")
            self.assertEqual((message["offset"], json.loads(message["text"])["content"]), (1, "hello"))
            delivered, _ = await asyncio.to_thread(events.until, "delivered")
            self.assertEqual((delivered["messages"], delivered["recipients"]), (1, 1))
            await ann.close()
            left, _ = await asyncio.to_thread(events.until, "left")
            self.assertEqual(left["user"], "ann")
            self.assertEqual((await asyncio.to_thread(gateway.scrape))["fanfare_debug_taps"], 1)
            events.close()
            await poll_async("nobody looks", lambda: gateway.scrape()["fanfare_debug_taps"] == 0)

    async def test_a_message_of_a_room_on_several_shards_is_shown_once(self):
        with Gateway("--shards", "4") as gateway:
            events = await asyncio.to_thread(Events, gateway, "room=all")
            clients = await room_of(gateway, "all", *(f"user-{number}" for number in range(20)))
            for number in range(10):
                await clients[number].request(type="message", room_id="all", content=str(number))
            offsets = []
            while len(offsets) < 10:
                message, _ = await asyncio.to_thread(events.until, "message")
                offsets.append(message["offset"])
            self.assertEqual(offsets, list(range(1, 11)))
            events.close()

    async def test_a_connection_can_be_watched_until_it_ends(self):
        with Gateway() as gateway:
            (ann,) = await room_of(gateway, 5, "ann")
            events = await asyncio.to_thread(Events, gateway, f"connection={ann.welcome['client_id']}")
            await asyncio.to_thread(events.until, "tapped")
            await ann.request(type="message", room_id=5, content="hello")
            received, _ = await asyncio.to_thread(events.until, "received")
            self.assertEqual(json.loads(received["text"])["content"], "hello")
            sent, _ = await asyncio.to_thread(events.until, "sent")
            self.assertEqual((sent["messages"], sent["is_queued"]), (1, False))
            await ann.close()
            closed, _ = await asyncio.to_thread(events.until, "closed")
            self.assertEqual(closed["reason"], "client")
            await asyncio.to_thread(events.until, "end")
            events.close()

    async def test_nobody_waits_for_a_tap_that_is_not_read(self):
        with Gateway("--shards", "1") as gateway:
            ann, ben = await room_of(gateway, 5, "ann", "ben")
            events = await asyncio.to_thread(Events, gateway, "room=5")
            content = "x" * 2000
            rounds = 0
            while (await asyncio.to_thread(gateway.scrape))["fanfare_debug_tap_events_lost_total"] == 0:
                for _ in range(200):
                    await ann.request(type="message", room_id=5, content=content)
                rounds += 1
                self.assertEqual(len(await ben.settled()), 200)
                self.assertLess(rounds, 100, "the tap's queue has a bound")
            lost, _ = await asyncio.to_thread(events.until, "lost")
            self.assertGreater(lost["count"], 0)
            events.close()


class HotRooms(unittest.IsolatedAsyncioTestCase):
    async def test_the_hottest_rooms_are_listed_and_no_others(self):
        with Gateway(LIMITS__ROOMS="2000") as gateway:
            (ann,) = await room_of(gateway, "quiet", "ann")
            for number in range(300):
                await ann.send(type="join", room_id=f"room-{number}")
                await ann.send(type="message", room_id=f"room-{number}", content="x")
            hot = ['a "quoted" \\ name', "zweite", "troisième"]
            for rank, room in enumerate(hot):
                await ann.request(type="join", room_id=room)
                for _ in range(20 * (rank + 2)):
                    await ann.request(type="message", room_id=room, content="x")
            await ann.settled()
            status, page = await asyncio.to_thread(fetch, gateway.admin + "/metrics/rooms?k=3")
            self.assertEqual(status, 200)
            messages = dict(re.findall(r'^fanfare_room_messages_total\{room="(.*)"\} (\d+)$', page, re.MULTILINE))
            escaped = 'a \\"quoted\\" \\\\ name'
            self.assertEqual(messages[escaped], "40")
            self.assertEqual((messages["zweite"], messages["troisième"]), ("60", "80"))
            self.assertLessEqual(len(messages), 12, "three by each of four measures")
            self.assertNotIn("quiet", messages)
            self.assertIn("\nfanfare_rooms_missing_shards 0\n", page)

    async def test_a_room_spread_over_shards_is_found_although_no_shard_has_many_of_its_members(self):
        with Gateway("--shards", "4", LIMITS__ROOMS="1000") as gateway:
            wide = [f"wide-{number}" for number in range(10)]
            clients = await room_of(gateway, "lobby", *(f"user-{number}" for number in range(16)))
            for client in clients:
                for room in wide:
                    await client.request(type="join", room_id=room)
            # Each shard has rooms of one member that it delivers more to than to its four of a wide room.
            for number in range(200):
                speaker = clients[number % 16]
                await speaker.send(type="join", room_id=f"narrow-{number}")
                for _ in range(60):
                    await speaker.send(type="message", room_id=f"narrow-{number}", content="x")
            for client in clients:
                await client.settled()
            for room in wide:
                for _ in range(10):
                    await clients[0].request(type="message", room_id=room, content="x")

            def counts():
                rooms = ask(gateway, "/debug/rooms?k=10")[1]["rooms"]
                return {room["room"]: (room["members"], room["messages"], room["deliveries"]) for room in rooms}

            expected = {room: (16, 10, 160) for room in wide}
            await poll_async("the wide ones", lambda: {room: counts().get(room) for room in wide} == expected)
            for client in clients[1:]:
                await client.settled()
                await client.close()
            await poll_async("all but one to leave", lambda: counts()[wide[0]][0] == 1)
            after = await asyncio.to_thread(counts)
            self.assertEqual({room: after.get(room) for room in wide}, {room: (1, 10, 160) for room in wide})


class StoppedShards(unittest.IsolatedAsyncioTestCase):
    async def test_a_shard_that_stands_still_is_named_and_hides_nothing(self):
        with Gateway() as gateway:
            clients = await room_of(gateway, 5, *(f"user-{number}" for number in range(10)))
            self.assertEqual(await asyncio.to_thread(ask, gateway, "/readyz"), (200, {"ready": True, "reasons": []}))
            with StoppedThread(gateway.process.pid, "shard-1"):
                samples = await poll_async(
                    "the watchdog", lambda: (s := gateway.scrape())['fanfare_shard_stalled_seconds{shard="1"}'] > 1 and s
                )
                self.assertEqual(samples['fanfare_shard_stalled_seconds{shard="0"}'], 0)
                self.assertEqual(samples['fanfare_shard_stalls_total{shard="1"}'], 1)
                self.assertEqual(samples["fanfare_ready"], 0)
                status, answer = await asyncio.to_thread(ask, gateway, "/readyz")
                self.assertEqual((status, answer["reasons"][0]["reason"]), (503, "shard_stalled"))
                self.assertIn("shard 1", answer["reasons"][0]["detail"])
                status, answer = await asyncio.to_thread(ask, gateway, "/debug/slow")
                self.assertEqual((status, answer["missing_shards"]), (200, [1]))
            await poll_async("it is ready again", lambda: ask(gateway, "/readyz")[0] == 200)
            samples = await asyncio.to_thread(gateway.scrape)
            self.assertEqual(samples['fanfare_shard_stalled_seconds{shard="1"}'], 0)
            self.assertGreater(above(samples, "fanfare_shard_lag_seconds", 'shard="1"', 1), 0)
            for client in clients:
                self.assertEqual((await client.request(type="ping"))["type"], "pong")
            log = "".join(gateway.log)
            self.assertRegex(log, r"WARN.*shard.*1")


class Logs(unittest.IsolatedAsyncioTestCase):
    async def test_lines_in_json_tell_the_life_of_the_gateway_and_no_secret(self):
        gateway = Gateway("--log-format", "json", "--auth", "jwt", AUTH__SECRET="not to be seen anywhere 0123456789")
        token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOjd9.c2lnbmF0dXJl"
        for _ in range(30):
            with self.assertRaisesRegex(AssertionError, "401"):
                await asyncio.to_thread(RawClient, gateway, f"token={token}")
        # Those that were refused stay for a moment, so that they see why.
        await poll_async("nobody is left", lambda: ask(gateway, "/api/v1/drain")[1]["connections"] == 0)
        self.assertEqual(await asyncio.to_thread(gateway.stop), 0)
        await poll_async("the last line", lambda: any("stopped" in line for line in gateway.log))
        lines = [json.loads(line) for line in gateway.log]
        messages = [line["message"] for line in lines]
        for expected in ("started", "draining", "drained", "stopped"):
            self.assertEqual(sum(expected in message for message in messages), 1, messages)
        self.assertTrue(all({"timestamp", "level", "target"} <= line.keys() for line in lines))
        text = "".join(gateway.log)
        self.assertNotIn("not to be seen", text)
        self.assertNotIn(token, text)
        self.assertLess(len(lines), 12, "what peers do wrong is not said at this level")
        told = {line["message"].split(":")[0]: line for line in lines}
        self.assertEqual((told["draining"]["connections"], told["draining"]["window_seconds"]), (0, 0.2))
        self.assertEqual(told["drained"]["connections"], 0)
        self.assertIsInstance(told["drained"]["seconds"], float)

    async def test_what_clients_do_is_one_flat_line_each_whatever_they_are_called(self):
        forger = "a\nb\x1b[31m reason=x"
        for form in ("text", "json"):
            gateway = Gateway("--log-format", form, "--log-level", "debug")
            client = await Client.open(gateway, f"user={quote(forger)}")
            await client.connection.close()
            with self.assertRaisesRegex(AssertionError, "400"):
                await asyncio.to_thread(RawClient, gateway, "user=")
            self.assertEqual(await asyncio.to_thread(gateway.stop), 0)
            await poll_async("the last line", lambda: any("stopped" in line for line in gateway.log))
            (ended,) = (line for line in gateway.log if "a connection ended" in line)
            (refused,) = (line for line in gateway.log if "a request was refused" in line)
            if form == "text":
                self.assertIn(r'user="a\nb\u{1b}[31m reason=x" ', ended)
                self.assertTrue(all(re.match(r" *\d{4}-\d\d-\d\dT", line) for line in gateway.log), gateway.log)
                continue
            ended, refused = json.loads(ended), json.loads(refused)
            self.assertEqual((ended["user"], ended["reason"]), (forger, "client"))
            self.assertRegex(ended["peer"], r"^127\.0\.0\.1:\d+$")
            self.assertEqual((refused["status"], refused["reason"]), (400, "bad_request"))

    async def test_warnings_about_the_configuration_are_lines_like_all_others(self):
        gateway = Gateway("--log-format", "json", "--auth", "jwt", AUTH__SECRET="short")
        self.assertEqual(await asyncio.to_thread(gateway.stop), 0)
        await poll_async("the last line", lambda: any("stopped" in line for line in gateway.log))
        lines = [json.loads(line) for line in gateway.log]
        (warning,) = (line for line in lines if line.get("key") == "auth.secret")
        self.assertEqual(warning["level"], "WARN")
        self.assertIn("has 5 bytes", warning["message"])


if __name__ == "__main__":
    unittest.main()
