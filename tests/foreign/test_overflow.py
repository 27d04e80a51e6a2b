"""Rooms that leave out messages for slow members say which, and close nobody."""

import asyncio
import json
import tempfile
import unittest
from pathlib import Path

from support import Client, Gateway, RawClient, poll_async

RULES = """
[[rooms]]
match = "logs.*"
overflow = "drop_oldest"
[[rooms]]
match = "ticker.*"
overflow = "latest"
"""
LAST = "the last one"


class SlowMembers(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        config = Path(folder) / "fanfare.toml"
        config.write_text(RULES)
        self.gateway = self.enterContext(Gateway("--config", str(config), LIMITS__OUTBOUND_BYTES="128KiB"))

    def slow_member(self, room, **options):
        member = RawClient(self.gateway, "user=slow", receive_buffer=4096, **options)
        self.addCleanup(member.close)
        member.send(type="join", room_id=room, id=1)
        member.next_of("ack")
        return member

    async def publish(self, room, count, key=lambda number: None):
        """Publishes so many, and sees them all."""
        fast = await Client.open(self.gateway, "user=fast")
        await fast.request(type="join", room_id=room)
        window, got = 64, []
        for number in range(count):
            about = key(number)
            message = {"key": about} if about else {}
            content = LAST if number == count - 1 else f"{number}:" + "x" * 1000
            await fast.send(type="message", room_id=room, content=content, **message)
            if number >= window:
                got.append((await fast.next_of("message"))["offset"])
        while len(got) < count:
            got.append((await fast.next_of("message"))["offset"])
        self.assertEqual(got, list(range(1, count + 1)))
        await fast.close()

    def heard(self, member):
        """Messages and gaps up to the last message, checked to be all there was in order."""
        messages, gaps, expected = [], [], 1
        while not messages or messages[-1]["content"] != LAST:
            opcode, payload = member.frame()
            if opcode == 9:
                continue  # The first ping comes at any time.
            self.assertEqual(opcode, 1, payload)
            message = json.loads(payload)
            if message["type"] == "gap":
                self.assertEqual(message["from_offset"], expected)
                expected = message["to_offset"] + 1
                gaps.append(message)
            elif message["type"] == "message":
                self.assertEqual(message["offset"], expected)
                expected += 1
                messages.append(message)
        return messages, gaps

    async def test_a_member_that_stalls_is_told_of_the_oldest_that_it_was_not_given(self):
        for subprotocol in ["fanfare.v1", "fanfare.v1.ndjson"]:
            room = f"logs.{subprotocol}"
            slow = self.slow_member(room, subprotocol=subprotocol)
            await self.publish(room, 8000)
            messages, gaps = await asyncio.to_thread(self.heard, slow)
            self.assertGreater(len(gaps), 0)
            self.assertLess(len(messages), 8000)
            self.assertEqual({(gap["room_id"], gap["reason"]) for gap in gaps}, {(room, "drop_oldest")})
            name = 'fanfare_messages_dropped_total{reason="drop_oldest"}'
            missing = sum(gap["to_offset"] - gap["from_offset"] + 1 for gap in gaps)
            await poll_async("dropped", lambda: self.gateway.scrape()[name] >= missing)
        self.assertEqual(self.gateway.scrape()['fanfare_connections_closed_total{reason="slow_consumer"}'], 0)

    async def test_of_each_key_the_newest_comes_last(self):
        slow = self.slow_member("ticker.fx")
        pairs = ["EURUSD", "USDJPY", 7]
        await self.publish("ticker.fx", 8001, key=lambda number: pairs[number % 3])
        messages, gaps = await asyncio.to_thread(self.heard, slow)
        self.assertEqual({gap["reason"] for gap in gaps}, {"latest"})
        newest = {message["key"]: message["offset"] for message in messages}
        self.assertEqual(newest, {"EURUSD": 7999, "USDJPY": 8000, 7: 8001})
        self.assertEqual(sorted(message["offset"] for message in messages[-3:]), [7999, 8000, 8001])

    async def test_other_rooms_close_who_does_not_read(self):
        slow = self.slow_member("chat")
        fast = await Client.open(self.gateway, "user=fast")
        await fast.request(type="join", room_id="chat")
        closed = 'fanfare_connections_closed_total{reason="slow_consumer"}'
        for _ in range(200):
            for _ in range(100):
                await fast.send(type="message", room_id="chat", content="x" * 1000)
            messages = await fast.settled()
            self.assertNotIn("offset", messages[0])
            if self.gateway.scrape()[closed]:
                break
        else:
            self.fail("it was not closed")
        messages, code = await asyncio.to_thread(slow.until_close)
        self.assertEqual(code, 4008)
        await fast.close()
