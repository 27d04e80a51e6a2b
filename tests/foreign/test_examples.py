"""The programs of `examples/`, run against gateways."""

import asyncio
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from support import DEADLINE, ROOT, SECRET, Client, Gateway, clean_environment

EXAMPLES = ROOT / "examples"
KEY = "a-key-for-tests-only-long-enough-0123456789"
PYTHON, NODE = sys.executable, "node"


async def run(*command, **environment):
    """Exit code, standard output and standard error of an example."""
    command = [*map(str, command)]
    env = {**clean_environment(), **environment}
    done = await asyncio.to_thread(
        subprocess.run, command, env=env, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    return done.returncode, done.stdout, done.stderr


class Tokens(unittest.IsolatedAsyncioTestCase):
    # The secret is any bytes, and quotes and spaces are no problem to a shell.
    SECRET = 'a secret "with quotes" and ümlauts, long enough'
    ISSUERS = {
        "python": [PYTHON, EXAMPLES / "tokens" / "token.py"],
        "node": [NODE, EXAMPLES / "tokens" / "token.mjs"],
        "shell": [EXAMPLES / "tokens" / "token.sh"],
    }
    CLAIMS = ("--user", "7", "--ttl", "60", "--rooms", "5,lobby*")

    async def test_the_gateway_takes_the_tokens_of_every_issuer_for_what_they_say(self):
        gateway = self.enterContext(Gateway("--auth", "jwt", AUTH__SECRET=self.SECRET))
        for name, command in self.ISSUERS.items():
            with self.subTest(name):
                code, token, said = await run(*command, *self.CLAIMS, FANFARE_AUTH__SECRET=self.SECRET)
                self.assertEqual(code, 0, said)
                self.assertIn('"sub"', said)
                client = await Client.open(gateway, "token=" + token.strip())
                self.assertEqual(client.welcome["user"], 7)
                self.assertEqual((await client.request(type="join", room_id="lobby 2"))["type"], "ack")
                elsewhere = await client.request(type="join", room_id="elsewhere")
                self.assertEqual(elsewhere.get("code"), "forbidden")
                renewed = await client.request(type="auth", token=token.strip())
                self.assertTrue(0 < renewed["expires_in"] <= 60, renewed)
                await client.close()

    async def test_an_issuer_without_a_secret_says_so_and_issues_nothing(self):
        for name, command in self.ISSUERS.items():
            with self.subTest(name):
                code, token, said = await run(*command, *self.CLAIMS)
                self.assertNotEqual(code, 0)
                self.assertEqual(token, "")
                self.assertIn("FANFARE_AUTH__SECRET", said)

    async def test_an_issuer_that_does_not_understand_its_arguments_issues_nothing(self):
        wrong = [("7", "60"), ("--user",), ("--ttl", "60"), (*self.CLAIMS, "--broadcast"), (*self.CLAIMS, "more")]
        for name, command in self.ISSUERS.items():
            for arguments in wrong:
                with self.subTest(name, arguments=arguments):
                    code, token, said = await run(*command, *arguments, FANFARE_AUTH__SECRET=self.SECRET)
                    self.assertEqual((code != 0, token), (True, ""))
                    self.assertNotEqual(said, "")


class Publishing(unittest.IsolatedAsyncioTestCase):
    ROOMS = '[{ match = "*", history = true }]'
    ODD = 'it\'s "quoted", \\ and\ttabbed, ü'

    @staticmethod
    def publishers(admin):
        at = {"ADMIN": admin}
        return {
            "python": ([PYTHON, EXAMPLES / "publish" / "publish.py"], at),
            "node": ([NODE, EXAMPLES / "publish" / "publish.mjs"], at),
            "shell": ([EXAMPLES / "publish" / "publish.sh"], at),
        }

    async def test_members_hear_what_each_of_them_publishes_once_and_it_is_in_the_history(self):
        gateway = self.enterContext(Gateway(ROOMS=self.ROOMS))
        client = await Client.open(gateway, "user=ann")
        self.addAsyncCleanup(client.close)
        for name, (command, environment) in self.publishers(gateway.admin).items():
            with self.subTest(name):
                room = f"demo.{name}"
                self.assertEqual((await client.request(type="join", room_id=room))["type"], "ack")
                code, said, complaint = await run(*command, room, self.ODD, **environment)
                self.assertEqual((code, complaint), (0, ""))
                heard = [message for message in await client.settled() if message.get("room_id") == room and "content" in message]
                self.assertEqual([(message["from"], message["content"]) for message in heard], [("backend", self.ODD)])
                if name != "shell":
                    self.assertIn("found 1 of 1 in the history", said)

    async def test_each_says_in_a_line_that_there_is_no_gateway(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
            for name, (command, environment) in self.publishers(nobody).items():
                with self.subTest(name):
                    code, said, complaint = await run(*command, "news", "hello", **environment)
                    self.assertEqual((code != 0, said), (True, ""))
                    self.assertEqual(len(complaint.strip().splitlines()), 1, complaint)

    async def test_several_are_published_in_one_request_and_in_their_order(self):
        gateway = self.enterContext(Gateway(ROOMS=self.ROOMS))
        client = await Client.open(gateway, "user=ann")
        self.addAsyncCleanup(client.close)
        await client.request(type="join", room_id="demo.news")
        for name, (command, environment) in self.publishers(gateway.admin).items():
            if name == "shell":
                continue
            with self.subTest(name):
                texts = [f"number {number}" for number in range(20)]
                code, said, complaint = await run(*command, "demo.news", *texts, **environment)
                self.assertEqual((code, complaint), (0, ""))
                self.assertIn("found 20 of 20 in the history", said)
                heard = [message["content"] for message in await client.settled() if message["type"] == "message"]
                self.assertEqual(heard, texts)

    async def test_a_gateway_with_keys_wants_one_of_them(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        config = Path(folder, "fanfare.toml")
        config.write_text(
            '[auth]\nmode = "jwt"\n[[rooms]]\nmatch = "*"\nhistory = { messages = 100 }\n'
            f'[[api.keys]]\nname = "backend"\nkey = "{KEY}"\nscopes = ["publish", "read"]\n'
        )
        gateway = self.enterContext(Gateway("--config", config, AUTH__SECRET=SECRET))
        for name, (command, environment) in self.publishers(gateway.admin).items():
            with self.subTest(name):
                code, _, complaint = await run(*command, "news", "hello", **environment)
                self.assertNotEqual(code, 0)
                self.assertIn("401" if name != "shell" else "unauthorized", complaint)
                code, said, complaint = await run(*command, "news", "hello", API_KEY=KEY, **environment)
                self.assertEqual((code, complaint), (0, ""))
                self.assertRegex(said, r"published .*offset")


if __name__ == "__main__":
    unittest.main()
