"""Subprotocols, origins, tokens and extensions: what is asked for at the handshake, and what is granted."""

import json
import time
import unittest

import jwt

from exchange import HttpCase
from support import SECRET, Gateway
from wire import QUIET, frame, request


class Subprotocols(HttpCase):
    def chosen(self, *lines):
        wire, answer = self.accepted(request(headers=[f"Sec-WebSocket-Protocol: {line}" for line in lines]))
        wire.socket.close()
        return answer.header("sec-websocket-protocol")

    def test_chooses_the_first_that_is_known_of_all_headers(self):
        for lines, chosen in (
            (["fanfare.v1"], "fanfare.v1"),
            (["a, fanfare.v1.ndjson,fanfare.v1"], "fanfare.v1.ndjson"),
            (["a", "b", "fanfare.v1 , c"], "fanfare.v1"),
            (["fanfare.v1", "fanfare.v1"], "fanfare.v1"),
            ([",", "", ", fanfare.v1"], "fanfare.v1"),
            ([", ".join(f"p{number}" for number in range(500)) + ", fanfare.v1"], "fanfare.v1"),
        ):
            self.assertEqual(self.chosen(*lines), chosen, lines)

    def test_chooses_none_that_was_not_offered_or_is_not_known(self):
        for line in ("", ",", "FANFARE.V1", "fanfare.v2", "fanfare.v1x", "\"fanfare.v1\"", "fanfare.v1;q=1", "\xe9", "a b fanfare.v1"):
            self.assertIsNone(self.chosen(line), line)

    def test_never_tells_the_token_back(self):
        self.assertIsNone(self.chosen("fanfare.token.secret"))
        self.assertEqual(self.chosen("fanfare.token.secret, fanfare.v1"), "fanfare.v1")


class Origins(HttpCase):
    def test_answers_403_to_pages_of_other_origins(self):
        origins = ("https://elsewhere.example", "http://localhost.evil", "null", "", "file://", "http://127.0.0.1.evil:80", "http://user@evil",
                   "http://localhost@evil", "localhost", "http://", "\xe9")
        self.refused_each(403, *(request(headers=[f"Origin: {origin}"]) for origin in origins))
        self.refused(request(headers=["Origin: http://localhost", "Origin: http://localhost"]), 403)

    def test_lets_in_pages_of_its_own_host_and_clients_that_are_none(self):
        self.accepted_each(
            request(),
            request(host="chat.example", headers=["Origin: https://chat.example"]),
            request(host="chat.example:8080", headers=["Origin: http://chat.example:8080"]),
            request(headers=["Origin: http://localhost:5173"]),
        )


class Tokens(HttpCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.secured = cls.enterClassContext(Gateway("--echo", **QUIET, AUTH__MODE="jwt", AUTH__SECRET=SECRET))

    @staticmethod
    def token(key=SECRET, algorithm="HS256", **claims):
        claims = {"sub": "ann", "exp": int(time.time()) + 600, **claims}
        return jwt.encode({name: value for name, value in claims.items() if value is not None}, key, algorithm=algorithm)

    @staticmethod
    def places(token):
        return (
            request(f"/ws?token={token}"),
            request(headers=[f"Authorization: Bearer {token}"]),
            request(headers=[f"Sec-WebSocket-Protocol: fanfare.token.{token}"]),
            request("/echo", headers=[f"authorization: bEaReR {token}"]),
        )

    def refused_401(self, *requests):
        for data in requests:
            with self.subTest(data[:200]):
                answer = self.refused(data, 401, self.secured)
                self.assertEqual(json.loads(answer.body)["error"], "unauthorized")
                self.assertIn("Bearer", answer.header("www-authenticate"))

    def test_takes_a_good_token_from_every_place(self):
        for data in self.places(self.token()):
            self.accepted(data, self.secured)

    def test_answers_401_before_any_101_to_tokens_that_are_not_good_in_every_place(self):
        now = int(time.time())
        unsigned = jwt.encode({"sub": "ann", "exp": now + 600}, None, algorithm="none")
        head, body, signature = self.token().split(".")
        for name, token in {
            "expired": self.token(exp=now - 3600),
            "not yet valid": self.token(nbf=now + 3600),
            "wrongly signed": self.token(key="another secret that is long enough for the algorithm"),
            "unsigned": unsigned,
            "unsigned with a signature": unsigned + signature,
            "signature cut off": f"{head}.{body}.",
            "signature left away": f"{head}.{body}",
            "body of another": f"{head}.{unsigned.split('.')[1]}x.{signature}",
            "no user": self.token(sub=None),
            "no expiry": self.token(exp=None),
            "no token": "x",
            "three dots": "...",
        }.items():
            with self.subTest(name):
                self.refused_401(*self.places(token))

    def test_answers_401_where_there_is_none(self):
        self.refused_401(
            request(), request("/ws?token="), request("/ws?token"), request("/ws?TOKEN=x"), request(headers=["Authorization: Bearer"]),
            request(headers=["Authorization: Basic YTpi"]), request(headers=["Authorization:"]),
            request(headers=["Sec-WebSocket-Protocol: fanfare.token."]), request("/ws?token=%FF"), request("/ws?token=%"),
        )

    def test_takes_the_first_place_that_has_one_good_or_bad(self):
        good, bad = self.token(), self.token(exp=1)
        self.refused_401(
            request(f"/ws?token={good}", headers=[f"Authorization: Bearer {bad}"]),
            request(f"/ws?token={good}", headers=[f"Sec-WebSocket-Protocol: fanfare.token.{bad}"]),
        )
        self.accepted(request(f"/ws?token={bad}", headers=[f"Authorization: Bearer {good}"]), self.secured)

    def test_asks_for_no_token_before_the_request_is_sound(self):
        self.refused(request("/nothing"), 404, self.secured)
        self.refused(request(without=["Host"]), 400, self.secured)
        self.refused(request(without=["Upgrade"]), 426, self.secured)


class Extensions(HttpCase):
    def taken(self, *lines):
        wire, answer = self.accepted(request("/echo", headers=[f"Sec-WebSocket-Extensions: {line}" for line in lines]))
        wire.send(frame(0x81, b"still here"))
        self.assertEqual(wire.frame(), (0x81, b"still here"))
        wire.socket.close()
        return answer.header("sec-websocket-extensions")

    def test_declines_every_offer_that_is_broken_unknown_or_has_something_twice(self):
        for offer in (
            "", ",", ";", "=", "permessage-deflat", "x-webkit-deflate-frame", "permessage-bzip2", "permessage-deflate;", "permessage-deflate; ;",
            "permessage-deflate; x", "permessage-deflate; server_max_window_bits", "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=08", "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16", "permessage-deflate; server_max_window_bits=-9",
            "permessage-deflate; server_max_window_bits=9.0", "permessage-deflate; server_max_window_bits=0x9",
            "permessage-deflate; server_max_window_bits=\"08\"", "permessage-deflate; server_max_window_bits=\"9", "permessage-deflate; client_max_window_bits=08",
            "permessage-deflate; client_max_window_bits=99999999999999999999", "permessage-deflate; client_max_window_bits=\"\"",
            "permessage-deflate; server_no_context_takeover=1", "permessage-deflate; client_no_context_takeover=\"\"",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=10", "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
            "permessage-deflate=1", "x; y=\", permessage-deflate, \"", "\xe9, permessage-deflate; \xe9", "permessage-deflate " * 50,
        ):
            with self.subTest(offer):
                self.assertIsNone(self.taken(offer))

    def test_takes_an_offer_with_every_parameter_and_answers_with_legal_ones(self):
        for parameters in (
            "", "; client_max_window_bits", "; client_max_window_bits=15", ";client_max_window_bits=\"10\"", "; server_max_window_bits=15",
            "; server_max_window_bits=9", "; server_no_context_takeover", "; client_no_context_takeover",
            " ; client_max_window_bits ; server_max_window_bits = 12 ;\tserver_no_context_takeover; client_no_context_takeover",
        ):
            with self.subTest(parameters):
                name, *answered = [part.strip() for part in self.taken(f"permessage-deflate{parameters}").split(";")]
                self.assertEqual(name, "permessage-deflate")
                names = [part.split("=")[0] for part in answered]
                self.assertEqual(len(names), len(set(names)))
                self.assertLessEqual(set(names), {"server_no_context_takeover", "client_no_context_takeover", "server_max_window_bits",
                                                  "client_max_window_bits"})
                if "server_no_context_takeover" in parameters:
                    self.assertIn("server_no_context_takeover", names)
                if "server_max_window_bits" in parameters:
                    asked = int(parameters.split("server_max_window_bits")[1].split(";")[0].strip(" ="))
                    granted = [int(part.split("=")[1]) for part in answered if part.startswith("server_max_window_bits")]
                    self.assertTrue(granted and 8 <= granted[0] <= asked, answered)
                if "client_max_window_bits" not in parameters:
                    self.assertNotIn("client_max_window_bits", names, "the client did not say that it understands this")

    def test_takes_the_first_good_offer_of_several_once(self):
        for lines in (
            ["permessage-deflate; x, permessage-deflate; server_max_window_bits=15, permessage-deflate"],
            ["permessage-bzip2", "permessage-deflate; server_max_window_bits=08", "permessage-deflate; server_max_window_bits=15"],
            ["permessage-deflate; server_max_window_bits=15", "permessage-deflate"],
        ):
            answered = self.taken(*lines)
            self.assertEqual(answered.count("permessage-deflate"), 1)
            self.assertIn("server_max_window_bits=15", answered)


if __name__ == "__main__":
    unittest.main()
