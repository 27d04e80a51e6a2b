"""What the documentation says, held to the gateway: links, conversations, requests, settings, names of tests and metrics."""

import asyncio
import json
import re
import subprocess
import tempfile
import tomllib
import unittest
import urllib.parse
from pathlib import Path

from support import BINARY, DEADLINE, ROOT, SECRET, Client, Gateway, clean_environment

DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), *(ROOT / "examples").glob("*.md"), *(ROOT / "grafana").glob("*.md")])
# What is another each time.
VARYING = {
    "client_id", "session", "epoch", "node", "timestamp", "after_ms", "expires_in", "peer", "shard", "messages", "bytes",
    "deliveries", "open_seconds", "silent_seconds", "messages_received", "messages_sent", "memory_bytes", "resident_bytes",
    "uptime_seconds", "version",
}


def blocks(path, *languages):
    """The blocks of code in these languages: which it is, and the text."""
    found = re.findall(r"^([ ]*)```(\w+)\n(.*?)^\1```$", path.read_text(), re.MULTILINE | re.DOTALL)
    return [(language, text) for _, language, text in found if not languages or language in languages]


def prose(path):
    return re.sub(r"^[ ]*```.*?^[ ]*```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(path):
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


class Pages(unittest.TestCase):
    def test_every_link_leads_to_a_file_and_a_heading_that_are_there(self):
        for page in PAGES:
            for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
                if re.match(r"[a-z]+:", target):
                    continue
                with self.subTest(page=page.name, target=target):
                    file, _, anchor = target.partition("#")
                    path = (page.parent / urllib.parse.unquote(file)).resolve() if file else page
                    self.assertTrue(path.exists())
                    if anchor:
                        self.assertIn(anchor, anchors(path))

    def test_every_example_of_json_and_toml_can_be_read(self):
        for page in PAGES:
            for language, text in blocks(page, "json", "toml"):
                with self.subTest(page=page.name, text=text[:60]):
                    if language == "toml":
                        tomllib.loads(text)
                        continue
                    try:
                        json.loads(text)
                    except json.JSONDecodeError:
                        for line in text.splitlines():
                            json.loads(line)

    def test_what_is_quoted_of_nginx_is_in_its_file(self):
        config = (ROOT / "deploy" / "nginx" / "nginx.conf").read_text()
        for _, text in blocks(DOCS / "load-balancers.md", "nginx"):
            for line in text.splitlines():
                self.assertIn(line, config)

    def test_every_test_that_is_named_is_there(self):
        sources = {path: path.read_text() for path in [*ROOT.glob("src/**/*.rs"), *ROOT.glob("tests/foreign/*.py")]}
        for row in re.findall(r"^\| (`.*?) \|", (DOCS / "delivery.md").read_text(), re.MULTILINE):
            for names, place in re.findall(r"((?:`\w+`(?:, )?)+) in `([\w./]+)`", row):
                places = [text for path, text in sources.items() if place in str(path.relative_to(ROOT))]
                for name in re.findall(r"`(\w+)`", names):
                    with self.subTest(name):
                        self.assertTrue(any(re.search(rf"(fn|def) {name}\(", text) for text in places), place)

    def test_every_metric_and_alert_that_is_named_is_there(self):
        metrics = (DOCS / "metrics.md").read_text()
        alerts = (ROOT / "grafana" / "prometheus" / "alerts.yml").read_text()
        for page in PAGES:
            if page.name in ("metrics.md", "CHANGELOG.md"):
                continue
            for name in re.findall(r"\bfanfare_[a-z_]+[a-z]\b(?!\w|\*)", prose(page)):
                with self.subTest(page=page.name, name=name):
                    self.assertIn(re.sub(r"_(bucket|sum|count)$", "", name), metrics)
            for name in re.findall(r"\bFanfare[A-Z]\w+", prose(page)):
                self.assertIn(f"alert: {name}", alerts, page.name)

    def test_every_setting_that_is_named_is_there(self):
        listed = subprocess.run(
            [BINARY, "config", "--default"], env=clean_environment(), capture_output=True, text=True, check=True
        ).stdout
        section, known = "", set()
        for line in listed.splitlines():
            if header := re.fullmatch(r"\[(\w+)\]", line):
                section = header[1] + "."
            if setting := re.match(r"(?:# )?(\w+) = ", line):
                known.add(section + setting[1])
        sections = {name.split(".")[0] for name in known if "." in name}
        for page in sorted(DOCS.glob("*.md")):
            for name in re.findall(r"`((\w+)\.\w+)(?: = [^`]*)?`", prose(page)):
                if name[1] in sections:
                    with self.subTest(page=page.name, name=name[0]):
                        self.assertIn(name[0], known | {"api.keys"})

    def test_the_gateway_accepts_every_configuration(self):
        for name in ("protocol.md", "http-api.md", "authentication.md"):
            for _, text in blocks(DOCS / name, "toml"):
                with tempfile.NamedTemporaryFile("w", suffix=".toml") as file, self.subTest(name):
                    file.write(text)
                    file.flush()
                    checked = subprocess.run(
                        [BINARY, "check", "--config", file.name],
                        env=clean_environment(AUTH__SECRET=SECRET), capture_output=True, text=True, check=False,
                    )
                    self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)


class Likeness:
    """Compares what is said with what came: the same fields and values, but for those that are another each time."""

    def __init__(self, *varying):
        self.real = {}
        self.varying = VARYING | set(varying)

    def fits(self, said, came, field=None):
        if said == "...":
            return isinstance(came, str) and came != ""
        if isinstance(said, dict) and isinstance(came, dict):
            return said.keys() == came.keys() and all(self.fits(said[key], came[key], key) for key in said)
        if isinstance(said, list) and isinstance(came, list) and field == "rooms" and not isinstance(said[0], dict):
            # Names, in no order.
            return sorted(map(str, said)) == sorted(map(str, came))
        if isinstance(said, list) and isinstance(came, list):
            return len(said) == len(came) and all(map(self.fits, said, came))
        if field in self.varying and type(said) is type(came):
            return not isinstance(said, str) or field in ("node", "peer", "version") or self.real.setdefault(said, came) == came
        return type(said) is type(came) and said == came

    def realised(self, text):
        """What a client says, with what it really got in the place of what it is said to have got."""
        for said, came in self.real.items():
            text = text.replace(said, came)
        return text


class Conversations(unittest.IsolatedAsyncioTestCase):
    ROOMS = '[{ match = "demo.*", history = true, presence = true }, { match = "*", history = true, presence = "list" }]'

    async def test_the_gateway_says_what_the_conversations_say_and_nothing_else(self):
        conversations = blocks(DOCS / "protocol.md", "text")
        self.assertGreaterEqual(len(conversations), 3)
        for _, text in conversations:
            with self.subTest(text.splitlines()[2]), Gateway(ROOMS=self.ROOMS) as gateway:
                await self.play(gateway, text)

    async def play(self, gateway, text):
        likeness, clients, heard = Likeness(), {}, {}
        for line in text.splitlines():
            name, does, what = re.fullmatch(r"(\w+)\s+(connects to|breaks off|<|>)\s*(.*)", line).groups()
            if does == "connects to":
                path, _, query = likeness.realised(what).partition("?")
                clients[name], heard[name] = await Client.open(gateway, query, path=path, welcome=False), []
            elif does == "breaks off":
                clients.pop(name).abort()
                # Long enough for the gateway to see it.
                await asyncio.sleep(0.2)
            elif does == ">":
                json.loads(what)
                await clients[name].connection.send(likeness.realised(what))
            else:
                await self.hears(clients[name], heard[name], likeness, json.loads(what))
        for name, client in clients.items():
            self.assertEqual(heard[name] + await client.settled(), [], name)
            await client.close()

    async def hears(self, client, heard, likeness, said):
        """Takes it out of what has come or comes; answers may overtake messages."""
        while True:
            for index, came in enumerate(heard):
                if came["type"] == said["type"] and came.get("id") == said.get("id") and likeness.fits(said, came):
                    return heard.pop(index)
            try:
                heard.append(await client.next())
            except TimeoutError:
                self.fail(f"{said} did not come, but {heard}")


class Requests(unittest.IsolatedAsyncioTestCase):
    PAGE = DOCS / "http-api.md"

    async def test_the_api_answers_what_its_page_says(self):
        config = Path(self.enterContext(tempfile.TemporaryDirectory()), "fanfare.toml")
        all_blocks = blocks(self.PAGE)
        config.write_text(next(text for language, text in all_blocks if language == "toml"))
        gateway = self.enterContext(Gateway("--config", config))
        # Those that a drain has to close after the first one.
        crowd = [await Client.open(gateway) for _ in range(20)]
        ann = await Client.open(gateway, "user=ann")
        for room in ("chat.1", 7):
            self.assertEqual((await ann.request(type="join", room_id=room))["type"], "ack")
            # What the page publishes comes behind it.
            await ann.next_of("join")
        pairs = zip(all_blocks, [*all_blocks[1:], ("", "")], strict=True)
        commands = [(text, following) for (language, text), following in pairs if language == "sh"]
        exports = commands[0][0].replace("127.0.0.1:9090", gateway.admin.removeprefix("http://"))
        # Of a gateway that has more to do.
        likeness = Likeness("connections", "of", "progress", "window_seconds", "rooms", "users")
        for command, (language, text) in commands[1:]:
            with self.subTest(command):
                done = await asyncio.to_thread(
                    subprocess.run, ["bash", "-euo", "pipefail", "-c", exports + command], env=clean_environment(),
                    capture_output=True, text=True, timeout=DEADLINE, check=False,
                )
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                answers = [json.loads(line) for line in done.stdout.splitlines()]
                self.assertTrue(answers)
                if language != "json":
                    continue
                said = [json.loads(line) for line in text.splitlines()]
                self.assertTrue(likeness.fits(said, answers), f"{said}\n{answers}")
        for client in [ann, *crowd]:
            await client.close()


if __name__ == "__main__":
    unittest.main()
