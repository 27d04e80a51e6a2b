"""Runs Debian's nginx and HAProxy before gateways, from the files of `deploy/` with other addresses, ports and folders."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from support import DEADLINE, ROOT, clean_environment, poll

DEPLOY = ROOT / "deploy"
# Where `scripts/test` has taken the packages apart.
TAKEN_APART = Path(os.environ.get("FANFARE_FOREIGN", ROOT / "target" / "foreign")) / "proxies"
# Where gateways are in the files of `deploy/`, and the ports of their two listeners.
HOSTS, PUBLIC, ADMIN = ("10.0.0.11", "10.0.0.12"), 8080, 9090


def program(name):
    """Its path, and the environment that it needs."""
    env = clean_environment()
    own = TAKEN_APART / "usr" / "sbin" / name
    if not own.exists():
        found = shutil.which(name)
        assert found, f"{name} is neither installed nor in {TAKEN_APART}: run scripts/test, or install it"
        return found, env
    libraries = TAKEN_APART / "usr" / "lib" / (sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu")
    env["LD_LIBRARY_PATH"] = str(libraries)
    return str(own), env


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def replaced(text, pattern, replacement, count=None):
    """`text` with each place that fits; there is at least one, or just so many."""
    text, found = re.subn(pattern, replacement, text, flags=re.MULTILINE)
    assert found and count in (None, found), (pattern, found)
    return text


def workers(pid):
    """The processes that a process has started and that are there."""
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def title(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return "shutting down: gone"


class Frontend:
    """A running proxy. What clients connect to has the names that `Client` and `RawClient` know of a gateway."""

    def __init__(self, file, gateways, certificate=None, key=None):
        """`gateways` are the first and the second; where there is one, nobody is at the address of the second."""
        self.path = DEPLOY / file
        self.directory = Path(tempfile.mkdtemp(prefix="fanfare-frontend-"))
        self.host, self.port = "127.0.0.1", free_port()
        self.url = f"wss://localhost:{self.port}/ws"
        self.process = None
        self.pair = certificate, key
        self.config = self.directory / self.path.name
        self.write(gateways)

    def write(self, gateways):
        text = self.path.read_text()
        for index, host in enumerate(HOSTS):
            gateway = gateways[index] if index < len(gateways) else None
            text = self.with_gateway(text, host, gateway)
        self.config.write_text(self.adapted(text, *self.pair))

    def __enter__(self):
        self.log = (self.directory / "log").open("w+")
        command, env = self.command()
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        try:
            poll(f"{self.path.name} listens", self._listens)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        self.discard()

    def discard(self):
        shutil.rmtree(self.directory, ignore_errors=True)

    def check(self):
        """What the proxy itself says of the file: exit code and text."""
        command, env = self.command("check")
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=DEADLINE, check=False)
        return done.returncode, done.stdout + done.stderr

    def _listens(self):
        if self.process.poll() is not None:
            self.log.seek(0)
            raise AssertionError(f"{self.path.name}: {self.log.read()}")
        try:
            socket.create_connection((self.host, self.port), timeout=1).close()
            return True
        except OSError:
            return False


class Nginx(Frontend):
    def with_gateway(self, text, host, gateway):
        port = gateway.port if gateway else free_port()
        return replaced(text, rf"\b{re.escape(host)}:{PUBLIC}\b", f"127.0.0.1:{port}", 1)

    def adapted(self, text, certificate, key):
        text = replaced(text, r"^user .*$", "", 1)
        text = replaced(text, r"/run/nginx\.pid", f"{self.directory}/pid", 1)
        text = replaced(text, r"/var/log/nginx/", f"{self.directory}/")
        text = replaced(text, r"listen \[::\]:443.*$", "", 1)
        text = replaced(text, r"listen 443", f"listen 127.0.0.1:{self.port}", 1)
        # More than the tests' own limit would only be warned of.
        text = replaced(text, r"^worker_processes auto", "worker_processes 1", 1)
        text = replaced(text, r"worker_rlimit_nofile \d+", "worker_rlimit_nofile 4096", 1)
        text = replaced(text, r"worker_connections \d+", "worker_connections 1024", 1)
        if "load_module" in text and program("nginx")[0].startswith(str(TAKEN_APART)):
            text = replaced(text, r"load_module /usr", f"load_module {TAKEN_APART}/usr", 1)
        if "\nhttp {" in text:
            folders = "".join(
                f"    {kind}_temp_path {self.directory}/{kind};\n"
                for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            text = replaced(text, r"^http \{\n", f"http {{\n{folders}", 1)
            text = replaced(text, r"/etc/nginx/tls/fullchain\.pem", str(certificate), 1)
            text = replaced(text, r"/etc/nginx/tls/privkey\.pem", str(key), 1)
        return text

    def reload(self, gateways):
        """As after an edit; returns when those who come are served by it."""
        before = workers(self.process.pid)
        self.write(gateways)
        self.process.send_signal(signal.SIGHUP)
        poll("new workers", lambda: workers(self.process.pid) - before)
        # The old one takes nobody any more as soon as it has no socket for them.
        poll("the old worker is leaving", lambda: all("shutting down" in title(pid) for pid in before))

    def command(self, *check):
        path, env = program("nginx")
        how = ["-t"] if check else ["-g", "daemon off;"]
        return [path, "-p", str(self.directory), "-e", f"{self.directory}/error.log", "-c", str(self.config), *how], env


class HAProxy(Frontend):
    def with_gateway(self, text, host, gateway):
        port = gateway.port if gateway else free_port()
        admin = gateway.admin.rsplit(":", 1)[1] if gateway else free_port()
        return replaced(text, rf"{re.escape(host)}:{PUBLIC}\b", f"127.0.0.1:{port} port {admin}", 1)

    def adapted(self, text, certificate, key):
        text = replaced(text, r"^    (user|group) haproxy$", "", 2)
        text = replaced(text, r"/dev/log local0", "stdout format raw local0", 1)
        text = replaced(text, r"bind :::443 v4v6", f"bind 127.0.0.1:{self.port}", 1)
        text = replaced(text, r"^    maxconn \d+$", "    maxconn 1000", 1)
        if certificate:
            both = self.directory / "both.pem"
            both.write_text(Path(certificate).read_text() + Path(key).read_text())
            text = replaced(text, r"/etc/haproxy/tls/fullchain-and-key\.pem", str(both), 1)
        return text

    def command(self, *check):
        path, env = program("haproxy")
        return [path, *(["-c"] if check else ["-db"]), "-f", str(self.config)], env
