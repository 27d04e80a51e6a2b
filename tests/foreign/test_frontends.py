"""nginx and HAProxy before the gateway, as `deploy/` has them: what clients notice, and what the gateway knows of them."""

import asyncio
import json
import ssl
import tempfile
import time
import unittest
import urllib.request

import jwt
from certificates import Authority
from frontends import HAProxy, Nginx
from support import DEADLINE, SECRET, Client, Gateway, RawClient, fetch, poll_async
from websockets.exceptions import InvalidStatus

# A file of `deploy/`, and whether TLS ends at the proxy or goes through it.
ENDS, PASSES = "ends", "passes"
FILES = [
    (Nginx, "nginx/nginx.conf", ENDS),
    (Nginx, "nginx/nginx-passthrough.conf", PASSES),
    (HAProxy, "haproxy/haproxy.cfg", ENDS),
    (HAProxy, "haproxy/haproxy-passthrough.cfg", PASSES),
]
# Not that of the proxy, which is 127.0.0.1.
SOURCE = "127.0.0.77"


class BehindFrontends(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        authority = Authority(folder)
        cls.certificate, cls.key = authority.issue("server")
        cls.context = ssl.create_default_context(cafile=str(authority.certificate))
        cls.context.set_alpn_protocols(["http/1.1"])

    def gateway(self, tls, **settings):
        """A gateway set up as the file beside the proxy's says."""
        # Only the proxy's address is trusted, and not that of the client, though both are on this machine.
        settings = {"PROXY__TRUSTED": "127.0.0.1", "INSECURE": "true", **settings}
        if tls == PASSES:
            settings |= {"TLS__CERTIFICATE": str(self.certificate), "TLS__KEY": str(self.key), "PROXY__PROTOCOL": "true"}
        else:
            settings |= {"PROXY__FORWARDED_FOR": "true"}
        return self.enterContext(Gateway(**settings))

    def frontend(self, kind, file, tls, *gateways):
        pair = (self.certificate, self.key) if tls == ENDS else ()
        return self.enterContext(kind(file, gateways, *pair))

    async def client(self, frontend, query="user=ann", **options):
        client = await Client.open(frontend, query, ssl=self.context, local_addr=(SOURCE, 0), **options)
        self.addAsyncCleanup(client.close)
        return client

    async def test_a_client_joins_sends_and_hears_and_the_gateway_knows_its_address(self):
        for kind, file, tls in FILES:
            with self.subTest(file):
                gateway = self.gateway(tls)
                frontend = self.frontend(kind, file, tls, gateway)
                ann = await self.client(frontend)
                # What a client says of itself is not believed.
                bob = await self.client(frontend, "user=bob", additional_headers={"X-Forwarded-For": "203.0.113.9"})
                for client in (ann, bob):
                    self.assertEqual((await client.request(type="join", room_id="lobby"))["type"], "ack")
                said = "x" * 60_000
                self.assertEqual((await ann.request(type="message", room_id="lobby", content=said))["type"], "ack")
                for client in (ann, bob):
                    self.assertEqual((await client.next_of("message"))["content"], said)
                for user in ("ann", "bob"):
                    _, answer = fetch(f"{gateway.admin}/debug/connections?user={user}")
                    (connection,) = json.loads(answer)["connections"]
                    self.assertRegex(connection["peer"], rf"^{SOURCE}:\d+$")

    async def test_pages_of_the_site_itself_may_connect_and_others_may_not(self):
        for kind, file, tls in FILES:
            with self.subTest(file):
                frontend = self.frontend(kind, file, tls, self.gateway(tls))
                await self.client(frontend, origin=f"https://localhost:{frontend.port}")
                with self.assertRaises(InvalidStatus) as refused:
                    await self.client(frontend, origin="https://elsewhere.example")
                self.assertEqual(refused.exception.response.status_code, 403)

    async def test_a_token_comes_through_in_every_place_and_a_refusal_comes_back(self):
        for kind, file, tls in FILES:
            with self.subTest(file):
                gateway = self.gateway(tls, AUTH__MODE="jwt", AUTH__SECRET=SECRET)
                frontend = self.frontend(kind, file, tls, gateway)
                good = jwt.encode({"sub": "ann", "exp": int(time.time()) + 600}, SECRET)
                for query, options in (
                    ("", {"additional_headers": {"Authorization": f"Bearer {good}"}}),
                    ("", {"subprotocols": ["fanfare.v1", f"fanfare.token.{good}"]}),
                    (f"token={good}", {}),
                ):
                    self.assertEqual((await self.client(frontend, query, **options)).welcome["user"], "ann")
                with self.assertRaises(InvalidStatus) as refused:
                    await self.client(frontend)
                self.assertEqual(refused.exception.response.status_code, 401)
                self.assertEqual(json.loads(refused.exception.response.body)["error"], "unauthorized")

    async def test_a_close_code_comes_through(self):
        for kind, file, tls in FILES:
            with self.subTest(file):
                gateway = self.gateway(tls)
                client = await self.client(self.frontend(kind, file, tls, gateway))
                self.post(gateway, "disconnect", user="ann")
                self.assertEqual(await client.closed(), 4501)

    async def test_clients_of_a_gateway_that_is_drained_come_back_to_the_other_one_and_stay_there(self):
        for kind, file, tls in FILES:
            with self.subTest(file):
                first, second = (self.gateway(tls, NODE=name) for name in ("first", "second"))
                frontend = self.frontend(kind, file, tls, first, second)
                staying = [await self.client(frontend, f"user={number}") for number in range(5)]
                self.assertEqual({client.welcome["node"] for client in staying}, {"first"})
                if kind == Nginx:
                    # It asks no health: whoever drains tells it before.
                    await asyncio.to_thread(frontend.reload, [second, first])
                self.post(first, "drain", window_seconds=3)
                # While the others are still being closed.
                came = await self.newcomer(frontend, is_let_in_at_once=kind == Nginx)
                self.assertEqual(came.welcome["node"], "second")
                for client in staying:
                    self.assertLess((await client.next_of("reconnect"))["after_ms"], 10_000)
                    self.assertEqual(await client.closed(), 1001)
                await self.drained(first)
                back = await self.client(frontend, "user=0")
                self.assertEqual(back.welcome["node"], "second")
                status, _ = fetch(f"{first.admin}/api/v1/drain", method="DELETE")
                self.assertEqual(status, 200)
                # Long enough for two checks of HAProxy: the first one is up again, but rooms have moved.
                await asyncio.sleep(3)
                self.assertEqual((await self.client(frontend, "user=1")).welcome["node"], "second")
                await came.settled()

    async def newcomer(self, frontend, is_let_in_at_once):
        """One who comes again while it is refused: a proxy that asks for health each second may need one to notice."""
        end = time.monotonic() + DEADLINE
        while True:
            try:
                return await self.client(frontend, "user=new")
            except InvalidStatus as refused:
                self.assertEqual(refused.response.status_code, 503)
                self.assertFalse(is_let_in_at_once)
                self.assertLess(time.monotonic(), end)
                await asyncio.sleep(0.1)

    async def drained(self, gateway):
        def state():
            return json.loads(fetch(f"{gateway.admin}/api/v1/drain")[1])["state"]

        await poll_async("drained", lambda: state() == "drained")

    async def test_clients_come_back_through_the_proxy_when_a_gateway_has_gone(self):
        for kind, file, tls in FILES:
            with self.subTest(file):
                first, second = (self.gateway(tls, NODE=name) for name in ("first", "second"))
                frontend = self.frontend(kind, file, tls, first, second)
                client = await self.client(frontend)
                self.assertEqual(client.welcome["node"], "first")
                first.process.kill()
                await client.closed()
                back = await self.client(frontend)
                self.assertEqual(back.welcome["node"], "second")

    async def test_the_admin_listener_and_other_paths_are_not_served_to_the_world(self):
        for kind, file, tls in FILES:
            with self.subTest(file):
                frontend = self.frontend(kind, file, tls, self.gateway(tls, AUTH__MODE="jwt", AUTH__SECRET=SECRET))
                for path in ("/metrics", "/api/v1/drain", "/debug/slow", "/", "/ws/", "/echo"):
                    with self.assertRaises(InvalidStatus) as refused:
                        await self.client(frontend, path=path)
                    self.assertIn(refused.exception.response.status_code, (403, 404), path)

    async def test_a_client_that_does_not_read_is_closed_by_the_gateway_and_not_by_the_proxy(self):
        for kind, file, tls in FILES:
            with self.subTest(file):
                gateway = self.gateway(tls, LIMITS__OUTBOUND_BYTES="128KiB")
                frontend = self.frontend(kind, file, tls, gateway)
                slow = RawClient(frontend, "user=slow", receive_buffer=4096, context=self.context)
                slow.send(type="join", room_id="busy", id=1)
                slow.next_of("ack")
                fast = await self.client(frontend)
                await fast.request(type="join", room_id="busy")
                reason = 'fanfare_connections_closed_total{reason="slow_consumer"}'
                for _ in range(2000):
                    await fast.request(type="message", room_id="busy", content="x" * 60_000, echo=False)
                    if gateway.scrape()[reason]:
                        break
                await poll_async("closed as slow", lambda: gateway.scrape()[reason] == 1)
                slow.close()

    @staticmethod
    def post(gateway, action, **body):
        request = urllib.request.Request(
            f"{gateway.admin}/api/v1/{action}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)


if __name__ == "__main__":
    unittest.main()
