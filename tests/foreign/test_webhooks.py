"""Webhooks: who is in which room, told to a server of the application; signed, in order, and once each."""

import asyncio
import hashlib
import hmac
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from certificates import Authority
from support import BINARY, DEADLINE, ROOT, Client, Gateway, Served, clean_environment, poll, poll_async

SECRET = "a secret for webhooks of more than thirty-two bytes"
ROOMS = '[{ match = "seen.*", presence = true }]'


class Receiver(Served):
    """A server that checks each request, and keeps what is in it."""

    def __init__(self, port=0, tls=None, status=200):
        self.batches, self.faults = [], []
        self.status = status
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                fault = fault_of(self.headers, body)
                if fault:
                    receiver.faults.append(fault)
                elif receiver.status == 200:
                    receiver.batches.append(json.loads(body))
                self.send_response(400 if fault else receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        super().__init__(Handler, "/hooks", port, tls)

    def events(self):
        return [event for batch in list(self.batches) for event in batch["events"]]

    def told(self):
        """What was told, without ids and times."""
        return [(event["type"], event["room_id"], event.get("user")) for event in self.events()]


def fault_of(headers, body):
    """What is wrong with a request; none when all is well."""
    signature = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", headers.get("Fanfare-Signature", ""))
    if not signature:
        return f"signature: {headers.get('Fanfare-Signature')!r}"
    wanted = hmac.new(SECRET.encode(), signature[1].encode() + b"." + body, hashlib.sha256).hexdigest()
    if wanted != signature[2]:
        return "another signature"
    sent_at = json.loads(body)["sent_at"]
    if sent_at // 1000 != int(signature[1]) or abs(sent_at / 1000 - time.time()) > DEADLINE:
        return f"time: {sent_at}"
    if headers["Content-Type"] != "application/json":
        return headers["Content-Type"]
    return None


class Webhooks(unittest.IsolatedAsyncioTestCase):
    def receiver(self, **options):
        receiver = Receiver(**options)
        self.addCleanup(receiver.close)
        return receiver

    def gateway(self, url, **settings):
        settings = {"WEBHOOKS__URL": url, "WEBHOOKS__SECRET": SECRET, "ROOMS": ROOMS, "PRESENCE__DAMPING": "100ms", **settings}
        return self.enterContext(Gateway(**settings))

    async def told(self, receiver, expected):
        await poll_async("events", lambda: len(receiver.told()) >= len(expected))
        self.assertEqual(receiver.told(), expected)
        self.assertEqual(receiver.faults, [])

    async def test_a_room_is_occupied_and_vacated_and_its_members_come_and_go(self):
        receiver = self.receiver()
        gateway = self.gateway(receiver.url, NODE="n1")
        began = time.time()
        ann, again, bob = [await Client.open(gateway, f"user={user}") for user in ("ann", "ann", "7")]
        expected = [("room_occupied", "seen.1", None), ("member_joined", "seen.1", "ann")]
        await ann.request(type="join", room_id="seen.1")
        await self.told(receiver, expected)
        await again.request(type="join", room_id="seen.1")
        await bob.request(type="join", room_id="seen.1")
        expected.append(("member_joined", "seen.1", 7))
        await self.told(receiver, expected)
        await ann.close()
        await bob.request(type="leave", room_id="seen.1")
        expected.append(("member_left", "seen.1", 7))
        await self.told(receiver, expected)
        await again.close()
        await poll_async("the room is empty", lambda: len(receiver.told()) >= 6)
        self.assertEqual(set(receiver.told()[4:]), {("member_left", "seen.1", "ann"), ("room_vacated", "seen.1", None)})
        events = receiver.events()
        self.assertEqual(len({event["id"] for event in events}), len(events))
        self.assertTrue(all(began * 1000 - 1 <= event["at"] <= time.time() * 1000 for event in events), events)
        self.assertEqual({batch["node"] for batch in receiver.batches}, {"n1"})
        samples = await asyncio.to_thread(gateway.scrape)
        self.assertEqual(samples["fanfare_webhook_events_sent_total"], 6)
        self.assertEqual(samples["fanfare_webhook_queue_events"], 0)

    async def test_without_presence_only_the_room_is_told_of(self):
        receiver = self.receiver()
        ann = await Client.open(self.gateway(receiver.url), "user=ann")
        await ann.request(type="join", room_id="unseen")
        await self.told(receiver, [("room_occupied", "unseen", None)])
        await ann.request(type="leave", room_id="unseen")
        await self.told(receiver, [("room_occupied", "unseen", None), ("room_vacated", "unseen", None)])
        await ann.close()

    async def test_a_server_that_was_down_is_told_later_in_order_and_once(self):
        down = Receiver()
        down.close()
        gateway = self.gateway(down.url)
        clients = [await Client.open(gateway, f"user={user}") for user in range(120)]
        for client in clients:
            await client.request(type="join", room_id="seen.1")
        samples = await asyncio.to_thread(
            poll, "failures", lambda: (s := gateway.scrape())['fanfare_webhook_requests_total{result="unreachable"}'] > 0 and s
        )
        self.assertGreater(samples["fanfare_webhook_queue_events"], 0)
        failing = self.receiver(port=down.port, status=503)
        await poll_async("failures", lambda: gateway.scrape()['fanfare_webhook_requests_total{result="server_error"}'] > 0)
        self.assertEqual(failing.batches, [])
        failing.status = 200
        await poll_async("events", lambda: len(failing.told()) >= 121)
        joined = [event for event in failing.told() if event[0] == "member_joined"]
        self.assertEqual(joined, [("member_joined", "seen.1", user) for user in range(120)])
        self.assertEqual(failing.told()[0], ("room_occupied", "seen.1", None))
        numbers = [int(event["id"].split("-")[1]) for event in failing.events()]
        self.assertEqual(numbers, list(range(1, 122)))
        self.assertEqual(failing.faults, [])
        await asyncio.gather(*(client.close() for client in clients))

    async def test_only_the_kinds_that_are_wanted_are_sent(self):
        receiver = self.receiver()
        gateway = self.gateway(receiver.url, WEBHOOKS__EVENTS="member_joined")
        ann = await Client.open(gateway, "user=ann")
        await ann.request(type="join", room_id="seen.1")
        await self.told(receiver, [("member_joined", "seen.1", "ann")])
        await ann.close()

    async def test_tls_is_trusted_by_the_certificate_that_is_given_and_by_no_other(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        (ours, another), pair = await asyncio.to_thread(certified, folder)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*pair)
        receiver = self.receiver(tls=tls)
        trusting = self.gateway(receiver.url, WEBHOOKS__CA=str(ours.certificate))
        strange = self.gateway(receiver.url, WEBHOOKS__CA=str(another.certificate))
        for gateway in (trusting, strange):
            ann = await Client.open(gateway, "user=ann")
            await ann.request(type="join", room_id="seen.1")
        await poll_async("a failure", lambda: strange.scrape()['fanfare_webhook_requests_total{result="unreachable"}'] > 0)
        await self.told(receiver, [("room_occupied", "seen.1", None), ("member_joined", "seen.1", "ann")])
        self.assertEqual(strange.scrape()["fanfare_webhook_events_sent_total"], 0)

    async def test_a_gateway_ends_in_time_whatever_its_server_does(self):
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        gateway = self.gateway(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        ann = await Client.open(gateway, "user=ann")
        await ann.request(type="join", room_id="seen.1")
        await poll_async("an event", lambda: gateway.scrape()["fanfare_webhook_queue_events"] > 0)
        began = time.monotonic()
        self.assertEqual(await asyncio.to_thread(gateway.stop), 0)
        self.assertLess(time.monotonic() - began, 15)


def certified(folder):
    """Two authorities, and a certificate of the first with its key."""
    authorities = Authority(folder), Authority(folder, "another")
    return authorities, authorities[0].issue("server")


class Settings(unittest.TestCase):
    def check(self, **settings):
        done = subprocess.run(
            [BINARY, "check"], env=clean_environment(**settings), capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        return done.returncode, done.stderr

    def test_mistakes_are_named(self):
        sound = {"WEBHOOKS__URL": "https://app.example.org/", "WEBHOOKS__SECRET": SECRET}
        self.assertEqual(self.check(**sound), (0, ""))
        for settings, part in [
            ({"WEBHOOKS__SECRET": ""}, "webhooks.secret: must be text that is not empty"),
            ({"WEBHOOKS__URL": "http://app.example.org/"}, "webhooks.url: goes over http:// to another machine"),
            ({"WEBHOOKS__URL": "app.example.org"}, "webhooks.url: must begin with https:// or http://"),
            ({"WEBHOOKS__EVENTS": "member_join"}, "webhooks.events: `member_join` is no event"),
            ({"WEBHOOKS__QUEUE_BYTES": "5"}, "webhooks.queue_bytes: is less than 64KiB"),
        ]:
            code, said = self.check(**{**sound, **settings})
            self.assertEqual(code, 2, settings)
            self.assertIn(part, said)
        code, said = self.check(WEBHOOKS__URL="https://app.example.org/")
        self.assertEqual(code, 2)
        self.assertIn("webhooks.secret: is missing", said)
        self.assertEqual(self.check(**{**sound, "WEBHOOKS__URL": "http://10.0.0.7/", "WEBHOOKS__ALLOW_HTTP": "true"}), (0, ""))


class Examples(unittest.TestCase):
    """The servers of docs/webhooks.md, run as they stand there."""

    def example(self, language, name, *command):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        page = (ROOT / "docs" / "webhooks.md").read_text(encoding="utf-8")
        (text,) = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
        (folder / name).write_text(text, encoding="utf-8")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        env = {**os.environ, "PORT": str(port), "WEBHOOK_SECRET": SECRET}
        process = subprocess.Popen([*command, folder / name], env=env, stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        poll("the example listens", lambda: is_open(port))
        return process, f"http://127.0.0.1:{port}/"

    def judge(self, process, url):
        event = {"id": "00-1", "type": "member_joined", "room_id": "a", "user": 7, "at": 0}
        body = json.dumps({"node": "n", "sent_at": 0, "events": [event, event, {**event, "id": "00-2", "room_id": 5}]}).encode()
        now = int(time.time())
        good = signature(now, body)
        self.assertEqual(post(url, body, good), 204)
        self.assertEqual(post(url, body, f"t={now},v1={'0' * 64}, {good.split(',')[1]}"), 204, "one that fits is enough")
        for wrong in (
            "", "t=", "v1=00", f"t={now}", f"t={now},v1=", f"t={now},v1={'0' * 64}", "t=x,v1=00", f"t={now},t={now},v1=00",
            signature(now, body + b" "), signature(now - 400, body), signature(now + 400, body), good.replace("v1", "v0"),
            signature(now, body, "another secret"),
        ):
            self.assertEqual(post(url, body, wrong), 401, wrong)
        process.kill()
        self.assertEqual(process.stdout.read().splitlines(), ["member_joined a 7", "member_joined 5 7"])

    def test_the_one_in_python(self):
        self.judge(*self.example("python", "receiver.py", sys.executable))

    def test_the_one_in_node(self):
        self.judge(*self.example("js", "receiver.mjs", shutil.which("node")))


def signature(unix, body, secret=SECRET):
    digest = hmac.new(secret.encode(), f"{unix}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={unix},v1={digest}"


def post(url, body, header):
    request = urllib.request.Request(url, data=body, headers={"Fanfare-Signature": header}, method="POST")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=DEADLINE) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
