"""What happens to the process: no descriptors, killed, stopped, told to end with clients that cannot be told."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import threading
import time
import unittest
from pathlib import Path

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from proxy import CUT, SEED, STALL, FaultyLink, Harm, chance
from support import DEADLINE, Client, Gateway, RawClient, poll_async

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(gateway):
    """User and system time of the process so far."""
    fields = Path(f"/proc/{gateway.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def open_descriptors(gateway):
    return len(os.listdir(f"/proc/{gateway.process.pid}/fd"))


class Case(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)

    def gateway(self, *args, **settings):
        gateway = Gateway(*args, **settings)
        self.addCleanup(gateway.stop)
        return gateway

    async def member(self, gateway, room="room", **options):
        client = await Client.open(gateway, **options)
        # Not by a Close, whose answer may never come.
        self.addCleanup(client.connection.transport.abort)
        self.assertEqual((await client.request(type="join", room_id=room))["type"], "ack")
        return client

    async def assert_served(self, members, room="room"):
        """Each of them may say something, and all hear it."""
        for speaker in members:
            text = f"{time.time_ns()}"
            self.assertEqual((await speaker.request(type="message", room_id=room, content=text))["type"], "ack")
            for member in members:
                self.assertEqual((await member.next_of("message"))["content"], text)


class Descriptors(Case):
    def connect(self, gateway):
        sock = socket.create_connection((gateway.host, gateway.port), timeout=DEADLINE)
        self.addCleanup(sock.close)
        return sock

    async def test_without_descriptors_those_inside_are_served_and_those_outside_wait_for_a_place(self):
        gateway = self.gateway(LIMITS__HANDSHAKE="60s")
        members = [await self.member(gateway) for _ in range(4)]
        failures = 'fanfare_accept_errors_total{reason="descriptors"}'
        self.assertEqual((await asyncio.to_thread(gateway.scrape))[failures], 0)
        limit = open_descriptors(gateway) + 10
        resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
        crowd = [self.connect(gateway) for _ in range(100)]
        await poll_async("descriptors have run out", lambda: open_descriptors(gateway) >= limit)
        used, began = cpu_seconds(gateway), time.monotonic()
        while time.monotonic() - began < 3:
            await self.assert_served(members)
            await asyncio.sleep(0.1)
        self.assertLess(cpu_seconds(gateway) - used, 1, "it waits, and does not try without end")
        waiting = asyncio.create_task(self.member(gateway))
        for sock in crowd:
            sock.close()
        await self.assert_served([*members, await asyncio.wait_for(waiting, DEADLINE)])
        accepted = 'fanfare_accepted_connections_total{listener="public"}'
        await poll_async("the crowd has come and gone", lambda: gateway.scrape()[accepted] == len(members) + len(crowd) + 1)
        counted = (await asyncio.to_thread(gateway.scrape))[failures]
        self.assertGreater(counted, 0)
        self.assertLess(counted, 60, "it waits longer each time")
        await self.assert_served([await self.member(gateway, "later") for _ in range(3)], "later")
        self.assertEqual((await asyncio.to_thread(gateway.scrape))[failures], counted)

    async def test_started_with_few_descriptors_it_takes_no_more_connections_than_fit(self):
        gateway = self.gateway(prefix=("prlimit", "--nofile=160:160"), LIMITS__HANDSHAKE="60s")
        limit = int(await poll_async("the limit", lambda: gateway.scrape().get("fanfare_connections_limit")))
        self.assertLess(limit, 160)
        members = [await self.member(gateway) for _ in range(4)]
        crowd = [self.connect(gateway) for _ in range(limit + 200)]

        async def refused():
            try:
                client = await Client.open(gateway, open_timeout=5)
                await client.close()
            except (OSError, EOFError, TimeoutError, ConnectionClosed, InvalidHandshake):
                return True
            return False

        self.assertTrue(await refused())
        await self.assert_served(members)
        samples = await asyncio.to_thread(gateway.scrape)
        self.assertGreater(samples['fanfare_handshake_failures_total{reason="capacity"}'], 0)
        self.assertEqual(samples['fanfare_accept_errors_total{reason="descriptors"}'], 0, "the admin listener has its own")
        for sock in crowd:
            sock.close()
        end = time.monotonic() + DEADLINE
        while await refused():
            self.assertLess(time.monotonic(), end)
        await self.assert_served(members)


class Killed(Case):
    async def test_after_a_kill_under_load_clients_come_back_and_nothing_is_claimed_to_be_recovered(self):
        gateway = self.gateway()
        address = f"{gateway.host}:{gateway.port}"
        epochs, is_over = {}, False

        async def life(number):
            """Comes back whenever it is cut off, and says in its room since when that is there."""
            choices, room, position = chance("life", number), number % 5, {}
            while not is_over:
                try:
                    client = await Client.open(gateway)
                    ack = await client.request(type="join", room_id=room, **position)
                    self.assertIs(ack["recovered"], False)
                    position = {"recover": {"epoch": ack["epoch"], "offset": ack["offset"]}}
                    while True:
                        await client.send(type="message", room_id=room, content=str(ack["epoch"]))
                        message = await client.next_of("message")
                        self.assertEqual(message["content"], str(ack["epoch"]), "nothing of an earlier life")
                        epochs[number] = ack["epoch"]
                        await asyncio.sleep(choices.uniform(0, 0.02))
                except (OSError, EOFError, TimeoutError, ConnectionClosed, InvalidHandshake):
                    await asyncio.sleep(choices.uniform(0, 0.2))

        lives = [asyncio.create_task(life(number)) for number in range(40)]

        async def all_are_served(earlier):
            end = time.monotonic() + DEADLINE
            while len(epochs) < len(lives) or earlier.intersection(epochs.values()):
                self.assertLess(time.monotonic(), end, f"FANFARE_SEED={SEED}")
                for task in lives:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)
            self.assertEqual(len(set(epochs.values())), 5, "each room has begun once")
            return earlier.union(epochs.values())

        try:
            earlier = await all_are_served(set())
            for _ in range(3):
                gateway.process.kill()
                await asyncio.to_thread(gateway.wait)
                gateway = self.gateway("--listen", address)
                earlier = await all_are_served(earlier)
        finally:
            is_over = True
            gateway.process.kill()
            await asyncio.to_thread(gateway.wait)
            await asyncio.gather(*lives)


class Stopped(Case):
    def flood(self, gateway):
        """Keeps a shard busy without a pause."""
        client = RawClient(gateway, "user=flood")
        client.socket.settimeout(None)
        self.addCleanup(client.close)
        pongs = b"\x8a\x80\0\0\0\0" * 20_000

        def send():
            with contextlib.suppress(OSError):
                while True:
                    client.socket.sendall(pongs)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(gateway.process.kill)

    async def test_a_gateway_that_was_stopped_goes_on_as_if_nothing_had_been(self):
        settings = {"HEARTBEAT__PING": "300ms", "HEARTBEAT__TIMEOUT": "2s", "HEARTBEAT__WRITE": "2s"}
        for load in (0, 3):
            with self.subTest(load=load, seed=SEED):
                gateway = self.gateway("--shards", "1", LIMITS__OUTBOUND_BYTES="16MiB", **settings)
                members = [await self.member(gateway) for _ in range(5)]
                link = FaultyLink(gateway, to_client=Harm(rate=400_000, piece_bytes_max=8_000))
                behind = await self.member(await self.enterAsyncContext(link), "long")
                teller = await self.member(gateway, "long")
                for number in range(100):
                    await teller.request(type="message", room_id="long", content="x" * 60_000, data=number)
                for _ in range(load):
                    await asyncio.to_thread(self.flood, gateway)
                for _ in range(2):
                    await asyncio.sleep(0.5)
                    gateway.signal(signal.SIGSTOP)
                    # Longer than a client may be silent, or a write blocked.
                    await asyncio.sleep(2.5)
                    gateway.signal(signal.SIGCONT)
                await asyncio.sleep(0.5)
                await self.assert_served(members)
                for number in range(3):
                    self.assertEqual((await behind.next_of("message"))["data"], number)
                samples = await asyncio.to_thread(gateway.scrape)
                closed = {series for series, n in samples.items() if "connections_closed_total" in series and n}
                self.assertEqual(closed, set())


class Ended(Case):
    async def test_sigterm_under_load_is_not_held_up_by_clients_that_cannot_be_told(self):
        gateway = self.gateway(DRAIN__WINDOW="500ms")
        readers = [await self.member(gateway) for _ in range(10)]
        publisher = await self.member(gateway)
        ends = (Harm(rate=1_000, piece_bytes_max=100), Harm(ends_after=1_000, end=STALL), Harm(ends_after=1_000, end=CUT))
        for harm in ends:
            for number in range(5):
                link = FaultyLink(gateway, to_client=harm, name=number)
                await self.enterAsyncContext(link)
                throttled = await asyncio.to_thread(RawClient, link, f"user=throttled-{number}")
                self.addCleanup(throttled.close)
                throttled.send(type="join", room_id="room")

        async def publish():
            while True:
                await publisher.send(type="message", room_id="room", content="x" * 10_000)
                await publisher.next_of("message")

        async def read(reader):
            """The messages in order to the last, and the code of the close."""
            kinds = set()
            try:
                while True:
                    kinds.add((await reader.next())["type"])
            except ConnectionClosed:
                return kinds, reader.connection.close_code

        reading = [asyncio.create_task(read(reader)) for reader in readers]
        publishing = asyncio.create_task(publish())
        await asyncio.sleep(1)
        gateway.signal(signal.SIGTERM)
        for kinds, code in await asyncio.wait_for(asyncio.gather(*reading), DEADLINE):
            self.assertEqual(code, 1001)
            self.assertEqual(kinds, {"message", "reconnect"})
        self.assertEqual(await asyncio.to_thread(gateway.wait), 0)
        with self.assertRaises(ConnectionClosed):
            await publishing


if __name__ == "__main__":
    unittest.main()
