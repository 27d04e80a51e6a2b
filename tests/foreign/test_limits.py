"""Who gets in, by address and user, also behind proxies."""

import asyncio
import json
import re
import socket
import struct
import unittest

from support import DEADLINE, Client, Gateway, fetch, poll, poll_async

# Connections that are told at once why they are refused; others are closed without a word.
PLACES_TO_REFUSE = 16
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def request(gateway, user="", **headers):
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return (
        f"GET /ws?user={user or 'ann'} HTTP/1.1\r\nHost: {gateway.host}:{gateway.port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{lines}\r\n"
    ).encode()


class Visit:
    """A connection from an address of one's choice, and the answer to what it says."""

    def __init__(self, gateway, says, source="127.0.0.1", pieces=None):
        self.socket = socket.create_connection((gateway.host, gateway.port), source_address=(source, 0), timeout=DEADLINE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces or [says]:
            self.socket.sendall(piece)
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.socket.recv(65536)
            if not more:
                break
            data += more
        self.head, _, self.rest = data.partition(b"\r\n\r\n")
        self.status = int(self.head[9:12] or 0)

    def header(self, name):
        found = re.search(rf"^{name}: (.*)\r?$", self.head.decode(), re.IGNORECASE | re.MULTILINE)
        return found and found[1].strip()

    def close(self):
        self.socket.close()


class Silent:
    """A connection that says this and nothing more."""

    def __init__(self, gateway, says, source="127.0.0.1"):
        self.socket = socket.create_connection((gateway.host, gateway.port), source_address=(source, 0), timeout=DEADLINE)
        self.socket.sendall(says)
        self.socket.setblocking(False)

    def is_over(self):
        """Whether the gateway has ended it."""
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    def close(self):
        self.socket.close()


def line(client="198.51.100.7", port=4711):
    return f"PROXY TCP4 {client} 127.0.0.1 {port} 80\r\n".encode()


def binary(client="198.51.100.7", port=4711, extra=b""):
    body = socket.inet_aton(client) + socket.inet_aton("127.0.0.1") + struct.pack("!HH", port, 80) + extra
    return SIGNATURE + b"\x21\x11" + struct.pack("!H", len(body)) + body


class ByAddress(unittest.TestCase):
    def gateway(self, *args, **settings):
        return self.enterContext(Gateway(*args, **settings))

    def visit(self, gateway, *args, **options):
        visit = Visit(gateway, request(gateway), *args, **options)
        self.addCleanup(visit.close)
        return visit

    def test_an_address_has_at_most_so_many_connections_and_others_come_in(self):
        gateway = self.gateway(LIMITS__CONNECTIONS_PER_ADDRESS="3")
        first = [self.visit(gateway) for _ in range(3)]
        self.assertEqual([visit.status for visit in first], [101] * 3)
        refused = self.visit(gateway)
        self.assertEqual((refused.status, refused.header("Retry-After")), (429, "5"))
        self.assertIn("address_limit", refused.rest.decode())
        self.assertEqual(self.visit(gateway, source="127.0.0.2").status, 101)
        first[0].close()
        poll("let in again", lambda: self.visit(gateway).status == 101)
        for name in ['handshake_failures_total{reason="address_limit"}', 'rate_limited_total{scope="ip"}']:
            poll("counted", lambda name=name: gateway.scrape()[f"fanfare_{name}"])

    def test_connections_that_come_too_fast_are_told_when_to_come_back(self):
        for key, error in [("HANDSHAKES_PER_SECOND_PER_ADDRESS", "address_rate"), ("HANDSHAKES_PER_SECOND", "rate")]:
            gateway = self.gateway(**{f"LIMITS__{key}": "5"})
            visits = [self.visit(gateway) for _ in range(10)]
            self.assertEqual([visit.status for visit in visits[:5]], [101] * 5)
            refused = [visit for visit in visits if visit.status == 429]
            self.assertGreaterEqual(len(refused), 3)
            self.assertEqual({visit.header("Retry-After") for visit in refused}, {"1"})
            self.assertTrue(all(json.loads(visit.rest)["error"] == error for visit in refused))
            other = self.visit(gateway, source="127.0.0.2").status
            self.assertEqual(other, 101 if error == "address_rate" else 429)
            poll("let in again", lambda: self.visit(gateway).status == 101)
            scope = "ip" if error == "address_rate" else "global"
            name = f'fanfare_rate_limited_total{{scope="{scope}"}}'
            poll("counted", lambda gateway=gateway, name=name: gateway.scrape()[name] >= 3)

    def test_nothing_is_left_of_connections_that_came_and_went(self):
        gateway = self.gateway(LIMITS__CONNECTIONS_PER_ADDRESS="20")
        for number in range(300):
            visit = self.visit(gateway)
            if number % 3 == 0:
                visit.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            visit.close()
            if number % 10 == 9:
                poll("gone", lambda: gateway.scrape()['fanfare_connections{transport="ws"}'] == 0)
        self.assertEqual([self.visit(gateway).status for _ in range(20)], [101] * 20)
        self.assertEqual(self.visit(gateway).status, 429)


class BehindProxies(unittest.TestCase):
    def setUp(self):
        settings = {"PROXY__TRUSTED": "127.0.0.1,10.0.0.0/8", "LIMITS__CONNECTIONS_PER_ADDRESS": "2"}
        self.protocol = self.enterContext(Gateway(PROXY__PROTOCOL="true", **settings))
        self.forwarded = self.enterContext(Gateway(PROXY__FORWARDED_FOR="true", **settings))

    def visit(self, gateway, says, **options):
        visit = Visit(gateway, says, **options)
        self.addCleanup(visit.close)
        return visit

    def status(self, gateway, says, **options):
        """The answer to a connection that is closed then."""
        visit = self.visit(gateway, says, **options)
        visit.close()
        return visit.status

    def silent(self, *args, **options):
        silent = Silent(*args, **options)
        self.addCleanup(silent.close)
        return silent

    @staticmethod
    def connections(gateway):
        """Those that are open, and those in their handshakes."""
        names = ("fanfare_handshakes{", "fanfare_connections{")
        return sum(value for name, value in gateway.scrape().items() if name.startswith(names))

    def two_silent(self, gateway, *args, **options):
        """Two connections in their handshakes that the gateway has read from."""
        silent = [self.silent(gateway, *args, **options) for _ in range(2)]
        poll("both are there", lambda: self.connections(gateway) == 2)
        return silent

    def peers(self, gateway, user="ann"):
        """The other ends of a user's connections, of which there is at least one."""

        def listed():
            status, answer = fetch(f"{gateway.admin}/debug/connections?user={user}")
            self.assertEqual(status, 200)
            return sorted(connection["peer"] for connection in json.loads(answer)["connections"])

        return poll(f"connections of {user}", listed)

    def test_the_header_of_a_proxy_names_the_client_in_either_version_and_however_it_is_cut(self):
        for number, header in enumerate([line(), binary(), binary(extra=b"\x04\x00\x03abc")]):
            user = f"user-{number}"
            visit = self.visit(self.protocol, header + request(self.protocol, user))
            self.assertEqual(visit.status, 101)
            self.assertEqual(self.peers(self.protocol, user), ["198.51.100.7:4711"])
            visit.close()
        whole = line() + request(self.protocol, "cut")
        pieces = [whole[at:at + 1] for at in range(len(line()) + 20)] + [whole[len(line()) + 20:]]
        self.assertEqual(self.visit(self.protocol, b"", pieces=pieces).status, 101)
        self.assertEqual(self.peers(self.protocol, "cut"), ["198.51.100.7:4711"])

    def test_frames_behind_header_and_request_are_not_lost(self):
        frame = b"\x81\x80" + b"\0\0\0\0"
        visit = self.visit(self.protocol, line() + request(self.protocol) + frame)
        data = visit.rest
        while b"bad_message" not in data:
            more = visit.socket.recv(65536)
            self.assertTrue(more, data)
            data += more

    def test_the_limits_are_those_of_the_client_and_not_of_the_proxy(self):
        for number in range(3):
            statuses = [
                self.visit(self.protocol, line(f"198.51.100.{number}") + request(self.protocol)).status for _ in range(3)
            ]
            self.assertEqual(statuses, [101, 101, 429])
            forwarded = request(self.forwarded, X_Forwarded_For=f"1.2.3.4, 198.51.100.{number}, 10.9.9.9")
            self.assertEqual([self.visit(self.forwarded, forwarded).status for _ in range(3)], [101, 101, 429])
        self.assertEqual(self.peers(self.forwarded)[0], "198.51.100.0:0")

    def test_of_ipv6_all_of_a_site_are_one(self):
        def status(client):
            return self.visit(self.protocol, f"PROXY TCP6 {client} ::1 4711 80\r\n".encode() + request(self.protocol)).status

        self.assertEqual([status(f"2001:db8:0:1::{last}") for last in range(3)], [101, 101, 429])
        self.assertEqual(status("2001:db8:0:2::1"), 101)
        self.assertIn("[2001:db8:0:2::1]:4711", self.peers(self.protocol))

    def test_nothing_is_left_of_whom_proxies_spoke_for(self):
        header, forwarded = line(), request(self.forwarded, X_Forwarded_For="198.51.100.7")
        for number in range(120):
            gateway, whole = [(self.protocol, header + request(self.protocol)), (self.forwarded, forwarded)][number % 2]
            # Cut anywhere, and broken off as often as not.
            visitor = self.silent(gateway, whole[: number * 7 % len(whole)] if number % 3 else whole)
            if number % 4 > 1:
                visitor.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            visitor.close()
        for gateway, whole in [(self.protocol, header + request(self.protocol)), (self.forwarded, forwarded)]:
            poll("all are gone", lambda gateway=gateway: self.connections(gateway) == 0)
            self.assertEqual([self.visit(gateway, whole).status for _ in range(3)], [101, 101, 429])

    def test_who_says_nothing_behind_a_proxy_is_counted_as_soon_as_the_proxy_has_named_it(self):
        for header in [line("198.51.100.20"), binary("198.51.100.21")]:
            says = header + request(self.protocol)
            silent = self.two_silent(self.protocol, header)
            self.assertEqual(self.status(self.protocol, says), 429)
            self.assertEqual(self.status(self.protocol, line("198.51.100.22") + request(self.protocol)), 101)
            for client in silent:
                client.close()
            poll("let in", lambda says=says: self.status(self.protocol, says) == 101)

    def test_who_comes_past_the_proxies_is_counted_at_the_door(self):
        for gateway in [self.protocol, self.forwarded]:
            silent = self.two_silent(gateway, b"", source="127.0.0.8")
            self.assertEqual(self.status(gateway, request(gateway), source="127.0.0.8"), 429)
            for client in silent:
                client.close()
            poll("let in", lambda gateway=gateway: self.status(gateway, request(gateway), source="127.0.0.8") == 101)

    def test_requests_that_come_to_nothing_count_for_the_rate(self):
        settings = {"PROXY__TRUSTED": "127.0.0.1", "LIMITS__HANDSHAKES_PER_SECOND_PER_ADDRESS": "3"}
        protocol = self.enterContext(Gateway(PROXY__PROTOCOL="true", **settings))
        forwarded = self.enterContext(Gateway(PROXY__FORWARDED_FOR="true", **settings))
        nowhere = b"GET /nowhere HTTP/1.1\r\nHost: a\r\n"
        for gateway, says in [
            (protocol, line() + nowhere + b"\r\n"),
            (protocol, binary("198.51.100.31") + b"nonsense\r\n\r\n"),
            (forwarded, nowhere + b"X-Forwarded-For: 198.51.100.30\r\n\r\n"),
        ]:
            statuses = [self.status(gateway, says) for _ in range(9)]
            self.assertGreaterEqual(statuses.count(429), 4, statuses)
            poll("let in again", lambda gateway=gateway, says=says: self.status(gateway, says) != 429)

    def test_a_header_that_does_not_end_in_time_ends_the_connection(self):
        gateway = self.enterContext(Gateway(PROXY__PROTOCOL="true", PROXY__TRUSTED="127.0.0.1", LIMITS__HANDSHAKE="200ms"))
        for begun in [b"", b"PROXY TCP4 198.51", SIGNATURE, binary()[:-1]]:
            self.assertEqual(self.visit(gateway, begun).status, 0)
        timeouts = 'fanfare_handshake_failures_total{reason="timeout"}'
        poll("counted", lambda: gateway.scrape()[timeouts] == 4)

    def test_those_who_are_refused_take_no_places_of_others(self):
        settings = {"LIMITS__CONNECTIONS": "30", "LIMITS__CONNECTIONS_PER_ADDRESS": "2", "PROXY__TRUSTED": "127.0.0.1"}
        gateway = self.enterContext(Gateway(PROXY__PROTOCOL="true", **settings))
        flood = []
        for _ in range(10):
            flood += [self.silent(gateway, line("198.51.100.40")) for _ in range(10)]
            left = 2 + PLACES_TO_REFUSE
            poll("the others are over", lambda left=left: len([client for client in flood if not client.is_over()]) <= left)
        for number in range(10):
            self.assertEqual(self.status(gateway, line(f"198.51.100.{50 + number}") + request(gateway)), 101)
        refused = 'fanfare_handshake_failures_total{reason="address_limit"}'
        self.assertGreaterEqual(gateway.scrape()[refused], 100 - 2 - PLACES_TO_REFUSE)

    def test_who_is_no_proxy_is_not_believed(self):
        lie = request(self.forwarded, X_Forwarded_For="198.51.100.99")
        statuses = [self.visit(self.forwarded, lie, source="127.0.0.9").status for _ in range(3)]
        self.assertEqual(statuses, [101, 101, 429])
        self.assertTrue(all(peer.startswith("127.0.0.9:") for peer in self.peers(self.forwarded)))
        direct = self.visit(self.protocol, request(self.protocol, "direct"), source="127.0.0.9")
        self.assertEqual(direct.status, 101)
        self.assertTrue(self.peers(self.protocol, "direct")[0].startswith("127.0.0.9:"))
        lie = self.visit(self.protocol, line() + request(self.protocol), source="127.0.0.9")
        self.assertEqual(lie.status, 400, "for others that is no request")

    def test_a_proxy_that_does_not_say_for_whom_it_speaks_is_refused(self):
        refused = self.visit(self.protocol, request(self.protocol))
        self.assertEqual((refused.status, json.loads(refused.rest)["error"]), (400, "proxy"))
        for garbage in [b"PROXY TCP4 x\r\n", b"\x16\x03\x01\x02\x00", b"PROXY " + b"x" * 200, SIGNATURE + b"\x31"]:
            self.assertEqual(self.visit(self.protocol, garbage).status, 400, garbage)
        local = self.visit(self.protocol, SIGNATURE + b"\x20\x00\x00\x00" + request(self.protocol, "local"))
        self.assertEqual(local.status, 101)
        self.assertTrue(self.peers(self.protocol, "local")[0].startswith("127.0.0.1:"))
        name = 'fanfare_handshake_failures_total{reason="proxy"}'
        poll("counted", lambda: self.protocol.scrape()[name] == 5)


class ByUser(unittest.IsolatedAsyncioTestCase):
    async def test_a_user_has_at_most_so_many_connections_on_all_shards_together(self):
        with Gateway("--shards", "4", LIMITS__CONNECTIONS_PER_USER="5") as gateway:
            clients = await asyncio.gather(*(Client.open(gateway, "user=ann", welcome=False) for _ in range(40)))
            codes = []
            kept = []
            for client in clients:
                try:
                    first = json.loads(await asyncio.wait_for(client.connection.recv(), DEADLINE))
                    self.assertEqual(first["type"], "welcome")
                    kept.append(client)
                except Exception:
                    codes.append(await client.closed())
            self.assertEqual((len(kept), codes), (5, [4503] * 35))
            other = await Client.open(gateway, "user=ben")
            await kept[0].close()

            async def let_in():
                client = await Client.open(gateway, "user=ann", welcome=False)
                try:
                    await asyncio.wait_for(client.connection.recv(), DEADLINE)
                except Exception:
                    return None
                return client

            while not (newcomer := await let_in()):
                pass
            for client in [*kept[1:], other, newcomer]:
                await client.close()
            await poll_async("all gone", lambda: gateway.scrape()["fanfare_users"] == 0)
            for name in ['connections_closed_total{reason="user_limit"}', 'rate_limited_total{scope="user"}']:
                self.assertGreaterEqual(gateway.scrape()[f"fanfare_{name}"], 35)


class ByConnection(unittest.IsolatedAsyncioTestCase):
    async def test_each_message_that_comes_too_fast_is_counted(self):
        with Gateway(LIMITS__MESSAGES_PER_SECOND="2") as gateway:
            client = await Client.open(gateway, "user=ann")
            for number in range(9):
                await client.send(type="join", room_id=5, id=number)
            answers = []
            while len(answers) < 9:
                answer = await client.next()
                if answer["type"] in ("ack", "error"):
                    answers.append(answer)
            refused = [answer for answer in answers if answer.get("code") == "rate_limited"]
            self.assertGreaterEqual(len(refused), 5)
            await client.close()
            name = 'fanfare_rate_limited_total{scope="connection"}'
            await poll_async("counted", lambda: gateway.scrape()[name] == len(refused))
