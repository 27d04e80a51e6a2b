"""What the gateway takes of memory, time and descriptors when clients flood it, break off, or say half of something."""

import json
import threading
import time
import unittest

from support import Gateway, RawClient, poll
from wire import QUIET, Wire, close_code, close_frame, descriptors, frame, request, resident_bytes

MIB = 1 << 20
# What an allocator may keep, and a build without optimizations takes: far below every flood here.
SLACK = 24 * MIB


class Case(unittest.TestCase):
    SETTINGS = QUIET

    def setUp(self):
        self.wires = []
        self.gateway = self.enterContext(Gateway("--echo", **self.SETTINGS))
        self.bystander = RawClient(self.gateway)
        self.bystander.next_of("welcome")
        with Wire.upgraded(self.gateway) as wire:
            wire.send(close_frame(1000))
            wire.frames()
        self.base = descriptors(self.gateway)

    def tearDown(self):
        self.close_wires()
        self.bystander.send(type="ping", id="end")
        self.assertEqual(self.bystander.next_of("pong")["id"], "end", "whoever else is connected is served")
        poll("descriptors back", lambda: descriptors(self.gateway) <= self.base)
        self.bystander.close()

    def close_wires(self):
        for wire in self.wires:
            wire.socket.close()

    def wire(self, path="/echo", **options):
        wire = Wire.upgraded(self.gateway, path, **options)
        self.wires.append(wire)
        return wire

    def stuffed(self, wire, data):
        """Sends the data again and again until the gateway takes no more, or ends the connection; how many bytes it took."""
        taken, idle = 0, 0
        wire.socket.settimeout(0.25)
        while idle < 4 and taken < 64 * MIB:
            try:
                taken += wire.socket.send(data)
                idle = 0
            except TimeoutError:
                idle += 1
            except (BrokenPipeError, ConnectionResetError):
                break
        return taken


class Floods(Case):
    def test_bounds_a_million_fragments_of_one_byte(self):
        wire, before = self.wire(), resident_bytes(self.gateway)
        wire.send_what_is_taken(frame(0x02, b"x") + frame(0x00, b"x") * 1_000_000)
        self.assertEqual([(first, close_code(payload)) for first, payload in wire.frames()], [(0x88, 1009)])
        self.assertLess(resident_bytes(self.gateway) - before, SLACK)

    def test_bounds_a_million_fragments_of_nothing(self):
        wire, before = self.wire(), resident_bytes(self.gateway)
        wire.send(frame(0x01, b"begin") + frame(0x00) * 1_000_000 + frame(0x80, b" end"))
        self.assertEqual(wire.frame(), (0x81, b"begin end"))
        self.assertLess(resident_bytes(self.gateway) - before, SLACK)

    def test_bounds_messages_of_fragments_that_never_end_on_hundreds_of_connections(self):
        before = resident_bytes(self.gateway)
        for _ in range(200):
            self.wire().send(frame(0x01, b"x" * 1000) + frame(0x00, b"x") * 1000)
        self.assertLess(resident_bytes(self.gateway) - before, SLACK)

    def test_bounds_pongs_for_those_who_ping_and_do_not_read(self):
        before = resident_bytes(self.gateway)
        pings = frame(0x89, b"x" * 125) * 1000
        for path in ("/echo", "/ws"):
            self.stuffed(self.wire(path, receive_buffer=4096), pings)
        self.assertLess(resident_bytes(self.gateway) - before, SLACK)

    def test_bounds_answers_for_those_who_do_not_read_them(self):
        before = resident_bytes(self.gateway)
        self.stuffed(self.wire(receive_buffer=4096), frame(0x82, bytes(10_000)) * 20)
        self.stuffed(self.wire("/ws", receive_buffer=4096), frame(0x81, b'{"type":"ping","id":1,"data":"' + b"x" * 1000 + b'"}') * 100)
        self.stuffed(self.wire("/ws", receive_buffer=4096), frame(0x81, b'{"type":"presence"}') * 100)
        self.assertLess(resident_bytes(self.gateway) - before, SLACK)

    def test_serves_others_while_pings_pongs_and_empty_frames_flood_it(self):
        floods = [frame(0x89, b"x") * 5000, frame(0x8A) * 5000, frame(0x81) * 5000, frame(0x01) + frame(0x00) * 5000 + frame(0x80)]
        stop = threading.Event()

        def flood(wire, data):
            wire.socket.settimeout(0.2)
            while not stop.is_set():
                try:
                    wire.socket.send(data)
                except TimeoutError:
                    pass
                except OSError:
                    return

        threads = [threading.Thread(target=flood, args=(self.wire(), data)) for data in floods]
        for thread in threads:
            thread.start()
        try:
            for number in range(100):
                self.bystander.send(type="ping", id=number)
                self.assertEqual(self.bystander.next_of("pong")["id"], number)
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def test_gives_descriptors_and_memory_back_after_hundreds_of_resets_inside_frames(self):
        whole = frame(0x81, b"x" * 200)
        before = resident_bytes(self.gateway)
        for number in range(400):
            wire = Wire.upgraded(self.gateway, "/ws" if number % 2 else "/echo", ahead=whole[:number % len(whole)])
            wire.reset()
        for number in range(200):
            wire = Wire(self.gateway)
            wire.send(request() + whole[:number])
            wire.reset()
        poll("descriptors back", lambda: descriptors(self.gateway) <= self.base)
        self.assertLess(resident_bytes(self.gateway) - before, SLACK)
        gone = {'fanfare_connections{transport="ws"}': 1, "fanfare_users": 1}
        poll("only the bystander is left", lambda: all(self.gateway.scrape()[name] == count for name, count in gone.items()))

    def test_ends_connections_that_are_half_closed(self):
        for data in (b"", frame(0x81, b"x"), frame(0x81, b"x" * 50)[:20], frame(0x01, b"open"), b"\x81"):
            for path in ("/echo", "/ws"):
                wire = self.wire(path)
                wire.send(data)
                wire.end_sending()
                wire.rest()
        poll("descriptors back", lambda: descriptors(self.gateway) <= self.base + len(self.wires))
        poll("only the bystander is left", lambda: self.gateway.scrape()['fanfare_connections{transport="ws"}'] == 1)

    def test_reads_every_cut_while_messages_flow_out(self):
        reader, writer = self.wire("/ws"), RawClient(self.gateway)
        reader.json()
        count, stop = 0, threading.Event()
        writer.send(type="join", room_id="flow", id=1)
        writer.next_of("ack")
        reader.send(frame(0x81, b'{"type":"join","room_id":"flow","id":"in"}'))
        self.assertEqual(reader.json()["type"], "ack")

        def publish():
            while not stop.is_set():
                writer.send(type="message", room_id="flow", content="flowing " * 20)
                writer.next_of("message")

        publisher = threading.Thread(target=publish)
        publisher.start()
        try:
            for number in range(150):
                text = json.dumps({"type": "ping", "id": number}).encode()
                half = len(text) // 2
                data = frame(0x01, text[:half]) + frame(0x89, b"%d" % number) + frame(0x80, text[half:])
                cut = 1 + number % (len(data) - 1)
                reader.send_pieces(data[:cut], data[cut:]) if number % 3 else reader.send_bytewise(data)
                answers = []
                while len(answers) < 2:
                    first, payload = reader.frame()
                    if first == 0x8A:
                        answers.append(payload)
                    elif (message := json.loads(payload))["type"] == "message":
                        count += 1
                        self.assertEqual(message["content"], "flowing " * 20)
                    else:
                        answers.append(message["id"])
                self.assertEqual(set(answers), {number, b"%d" % number})
        finally:
            stop.set()
            publisher.join()
            writer.close()
        self.assertGreater(count, 0)


class Silence(Case):
    SETTINGS = {"HEARTBEAT__PING": "150ms", "HEARTBEAT__TIMEOUT": "600ms"}

    def tearDown(self):
        # The bystander does not answer pings either.
        self.close_wires()
        self.bystander.close()
        poll("descriptors back", lambda: descriptors(self.gateway) < self.base)

    def test_closes_with_4009_after_half_of_anything_and_silence(self):
        whole = frame(0x81, b"x" * 300)
        halves = [whole[:cut] for cut in (0, 1, 2, 3, 4, 7, 8, 9, 200)] + [frame(0x01, b"open"), frame(0x01, b"open") + frame(0x80, b"x" * 9)[:8]]
        wires = [self.wire(path) for path in ("/echo", "/ws") for _ in halves]
        begun = time.monotonic()
        for wire, half in zip(wires, halves * 2):
            wire.send(half)
        for wire in wires:
            frames = wire.frames()
            self.assertEqual((frames[-1][0], close_code(frames[-1][1])), (0x88, 4009), frames[-1])
            self.assertIn((0x89, b""), [(first, payload[:0]) for first, payload in frames], "it was asked")
        self.assertLess(time.monotonic() - begun, 10)

    def test_keeps_those_who_answer_pings_inside_a_message_that_comes_slowly(self):
        wire = self.wire()
        wire.send(frame(0x01, b"slow "))
        for _ in range(8):
            first, payload = wire.frame()
            self.assertEqual(first, 0x89)
            wire.send(frame(0x8A, payload) + frame(0x00, b"."))
        wire.send(frame(0x80, b" done"))
        answers = [wire.frame() for _ in range(2)]
        self.assertIn((0x81, b"slow ........ done"), answers)

    def test_closes_a_silent_client_though_messages_flow_to_it(self):
        wire, writer = self.wire("/ws"), self.wire("/ws")
        for member in (wire, writer):
            member.json()
            member.send(frame(0x81, b'{"type":"join","room_id":"busy","id":1}'))
        stop = threading.Event()

        def publish():
            while not stop.wait(0.01):
                writer.send(frame(0x81, b'{"type":"message","room_id":"busy","content":"x"}'))

        publisher = threading.Thread(target=publish)
        publisher.start()
        try:
            frames = wire.frames()
        finally:
            stop.set()
            publisher.join()
        self.assertEqual(close_code(frames[-1][1]), 4009)
        self.assertGreater(len(frames), 20)

    def test_lets_nobody_linger_behind_its_close(self):
        wires = [self.wire() for _ in range(20)]
        for wire in wires:
            wire.send(frame(0x83))
        for wire in wires:
            self.assertEqual(close_code(wire.frame()[1]), 1002)
        # They neither end their side nor stay quiet.
        end = time.monotonic() + 20
        while wires and time.monotonic() < end:
            time.sleep(0.05)
            for wire in list(wires):
                try:
                    wire.send(b"x" * 1000)
                except OSError:
                    wires.remove(wire)
        self.assertEqual(wires, [])


if __name__ == "__main__":
    unittest.main()
