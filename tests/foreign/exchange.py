"""One request and what is answered, checked in every respect."""

import json
import unittest

from support import Gateway, RawClient
from wire import ACCEPT, QUIET, Wire


class HttpCase(unittest.TestCase):
    """Requests to a gateway of the class's own, with a client beside them that is served all the while."""

    @classmethod
    def setUpClass(cls):
        cls.shared = Gateway("--echo", **QUIET)
        cls.addClassCleanup(cls.stop_shared)
        cls.bystander = RawClient(cls.shared)
        cls.addClassCleanup(cls.bystander.close)
        cls.bystander.next_of("welcome")

    @classmethod
    def stop_shared(cls):
        code = cls.shared.stop()
        assert code == 0, f"exit code {code}: {''.join(cls.shared.log)}"

    def tearDown(self):
        self.bystander.send(type="ping", id=self.id())
        self.assertEqual(self.bystander.next_of("pong")["id"], self.id(), "whoever else is connected is served")

    def wire(self, gateway=None, **options):
        return self.enterContext(Wire(gateway or self.shared, **options))

    def gateway(self, *args, **settings):
        return self.enterContext(Gateway(*args, **QUIET, **settings))

    def refused(self, data, status, gateway=None, send=Wire.send, has_body=True):
        """The answer to `data`, which is a refusal in every respect."""
        wire = self.wire(gateway)
        send(wire, data)
        answer = wire.answer(has_body)
        self.assertEqual(answer.status, status, data[:300])
        self.assertIn("close", answer.tokens("connection"))
        self.assertEqual(answer.header("content-type"), "application/json")
        if has_body:
            body = json.loads(answer.body)
            self.assertEqual(set(body), {"error", "message"})
            self.assertTrue(body["error"] and body["message"], body)
        self.assertEqual(wire.rest(), b"", "one answer, and the proper end of the connection")
        return answer

    def refused_each(self, status, *requests, **options):
        for data in requests:
            with self.subTest(data[:200]):
                self.refused(data, status, **options)

    def accepted(self, data, gateway=None, send=Wire.send):
        """The wire after a 101 that is right, and the answer."""
        wire = self.wire(gateway)
        send(wire, data)
        answer = wire.answer()
        self.assertEqual(answer.status, 101, data[:300])
        self.assertEqual(answer.tokens("connection"), ["upgrade"])
        self.assertEqual(answer.tokens("upgrade"), ["websocket"])
        self.assertEqual(answer.header("sec-websocket-accept"), ACCEPT)
        self.assertNotIn("content-length", answer.headers)
        self.assertNotIn("transfer-encoding", answer.headers)
        return wire, answer

    def accepted_each(self, *requests):
        for data in requests:
            with self.subTest(data[:200]):
                wire, _ = self.accepted(data)
                self.assertEqual(wire.json()["type"], "welcome")
