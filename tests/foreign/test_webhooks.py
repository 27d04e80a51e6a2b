"""Webhooks: their settings, and the servers of the documentation."""

import hashlib
import hmac
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

from support import BINARY, DEADLINE, ROOT, clean_environment, poll

SECRET = "a secret for webhooks of more than thirty-two bytes"


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
