"""The gateway counts exactly what its clients see: every message and every byte, both ways."""

import json
import struct
import time
import unittest
from collections import Counter

from support import DEADLINE, Gateway, RawClient, masked, poll

TEXT, BINARY, CONTINUATION = 0x81, 0x82, 0x80
PING, PONG, CLOSE = 0x89, 0x8A, 0x88


class CountingClient(RawClient):
    """Counts all that it sends and gets after the upgrade."""

    def __init__(self, gateway, *args, ahead=(), **options):
        self.sent, self.got = Counter(), Counter()
        frames = b"".join(masked(TEXT, json.dumps(message).encode()) for message in ahead)
        super().__init__(gateway, *args, ahead=frames, **options)
        self.got["wire"] = len(self.buffer)
        self.sent["wire"] = len(frames)
        self.is_echo = options.get("path") == "/echo"
        for message in ahead:
            self._count(self.sent, json.dumps(message).encode())

    def _count(self, counter, payload, kind=None):
        counter["payload"] += len(payload)
        for line in [payload] if kind else payload.split(b"\n"):
            counter[kind or json.loads(line)["type"]] += 1

    def _more(self):
        before = len(self.buffer)
        try:
            super()._more()
        finally:
            self.got["wire"] += len(self.buffer) - before

    def send_frame(self, first, payload, kind=None):
        super().send_frame(first, payload)
        self.sent["wire"] += len(masked(first, payload))
        if first in (TEXT, BINARY):
            self._count(self.sent, payload, kind)

    def send_fragments(self, *parts, kind):
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            self.send_frame((0x80 if last else 0) | (0 if index else 1), part)
        self._count(self.sent, b"".join(parts), kind)

    def frame(self):
        opcode, payload = super().frame()
        if opcode in (1, 2):
            self._count(self.got, payload, "echo" if self.is_echo else None)
        elif opcode == 9:
            self.send_frame(PONG, payload)
        return opcode, payload

    def next_of(self, kind, mark=None):
        while True:
            opcode, payload = self.frame()
            lines = [json.loads(line) for line in payload.split(b"\n")] if opcode == 1 else []
            found = [line for line in lines if line["type"] == kind and mark in (None, line.get("id"))]
            if found:
                return found[0]

    def settle(self):
        """Reads all that the gateway has for this client; an answer may overtake messages of its own turn only."""
        for mark in ("settling", "settled"):
            self.send(type="ping", id=mark)
            self.next_of("pong", mark)

    def leave(self):
        """Says Close, and reads to the end."""
        self.send_frame(CLOSE, struct.pack("!H", 1000))
        self.read_to_the_end()

    def read_to_the_end(self):
        """Until the gateway ends the stream; a Close of its own is answered."""
        try:
            while True:
                opcode, payload = self.frame()
                if opcode == 8 and not self.sent["closed"]:
                    self.code = struct.unpack("!H", payload[:2])[0]
        except EOFError:
            self.socket.close()


class Counters(unittest.TestCase):
    def setUp(self):
        self.gateway = Gateway("--echo", LIMITS__OUTBOUND_BYTES="128KiB")
        self.addCleanup(self.gateway.stop)
        self.clients = []

    def client(self, *args, **options):
        client = CountingClient(self.gateway, *args, **options)
        self.addCleanup(client.close)
        self.clients.append(client)
        return client

    def member(self, *args, room="room", **options):
        client = self.client(*args, **options)
        client.send(type="join", room_id=room, id="joining")
        client.next_of("ack", "joining")
        return client

    def differences(self):
        """Counters that are not what the clients have counted: the gateway's value, and theirs."""
        samples = self.gateway.scrape()
        expected = Counter()
        for way, verb in (("sent", "received"), ("got", "sent")):
            for client in self.clients:
                for what, count in getattr(client, way).items():
                    label = "layer" if what in ("wire", "payload") else "type"
                    family = f"fanfare_{verb}_bytes_total" if label == "layer" else f"fanfare_messages_{verb}_total"
                    expected[f'{family}{{{label}="{what}"}}'] += count
        families = ("fanfare_messages_received_", "fanfare_messages_sent_", "fanfare_received_", "fanfare_sent_")
        counted = {series: value for series, value in samples.items() if series.startswith(families)}
        return {
            series: (counted.get(series, 0), expected.get(series, 0))
            for series in counted.keys() | expected.keys()
            if counted.get(series, 0) != expected.get(series, 0)
        }

    def assert_counted(self):
        end = time.monotonic() + DEADLINE / 4
        while (differences := self.differences()) and time.monotonic() < end:
            time.sleep(0.02)
        self.assertEqual(differences, {}, "(the gateway's, the clients')")

    def test_counts_every_message_and_byte_of_a_conversation(self):
        ann = self.member("user=ann")
        bob = self.member("user=bob", subprotocol="fanfare.v1.ndjson")
        eve = self.client("user=eve", ahead=[{"type": "join", "room_id": "room"}, {"type": "ping", "id": "ahead"}])
        eve.next_of("pong", "ahead")
        again = self.client("user=eve")
        for n in range(20):
            ann.send(type="message", room_id="room", content="x" * n * 10)
        ann.send(type="message", room_id="room", content="marked", id=1)
        ann.send(type="message", room_id="room", content="to all but me", echo=False)
        ann.send(type="message", to="eve", content="to both", id="direct")
        ann.send(type="message", content="to everyone")
        ann.send(type="message", to="nobody", content="lost")
        ann.send(type="message", room_id="elsewhere", content="refused")
        ann.send(type="presence", room_id="room", id=2)
        ann.send(type="leave", room_id="elsewhere")
        ann.send(type="pong")
        ann.send_frame(TEXT, b"nonsense", kind="invalid")
        ann.send_fragments(b'{"type":"ping",', b'"id":', b'"pieces"}', kind="ping")
        ann.next_of("pong", "pieces")
        ann.send_frame(PING, b"control")
        bob.send_frame(PONG, b"")
        bob.send(type="leave", room_id="room", id=3)
        for client in self.clients:
            client.settle()
        self.assert_counted()
        for client in self.clients:
            client.leave()
        self.assert_counted()

    def test_counts_what_it_echoes(self):
        client = self.client(path="/echo")
        client.send_frame(TEXT, b'{"type":"ack"}\n{"type":"ack"}', kind="echo")
        client.send_frame(BINARY, bytes(300), kind="echo")
        client.send_fragments(b"in ", b"", b"pieces", kind="echo")
        client.leave()
        self.assertEqual(client.got["echo"], 3)
        self.assert_counted()

    def test_counts_what_a_slow_client_has_read_before_it_was_closed(self):
        for protocol in (None, "fanfare.v1.ndjson"):
            slow = self.member("user=slow", 4096, room=f"busy-{protocol}", subprotocol=protocol)
            sender = self.member("user=sender", room=f"busy-{protocol}")
            content, rounds = "x" * 4096, 3000
            for n in range(rounds):
                sender.send(type="message", room_id=f"busy-{protocol}", content=content, data=n, echo=False, id=n)
                sender.next_of("ack", n)
            slow.read_to_the_end()
            self.assertEqual(slow.code, 4008)
            self.assertLess(slow.got["message"], rounds)
            sender.leave()
            self.assert_counted()
        dropped = 'fanfare_messages_dropped_total{reason="bytes_limit"}'
        self.assertGreater(self.gateway.scrape()[dropped], 20)

    def test_measures_the_way_of_messages_to_users_as_well(self):
        ann = self.client("user=ann")
        ann.send(type="message", to="ann", content="note")
        ann.next_of("message")
        count = 'fanfare_delivery_duration_seconds_count{source="client"}'
        poll("measured", lambda: self.gateway.scrape()[count] == 1)


if __name__ == "__main__":
    unittest.main()
