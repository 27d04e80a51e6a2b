"""Dashboards, rules and alerts against Debian's Prometheus, which scrapes running gateways under load."""

import asyncio
import contextlib
import json
import math
import os
import subprocess
import tempfile
import threading
import time
import unittest

import jwt
from certificates import Authority
from faults import StoppedThread
from prometheus import Prometheus
from websockets.exceptions import ConnectionClosed, InvalidStatus
from test_webhooks import Receiver
from support import BINARY, DEADLINE, ROOT, SECRET, Client, Gateway, RawClient, clean_environment, fetch, poll, poll_async

LOADTEST = os.path.join(os.path.dirname(BINARY), "fanfare-loadtest")

# The clock of the rules is so much faster: what takes a minute in production takes three seconds here.
FACTOR = 20


class Promtool(unittest.TestCase):
    def test_rules_and_their_unit_tests_pass(self):
        done = subprocess.run([ROOT / "scripts" / "alerts"], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_pages_of_metrics_have_no_complaint(self):
        with Gateway() as gateway:
            for path in ("/metrics", "/metrics/rooms"):
                status, page = fetch(gateway.admin + path)
                self.assertEqual(status, 200)
                done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False)
                self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""), path)


SECURED = {"AUTH__MODE": "jwt", "AUTH__SECRET": SECRET}


def token(user, secret=SECRET):
    """What the query must have for a secured gateway to let this user in, if it has the same secret."""
    return "token=" + jwt.encode({"sub": user, "exp": int(time.time()) + 600}, secret)


def load(gateway, *arguments):
    """A load test that runs beside what follows."""
    command = [LOADTEST, "run", gateway.url, "--quiet", *arguments]
    return subprocess.Popen(command, env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def panel_queries():
    """Each query of each panel: where it stands, and what it asks with the variables filled in."""
    for path in sorted((ROOT / "grafana" / "dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text())
        panels = list(dashboard["panels"])
        panels += [panel for row in dashboard["panels"] for panel in row.get("panels", [])]
        for panel in panels:
            for target in panel.get("targets", []):
                query = target["expr"]
                for variable, value in (("$job", "fanfare"), ("$instance", ".+"), ("$__rate_interval", "10s"), ("$__range", "20s")):
                    query = query.replace(variable, value)
                assert "$" not in query, query
                yield f"{path.stem}: {panel['title']}", query


class Dashboards(unittest.TestCase):
    def test_every_panel_and_rule_has_something_to_show_of_a_gateway_under_load(self):
        with contextlib.ExitStack() as stack:
            jwks = os.path.join(stack.enter_context(tempfile.TemporaryDirectory()), "jwks.json")
            with open(jwks, "w", encoding="utf-8") as file:
                json.dump({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}, file)
            receiver = Receiver()
            stack.callback(receiver.close)
            settings = {
                "LIMITS__OUTBOUND_BYTES": "256KiB",
                "ROOMS": '[{ match = "restless", history = true }]',
                "PRESENCE__DAMPING": "100ms",
                "WEBHOOKS__URL": receiver.url,
                "WEBHOOKS__SECRET": SECRET,
            }
            gateway = stack.enter_context(Gateway(**SECURED, AUTH__JWKS=jwks, **settings))
            certificate, key = Authority(stack.enter_context(tempfile.TemporaryDirectory())).issue("tls")
            tls = stack.enter_context(Gateway(TLS__CERTIFICATE=str(certificate), TLS__KEY=str(key)))
            prometheus = stack.enter_context(Prometheus({"loaded": gateway.admin, "tls": tls.admin}, FACTOR))
            running = load(
                gateway, "--preset", "rooms", "-c", "100", "--rooms", "10", "-r", "100", "-d", "120s", "--warmup", "1s",
                "--jwt-secret", SECRET,
            )
            stack.callback(running.wait)
            stack.callback(running.terminate)
            stack.enter_context(restless(gateway))
            poll("the load", lambda: prometheus.query("sum(fanfare_room_memberships) >= 100"))
            rules = prometheus.rules()
            self.assertGreater(len([rule for rule in rules if rule["type"] == "alerting"]), 10)
            recorded = {rule["name"]: f"rule {rule['name']}" for rule in rules if rule["type"] == "recording"}
            self.all_have_numbers(prometheus, {**{query: place for place, query in panel_queries()}, **recorded})
            for rule in prometheus.rules():
                self.assertEqual((rule["health"], rule.get("lastError", "")), ("ok", ""), rule["name"])
            # What only a gateway with TLS has was shown; the figures are of the other one.
            tls.stop()
            alone = ("fanfare_connections", "instance:fanfare_shard_busy:max", "instance:fanfare_delivery_duration_seconds:p99")
            poll("one gateway alone", lambda: all(len(prometheus.query(query)) == 1 for query in alone))
            self.plausible(prometheus)
            self.assertIsNone(running.poll(), "the load was there all the time")

    def all_have_numbers(self, prometheus, pending):
        """Until each of these queries, by what it is for, has had a finite value, and none below zero."""
        end = time.monotonic() + 3 * DEADLINE
        while pending and time.monotonic() < end:
            for query in list(pending):
                values = [value for _, value in prometheus.query(query) if math.isfinite(value)]
                self.assertTrue(all(value >= 0 for value in values), (pending[query], query, values))
                if values:
                    del pending[query]
            time.sleep(0.2)
        self.assertFalse(pending, "\n".join(f"{place}: {query}" for query, place in pending.items()))

    def plausible(self, prometheus):
        def value(query):
            samples = poll(query, lambda: prometheus.query(query))
            self.assertEqual(len(samples), 1, query)
            return samples[0][1]

        self.assertGreaterEqual(value("sum(fanfare_connections)"), 100)
        # A hundred messages a second to ten members each, and what the restless client says.
        sent = 'sum(rate(fanfare_messages_sent_total{type="message"}[5s]))'
        poll("the rate of messages", lambda: 700 < value(sent) < 1500)
        self.assertTrue(0 < value("instance:fanfare_delivery_duration_seconds:p99") < 5)
        self.assertTrue(0 < value("instance:fanfare_shard_busy:max") <= 1.05)
        self.assertEqual(value("sum(fanfare_shard_connections)"), value("sum(fanfare_connections)"))
        self.assertEqual(value("count(fanfare_shard_connections)"), 2)


@contextlib.contextmanager
def restless(gateway):
    """A client that does a little of everything, again and again, and one that reads half of what it is given."""
    over = threading.Event()

    async def live():
        while not over.is_set():
            with contextlib.suppress(InvalidStatus):
                await Client.open(gateway, "token=no.good.token")
            client = await Client.open(gateway, token("restless"))
            await client.request(type="join", room_id="restless", history=3)
            await client.request(type="message", room_id="restless", content="x" * 100)
            await client.request(type="message", to="restless", content="x")
            await client.request(type="message", room_id="elsewhere", content="refused")
            await client.send(type="ping")
            await client.request(type="leave", room_id="restless")
            await client.close()
            await asyncio.sleep(0.3)

    def crawl():
        while not over.is_set():
            slow = RawClient(gateway, token("slow"), receive_buffer=4096)
            fast = RawClient(gateway, token("fast"))
            for client in (slow, fast):
                client.send(type="join", room_id="crowded", id=1)
                client.next_of("ack")
            with contextlib.suppress(OSError, EOFError):
                while not over.wait(0.02):
                    for _ in range(2):
                        fast.send(type="message", room_id="crowded", content="x" * 30_000)
                        fast.next_of("message")
                    slow.next_of("message")
            slow.close()
            fast.close()

    threads = [threading.Thread(target=lambda: asyncio.run(live())), threading.Thread(target=crawl)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


async def crowd(gateway, count, query="user=crowd"):
    clients = [await Client.open(gateway, query) for _ in range(count)]
    for client in clients:
        assert (await client.request(type="join", room_id="crowd"))["type"] == "ack"
    return clients


async def keep_reading(client):
    with contextlib.suppress(ConnectionClosed):
        while True:
            await client.connection.recv()


async def chatter(clients, over, pause=0.1, content="x"):
    """One talks, all listen, until it is over."""
    readers = [asyncio.create_task(keep_reading(client)) for client in clients]
    try:
        while not over.is_set():
            await clients[0].send(type="message", room_id="crowd", content=content)
            await asyncio.sleep(pause)
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


class Alerts(unittest.IsolatedAsyncioTestCase):
    async def test_each_fault_fires_its_alert_and_no_other(self):
        faults = {
            "healthy": (healthy, set()),
            "slow": (slow_consumers, {"FanfareSlowConsumers"}),
            "storm": (reconnect_storm, {"FanfareReconnectStorm"}),
            "stall": (shard_stall, {"FanfareShardStalled"}),
            "auth": (broken_authentication, {"FanfareAuthFailuresHigh"}),
        }
        with contextlib.ExitStack() as stack:
            gateways = {}
            for name in faults:
                gateways[name] = stack.enter_context(Gateway(**(SECURED if name == "auth" else {})))
            targets = {name: gateway.admin for name, gateway in gateways.items()}
            prometheus = stack.enter_context(Prometheus(targets, FACTOR))
            # What happened before the first scrape is no increase.
            await poll_async("the first scrapes", lambda: len(prometheus.query('up{job="fanfare"} == 1')) == len(faults))
            over = asyncio.Event()
            seen = {name: set() for name in faults}
            tasks = [asyncio.create_task(fault(gateways[name], over)) for name, (fault, _) in faults.items()]
            try:
                await self.watch(prometheus, faults, seen, tasks)
            finally:
                over.set()
                results = await asyncio.gather(*tasks, return_exceptions=True)
            self.assertEqual([result for result in results if result is not None], [])
            self.assertEqual(seen, {name: expected for name, (_, expected) in faults.items()})

    async def watch(self, prometheus, faults, seen, tasks):
        """Until each fault has fired what it must, and for as long again as the slowest alert waits."""
        loop = asyncio.get_running_loop()
        deadline, settle = loop.time() + 120, None
        while settle is None or loop.time() < settle:
            for name in faults:
                seen[name] |= await asyncio.to_thread(prometheus.firing, name)
            broken = [task.exception() for task in tasks if task.done() and task.exception()]
            self.assertEqual(broken, [])
            if settle is None and all(expected <= seen[name] for name, (_, expected) in faults.items()):
                settle = loop.time() + 5 * 60 / FACTOR
            self.assertLess(loop.time(), deadline, seen)
            await asyncio.sleep(0.5)


async def healthy(gateway, over):
    await chatter(await crowd(gateway, 20), over)


async def slow_consumers(gateway, over):
    clients = await crowd(gateway, 20)
    talking = asyncio.create_task(chatter(clients, over, pause=0.05, content="x" * 60_000))
    while not over.is_set():
        slow = await asyncio.to_thread(RawClient, gateway, "user=slow", 4096)
        slow.send(type="join", room_id="crowd", id=1)
        # It never reads again; the gateway closes it in the end, and it comes back.
        connection_id = slow.next_of("welcome")["client_id"]
        while not over.is_set() and (await asyncio.to_thread(fetch, f"{gateway.admin}/debug/connections/{connection_id}"))[0] == 200:
            await asyncio.sleep(0.5)
        slow.close()
    await talking


async def reconnect_storm(gateway, over):
    # A storm is more than usual, and what is usual takes a while to be seen.
    clients = await crowd(gateway, 30)
    await asyncio.sleep(30)
    while not over.is_set():
        for client in clients:
            client.abort()
        clients = await crowd(gateway, 30)
        await asyncio.sleep(0.7)


async def shard_stall(gateway, over):
    clients = await crowd(gateway, 20)
    talking = asyncio.create_task(chatter(clients, over))
    with StoppedThread(gateway.process.pid, "shard-1"):
        await poll_async("the watchdog", lambda: gateway.scrape()['fanfare_shard_stalled_seconds{shard="1"}'] > 3)
    await talking


async def broken_authentication(gateway, over):
    client = await Client.open(gateway, token("ann"))
    while not over.is_set():
        for _ in range(5):
            with contextlib.suppress(InvalidStatus):
                await Client.open(gateway, token("ann", "the secret of another deployment: 0123456789abcdef"))
        await asyncio.sleep(0.2)
    await client.close()


if __name__ == "__main__":
    unittest.main()
