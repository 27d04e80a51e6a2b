"""permessage-deflate (RFC 7692): what is compressed in every legal way is understood, and what is not legal is refused."""

import asyncio
import itertools
import random
import unittest
import zlib

from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from support import DEADLINE, Client, Gateway
from wire import QUIET, Wire, close_code, descriptors, frame, resident_bytes

SHARED = None
LIMIT = 65536
MIB = 1 << 20
OFFER = ["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"]
TEXTS = [text.encode() for text in ("", "a", "hello " * 20, "Trompete \U0001f3ba " * 500, "x" * LIMIT)]


def setUpModule():
    global SHARED
    SHARED = Gateway("--echo", **QUIET)


def tearDownModule():
    code = SHARED.stop()
    assert code == 0, f"exit code {code}: {''.join(SHARED.log)}"


def deflated(payload, level=6, bits=15, memory=8, strategy=zlib.Z_DEFAULT_STRATEGY, flush=zlib.Z_SYNC_FLUSH):
    """A compressed payload as it stands in a frame."""
    packer = zlib.compressobj(level, zlib.DEFLATED, -bits, memory, strategy)
    data = packer.compress(payload) + packer.flush(flush)
    return data.removesuffix(b"\0\0\xff\xff") if flush == zlib.Z_SYNC_FLUSH else data + b"\0"


def inflated(first, payload):
    """A frame's payload, decompressed without anything that was before it, when its head says that it is compressed."""
    return zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff") if first & 0x40 else payload


class Case(unittest.TestCase):
    def wire(self, path="/echo", gateway=None):
        return self.enterContext(Wire.upgraded(gateway or SHARED, path, headers=OFFER))

    def echoed(self, wire, expected, first=0x81):
        """The next frame is this message, compressed or not."""
        got, payload = wire.frame()
        self.assertEqual(got & ~0x40, first)
        self.assertEqual(inflated(got, payload), expected)

    def ends_with(self, data, code, path="/echo", cuts=False):
        ways = [(data,)]
        if cuts:
            ways += [[data[at:at + 1] for at in range(len(data))], *((data[:cut], data[cut:]) for cut in range(1, len(data)))]
        for pieces in ways:
            with Wire.upgraded(SHARED, path, headers=OFFER) as wire:
                wire.send_pieces(*pieces)
                frames = wire.frames()
            self.assertEqual([(frames[-1][0], close_code(frames[-1][1]))], [(0x88, code)], data[:40])


class Messages(Case):
    def test_understands_every_way_to_compress(self):
        wire = self.wire()
        for bits, level in itertools.product(range(9, 16), range(10)):
            for text in TEXTS[:4]:
                wire.send(frame(0xC1, deflated(text, level, bits)))
                self.echoed(wire, text)
        for memory, strategy in itertools.product((1, 9), range(5)):
            wire.send(frame(0xC2, deflated(TEXTS[4], 6, 15, memory, strategy)))
            self.echoed(wire, TEXTS[4], 0x82)

    def test_understands_data_that_cannot_be_compressed_up_to_the_limit(self):
        noise, wire = random.Random(20261123).randbytes(LIMIT), self.wire()
        for level, size in itertools.product((0, 1, 9), (1, 1000, LIMIT)):
            wire.send(frame(0xC2, deflated(noise[:size], level)))
            self.echoed(wire, noise[:size], 0x82)

    def test_understands_blocks_of_every_kind_in_one_message(self):
        packer, wire, whole = zlib.compressobj(6, zlib.DEFLATED, -15), self.wire(), b""
        data = b""
        for part, flush in ((b"one ", zlib.Z_SYNC_FLUSH), (b"two ", zlib.Z_FULL_FLUSH), (b"three ", zlib.Z_PARTIAL_FLUSH), (b"four", zlib.Z_SYNC_FLUSH)):
            data += packer.compress(part) + packer.flush(flush)
            whole += part
        wire.send(frame(0xC1, data.removesuffix(b"\0\0\xff\xff")))
        self.echoed(wire, whole)
        for text in TEXTS[:4]:
            wire.send(frame(0xC1, deflated(text, flush=zlib.Z_FINISH)))
            self.echoed(wire, text)
        wire.send(frame(0xC1, b"\0"))
        self.echoed(wire, b"")

    def test_takes_a_message_in_fragments_and_cut_anywhere(self):
        text = "Trompete \U0001f3ba ".encode() * 5
        data, wire = deflated(text), self.wire()
        for cut in range(len(data) + 1):
            message = frame(0x41, data[:cut]) + frame(0x89, b"?") + frame(0x80, data[cut:])
            at = 1 + cut * 3 % (len(message) - 1)
            wire.send_pieces(message[:at], message[at:])
            self.assertEqual(wire.frame(), (0x8A, b"?"))
            self.echoed(wire, text)
        wire.send_bytewise(frame(0x41, data[:1]) + b"".join(frame(0x00, data[at:at + 1]) for at in range(1, len(data))) + frame(0x80))
        self.echoed(wire, text)

    def test_takes_messages_that_are_not_compressed_between_those_that_are(self):
        wire = self.wire()
        for text in TEXTS:
            wire.send(frame(0x81, text) + frame(0xC1, deflated(text)) + frame(0x01, text[:7]) + frame(0x80, text[7:]))
            for _ in range(3):
                self.echoed(wire, text)

    def test_speaks_json_in_compressed_messages(self):
        wire = self.wire("/ws")
        self.assertIn(b'"welcome"', inflated(*wire.frame()))
        wire.send(frame(0xC1, deflated(b'{"type":"join","room_id":"packed","id":1}')))
        self.assertIn(b'"ack"', inflated(*wire.frame()))
        wire.send(frame(0xC1, deflated(b'{"type":"message","room_id":"packed","content":"' + b"again " * 1000 + b'"}')))
        first, payload = wire.frame()
        self.assertEqual(first, 0xC1)
        self.assertLess(len(payload), 300)
        self.assertIn(b"again " * 1000, inflated(first, payload))
        wire.send(frame(0xC1, deflated(b"no json")))
        self.assertIn(b'"bad_message"', inflated(*wire.frame()))


class Mistakes(Case):
    def test_closes_with_1002_where_the_bit_may_not_be(self):
        for first in (0xC8, 0xC9, 0xCA, 0x48, 0x49):
            self.ends_with(frame(first, deflated(b"x")), 1002, cuts=True)
        for data in (frame(0x01, b"a") + frame(0xC0, b"b"), frame(0x41, deflated(b"a")) + frame(0x40), frame(0xC0, b"x"),
                     frame(0x41, b"") + frame(0xC1, deflated(b"a"))):
            self.ends_with(data, 1002, cuts=True)
        for bits in (0x20, 0x10, 0x30, 0x60, 0x50, 0x70):
            self.ends_with(frame(0x81 | bits, deflated(b"x")), 1002)

    def test_closes_with_1002_where_nothing_was_negotiated(self):
        with Wire.upgraded(SHARED) as wire:
            wire.send(frame(0xC1, deflated(b"x")))
            self.assertEqual(close_code(wire.frames()[-1][1]), 1002)

    def test_closes_with_1007_on_data_that_is_broken(self):
        good = deflated(b"hello hello hello, and some more of it" * 3)
        for cut in range(1, len(good)):
            self.ends_with(frame(0xC1, good[:cut]), 1007)
        for broken in (b"\xff" * 20, b"\x07", good + b"\xff", b"\x06" + good, b"\x05\xe0\x81\x08\x00\x00\x00\x00\x20\x7f",
                       b"\x00\x05\x00\xfa\xfe" + b"Hello", b"\x00\xff\xff\x00\x00"):
            self.ends_with(frame(0xC2, broken), 1007, cuts=True)
            self.ends_with(frame(0x42, broken[:1]) + frame(0x80, broken[1:]), 1007)

    def test_closes_with_1007_on_references_to_an_earlier_message(self):
        packer, text = zlib.compressobj(9, zlib.DEFLATED, -15), b"what was said once is not said again " * 3
        first, second = [(packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff") for _ in range(2)]
        wire = self.wire()
        wire.send(frame(0xC1, first))
        self.echoed(wire, text)
        wire.send(frame(0xC1, second))
        self.assertEqual(close_code(wire.frames()[-1][1]), 1007)

    def test_closes_with_1007_on_text_that_is_no_utf_8_when_decompressed(self):
        for payload in (b"\xff", b"ok \xed\xa0\x80", b"cut \xe2\x82", b"x" * 5000 + b"\xc0\x80"):
            self.ends_with(frame(0xC1, deflated(payload)), 1007)
            self.ends_with(frame(0xC1, deflated(payload)), 1007, path="/ws")
            wire = self.wire()
            wire.send(frame(0xC2, deflated(payload)))
            self.echoed(wire, payload, 0x82)

    def test_closes_with_1009_on_more_than_the_limit_however_it_is_said(self):
        for size in (LIMIT + 1, LIMIT * 2, MIB, 16 * MIB):
            bomb = deflated(bytes(size), 9)
            for path in ("/echo", "/ws"):
                self.ends_with(frame(0xC1, bomb), 1009, path)
            self.ends_with(frame(0x42, bomb[:10]) + frame(0x00, bomb[10:20]) + frame(0x80, bomb[20:]), 1009)
        noise = random.Random(1).randbytes(LIMIT * 2)
        self.ends_with(frame(0xC2, deflated(noise)), 1009)
        self.ends_with(frame(0xC2, length=1 << 40), 1009, cuts=True)
        self.ends_with(frame(0x42, noise[:LIMIT]) + frame(0x00, noise[:LIMIT]), 1009)
        for size in (LIMIT, LIMIT - 1):
            wire = self.wire()
            wire.send(frame(0xC1, deflated(b"x" * size, 9)))
            self.echoed(wire, b"x" * size)

    def test_bounds_the_memory_and_work_of_hundreds_of_bombs(self):
        gateway = self.enterContext(Gateway("--echo", **QUIET))
        with Wire.upgraded(gateway, headers=OFFER) as wire:
            wire.send(frame(0xC2, deflated(bytes(100 * MIB), 9)[:LIMIT]))
            wire.frames()
        before, open_before = resident_bytes(gateway), descriptors(gateway)
        bomb = frame(0xC2, deflated(bytes(60 * MIB), 9))
        wires = [self.wire(gateway=gateway) for _ in range(200)]
        for wire in wires:
            wire.send(bomb)
        bystander = self.wire(gateway=gateway)
        bystander.send(frame(0x81, b"still served"))
        self.echoed(bystander, b"still served")
        for wire in wires:
            self.assertEqual([close_code(payload) for _, payload in wire.frames()], [1009])
            wire.socket.close()
        self.assertLess(resident_bytes(gateway) - before, 32 * MIB)
        bystander.send(frame(0x81, b"still served"))
        self.echoed(bystander, b"still served")
        self.assertLessEqual(open_before, descriptors(gateway))


class PythonWebsockets(unittest.IsolatedAsyncioTestCase):
    PARAMETERS = [
        {"client_max_window_bits": bits, "server_max_window_bits": server, "client_no_context_takeover": client, "server_no_context_takeover": fresh}
        for (bits, server), (client, fresh) in itertools.product(
            ((True, None), (None, None), (9, None), (15, 15), (12, 10), (True, 9)), ((False, False), (True, False), (False, True), (True, True)))
    ]

    async def test_understands_the_gateway_with_every_combination_of_parameters(self):
        messages = [text.decode() for text in TEXTS] + [bytes(LIMIT), random.Random(2).randbytes(LIMIT)]
        for parameters in self.PARAMETERS:
            given = {name: value for name, value in parameters.items() if value is not None}
            with self.subTest(given):
                factory = ClientPerMessageDeflateFactory(**given)
                client = await Client.open(SHARED, path="/echo", welcome=False, extensions=[factory])
                self.assertEqual([extension.name for extension in client.connection.protocol.extensions], ["permessage-deflate"])
                for message in messages * 2:
                    await client.connection.send(message)
                    self.assertEqual(await asyncio.wait_for(client.connection.recv(), DEADLINE), message)
                await client.close()
                self.assertEqual(client.connection.close_code, 1000)


if __name__ == "__main__":
    unittest.main()
