"""The servers that are compared: how each is started for a kind of work, and stopped."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from harness import ECHO, IDLE, ROOM, ROOMS

HERE = Path(__file__).resolve().parent
START_SECONDS = 15
STOP_SECONDS = 5


@dataclass(frozen=True)
class Server:
    """A server: its command for each kind of work that it can do."""

    name: str
    commands: dict[str, list[str]]
    dialect: str
    echo_path: str = "/echo"

    def url_for(self, work: str, announced: str) -> str:
        """Where the work is done, on a server that announced this URL."""
        return urlunsplit(urlsplit(announced)._replace(path=self.echo_path)) if work == ECHO else announced

    def dialect_for(self, work: str) -> str:
        return "plain" if work == ECHO else self.dialect


class StartError(Exception):
    """A server that does not start, with what it said."""


def known(binaries: Path) -> dict[str, Server]:
    """All servers by name, Fanfare first; `binaries` is where cargo has put ours."""
    gateway = [str(binaries / "fanfare"), "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    gateway += ["--shards", "1"]
    loop = [str(binaries / "fanfare-rawloop")]
    gathering = [*loop, "--coalesce", "64"]
    servers = [
        Server("fanfare", every(gateway) | {ECHO: [*gateway, "--echo"]}, "fanfare"),
        Server("rawloop", {ROOM: gathering, IDLE: gathering, ECHO: [*loop, "--echo"]}, "fanfare", "/ws"),
        peer("uwebsockets", has_echo=True),
        peer("nats"),
        peer("nchan"),
        peer("ws", has_echo=True),
    ]
    return {server.name: server for server in servers}


def peer(name: str, has_echo: bool = False) -> Server:
    """The server of the folder with this name."""
    start = [str(HERE / name / "start")]
    commands = every(start) | ({ECHO: start} if has_echo else {})
    return Server(name, commands, str(HERE / name / "dialect.toml"))


def every(command: list[str]) -> dict[str, list[str]]:
    """One command for all work of rooms."""
    return dict.fromkeys((ROOM, ROOMS, IDLE), command)


def install(server: Server) -> None:
    """Lets a peer fetch or build what it needs, so that its start takes no time."""
    start = HERE / server.name / "start"
    if start.exists():
        subprocess.run([start, "--install"], check=True, stdout=subprocess.DEVNULL)


def environment() -> dict[str, str]:
    """Without what would configure Fanfare: it is compared as it comes."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FANFARE_")}


@contextmanager
def running(prefix: list[str], server: Server, work: str) -> Iterator[tuple[str, int]]:
    """A fresh server: its URL for this work and its process id. It is stopped at the end."""
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([*prefix, *server.commands[work]], env=environment(), stdout=said, stderr=log)
        try:
            announced = wait_until_listening(process, said)
            if announced is None:
                log.seek(0)
                raise StartError(f"{server.name} does not start:\n{log.read()[-2000:]}")
            yield server.url_for(work, announced), process.pid
        finally:
            stop(process)


def wait_until_listening(process: subprocess.Popen, said) -> str | None:
    """The URL that the server announces, or None when it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        said.seek(0)
        for line in said:
            if line.startswith("listening public ") and line.endswith("\n"):
                return line.split()[2]
        time.sleep(0.05)
    return None


def stop(process: subprocess.Popen) -> None:
    """Ends the process that was started here."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
