"""What one connection was told, and whether that is what the contract promises."""

import asyncio
import contextlib
import json

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from proxy import SEED
from support import DEADLINE, Client


class Recorder:
    """A client that keeps all it gets, to its end."""

    def __init__(self, name):
        # Unique, and the beginning of each content that it publishes.
        self.name = name
        # Whether its link suffers, so that it may be cut off at any place.
        self.is_harmed = False
        self.joins = {}
        self.contents = {}
        self.rooms = {}
        self.others = []
        self.acks = {}
        self.errors = []
        self.published = []
        self.close_code = None
        self.client = None
        self.news = asyncio.Event()

    async def open(self, way, **options):
        """Connects, directly or over a proxy; whether that went well."""
        with contextlib.suppress(OSError, EOFError, TimeoutError, ConnectionClosed, InvalidHandshake):
            self.client = await Client.open(way, f"user={self.name}", welcome=False, max_queue=None, **options)
            self.reading = asyncio.create_task(self._read())
            return True
        return False

    async def _read(self):
        try:
            async for frame in self.client.connection:
                for line in frame.split("\n"):
                    self._take(json.loads(line))
                self.news.set()
        except ConnectionClosed:
            pass
        finally:
            self.close_code = self.client.connection.close_code
            asyncio.get_running_loop().call_soon(self.news.set)

    def _take(self, message):
        kind = message["type"]
        if kind == "ack":
            self.acks[message.get("id")] = message
            if "epoch" in message:
                self.joins[message["room_id"]] = message
        elif kind == "error":
            self.errors.append(message)
        elif kind in ("message", "gap") and "room_id" in message:
            room = message["room_id"]
            self.rooms.setdefault(room, []).append(message)
            self.contents.setdefault(room, set()).add(message.get("content"))
        elif kind == "message":
            self.others.append(message)

    async def join(self, room):
        await self.client.send(type="join", room_id=room, id=f"join {room}")

    async def publish(self, padding, **where):
        """Sends; the content, which is like no other, begins with the mark of its answer."""
        mark = f"{self.name} {len(self.published)}"
        content = f"{mark}:{padding}"
        self.published.append((where, content))
        await self.client.send(type="message", content=content, id=mark, **where)
        return content

    async def until(self, condition):
        """Waits for something to be said; whether it was, before the connection ended."""
        try:
            async with asyncio.timeout(DEADLINE):
                while not (found := condition()) and not self.reading.done():
                    self.news.clear()
                    await self.news.wait()
                return found
        except TimeoutError:
            raise AssertionError(f"{self.name} waits in vain, FANFARE_SEED={SEED}") from None

    async def answer(self, mark):
        """The `ack` of a request or publication."""
        return await self.until(lambda: self.acks.get(mark.split(":")[0]))

    async def saw(self, room, content):
        """Whether it got this before the connection ended."""
        return await self.until(lambda: content in self.contents.get(room, ()))

    async def end(self):
        if self.client:
            self.reading.cancel()
            await asyncio.gather(self.reading, return_exceptions=True)
            self.client.connection.transport.abort()


def texts(messages):
    return [(message["from"], message["content"]) for message in messages]


def check_room(recorder, room, whole):
    """Says what is wrong with what came of a room, where `whole` is all of it, the message of offset 1 first."""
    got = recorder.rooms.get(room, [])
    if room not in recorder.joins:
        return ["messages before the answer to the join"] if got else []
    at, wrong = recorder.joins[room]["offset"], []
    for message in got:
        if message["type"] == "gap":
            if message["from_offset"] != at + 1:
                wrong.append(f"a gap from {message['from_offset']} after offset {at}")
            at = message["to_offset"]
            continue
        at += 1
        expected = whole[at - 1] if at <= len(whole) else None
        if (message["from"], message["content"]) != expected:
            wrong.append(f"at offset {at} came {message['content'][:40]!r}, not {expected!r:.60}")
            break
        if message.get("offset", at) != at:
            wrong.append(f"offset {message['offset']} on the message of {at}")
    return wrong


def check_publications(recorder, places):
    """Says what is wrong with what became of what one connection published: that in order, up to where it was cut off.

    `places` has the offset of each room and content.
    """
    to_rooms = [(where["room_id"], content) for where, content in recorder.published if "room_id" in where]
    arrived = [places.get(publication) for publication in to_rooms]
    count = sum(place is not None for place in arrived)
    wrong = []
    if count < len(arrived) and not recorder.is_harmed:
        wrong.append(f"{len(arrived) - count} publications did not arrive")
    if None in arrived[:count]:
        wrong.append(f"publication {arrived.index(None)} is missing before others that arrived")
    for room in {room for room, _ in to_rooms}:
        offsets = [place for place, (to, _) in zip(arrived, to_rooms, strict=True) if to == room and place]
        if offsets != sorted(offsets):
            wrong.append(f"publications to {room} changed places")
    for (_, content), place in zip(to_rooms, arrived, strict=True):
        ack = recorder.acks.get(content.split(":")[0])
        if ack and ack["offset"] != place:
            wrong.append(f"{content[:40]!r} was acknowledged with offset {ack['offset']} and is at {place}")
        if not ack and not recorder.is_harmed:
            wrong.append(f"{content[:40]!r} was not acknowledged")
    return wrong
