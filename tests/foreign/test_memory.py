"""What connections take of memory is counted and bounded, whatever they do."""

import asyncio
import re
import resource
import struct
import unittest
from collections import Counter
from pathlib import Path

from support import Client, Gateway, RawClient, fetch, masked, poll_async

MIB = 1 << 20
HARD = 32 * MIB
# What the process needs besides: code that is touched first, stacks, what the allocator keeps.
SLACK = 48 * MIB


def data_bytes(gateway):
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(re.search(r"VmData:\s+(\d+) kB", status)[1]) * 1024


class BoundedMemory(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        limits = {"LIMITS__MEMORY_SOFT": "24MiB", "LIMITS__MEMORY_HARD": "32MiB", "HEARTBEAT__WRITE": "120s"}
        self.gateway = self.enterContext(Gateway(**limits))
        # More than that, and the process would be gone.
        most = data_bytes(self.gateway) + HARD + SLACK
        resource.prlimit(self.gateway.process.pid, resource.RLIMIT_DATA, (most, most))

    def member(self, room, **options):
        member = RawClient(self.gateway, **options)
        self.addCleanup(member.close)
        member.send(type="join", room_id=room, id=1)
        member.next_of("ack")
        return member

    def closed_for_memory(self):
        return self.gateway.scrape()['fanfare_connections_closed_total{reason="memory"}']

    async def test_those_that_hold_most_are_closed_before_memory_runs_out(self):
        # Twice as much as may be held could wait for these, each in a room of its own.
        rooms = [f"room-{number}" for number in range(64)]
        slow = [self.member(room, receive_buffer=4096) for room in rooms]
        speaker = await Client.open(self.gateway, "user=speaker")
        for room in rooms:
            self.assertEqual((await speaker.request(type="join", room_id=room))["type"], "ack")
        content = "x" * 50_000
        for round_ in range(18):
            for room in rooms:
                await speaker.send(type="message", room_id=room, content=content, data=round_)
                message = await speaker.next_of("message")
                self.assertEqual((message["room_id"], message["data"]), (room, round_), "who reads loses nothing")
            self.assertLess(self.gateway.scrape()["fanfare_memory_bytes"], HARD * 1.1)
        self.assertGreater(self.closed_for_memory(), 0)
        await speaker.close()
        codes = Counter([await asyncio.to_thread(self.end, member) for member in slow])
        self.assertEqual(codes, {4008: self.closed_for_memory(), 1000: len(slow) - self.closed_for_memory()})
        await poll_async("memory given back", lambda: self.gateway.scrape()["fanfare_memory_bytes"] < MIB)
        self.assertIsNone(self.gateway.process.poll())

    def end(self, member):
        """Closes, and gives the code that the gateway said."""
        member.send_frame(0x88, struct.pack("!H", 1000))
        return member.until_close()[1]

    async def test_newcomers_are_refused_while_memory_is_short(self):
        hogs = [RawClient(self.gateway, query=f"user=hog-{number}") for number in range(450)]
        for hog in hogs:
            self.addCleanup(hog.close)
            hog.socket.sendall(masked(0x81, b"x" * 60_000)[:-1])
        await poll_async("short", lambda: self.gateway.scrape()["fanfare_memory_bytes"] > 24 * MIB)
        status, body = fetch(self.gateway.base + "/ws")
        self.assertEqual((status, "full" in body), (503, True), body)
        await poll_async("not ready", lambda: "memory_short" in fetch(self.gateway.admin + "/readyz")[1])
        for hog in hogs:
            hog.close()
        await poll_async("ready", lambda: fetch(self.gateway.admin + "/readyz")[0] == 200)
        newcomer = await Client.open(self.gateway)
        await newcomer.close()

    async def test_who_never_finishes_a_message_is_told_to_try_later(self):
        reader = await Client.open(self.gateway, "user=reader")
        hogs = [RawClient(self.gateway, query=f"user=hog-{number}") for number in range(700)]
        for hog in hogs:
            self.addCleanup(hog.close)
        for hog in hogs:
            # One byte short of a message.
            hog.socket.sendall(masked(0x81, b"x" * 60_000)[:-1])
        await poll_async("closed", self.closed_for_memory)
        await poll_async("bounded", lambda: self.gateway.scrape()["fanfare_memory_bytes"] <= HARD)
        self.assertEqual((await reader.request(type="join", room_id=1))["type"], "ack")
        await reader.close()
        closed = int(self.closed_for_memory())
        codes = Counter()
        for hog in hogs:
            hog.socket.sendall(b"x" + masked(0x88, struct.pack("!H", 1000)))
            codes[(await asyncio.to_thread(hog.until_close))[1]] += 1
        self.assertEqual(codes, {1013: closed, 1000: len(hogs) - closed})
        self.assertLess(closed, len(hogs) / 2)
