"""The files of `deploy/`: sound by their own programs' judgement, and at one with the gateway's settings."""

import re
import shutil
import subprocess
import tempfile
import tomllib
import unittest
from pathlib import Path

from certificates import Authority
from frontends import DEPLOY, HAProxy, Nginx
from support import BINARY, DEADLINE, SECRET, Client, Gateway, clean_environment
from websockets.exceptions import InvalidStatus

# What clients may take beyond the window of a drain.
GRACE = 5.0
UNITS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "": 1}


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)([a-z]*)", text).groups()
    return int(number) * UNITS[unit]


def run(*command, **settings):
    return subprocess.run(
        [*map(str, command)], env=clean_environment(**settings), capture_output=True, text=True, timeout=DEADLINE, check=False
    )


def settings(file):
    """A configuration that the gateway accepts, as it is in the file."""
    checked = run(BINARY, "check", "--config", DEPLOY / file, AUTH__SECRET=SECRET)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    return tomllib.loads((DEPLOY / file).read_text())


class Frontends(unittest.TestCase):
    FILES = (
        (Nginx, "nginx/nginx.conf"),
        (Nginx, "nginx/nginx-passthrough.conf"),
        (HAProxy, "haproxy/haproxy.cfg"),
        (HAProxy, "haproxy/haproxy-passthrough.cfg"),
    )

    def test_nginx_and_haproxy_find_no_fault_in_their_files(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        pair = Authority(folder).issue("server")
        for kind, file in self.FILES:
            with self.subTest(file):
                frontend = kind(file, [], *(() if "passthrough" in file else pair))
                self.addCleanup(frontend.discard)
                code, said = frontend.check()
                self.assertEqual(code, 0, said)
                self.assertNotRegex(said.lower(), r"warn|emerg|alert")

    def test_proxies_wait_longer_than_the_gateway_is_silent_or_lets_a_client_be(self):
        timeout = seconds(tomllib.loads(run(BINARY, "config", "--default").stdout)["heartbeat"]["timeout"])
        waits = {
            "nginx/nginx.conf": ["proxy_read_timeout", "send_timeout"],
            "nginx/nginx-passthrough.conf": ["proxy_timeout"],
            "haproxy/haproxy.cfg": ["timeout tunnel"],
            "haproxy/haproxy-passthrough.cfg": ["timeout client", "timeout server"],
        }
        for file, names in waits.items():
            text = (DEPLOY / file).read_text()
            for name in names:
                (value,) = re.findall(rf"^\s*{name}\s+(\w+);?$", text, re.MULTILINE)
                self.assertGreaterEqual(seconds(value), 2 * timeout, (file, name))

    def test_proxies_give_a_handshake_no_less_time_than_the_gateway(self):
        handshake = seconds(tomllib.loads(run(BINARY, "config", "--default").stdout)["limits"]["handshake"])
        text = (DEPLOY / "haproxy/haproxy.cfg").read_text()
        (value,) = re.findall(r"timeout http-request (\w+)", text)
        self.assertGreaterEqual(seconds(value), handshake)


class Systemd(unittest.TestCase):
    UNIT = DEPLOY / "systemd" / "fanfare.service"

    def setUp(self):
        lines = [line for line in self.UNIT.read_text().splitlines() if line and line[0] not in "#["]
        self.lines = dict(line.split("=", 1) for line in lines)

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd is not here")
    def test_systemd_finds_no_fault_in_the_unit(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        unit = folder / self.UNIT.name
        unit.write_text(self.UNIT.read_text().replace("/usr/local/bin/fanfare", str(Path(BINARY).resolve())))
        done = run("systemd-analyze", "verify", unit)
        ours = [line for line in (done.stdout + done.stderr).splitlines() if "fanfare" in line]
        self.assertEqual(ours, [])

    def test_the_time_to_stop_fits_the_drain_and_the_descriptors_fit_the_clients(self):
        config = settings("fanfare.toml")
        self.assertGreater(seconds(self.lines["TimeoutStopSec"]), seconds(config["drain"]["window"]) + GRACE)
        self.assertGreater(int(self.lines["LimitNOFILE"]), config["limits"]["connections"] + 1000)

    def test_the_user_of_the_unit_is_the_one_that_sysusers_makes(self):
        words = (DEPLOY / "systemd" / "fanfare.sysusers.conf").read_text().splitlines()[-1].split()
        self.assertEqual(words[:2], ["u", self.lines["User"]])


class Sysctl(unittest.TestCase):
    def test_every_line_is_a_name_and_a_value_that_the_kernel_knows(self):
        lines = (DEPLOY / "sysctl.d" / "60-fanfare.conf").read_text().splitlines()
        names = []
        for line in lines:
            if line and not line.startswith("#"):
                names.append(re.fullmatch(r"([a-z0-9_.]+) = ([\d ]+)", line)[1])
        self.assertGreater(len(names), 4)
        for name in names:
            self.assertTrue(Path("/proc/sys", *name.split(".")).exists(), name)


class Configurations(unittest.IsolatedAsyncioTestCase):
    async def test_a_gateway_starts_with_each_of_them_and_refuses_who_has_no_token(self):
        for file in ("fanfare.toml", "kubernetes/fanfare.toml"):
            with self.subTest(file):
                settings(file)
                gateway = self.enterContext(Gateway("--config", DEPLOY / file, AUTH__SECRET=SECRET))
                with self.assertRaises(InvalidStatus) as refused:
                    await Client.open(gateway)
                self.assertEqual(refused.exception.response.status_code, 401)


    def test_the_gateway_accepts_what_they_have_commented_out(self):
        for file in ("fanfare.toml", "kubernetes/fanfare.toml"):
            text = re.sub(r"(?m)^# (?=\[\[|\w+ = )", "", (DEPLOY / file).read_text())
            with self.subTest(file), tempfile.NamedTemporaryFile("w", suffix=".toml") as whole:
                whole.write(text)
                whole.flush()
                self.assertEqual({"rooms", "api"} - tomllib.loads(text).keys(), set())
                checked = run(BINARY, "check", "--config", whole.name, AUTH__SECRET=SECRET)
                self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)


class Kubernetes(unittest.TestCase):
    FOLDER = DEPLOY / "kubernetes"

    def test_every_manifest_says_what_it_is_and_is_listed_and_nothing_else_is(self):
        manifests = {path.name for path in self.FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
        listed = re.findall(r"^  - (\S+\.yaml)$", (self.FOLDER / "kustomization.yaml").read_text(), re.MULTILINE)
        self.assertEqual(sorted(listed), sorted(manifests))
        kinds = []
        for name in manifests:
            text = (self.FOLDER / name).read_text()
            self.assertNotIn("\t", text)
            for document in text.split("\n---\n"):
                self.assertRegex(document, r"(?m)^apiVersion: \S+$")
                kinds += re.findall(r"(?m)^kind: (\S+)$", document)
        self.assertEqual(
            sorted(kinds), ["Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service", "Service", "ServiceMonitor"]
        )

    @unittest.skipUnless(shutil.which("kubectl"), "kubectl is not here")
    def test_kubectl_puts_them_together(self):
        done = run("kubectl", "kustomize", self.FOLDER)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.count("\nkind: "), 7)
        self.assertEqual(done.stdout.count("\n  namespace: fanfare"), 7)

    def test_the_time_to_end_fits_what_comes_before_it_and_the_drain(self):
        text = (self.FOLDER / "deployment.yaml").read_text()
        whole = int(re.search(r"terminationGracePeriodSeconds: (\d+)", text)[1])
        before = int(re.search(r'command: \["sleep", "(\d+)"\]', text)[1])
        window = seconds(settings("kubernetes/fanfare.toml")["drain"]["window"])
        self.assertGreater(whole, before + window + GRACE)

    def test_health_is_asked_of_the_admin_listener_which_no_client_reaches(self):
        deployment, service, policy = (
            (self.FOLDER / name).read_text() for name in ("deployment.yaml", "service.yaml", "network-policy.yaml")
        )
        asked = re.findall(r"httpGet: \{path: (\S+), port: (\w+)\}", deployment)
        self.assertEqual(sorted(asked), [("/livez", "admin"), ("/readyz", "admin")])
        for name in ("listen", "admin_listen"):
            port = settings("kubernetes/fanfare.toml")[name].rsplit(":", 1)[1]
            self.assertIn(f"containerPort: {port}", deployment)
        clients, operators = service.split("\n---\n")
        self.assertNotIn("admin", re.sub(r"#.*", "", clients))
        self.assertIn("clusterIP: None", operators)
        for rule in re.split(r"\n    - from:", policy)[1:]:
            self.assertRegex(rule, r"namespaceSelector:")
            self.assertEqual("port: admin" in rule, "ingress-nginx" not in rule)


class Container(unittest.TestCase):
    def test_what_the_image_is_built_from_is_there(self):
        lines = (DEPLOY / "container" / "Dockerfile.dockerignore").read_text().splitlines()
        for line in lines:
            if line.startswith("!"):
                self.assertTrue((DEPLOY.parent / line[1:]).exists(), line)

    def test_it_runs_as_nobody_in_particular(self):
        text = (DEPLOY / "container" / "Dockerfile").read_text()
        (user,) = re.findall(r"^USER (\d+):\d+$", text, re.MULTILINE)
        self.assertIn(f"runAsUser: {user}", (DEPLOY / "kubernetes" / "deployment.yaml").read_text())


if __name__ == "__main__":
    unittest.main()
