"""A TCP proxy that harms what it forwards: each way on its own, and the same way again from the same seed."""

import asyncio
import contextlib
import os
import random
import secrets
import socket
import struct
from dataclasses import dataclass

SEED = os.environ.get("FANFARE_SEED") or secrets.token_hex(4)

# How a direction may end: silence while the sender's bytes are still taken, silence while they are not, the end of the
# stream in this direction alone, RST both ways.
CUT, STALL, HALF_CLOSE, RESET = ENDS = ("cut", "stall", "half-close", "reset")

# The kernel holds more on top; small enough that who does not read is noticed soon.
BUFFER_BYTES = 8192


def chance(*names):
    """The source of choices of this name in this run, whatever else runs and in which order."""
    return random.Random(":".join([SEED, *map(str, names)]))


@dataclass(frozen=True)
class Harm:
    """What is done to the bytes of one direction."""

    # No piece is longer; 1 forwards each byte by itself.
    piece_bytes_max: int = BUFFER_BYTES
    # Seconds before each piece.
    delay: float = 0.0
    # Bytes in a second.
    rate: int | None = None
    # The bytes forwarded before it ends, and how; None where it only ends as the sender ends it.
    ends_after: int | None = None
    end: str | None = None

    @classmethod
    def draw(cls, chance, ends=ENDS):
        """Any of them, together or alone; about half end early."""
        harm = {}
        if chance.random() < 0.3:
            harm["rate"] = chance.choice([2_000, 20_000, 200_000])
            harm["piece_bytes_max"] = harm["rate"] // 20
        if chance.random() < 0.5:
            harm["piece_bytes_max"] = chance.choice([1, 2, 7, 100])
        if chance.random() < 0.3:
            harm["delay"] = chance.uniform(0.0005, 0.01)
        if chance.random() < 0.5:
            harm["ends_after"] = chance.choice([chance.randrange(300), chance.randrange(5_000), chance.randrange(100_000)])
            harm["end"] = chance.choice(ends)
        return cls(**harm)


NO_HARM = Harm()


class FaultyLink:
    """A way to the gateway for one connection, to be connected to in its place. Closes both its ends when left."""

    def __init__(self, gateway, to_gateway=NO_HARM, to_client=NO_HARM, name=""):
        self.gateway = gateway
        self.harms = {"to_gateway": to_gateway, "to_client": to_client}
        self.chances = {way: chance("pieces", name, way) for way in self.harms}
        self.host = "127.0.0.1"
        self.tasks, self.writers = [], []

    @classmethod
    def draw(cls, gateway, *names):
        choices = chance("harm", *names)
        return cls(gateway, Harm.draw(choices), Harm.draw(choices), ":".join(map(str, names)))

    def __repr__(self):
        return f"FaultyLink({self.harms}, FANFARE_SEED={SEED})"

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, self.host, 0, limit=BUFFER_BYTES)
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"ws://{self.host}:{self.port}/ws"
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for writer in self.writers:
            writer.transport.abort()

    async def _serve(self, client_reader, client_writer):
        sock = socket.socket()
        sock.setblocking(False)
        if self.harms["to_client"] != NO_HARM:
            # Or the kernel takes hundreds of kilobytes for a client that reads nothing.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (self.gateway.host, self.gateway.port))
            reader, writer = await asyncio.open_connection(sock=sock, limit=BUFFER_BYTES)
        except OSError:
            sock.close()
            client_writer.transport.abort()
            return
        self.writers += [client_writer, writer]
        self.tasks += [
            asyncio.create_task(self._forward("to_gateway", client_reader, writer)),
            asyncio.create_task(self._forward("to_client", reader, client_writer)),
        ]

    async def _forward(self, way, reader, writer):
        harm, forwarded = self.harms[way], 0
        with contextlib.suppress(OSError):
            while True:
                wanted = self.chances[way].randint(1, harm.piece_bytes_max)
                if harm.ends_after is not None:
                    wanted = min(wanted, harm.ends_after - forwarded)
                if wanted == 0:
                    return await self._end(harm.end, reader, writer)
                # The borders lie where the choices say, however the bytes come in.
                while wanted and (piece := await reader.read(wanted)):
                    wanted -= len(piece)
                    forwarded += len(piece)
                    await asyncio.sleep(harm.delay + (len(piece) / harm.rate if harm.rate else 0))
                    writer.write(piece)
                    await writer.drain()
                if wanted:
                    return writer.write_eof()

    async def _end(self, end, reader, writer):
        if end == HALF_CLOSE:
            writer.write_eof()
        elif end == RESET:
            for side in self.writers:
                sock = side.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                side.transport.abort()
        if end in (HALF_CLOSE, CUT):
            while await reader.read(BUFFER_BYTES):
                pass
