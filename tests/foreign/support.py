"""Starts gateways and speaks to them; nothing here knows how Fanfare is made."""

import asyncio
import json
import os
import queue
import re
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer
from pathlib import Path

from websockets.asyncio.client import connect as ws_connect
from websockets.exceptions import ConnectionClosed

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("FANFARE_BIN", str(ROOT / "target" / "debug" / "fanfare"))
DEADLINE = 20.0
SECRET = "a secret for tests only, long enough for HS512 as well: 0123456789abcdef"


def clean_environment(**settings):
    """The environment without what a developer may have set, plus `settings` such as `LIMITS__ROOMS`."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("FANFARE_")}
    env.update({f"FANFARE_{key}": value for key, value in settings.items()})
    return env


class Gateway:
    """A running gateway on ports of its own."""

    DEFAULTS = {"--listen": "127.0.0.1:0", "--admin-listen": "127.0.0.1:0", "--shards": "2"}

    def __init__(self, *args, log=subprocess.PIPE, prefix=(), **settings):
        """`log` is where standard error goes; what is piped ends up in the attribute of that name.

        `prefix` is a command that becomes the gateway, such as `prlimit`.
        """
        settings = {"DRAIN__WINDOW": "200ms", **settings}
        defaults = [word for flag in self.DEFAULTS.items() if flag[0] not in args for word in flag]
        command = [*prefix, BINARY, *defaults, *args]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=clean_environment(**settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        self.log = []
        lines = queue.Queue()
        threading.Thread(target=self._drain, args=(self.process.stdout, lines.put), daemon=True).start()
        if self.process.stderr:
            threading.Thread(target=self._drain, args=(self.process.stderr, self.log.append), daemon=True).start()
        try:
            self.url = self._address(lines, "public")
            self.admin = self._address(lines, "admin")
        except BaseException:
            self.process.kill()
            raise
        self.host, port = re.fullmatch(r"wss?://(.+):(\d+)/ws", self.url).groups()
        self.port = int(port)
        self.base = self.url.removesuffix("/ws").replace("ws", "http", 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    @staticmethod
    def _drain(stream, put):
        for line in stream:
            put(line)

    def _address(self, lines, name):
        try:
            line = lines.get(timeout=DEADLINE)
        except queue.Empty:
            raise AssertionError(f"no line 'listening {name}'; log: {''.join(self.log)}") from None
        prefix = f"listening {name} "
        assert line.startswith(prefix), line
        return line[len(prefix):].strip()

    def scrape(self):
        """All samples by series name, labels included."""
        status, body = fetch(self.admin + "/metrics")
        assert status == 200, status
        samples = {}
        for line in body.splitlines():
            if line and not line.startswith("#"):
                series, value = line.rsplit(" ", 1)
                samples[series] = float(value)
        return samples

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self):
        return self.process.wait(timeout=DEADLINE)

    def stop(self):
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.process.stdout.close()
            if self.process.stderr:
                self.process.stderr.close()


def fetch(url, headers=None, method="GET"):
    """Status and body, whatever the status."""
    request = urllib.request.Request(url, headers=headers or {}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=DEADLINE) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def poll(what, condition):
    """Waits until `condition()` is true; the last value is in the failure."""
    end = time.monotonic() + DEADLINE
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what}: still {value!r}"
        time.sleep(0.02)


async def poll_async(what, condition):
    return await asyncio.to_thread(poll, what, condition)


class Client:
    """A connection of the `websockets` library that has got its `welcome`."""

    def __init__(self, connection):
        self.connection = connection
        self.pending = []
        self.marks = 0
        self.welcome = None

    @classmethod
    async def open(cls, gateway, query="", path="/ws", welcome=True, **options):
        url = gateway.url.removesuffix("/ws") + path + (f"?{query}" if query else "")
        options = {"compression": None, "ping_interval": None, "proxy": None, "open_timeout": DEADLINE, **options}
        client = cls(await ws_connect(url, **options))
        if welcome:
            client.welcome = await client.next()
            assert client.welcome["type"] == "welcome", client.welcome
        return client

    async def send(self, **message):
        await self.connection.send(json.dumps(message))

    async def next(self):
        """The next message of the gateway; a frame of the ndjson kind may hold several."""
        if not self.pending:
            frame = await asyncio.wait_for(self.connection.recv(), DEADLINE)
            self.pending = [json.loads(line) for line in frame.split("\n")]
        return self.pending.pop(0)

    async def next_of(self, kind):
        """The next message of this type; others before it are dropped."""
        while True:
            message = await self.next()
            if message["type"] == kind:
                return message

    async def request(self, **message):
        """Sends with a mark and gives the `ack` or `error` that carries it; keeps what came before it."""
        self.marks += 1
        mark = f"mark-{self.marks}"
        await self.send(id=mark, **message)
        kept = []
        while True:
            answer = await self.next()
            if answer.get("id") == mark:
                self.pending = kept + self.pending
                return answer
            kept.append(answer)

    async def settled(self):
        """All that the gateway had for this client before it answered two pings.

        Two, because an answer may overtake the messages of its own turn, but not those of the turn before.
        """
        got = []
        for mark in ("settling", "settled"):
            await self.send(type="ping", id=mark)
            while (message := await self.next()).get("id") != mark or message["type"] != "pong":
                got.append(message)
        return got

    async def closed(self):
        """The close code that the gateway sent; messages before it are dropped.

        They have to be read: the library stops reading, and sees no Close frame, while many wait.
        """
        try:
            while True:
                await asyncio.wait_for(self.connection.recv(), DEADLINE)
        except ConnectionClosed:
            return self.connection.close_code

    async def close(self):
        await self.connection.close()

    def abort(self):
        """Ends the connection by RST, without a Close frame."""
        sock = self.connection.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.transport.abort()


class Served:
    """An HTTP server on this machine, whose requests are a handler's to answer."""

    def __init__(self, handler, path, port=0, tls=None):
        self.server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_port
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}{path}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def masked(first, payload):
    """A frame as clients send it; the mask of zeros leaves the payload as it is."""
    if len(payload) < 126:
        length = bytes([0x80 | len(payload)])
    else:
        length = b"\xfe" + struct.pack("!H", len(payload))
    return bytes([first]) + length + bytes(4) + payload


class RawClient:
    """A blocking WebSocket client that answers nothing by itself."""

    def __init__(self, gateway, query="", receive_buffer=None, path="/ws", subprotocol=None, ahead=b"", context=None):
        """`ahead` are frames that go out in one piece with the request; `context` is that of TLS."""
        self.socket = socket.socket()
        self.socket.settimeout(DEADLINE)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect((gateway.host, gateway.port))
        if context:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        target = path + (f"?{query}" if query else "")
        self.socket.sendall(
            f"GET {target} HTTP/1.1\r\nHost: {gateway.host}:{gateway.port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n".encode()
            + (f"Sec-WebSocket-Protocol: {subprotocol}\r\n".encode() if subprotocol else b"")
            + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            + ahead
        )
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 101 "), head

    def _more(self):
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self.buffer += data

    def send(self, **message):
        self.send_frame(0x81, json.dumps(message).encode())

    def send_frame(self, first, payload):
        """`first` is the first byte: flags and opcode."""
        self.socket.sendall(masked(first, payload))

    def frame(self):
        """Opcode and payload of the next frame."""
        while True:
            frame = self._whole_frame()
            if frame:
                return frame
            self._more()

    def _whole_frame(self):
        if len(self.buffer) < 2:
            return None
        opcode, length, start = self.buffer[0] & 15, self.buffer[1], 2
        assert length < 128, "frames of a server are not masked"
        extended = {126: (2, "!H"), 127: (8, "!Q")}.get(length)
        if extended:
            size, form = extended
            if len(self.buffer) < 2 + size:
                return None
            (length,) = struct.unpack(form, self.buffer[2:2 + size])
            start += size
        if len(self.buffer) < start + length:
            return None
        payload, self.buffer = self.buffer[start:start + length], self.buffer[start + length:]
        return opcode, payload

    def next_of(self, kind):
        """The next message of this type; others before it are dropped."""
        while True:
            opcode, payload = self.frame()
            if opcode == 1 and (message := json.loads(payload))["type"] == kind:
                return message

    def until_close(self):
        """Text messages up to the Close frame, and its code; None where the connection just ended."""
        messages = []
        try:
            while True:
                opcode, payload = self.frame()
                if opcode == 8:
                    return messages, struct.unpack("!H", payload[:2])[0] if payload else 1005
                if opcode == 1:
                    messages.append(json.loads(payload))
        except (EOFError, ConnectionResetError):
            return messages, None

    def close(self):
        self.socket.close()
