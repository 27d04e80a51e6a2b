"""What the gateway answers to requests of every kind, over sockets that send any bytes."""

import json
import time
import unittest

from exchange import HttpCase
from support import Gateway, poll
from wire import KEY, QUIET, Wire, descriptors, frame, request, resident_bytes

class NoUpgrade(HttpCase):
    def refused_426(self, *requests):
        for data in requests:
            with self.subTest(data):
                answer = self.refused(data, 426)
                self.assertEqual(answer.header("sec-websocket-version"), "13")
                self.assertEqual(answer.header("upgrade"), "websocket")
                self.assertIn("upgrade", answer.tokens("connection"))

    def test_answers_426_where_no_upgrade_is_asked_for(self):
        plain = request(without=("Upgrade", "Connection", "Sec-WebSocket-Version", "Sec-WebSocket-Key"))
        self.refused_426(plain, request(without=["Upgrade"]), request(without=["Connection"]))

    def test_answers_426_to_another_upgrade_or_connection(self):
        self.refused_426(
            *(request(without=["Upgrade"], headers=[f"Upgrade: {value}"])
              for value in ("h2c", "websockets", "web socket", "websocket/13", "\"websocket\"", "", "TLS/1.0, HTTP/1.1")),
            *(request(without=["Connection"], headers=[f"Connection: {value}"])
              for value in ("keep-alive", "close", "upgrades", "up grade", "", "keep-alive, upgrade-insecure")),
        )

    def test_answers_426_to_every_other_version(self):
        values = ("", "0", "7", "8", "12", "14", "013", "13.0", "+13", "0xd", "13, 8", "8, 13", "thirteen", "1e1", "99999999999999999999")
        self.refused_426(
            request(without=["Sec-WebSocket-Version"]),
            *(request(without=["Sec-WebSocket-Version"], headers=[f"Sec-WebSocket-Version: {value}"]) for value in values),
            request(headers=["Sec-WebSocket-Version: 13"]),
            request(headers=["Sec-WebSocket-Version: 8"]),
        )


class Keys(HttpCase):
    def test_answers_400_to_every_key_that_is_none(self):
        values = ("", " ", "x", KEY[:-1], KEY[:-2], KEY + "=", "A" * 24, "A" * 23 + "=", "A" * 20 + "====", "=" * 24, "A" * 44,
                  "AAAAAAAAAAAAAAAAAAAA", KEY.replace("G", "*", 1), KEY.replace("G", "-", 1), "AAAAAAAAAAA AAAAAAAAAAA==",
                  f"\"{KEY}\"", f"{KEY}, {KEY}", "\xe9" * 22 + "==")
        self.refused_each(
            400,
            request(without=["Sec-WebSocket-Key"]),
            *(request(without=["Sec-WebSocket-Key"], headers=[f"Sec-WebSocket-Key: {value}"]) for value in values),
        )

    def test_answers_400_to_two_keys_though_they_are_the_same(self):
        self.refused_each(400, request(headers=[f"Sec-WebSocket-Key: {KEY}"]), request(headers=["sec-websocket-key: x"]))


class RequestLines(HttpCase):
    def test_answers_405_to_other_methods_and_says_which_is_right(self):
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW", "get", "GETT"):
            with self.subTest(method):
                self.assertEqual(self.refused(request(method=method), 405).header("allow"), "GET")

    def test_answers_a_head_request_without_a_body(self):
        self.refused(request(method="HEAD"), 405, has_body=False)

    def test_answers_505_or_400_to_every_other_version_of_http(self):
        self.refused(request(version="HTTP/1.0"), 505)
        self.refused(request(version="HTTP/1.0", headers=["Connection: keep-alive"]), 505)
        self.refused_each(400, *(request(version=version)
                                 for version in ("HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/2", "HTTP/11", "http/1.1", "HTTPS/1.1", "")))

    def test_answers_400_to_broken_request_lines(self):
        rest = b"\r\nHost: a\r\n\r\n"
        lines = (b"GET", b"GET /ws", b"GET  HTTP/1.1", b"GET /ws  HTTP/1.1 x", b"GET /ws x HTTP/1.1", b"GET /w s HTTP/1.1", b" GET /ws HTTP/1.1",
                 b"\tGET /ws HTTP/1.1", b"G\0T /ws HTTP/1.1", b"GET /\0ws HTTP/1.1", b"GET /ws\r HTTP/1.1", b"GET\t/ws\tHTTP/1.1",
                 b"G(T /ws HTTP/1.1", b"GET /ws HTTP/1.1\0", b"\xffGET /ws HTTP/1.1", b"G\xc3\x89T /ws HTTP/1.1", b"/ws", b"{}",
                 b"GET /ws HTTP/1.1\rHost: a")
        self.refused_each(400, *(line + rest for line in lines))

    def test_answers_400_or_404_to_targets_that_are_none(self):
        for target in ("*", "ws", "localhost:80", "", "?", "/%", "/ws\xe9", "http://", "http:///ws", "//ws", "\\ws", "/ws/../ws"):
            with self.subTest(target):
                wire = self.wire()
                wire.send(request(target))
                self.assertIn(wire.answer().status, (400, 404))
                self.assertEqual(wire.rest(), b"")

    def test_answers_404_to_every_other_path(self):
        paths = ("/wss", "/WS", "/ws/", "/w", "/ws;x", "/ws%20", "/%77s", "/echo/", "/admin", "/metrics", "/livez", "/api/v1/drain", "/debug/")
        self.refused_each(404, *map(request, paths))

    def test_accepts_a_target_in_absolute_form(self):
        self.accepted_each(request("http://localhost/ws?user=ann"), request("HTTP://localhost/ws"))

    def test_accepts_empty_lines_before_the_request(self):
        self.accepted_each(b"\r\n" + request(), b"\r\n\r\n\n" + request())

    def test_closes_after_the_first_bytes_of_http2(self):
        self.refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0", 400)


class HeaderFields(HttpCase):
    def test_answers_400_to_no_host_two_hosts_or_a_broken_one(self):
        values = ("", " ", "a b", "a/b", "user@a", "a,b", "a?b", "a#b", "a\\b", "\"a\"", "<a>", "\xe9")
        self.refused_each(
            400,
            request(without=["Host"]),
            request(headers=["Host: localhost"]),
            request(headers=["host: other"]),
            *(request(without=["Host"], headers=[f"Host: {value}"]) for value in values),
        )

    def test_accepts_every_form_of_a_host(self):
        self.accepted_each(*(request(host=host) for host in ("a", "a.example:8080", "127.0.0.1:1", "[::1]:80", "[::1]", "a_b.example", "A")))

    def test_answers_400_to_broken_header_lines(self):
        self.refused_each(400, *(request(headers=[line]) for line in (
            "no colon", "Space : before", ": no name", "Two Words: x", "Tab\t: x", "Fold: a\r\n b", " Leading: x", "Null: a\0b",
            "Na\0me: x", "Bare: a\rb", "Bell: \x07", "Delete: \x7f", "B(d: x", "N\xe9: x", "\"Name\": x", "Na,me: x",
        )))

    def test_answers_400_to_a_folded_line_in_the_place_of_the_first_header(self):
        self.refused(b"GET /ws HTTP/1.1\r\n Host: a\r\n" + request().split(b"\r\n", 1)[1], 400)

    def test_reads_names_and_lists_without_case_and_with_any_space(self):
        lean = ["Upgrade", "Connection"]
        self.accepted_each(
            request(without=lean, headers=["upgrade:websocket", "CONNECTION:upgrade"]),
            request(without=lean, headers=["Upgrade: WebSocket", "Connection: keep-alive, UPGRADE"]),
            request(without=lean, headers=["Upgrade: \t websocket \t", "Connection: \t Upgrade\t ,\tkeep-alive"]),
            request(without=lean, headers=["Upgrade: h2c, websocket", "Connection: keep-alive", "Connection: Upgrade"]),
            request(without=lean, headers=["Upgrade: h2c", "Upgrade: websocket", "Connection: ,,upgrade,"]),
            request(headers=["X-Anything: \xe9\xff", "Empty:", "Cookie: a=b; c=d", "Expect: 100-continue"]),
        )

    def test_accepts_lines_that_end_without_a_carriage_return_or_says_why_not(self):
        wire = self.wire()
        wire.send(request().replace(b"\r\n", b"\n"))
        self.assertIn(wire.answer().status, (101, 400))

    def test_answers_400_to_a_body_and_reads_none_as_frames(self):
        echo = frame(0x81, b"smuggled")
        chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(echo), echo)
        for headers, body in (
            ([f"Content-Length: {len(echo)}"], echo),
            (["Content-Length: 0"], b""),
            (["Content-Length: 5", "Content-Length: 6"], echo),
            (["Content-Length: -1"], echo),
            (["Content-Length: 99999999999999999999"], echo),
            (["Content-Length: x"], echo),
            (["Transfer-Encoding: chunked"], chunk),
            (["Transfer-Encoding: identity"], echo),
            (["Transfer-Encoding: gzip, chunked"], chunk),
            (["Transfer-Encoding: chunked", f"Content-Length: {len(echo)}"], chunk),
            (["Expect: 100-continue", f"Content-Length: {len(echo)}"], echo),
        ):
            with self.subTest(headers):
                self.refused(request("/echo", headers=headers) + body, 400)

    def test_answers_once_whatever_follows_a_refused_request(self):
        self.refused(request("/nothing") + request("/ws"), 404)
        self.refused(request(method="POST", headers=["Content-Length: 5"]) + b"hello" + request("/ws"), 405)


class Sizes(HttpCase):
    def test_answers_431_at_once_to_a_head_over_the_limit(self):
        base = len(request(headers=["X: "]))
        self.accepted_each(request(headers=["X: " + "a" * (16384 - base)]))
        self.refused(request(headers=["X: " + "a" * (16385 - base)]), 431)
        # It never ends, so that the answer cannot wait for it.
        self.refused(b"GET /ws HTTP/1.1\r\nX: " + b"a" * 16384, 431)
        self.refused(b"GET /ws HTTP/1.1\r\n" + b"a" * 20000, 431)
        self.refused(b"\r\n" * 9000, 431)

    def test_answers_431_to_more_headers_than_64(self):
        self.accepted_each(request(headers=["A: b"] * 59))
        self.refused_each(431, request(headers=["A: b"] * 60), request(headers=["A:"] * 1000), b"GET /ws HTTP/1.1\r\n" + b"a:\r\n" * 66)

    def test_answers_414_to_a_target_over_the_limit(self):
        self.accepted_each(request("/ws?" + "a" * 8000))
        self.refused_each(414, request("/ws?" + "a" * 8300), request("/" + "a" * 60000), b"GET /" + b"a" * 9000)

    def test_tells_also_those_who_go_on_sending_megabytes(self):
        before = resident_bytes(self.shared)
        flood = b"X-Flood: " + b"a" * 1000 + b"\r\n"
        for start, status in (
            (request("/nothing"), 404),
            (b"GET /ws HTTP/1.1\r\n", 431),
            (request(method="POST", headers=["Content-Length: 8000000"]), 405),
        ):
            with self.subTest(status):
                self.refused(start + flood * 8000, status, send=Wire.send_what_is_taken)
        self.assertLess(resident_bytes(self.shared) - before, 8 << 20)

    def test_resets_nobody_who_had_a_megabyte_on_its_way(self):
        for start, status in ((request(method="POST", headers=["Content-Length: 900000"]), 405), (b"GET /ws HTTP/1.1\r\nX: ", 431)):
            self.refused(start + b"a" * 900_000, status)

    def test_takes_no_memory_for_hundreds_of_heads_that_never_end(self):
        gateway = self.gateway(LIMITS__HANDSHAKE="2s")
        before = resident_bytes(gateway), descriptors(gateway)
        wires = [self.wire(gateway) for _ in range(300)]
        for wire in wires:
            wire.send(b"GET /ws HTTP/1.1\r\nX: " + b"a" * 16000)
        most = resident_bytes(gateway) - before[0]
        for wire in wires:
            self.assertEqual(wire.answer().status, 408)
            self.assertEqual(wire.rest(), b"")
        self.assertLess(most, 300 * (64 << 10) + (8 << 20))
        poll("descriptors back", lambda: descriptors(gateway) <= before[1])


class Timing(HttpCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hasty = cls.enterClassContext(Gateway("--echo", **QUIET, LIMITS__HANDSHAKE="700ms"))

    def test_closes_a_connection_that_says_nothing(self):
        wire, begun = self.wire(self.hasty), time.monotonic()
        self.assertEqual(wire.rest(), b"")
        self.assertGreater(time.monotonic() - begun, 0.5)

    def test_closes_every_unfinished_request_in_time_and_says_408(self):
        whole = request()
        for cut in (1, 3, 10, 20, len(whole) - 2, len(whole) - 1):
            with self.subTest(cut=cut):
                wire = self.wire(self.hasty)
                wire.send(whole[:cut])
                self.assertEqual(wire.answer().status, 408)
                self.assertEqual(wire.rest(), b"")

    def test_gives_no_more_time_to_those_who_send_a_byte_now_and_then(self):
        wire, begun, answered = self.wire(self.hasty), time.monotonic(), b""
        wire.send(b"GET /ws HTTP/1.1\r\nX: ")
        wire.socket.settimeout(0.05)
        while True:
            try:
                wire.send(b"a")
                data = wire.socket.recv(4096)
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                break
            if not data:
                break
            answered += data
        self.assertTrue(answered.startswith(b"HTTP/1.1 408 "), answered)
        self.assertLess(time.monotonic() - begun, 10)

    def test_closes_a_connection_that_begins_tls_on_the_plain_port(self):
        hello = bytes.fromhex("16030100a5010000a10303") + bytes(range(32)) + b"\x20" + bytes(120)
        for data in (hello, hello[:1], hello[:5], b"\x80\x2e\x01\x00\x02"):
            wire = self.wire(self.hasty)
            wire.send(data)
            self.assertIn(wire.rest()[:13], (b"", b"HTTP/1.1 400 "))

    def test_ends_the_connection_of_those_who_end_theirs_before_the_request_is_whole(self):
        before = descriptors(self.shared)
        for cut in (0, 1, 20, len(request()) - 1):
            wire = self.wire()
            wire.send(request()[:cut])
            wire.end_sending()
            wire.rest()
        poll("descriptors back", lambda: descriptors(self.shared) <= before)

    def test_answers_those_who_ended_their_side_behind_the_request(self):
        wire = self.wire()
        wire.send(request("/nothing"))
        wire.end_sending()
        self.assertEqual(wire.answer().status, 404)
        self.assertEqual(wire.rest(), b"")
        wire = self.wire()
        wire.send(request("/echo"))
        wire.end_sending()
        self.assertEqual(wire.answer().status, 101)
        wire.rest()

    def test_gives_descriptors_back_after_hundreds_of_resets_at_every_stage(self):
        before = descriptors(self.shared)
        stages = (b"", b"GET", request()[:-1], request(), request("/nothing"), request() + frame(0x81, b"x" * 100)[:50],
                  request(method="POST") + bytes(5000))
        for _ in range(50):
            for data in stages:
                wire = Wire(self.shared)
                wire.send(data)
                wire.reset()
        poll("descriptors back", lambda: descriptors(self.shared) <= before)


class Pieces(HttpCase):
    def test_takes_a_head_byte_by_byte(self):
        for end in (b"\r\n", b"\n"):
            wire, _ = self.accepted(request().replace(b"\r\n", end), send=Wire.send_bytewise)
            self.assertEqual(wire.json()["type"], "welcome")

    def test_takes_a_head_cut_anywhere_with_frames_behind_it(self):
        whole = request("/echo") + frame(0x81, b"first") + frame(0x82, b"\r\n\r\n")
        for cut in range(1, len(whole)):
            wire, _ = self.accepted(whole, send=lambda wire, data, cut=cut: wire.send_pieces(data[:cut], data[cut:]))
            self.assertEqual([wire.frame(), wire.frame()], [(0x81, b"first"), (0x82, b"\r\n\r\n")], f"cut at {cut}")
            wire.socket.close()

    def test_refuses_the_same_byte_by_byte(self):
        for data, status in ((request(without=["Host"]), 400), (request(method="POST"), 405), (request("/nothing"), 404),
                             (request(version="HTTP/1.0"), 505), (request(without=["Upgrade"]), 426)):
            self.refused(data, status, send=Wire.send_bytewise)

    def test_loses_no_frame_that_comes_with_the_request(self):
        count = 3000
        ahead = b"".join(frame(0x81, b"%d" % number + b"." * 100) for number in range(count))
        wire, _ = self.accepted(request("/echo") + ahead)
        for number in range(count):
            self.assertEqual(wire.frame(), (0x81, b"%d" % number + b"." * 100))

    def test_gives_its_answers_in_order_behind_the_101(self):
        wire, _ = self.accepted(request() + frame(0x89, b"?") + frame(0x81, b'{"type":"ping","id":7}'))
        got = [wire.frame() for _ in range(3)]
        self.assertEqual(got.count((0x8A, b"?")), 1)
        texts = [json.loads(payload)["type"] for first, payload in got if first == 0x81]
        self.assertEqual(texts, ["welcome", "pong"])

    def test_never_answers_a_second_request_behind_the_handshake(self):
        for second in (request(), request("/nothing"), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"):
            wire, _ = self.accepted(request("/echo") + second)
            # "G" has no reserved bit that would be allowed, so that this is the end of the conversation.
            self.assertEqual([(first, payload[:2]) for first, payload in wire.frames()], [(0x88, b"\x03\xea")])


if __name__ == "__main__":
    unittest.main()
