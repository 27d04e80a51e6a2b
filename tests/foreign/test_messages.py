"""Hostile messages: an `error` that names the field, and the connection lives."""

import json
import threading
import time
import unittest

from support import Gateway, RawClient, masked, poll
from wire import QUIET, resident_bytes

SHARED = None


def setUpModule():
    global SHARED
    SHARED = Gateway(**QUIET)


def tearDownModule():
    code = SHARED.stop()
    assert code == 0, f"exit code {code}: {''.join(SHARED.log)}"


class Case(unittest.TestCase):
    def client(self, query="", gateway=None):
        client = RawClient(gateway or SHARED, query)
        self.addCleanup(client.close)
        client.next_of("welcome")
        return client

    def answer(self, client, text):
        """The one answer to this text; a ping behind it shows that there is no other."""
        client.send_frame(0x81, text.encode() if isinstance(text, str) else text)
        client.send(type="ping", id="after")
        got = []
        while not (got and got[-1].get("id") == "after"):
            opcode, payload = client.frame()
            self.assertEqual(opcode, 1, payload)
            got.append(json.loads(payload))
        self.assertEqual(len(got), 2, (text[:100], got))
        return got[0]

    def refused(self, client, text, code="bad_message", names=""):
        error = self.answer(client, text)
        self.assertEqual((error["type"], error["code"]), ("error", code), text[:100])
        self.assertTrue(error["content"])
        self.assertLess(len(error["content"]), 500, "an error does not repeat what was sent")
        if names:
            self.assertIn(f"`{names}`", error["content"], text[:100])
        return error


class Mistakes(Case):
    def test_answers_what_is_no_json_object(self):
        client = self.client()
        for text in (
            "", " ", "\n", "{", "}", "{}{}", "{},", "[]", "[{}]", "null", "true", "0", "-", "1e5", '"text"', "'{}'", "{type:1}", "{'type':'ping'}", '{"type"}',
            '{"type":}', '{"type":"ping",}', '{"type":"ping"', '{"type":"ping"}}', '{"type":"ping"}x', '{"type":"ping"} {"type":"ping"}', '{,}', "{\"type\":\"ping\"\0}",
            '{"type":"pi\nng"}', '{"type":"ping\\x"}', '{"type":"\\u12"}', '{"type":ping}', '{"type":"ping","data":01}', '{"type":"ping","data":+1}',
            '{"type":"ping","data":.5}', '{"type":"ping","data":1.}', '{"type":"ping","data":NaN}', '{"type":"ping","data":Infinity}', '{"type":"ping","data":0x1}',
            '{"type":"ping","data":tru}', '{"type":"ping","data":[1,]}', '{"type":"ping","data":[1 2]}', '{"type":"ping" "id":1}', "\ufeff{}", "// {}", "<xml/>",
            "GET / HTTP/1.1\r\n\r\n", "\U0001f3ba", '{"type":"ping"/**/}', "[" * 60000, '{"a":' * 10000, '{"type":"ping","data":' + "[" * 10000 + "]" * 10000 + "}",
            '{"type":"ping","data":' + '{"a":' * 10000 + "1" + "}" * 10001, "9" * 60000, '"' * 60000, "{" * 60000, "\\" * 1000,
        ):
            with self.subTest(text[:60]):
                self.refused(client, text)

    def test_answers_a_missing_type_and_types_that_are_none(self):
        client = self.client()
        for text, code in (
            ("{}", "missing_field"), ('{"type":null}', "missing_field"), ('{"Type":"ping"}', "missing_field"), ('{"":"ping"}', "missing_field"),
            ('{"type":1}', "bad_message"), ('{"type":["ping"]}', "bad_message"), ('{"type":{"type":"ping"}}', "bad_message"), ('{"type":true}', "bad_message"),
            ('{"type":""}', "unknown_type"), ('{"type":"PING"}', "unknown_type"), ('{"type":"ping "}', "unknown_type"), ('{"type":"ping\\u0000"}', "unknown_type"),
            ('{"type":"welcome"}', "unknown_type"), ('{"type":"error"}', "unknown_type"), ('{"type":"' + "x" * 60000 + '"}', "unknown_type"),
        ):
            with self.subTest(text[:60]):
                self.refused(client, text, code, names="type")

    def test_names_the_field_that_is_missing_or_wrong(self):
        client = self.client()
        names = ("", "x" * 129, "\u00e4" * 65, [], {}, True, -1, 1.5, 1e300, -9223372036854775808)
        for kind in ("join", "leave", "presence", "history"):
            self.refused(client, json.dumps({"type": kind}), "missing_field", "room_id")
            self.refused(client, json.dumps({"type": kind, "room_id": None}), "missing_field", "room_id")
            for name in names:
                self.refused(client, json.dumps({"type": kind, "room_id": name}), names="room_id")
        for name in names:
            self.refused(client, json.dumps({"type": "message", "to": name, "content": "x"}), names="to")
        for value in (1, [], {}, True, 0.5):
            self.refused(client, json.dumps({"type": "message", "room_id": "a", "content": value}), names="content")
        for value in ("true", 1, 0, [], {}):
            self.refused(client, json.dumps({"type": "message", "room_id": "a", "content": "x", "echo": value}), names="echo")
        for value in (1.5, [], {}, True, "x" * 129, 1e300, -1.0):
            self.refused(client, json.dumps({"type": "ping", "id": value}), names="id")
        for value in ("x", 1.5, [], -1, {}, 1e300):
            self.refused(client, json.dumps({"type": "join", "room_id": "a", "history": value}), names="history")
        for value in ("x", 1, [], {}, {"epoch": 1}, {"epoch": "e", "offset": -1}, {"epoch": "e", "offset": 1.5}, {"epoch": "x" * 1000, "offset": 1}, {"offset": 1}):
            error = self.refused(client, json.dumps({"type": "join", "room_id": "a", "recover": value}))
            self.assertIn("recover", error["content"])
        self.refused(client, '{"type":"auth"}', "missing_field", "token")
        self.refused(client, '{"type":"auth","token":7}', names="token")

    def test_refuses_numbers_out_of_range_and_halves_of_characters_wherever_they_are(self):
        client = self.client()
        for number in ("1e999999", "-1e999999", "1e400", "1" + "0" * 400, "-1" + "0" * 5000, "18446744073709551616", "0." + "1" * 20000 + "e999"):
            answer = self.answer(client, f'{{"type":"join","room_id":{number}}}')
            self.assertEqual((answer["type"], answer["code"]), ("error", "bad_message"), number[:30])
        for half in ("\\ud800", "\\udc00", "\\ud800\\ud800", "\\udc00\\ud800", "\\ud83c", "x\\ud800x", "\\ud800\\u0041"):
            for text in ('{"type":"join","room_id":"%s"}', '{"type":"ping","data":"%s"}', '{"type":"ping","id":"%s"}', '{"type":"%s"}', '{"%s":1,"type":"ping"}',
                         '{"type":"message","content":"%s","room_id":"a"}', '{"type":"ping","data":[{"%s":1}]}'):
                self.refused(client, text % half)

    def test_refuses_every_field_that_is_there_twice(self):
        client = self.client()
        for name, value in (("type", '"ping"'), ("id", "1"), ("room_id", '"a"'), ("content", '"x"'), ("data", "{}"), ("echo", "true"), ("to", '"a"'), ("from", "1"),
                            ("timestamp", "1"), ("unknown", "1")):
            pair = f'"{name}":{value}'
            kind = "" if name == "type" else '"type":"message",'
            self.refused(client, f"{{{kind}{pair},{pair}}}", names=name)
            self.refused(client, f'{{{kind}{pair},"\\u{ord(name[0]):04x}{name[1:]}":{value}}}', names=name)

    def test_carries_the_mark_of_a_request_in_its_error(self):
        client = self.client()
        for mark in (7, -7, "seven", 18446744073709551615, ""):
            error = self.refused(client, json.dumps({"id": mark, "type": "join"}), "missing_field")
            self.assertEqual(error["id"], mark)
            error = self.refused(client, json.dumps({"type": "dance", "id": mark}), "unknown_type")
            self.assertEqual(error["id"], mark)

    def test_ignores_fields_that_it_does_not_know(self):
        client = self.client()
        many = {f"field {number}": number for number in range(3000)}
        for extra in ({"__proto__": {"type": "join"}}, {"constructor": 1}, {"": ""}, {"\0": 1}, {"TYPE": "join"}, many):
            self.assertEqual(self.answer(client, json.dumps({**extra, "type": "ping", "id": 1}))["type"], "pong")
        self.assertEqual(self.answer(client, ' \t\r\n{ "type" \n:\t"ping" , "id" : 1 }\r\n ')["type"], "pong")
        self.assertEqual(self.answer(client, '{"\\u0074ype":"\\u0070ing"}')["type"], "pong")


class Patience(Case):
    def test_closes_with_1008_a_client_that_sends_a_bounded_number_of_mistakes_in_a_row(self):
        for text in ("nonsense", "{}", '{"type":"dance"}', '{"type":"join"}', '{"type":"ping","type":"ping"}'):
            client = self.client()
            client.socket.sendall(masked(0x81, text.encode()) * 1000)
            messages, code = client.until_close()
            self.assertEqual(code, 1008, text)
            self.assertLessEqual(len(messages), 32)
            self.assertTrue(all(message["type"] == "error" for message in messages))

    def test_begins_to_count_anew_after_something_good(self):
        client = self.client()
        for number in range(20):
            for _ in range(20):
                client.send_frame(0x81, b"nonsense")
                self.assertEqual(client.next_of("error")["code"], "bad_message")
            client.send(type="ping", id=number)
            self.assertEqual(client.next_of("pong")["id"], number)

    def test_refuses_a_hundred_thousand_joins_of_one_client_beyond_its_limit(self):
        other = self.client()
        other.send(type="join", room_id="crowded-7", id=1)
        other.next_of("ack")
        base, before = self.gauges(), resident_bytes(SHARED)
        client, count, limit = self.client(), 100_000, 128
        joins = b"".join(masked(0x81, b'{"type":"join","room_id":"crowded-%d","id":%d}' % (number, number)) for number in range(count))
        sender = threading.Thread(target=client.socket.sendall, args=[joins])
        sender.start()
        answers = [json.loads(client.frame()[1]) for _ in range(count)]
        sender.join()
        self.assertEqual([answer["id"] for answer in answers], list(range(count)))
        self.assertEqual({answer["type"] for answer in answers[:limit]}, {"ack"})
        self.assertEqual({answer.get("code") for answer in answers[limit:]}, {"too_many_rooms"})
        self.assertEqual(self.gauges()[1], base[1] + limit)
        client.send(type="leave", room_id="crowded-0", id="leave")
        client.send(type="join", room_id="one more", id="join")
        self.assertEqual([client.next_of("ack")["id"] for _ in range(2)], ["leave", "join"])
        client.close()
        poll("rooms are empty again", lambda: self.gauges() == base)
        self.assertLess(resident_bytes(SHARED) - before, 32 << 20)

    def test_keeps_no_room_of_a_client_that_joins_and_leaves_thousands(self):
        client, base = self.client(), None
        for batch in range(10):
            for number in range(1000):
                client.send(type="join", room_id=f"brief-{batch}-{number}")
                client.send(type="leave", room_id=f"brief-{batch}-{number}")
            client.send(type="ping", id=batch)
            self.assertEqual(client.next_of("pong")["id"], batch)
            now = self.gauges()
            base = base or now
            self.assertLessEqual(now[0], base[0] + 1)

    def gauges(self):
        samples = SHARED.scrape()
        return samples["fanfare_rooms"], samples["fanfare_room_memberships"]


class Names(Case):
    def test_takes_rooms_of_any_utf_8_and_keeps_them_apart(self):
        names = ["a", "A", " ", " a", "a ", "\u00e4", "a\u0308", "\u00c4", "\0", "\n", "\r\n", "\t", "\u2028", "\u200b", "\ufeff", "\ufffd", "\uffff", "\U0010ffff",
                 "\U0001f3ba", "\u202egnp", "*", "#", "..", "../../etc/passwd", "a/b", "a.b.>", "%00", "\"", "\\", "'; drop table rooms;--", "{{7*7}}", "<script>",
                 "null", "true", "00", "-1", "1.0", "1e3", "9007199254740993", "18446744073709551616", "x" * 128, "\u00e4" * 64, "\U0001f3ba" * 32, "\x7f", "\x1b[31m"]
        clients = [self.client(), self.client()]
        self.assertEqual(len(set(names)), len(names))
        for name in names:
            for client in clients:
                client.send(type="join", room_id=name, id=1)
                ack = client.next_of("ack")
                self.assertEqual(str(ack["room_id"]), name)
            clients[0].send(type="message", room_id=name, content=name)
            for client in clients:
                message = client.next_of("message")
                self.assertEqual((str(message["room_id"]), message["content"]), (name, name))

    def test_takes_users_of_any_utf_8(self):
        for query, user in (("user=%00", "\0"), ("user=%F0%9F%8E%BA", "\U0001f3ba"), ("user=a%20b", "a b"), ("user=%22%5C%0A", "\"\\\n"), ("user=007", "007"),
                            ("user=7", 7), ("user=9007199254740992", "9007199254740992"), ("user=%7B%7D", "{}"), ("user=" + "%C3%A4" * 64, "\u00e4" * 64)):
            client = RawClient(SHARED, query)
            self.addCleanup(client.close)
            self.assertEqual(client.next_of("welcome")["user"], user, query)

    def test_measures_what_it_shows_of_such_names_without_harm(self):
        client = self.client("user=%22%7D%0Afanfare_evil%201")
        client.send(type="join", room_id='"}\nfanfare_evil 1\n', id=1)
        client.next_of("ack")
        client.send(type="message", room_id='"}\nfanfare_evil 1\n', content="x")
        client.next_of("message")
        end = time.monotonic() + 1
        while time.monotonic() < end:
            self.assertFalse([name for name in SHARED.scrape() if name.startswith("fanfare_evil")])
            time.sleep(0.2)


if __name__ == "__main__":
    unittest.main()
