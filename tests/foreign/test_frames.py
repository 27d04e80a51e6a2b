"""What the gateway makes of frames of every kind, however they are cut: RFC 6455, sections 5, 7 and 8."""

import itertools
import struct
import threading
import unittest

from support import Gateway, RawClient
from wire import QUIET, ZEROS, Wire, close_code, close_frame, frame, resident_bytes

SHARED = None
BYSTANDER = None
LIMIT = 65536
MIB = 1 << 20


def setUpModule():
    global SHARED, BYSTANDER
    SHARED = Gateway("--echo", **QUIET)
    BYSTANDER = RawClient(SHARED)
    BYSTANDER.next_of("welcome")


def tearDownModule():
    BYSTANDER.close()
    code = SHARED.stop()
    assert code == 0, f"exit code {code}: {''.join(SHARED.log)}"


class Case(unittest.TestCase):
    def tearDown(self):
        BYSTANDER.send(type="ping", id=self.id())
        self.assertEqual(BYSTANDER.next_of("pong")["id"], self.id(), "whoever else is connected is served")

    def wire(self, path="/echo", gateway=None, **options):
        return self.enterContext(Wire.upgraded(gateway or SHARED, path, **options))

    def gateway(self, *args, **settings):
        return self.enterContext(Gateway("--echo", *args, **QUIET, **settings))

    def talk(self, pieces, path="/echo"):
        """All frames that answer the pieces, up to the proper end that follows a Close."""
        with Wire.upgraded(SHARED, path) as wire:
            wire.send_pieces(*pieces)
            frames = wire.frames()
        if path == "/ws":
            self.assertIn(b"welcome", frames.pop(0)[1])
        return frames

    def ends_with(self, data, code, before=(), path="/echo", cuts=True):
        """The data is answered by these frames and a Close of this code, and the end; whole, byte by byte, and cut anywhere."""
        ways = [(data,)]
        if cuts:
            ways.append([data[at:at + 1] for at in range(len(data))])
            ways += [(data[:cut], data[cut:]) for cut in range(1, len(data))]
        for pieces in ways:
            frames = self.talk(pieces, path)
            self.assertEqual(frames[:-1], list(before), (data[:50], [len(piece) for piece in pieces][:3]))
            self.assertEqual(frames[-1][0], 0x88)
            self.assertEqual(close_code(frames[-1][1]), code, (data[:50], frames[-1]))
            frames[-1][1][2:].decode()

    def echoes(self, data, expected):
        """The data is answered by these frames, and the connection lives; whole, byte by byte, and cut anywhere."""
        ways = [(data,), [data[at:at + 1] for at in range(len(data))]]
        ways += [(data[:cut], data[cut:]) for cut in range(1, len(data))]
        with Wire.upgraded(SHARED) as wire:
            for pieces in ways:
                wire.send_pieces(*pieces)
                got = [wire.frame() for _ in expected]
                self.assertEqual(got, list(expected), [len(piece) for piece in pieces][:3])
            wire.send(frame(0x89, b"alive"))
            self.assertEqual(wire.frame(), (0x8A, b"alive"))


class ProtocolErrors(Case):
    FIRST = frame(0x81, b"before")
    ECHO = (0x81, b"before")

    def refused_1002(self, *datas, path="/echo"):
        for data in datas:
            with self.subTest(data[:30]):
                self.ends_with(self.FIRST + data, 1002, [self.ECHO])
                self.ends_with(data, 1002, path="/ws", cuts=False)

    def test_closes_with_1002_on_a_frame_that_is_not_masked(self):
        self.refused_1002(*(frame(first, b"hi", mask=None) for first in (0x81, 0x82, 0x89, 0x8A, 0x01)), frame(0x88, b"\x03\xe8", mask=None),
                          frame(0x81, mask=None))

    def test_closes_with_1002_on_every_reserved_bit(self):
        bits = (0x40, 0x20, 0x10, 0x70, 0x60, 0x50, 0x30)
        self.refused_1002(*(frame(bit | 0x81, b"x") for bit in bits))
        for bit, first in itertools.product(bits, (0x82, 0x88, 0x89, 0x8A, 0x01, 0x80)):
            self.ends_with(frame(bit | first), 1002, cuts=False)

    def test_closes_with_1002_on_every_reserved_opcode(self):
        for opcode, fin, payload in itertools.product((3, 4, 5, 6, 7, 11, 12, 13, 14, 15), (0x80, 0), (b"", b"x" * 3)):
            self.ends_with(self.FIRST + frame(fin | opcode, payload), 1002, [self.ECHO], cuts=opcode == 3)
        self.ends_with(frame(0x01, b"open") + frame(0x83), 1002)

    def test_closes_with_1002_on_control_frames_that_are_fragmented_or_long(self):
        self.refused_1002(frame(0x09, b"x"), frame(0x0A), frame(0x08, b"\x03\xe8"), frame(0x09, b"x") + frame(0x80, b"y"))
        for first in (0x88, 0x89, 0x8A):
            self.ends_with(frame(first, b"\x03\xe8" + b"x" * 124), 1002, cuts=False)
            self.ends_with(frame(first, length=MIB), 1002)
            self.ends_with(frame(first, length=1 << 62), 1002)
        self.ends_with(frame(0x01, b"open") + frame(0x89, b"x" * 126), 1002, cuts=False)

    def test_closes_with_1002_on_a_continuation_of_nothing(self):
        self.refused_1002(frame(0x80, b"x"), frame(0x00, b"x"), frame(0x80), frame(0x00))
        self.ends_with(frame(0x01, b"a") + frame(0x80, b"b") + frame(0x80, b"c"), 1002, [(0x81, b"ab")])

    def test_closes_with_1002_on_a_message_that_begins_inside_another(self):
        for first, second in itertools.product((0x01, 0x02), (0x81, 0x82, 0x01, 0x02)):
            self.ends_with(frame(first, b"a") + frame(second, b"b"), 1002, cuts=first == 0x01)
        self.ends_with(frame(0x01) + frame(0x00) + frame(0x89, b"p") + frame(0x81), 1002, [(0x8A, b"p")])

    def test_closes_with_1002_on_a_length_with_the_top_bit(self):
        for first, length in itertools.product((0x81, 0x82, 0x01), (1 << 63, (1 << 64) - 1)):
            head = bytes([first, 0xFF]) + struct.pack("!Q", length)
            self.ends_with(head + bytes(4), 1002)
            self.ends_with(head, 1002, cuts=False)

    def test_sees_the_first_of_two_mistakes_whatever_comes_behind_it(self):
        self.ends_with(frame(0xC1, b"\xff", mask=None), 1002)
        self.ends_with(frame(0x81, b"\xff") + frame(0x83), 1007)
        self.ends_with(frame(0x83) + frame(0x81, b"\xff") + close_frame(1000) + frame(0x89), 1002)

    def test_tells_the_code_also_to_those_who_go_on_sending_megabytes(self):
        for start, code in ((frame(0x83), 1002), (frame(0x82, length=1 << 40), 1009), (frame(0x81, b"\xff"), 1007)):
            with Wire.upgraded(SHARED) as wire:
                sender = threading.Thread(target=wire.send_what_is_taken, args=[start + bytes(8 * MIB)])
                sender.start()
                self.assertEqual(close_code(wire.frame()[1]), code)
                sender.join()


class Texts(Case):
    WHOLE = ("", "a", "Trompete \U0001f3ba", "\u00e4\u20ac\U00010348", "\0", "\u07ff\u0800\ud7ff\ue000\ufffd\uffff\U00010000\U0010ffff", "\ufeff")
    # What no continuation can mend: overlong forms, surrogates, beyond the last code point, stray and missing bytes.
    BROKEN = ("80", "bf", "c0", "c1", "c080", "c1bf", "e080", "e08080", "e09fbf", "eda080", "edafbf", "edb080", "edbfbf", "f080", "f0808080", "f08fbfbf",
              "f490", "f4908080", "f5", "f7bfbfbf", "f8", "f888808080", "fc8480808080", "fe", "ff", "c241", "e28241", "f09f8e41", "c3c3", "61ff62",
              "cebae1bdb9cf83cebcceb5eda080656469746564")
    CUT = ("c3", "e2", "e282", "f0", "f09f", "f09f8e", "61c3", "cebae1bd")

    def test_gives_every_text_back_as_it_was(self):
        for text in self.WHOLE:
            self.echoes(frame(0x81, text.encode()), [(0x81, text.encode())])

    def test_gives_a_text_back_whose_code_points_are_cut_by_fragments(self):
        text = "\u00e4\u20ac\U00010348x".encode()
        every_byte = b"".join(frame(0x01 if at == 0 else 0x00, text[at:at + 1]) for at in range(len(text))) + frame(0x80)
        self.echoes(every_byte, [(0x81, text)])
        for cut in range(len(text) + 1):
            self.echoes(frame(0x01, text[:cut]) + frame(0x89) + frame(0x80, text[cut:]), [(0x8A, b""), (0x81, text)])

    def test_closes_with_1007_on_text_that_is_no_utf_8(self):
        for payload in map(bytes.fromhex, self.BROKEN + self.CUT):
            with self.subTest(payload):
                self.ends_with(frame(0x81, payload), 1007)
                self.ends_with(frame(0x81, b'{"type":"ping","data":"' + payload + b'"}'), 1007, path="/ws", cuts=False)

    def test_closes_with_1007_on_a_text_that_breaks_over_fragments(self):
        for payload in map(bytes.fromhex, self.BROKEN + self.CUT):
            for cut in range(len(payload) + 1):
                data = frame(0x01, payload[:cut]) + frame(0x80, payload[cut:])
                self.ends_with(data, 1007, cuts=False)
            bytewise = frame(0x01, b"ok") + b"".join(frame(0x00, payload[at:at + 1]) for at in range(len(payload)))
            self.ends_with(bytewise + frame(0x80), 1007, cuts=False)

    def test_closes_with_1007_as_soon_as_a_fragment_or_a_part_of_it_cannot_be_mended(self):
        for payload in map(bytes.fromhex, self.BROKEN):
            self.ends_with(frame(0x01, payload), 1007, cuts=False)
        self.ends_with(frame(0x81, b"abc\xff", length=1000), 1007)

    def test_looks_into_no_binary_message(self):
        for payload in map(bytes.fromhex, self.BROKEN + self.CUT):
            self.echoes(frame(0x02, payload) + frame(0x80, payload), [(0x82, payload * 2)])

    def test_closes_with_1007_on_a_reason_that_is_no_utf_8(self):
        for reason in map(bytes.fromhex, self.BROKEN + self.CUT):
            self.ends_with(close_frame(1000, reason), 1007, cuts=len(reason) < 3)


class Closes(Case):
    def test_echoes_every_legal_code(self):
        codes = (1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3001, 3999, 4000, 4001, 4999)
        for code, reason in itertools.product(codes, (b"", "bye \U0001f3ba".encode(), b"x" * 123)):
            self.ends_with(close_frame(code, reason), code, cuts=code == 1014 and len(reason) < 50)
        for code in (1000, 1014, 3000, 4999):
            self.ends_with(close_frame(code), code, path="/ws", cuts=False)

    def test_answers_a_close_without_a_code(self):
        for path in ("/echo", "/ws"):
            self.ends_with(close_frame(), 1005, path=path)

    def test_closes_with_1002_on_every_code_that_may_not_be_sent(self):
        codes = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1099, 1100, 2000, 2999, 5000, 5001, 9999, 65535)
        for code in codes:
            self.ends_with(close_frame(code), 1002)
            self.ends_with(close_frame(code, b"why"), 1002, cuts=False)

    def test_closes_with_1002_on_half_a_code(self):
        for byte in (b"\x03", b"\x00", b"\xff"):
            self.ends_with(frame(0x88, byte), 1002)

    def test_processes_nothing_behind_a_close(self):
        behind = frame(0x89, b"ping") + frame(0x81, b"text") + close_frame(1001) + frame(0x83)
        self.ends_with(frame(0x81, b"a") + close_frame(1000) + behind, 1000, [(0x81, b"a")])
        self.ends_with(close_frame(1000) + bytes(range(256)) * 100, 1000, cuts=False)
        wire, other = self.wire("/ws"), self.wire("/ws")
        for member in (wire, other):
            member.json()
            member.send(frame(0x81, b'{"type":"join","room_id":"end","id":1}'))
            self.assertEqual(member.json()["type"], "ack")
        wire.send(close_frame(1000) + frame(0x81, b'{"type":"message","room_id":"end","content":"from beyond"}'))
        self.assertEqual([(first, close_code(payload)) for first, payload in wire.frames()], [(0x88, 1000)])
        other.send(frame(0x81, b'{"type":"message","room_id":"end","content":"mine"}'))
        self.assertEqual(other.json()["content"], "mine")

    def test_takes_a_close_between_fragments(self):
        self.ends_with(frame(0x01, b"never ") + close_frame(1000) + frame(0x80, b"finished"), 1000)

    def test_gives_all_answers_before_the_close(self):
        texts = [b"%d" % number * 50 for number in range(200)]
        data = b"".join(frame(0x81, text) for text in texts) + close_frame(4321)
        self.ends_with(data, 4321, [(0x81, text) for text in texts], cuts=False)
        big = b"x" * LIMIT
        self.ends_with(frame(0x81, big) * 10 + close_frame(1000), 1000, [(0x81, big)] * 10, cuts=False)


class Lengths(Case):
    def test_accepts_exactly_the_limit_and_closes_with_1009_beyond_it(self):
        for first in (0x81, 0x82):
            with Wire.upgraded(SHARED) as wire:
                for size in (0, 1, 125, 126, 127, 128, 65535, LIMIT):
                    wire.send(frame(first, b"x" * size))
                    self.assertEqual(wire.frame(), (first, b"x" * size))
            self.ends_with(frame(first, b"x" * (LIMIT + 1)), 1009, cuts=False)

    def test_closes_with_1009_before_any_payload_comes(self):
        for length in (LIMIT + 1, MIB, 1 << 31, 1 << 32, (1 << 63) - 1):
            for first in (0x81, 0x82, 0x01):
                head = bytes([first, 0xFF]) + struct.pack("!Q", length)
                self.ends_with(head, 1009, path="/ws", cuts=False)
                self.ends_with(head + b"mask", 1009, cuts=first == 0x81)

    def test_reads_a_length_that_takes_more_bytes_than_it_needs_or_says_why_not(self):
        for head in (b"\x81\xfe\x00\x05", b"\x81\xff" + struct.pack("!Q", 5)):
            with Wire.upgraded(SHARED) as wire:
                wire.send(head + ZEROS + b"hello" + close_frame(1000))
                self.assertIn(wire.frames()[0], ((0x81, b"hello"), (0x88, b"\x03\xea")))

    def test_counts_the_bytes_of_all_fragments(self):
        half = b"x" * (LIMIT // 2)
        with Wire.upgraded(SHARED) as wire:
            wire.send(frame(0x01, half) + frame(0x89, b"!") + frame(0x80, half))
            self.assertEqual([wire.frame(), wire.frame()], [(0x8A, b"!"), (0x81, half * 2)])
        self.ends_with(frame(0x01, half) + frame(0x00, half) + frame(0x80, b"x"), 1009, cuts=False)
        self.ends_with(frame(0x02, half) + frame(0x00, half) + bytes([0x00, 0x81]), 1009, cuts=False)
        self.ends_with(frame(0x01, b"x") + bytes([0x80, 0xFF]) + struct.pack("!Q", LIMIT), 1009, cuts=False)
        self.ends_with(frame(0x01, b"x") + bytes([0x80, 0xFF]) + struct.pack("!Q", (1 << 63) - 1), 1009, cuts=False)

    def test_reserves_nothing_for_lengths_that_are_only_declared(self):
        gateway = self.gateway(LIMITS__MESSAGE_BYTES="16MiB", LIMITS__OUTBOUND_BYTES="64MiB", LIMITS__ROOM_PENDING_BYTES="64MiB",
                               LIMITS__INBOX_BYTES="128MiB")
        before = resident_bytes(gateway)
        wires = [self.wire(gateway=gateway) for _ in range(100)]
        for wire in wires:
            wire.send(frame(0x82, b"only this", length=16 * MIB))
            wire.send(frame(0x89, b"inside the payload"))
        self.assertLess(resident_bytes(gateway) - before, 32 * MIB)


class Controls(Case):
    def test_answers_pings_with_their_payload_also_between_fragments(self):
        for payload in (b"", b"x", b"\x00\xff\xfe", b"y" * 125):
            self.echoes(frame(0x89, payload), [(0x8A, payload)])
        self.echoes(
            frame(0x01, b"a") + frame(0x89, b"1") + frame(0x00, b"b") + frame(0x89, b"2") + frame(0x8A, b"3") + frame(0x80, b"c"),
            [(0x8A, b"1"), (0x8A, b"2"), (0x81, b"abc")],
        )

    def test_ignores_pongs_that_nobody_asked_for(self):
        self.echoes(frame(0x8A, b"hello") + frame(0x8A) + frame(0x81, b"x"), [(0x81, b"x")])

    def test_handles_empty_messages(self):
        self.echoes(
            frame(0x81) + frame(0x82) + frame(0x01) + frame(0x80) + frame(0x02) + frame(0x00) * 3 + frame(0x80) + frame(0x01) + frame(0x80, b"x"),
            [(0x81, b""), (0x82, b""), (0x81, b""), (0x82, b""), (0x81, b"x")],
        )

    def test_unmasks_with_every_mask(self):
        payload = bytes(range(256)) * 2
        with Wire.upgraded(SHARED) as wire:
            for mask in (ZEROS, b"\xff" * 4, b"\x01\x02\x03\x04", b"\x00\x00\x00\x01", b"\x80\x00\x00\x00"):
                for size in range(70):
                    wire.send(frame(0x82, payload[:size], mask))
                    self.assertEqual(wire.frame(), (0x82, payload[:size]))

    def test_takes_200_frames_in_one_segment(self):
        texts = [b"%d" % number for number in range(200)]
        with Wire.upgraded(SHARED) as wire:
            wire.send(b"".join(frame(0x81, text) for text in texts))
            self.assertEqual([wire.frame() for _ in texts], [(0x81, text) for text in texts])


if __name__ == "__main__":
    unittest.main()
