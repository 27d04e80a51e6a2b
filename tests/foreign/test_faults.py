"""The promises about delivery to those who stay connected, while the links of others suffer every fault there is.

The choices come from a seed that is in each failure; FANFARE_SEED=... makes them again.
"""

import asyncio
import contextlib
import itertools
import unittest

from websockets.exceptions import ConnectionClosed

from proxy import ENDS, SEED, FaultyLink, Harm, chance
from record import Recorder, check_publications, check_room, texts
from support import Gateway, poll_async

# The last leaves out messages for slow members.
ROOMS = ("plain", "busy", "lossy")
SETTINGS = {
    "ROOMS": '[{ match = "lossy", overflow = "drop_oldest" }]',
    "LIMITS__MESSAGE_BYTES": "16KiB",
    "LIMITS__OUTBOUND_BYTES": "32KiB",
    "HEARTBEAT__PING": "300ms",
    "HEARTBEAT__TIMEOUT": "2s",
    "HEARTBEAT__WRITE": "1500ms",
}
KINDS = (
    {},
    {"compression": "deflate"},
    {"subprotocols": ["fanfare.v1"]},
    {"subprotocols": ["fanfare.v1.ndjson"]},
    {"subprotocols": ["fanfare.v1.ndjson"], "compression": "deflate"},
)
SUFFERERS = 16
# Of each of them, with harm that is drawn, after the systematic ones.
DRAWN_VISITS = 3
# What the gateway may close a connection with that suffers; None where the link did it.
HONEST_CODES = {None, 1005, 1006, 4008, 4009}


def padding(choices):
    """Mostly short, sometimes long; what can be compressed and what cannot."""
    length = choices.choice([0, 10, 100, 1_000, 12_000])
    return "x" * length if choices.random() < 0.5 else "%x" % choices.getrandbits(4 * length + 4)


def systematic_harm():
    """Each end of each direction, soon after the handshake and in the middle of what follows; and each slowness."""
    for end, after in itertools.product(ENDS, (700, 9_000)):
        yield {"to_client": Harm(ends_after=after, end=end)}
    for end, after in itertools.product(ENDS, (400, 1_500)):
        yield {"to_gateway": Harm(ends_after=after, end=end)}
    yield {"to_gateway": Harm(piece_bytes_max=1), "to_client": Harm(piece_bytes_max=1)}
    yield {"to_gateway": Harm(rate=1_000, piece_bytes_max=50), "to_client": Harm(rate=5_000, piece_bytes_max=250)}


class Promises(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        # Which unittest switches on, and which takes most of the time here.
        asyncio.get_running_loop().set_debug(False)
        self.recorders = []
        self.witnesses = []
        self.is_over = False

    def recorder(self, *name):
        recorder = Recorder("-".join(map(str, name)))
        self.recorders.append(recorder)
        return recorder

    async def member(self, *name, **options):
        """A connection that nothing happens to, in all rooms."""
        recorder = self.recorder(*name)
        self.assertTrue(await recorder.open(self.gateway, **options))
        self.addAsyncCleanup(recorder.end)
        for room in ROOMS:
            await recorder.join(room)
            self.assertTrue(await recorder.answer(f"join {room}"))
        return recorder

    async def publisher(self, number):
        """Publishes all the while, alone and in bursts, to rooms, to one user and to everyone."""
        recorder, choices = await self.member("publisher", number, **KINDS[number % len(KINDS)]), chance("publisher", number)
        while not self.is_over:
            for _ in range(choices.choice([0, 0, 0, 20])):
                where = choices.choice([*({"room_id": room} for room in ROOMS), {"to": "witness-0"}, {}])
                await recorder.publish(padding(choices)[:1_000], **where)
            room = choices.choice(ROOMS)
            content = await recorder.publish(padding(choices), room_id=room)
            # No faster than those read who are to get everything.
            for witness in (recorder, *self.witnesses):
                await witness.saw(room, content)
            await asyncio.sleep(choices.uniform(0, 0.03))

    async def guest(self, number):
        """Comes and goes over links without fault; what it says and hears meanwhile has to be whole."""
        choices, visit = chance("guest", number), 0
        while not self.is_over:
            visit += 1
            recorder = self.recorder("guest", number, visit)
            self.assertTrue(await recorder.open(self.gateway, **choices.choice(KINDS)))
            for room in choices.sample(ROOMS, choices.randint(1, len(ROOMS))):
                await recorder.join(room)
                content = await recorder.publish(padding(choices), room_id=room)
                self.assertTrue(await recorder.answer(content), recorder.close_code)
                self.assertTrue(await recorder.saw(room, content), f"{recorder.name} did not see its own message")
                if choices.random() < 0.5:
                    await recorder.client.send(type="leave", room_id=room, id=f"leave {room}")
                    self.assertTrue(await recorder.answer(f"leave {room}"))
            await recorder.end()

    async def sufferer(self, number):
        for visit, harm in enumerate(list(systematic_harm())[number::SUFFERERS]):
            link = FaultyLink(self.gateway, **harm, name=f"{number}-{visit}")
            # Longer than the gateway waits for who says nothing, or takes nothing.
            await self.suffer(self.recorder("sufferer", number, visit), link, 4)
        for visit in range(10, 10 + DRAWN_VISITS):
            link = FaultyLink.draw(self.gateway, number, visit)
            await self.suffer(self.recorder("sufferer", number, visit), link, 2)

    async def suffer(self, recorder, link, seconds):
        """Speaks over a link until that is of no use any more, for so long at most."""
        choices, recorder.is_harmed = chance("said", recorder.name), True
        # The link is left first: the library would go on to wait for an answer to its Close.
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(recorder.end)
            await stack.enter_async_context(link)
            with contextlib.suppress(ConnectionClosed, TimeoutError):
                async with asyncio.timeout(seconds):
                    if not await recorder.open(link, **choices.choice(KINDS)):
                        return
                    for room in ROOMS:
                        await recorder.join(room)
                    for _ in range(choices.randrange(30)):
                        await recorder.publish(padding(choices), room_id=choices.choice(ROOMS))
                        await asyncio.sleep(choices.uniform(0, 0.05))
                    await recorder.reading

    async def test_those_who_stay_connected_get_everything_once_and_in_one_order_whatever_others_suffer(self):
        self.gateway = self.enterContext(Gateway(**SETTINGS))
        self.witnesses = [await self.member("witness", number, **kind) for number, kind in enumerate(KINDS)]
        going_on = [self.publisher(number) for number in range(4)] + [self.guest(number) for number in range(3)]
        going_on = [asyncio.create_task(task) for task in going_on]
        try:
            await asyncio.gather(*(self.sufferer(number) for number in range(SUFFERERS)))
        finally:
            self.is_over = True
            await asyncio.gather(*going_on)
        wholes = await self.settle()
        places = {(room, text): at for room, whole in wholes.items() for at, (_, text) in enumerate(whole, 1)}
        wrong = []
        for recorder in self.recorders:
            found = [*recorder.errors, *check_publications(recorder, places)]
            for room, whole in wholes.items():
                found += [f"{room}: {what}" for what in check_room(recorder, room, whole)]
            if recorder.close_code not in HONEST_CODES:
                found.append(f"closed with {recorder.close_code}")
            wrong += [(recorder.name, what) for what in found]
        self.assertEqual(wrong[:10], [], f"FANFARE_SEED={SEED}")
        self.check_to_users_and_everyone()
        await self.check_that_nothing_is_left()

    async def settle(self):
        """All that was said in each room, as the first witness got it from the room's beginning on."""
        last = await self.member("last")
        wholes = {}
        for room in ROOMS:
            content = await last.publish("", room_id=room)
            ack = await last.answer(content)
            for witness in self.witnesses:
                self.assertTrue(await witness.saw(room, content), f"{witness.name}, closed with {witness.close_code}")
            self.assertEqual(self.witnesses[0].joins[room]["offset"], 0)
            wholes[room] = texts(self.witnesses[0].rooms[room])
            self.assertEqual(len(wholes[room]), ack["offset"], f"FANFARE_SEED={SEED}")
        return wholes

    def check_to_users_and_everyone(self):
        everyone = [[message for message in witness.others if "to" not in message] for witness in self.witnesses]
        self.assertGreater(len(everyone[0]), 0)
        for others in everyone[1:]:
            self.assertEqual(texts(others), texts(everyone[0]), f"FANFARE_SEED={SEED}")
        direct = {}
        for name, content in texts(message for message in self.witnesses[0].others if "to" in message):
            direct.setdefault(name, []).append(content)
        for recorder in self.recorders:
            sent = [content for where, content in recorder.published if "to" in where]
            self.assertEqual(direct.get(recorder.name, []), sent, f"FANFARE_SEED={SEED}")

    async def check_that_nothing_is_left(self):
        # The systematic harm brings these about for certain.
        closed = 'fanfare_connections_closed_total{{reason="{}"}}'.format
        samples = await asyncio.to_thread(self.gateway.scrape)
        for reason in ("client", "io_error", "ping_timeout"):
            self.assertGreater(samples[closed(reason)], 0, reason)
        for recorder in self.recorders:
            await recorder.end()
        gauges = ("fanfare_connections{", "fanfare_rooms", "fanfare_room_memberships", "fanfare_users", "fanfare_outbound")
        gauges = [series for series in samples if series.startswith(gauges) and "limit" not in series and "mark" not in series]

        def left():
            samples = self.gateway.scrape()
            return {series: samples[series] for series in gauges if samples[series] and "_flush_" not in series}

        await poll_async("nothing is left", lambda: not left() or None)


if __name__ == "__main__":
    unittest.main()
