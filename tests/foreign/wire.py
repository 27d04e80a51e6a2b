"""Bytes on the wire: requests that break a rule, and frames of any kind, sent whole or in pieces."""

import contextlib
import json
import os
import socket
import struct
from pathlib import Path

from support import DEADLINE

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
# A gateway whose own pings do not come between the frames that a test expects.
QUIET = {"HEARTBEAT__PING": "1h", "HEARTBEAT__TIMEOUT": "2h"}
ZEROS, MASK = bytes(4), b"\xa1\x5c\x00\xff"


class Answer:
    """The answer to a request: `headers` has names in small letters, each with all its values."""

    def __init__(self, head):
        line, *fields = head.decode("ascii").split("\r\n")
        version, status, *_ = line.split(" ", 2)
        assert version == "HTTP/1.1", line
        self.status = int(status)
        self.headers = {}
        for field in fields:
            name, value = field.split(":", 1)
            self.headers.setdefault(name.lower(), []).append(value.strip())
        self.body = b""

    def header(self, name):
        """The only value of this header, or None."""
        values = self.headers.get(name, [None])
        assert len(values) == 1, (name, values)
        return values[0]

    def tokens(self, name):
        """What a header lists, in small letters."""
        return [token.strip().lower() for value in self.headers.get(name, []) for token in value.split(",")]


class Wire:
    """A TCP connection to a gateway, on which nothing happens by itself."""

    def __init__(self, gateway, receive_buffer=None):
        self.socket = socket.socket()
        self.socket.settimeout(DEADLINE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect((gateway.host, gateway.port))
        self.buffer = b""

    @classmethod
    def upgraded(cls, gateway, path="/echo", ahead=b"", **request_options):
        """A connection that speaks WebSocket; `ahead` goes out in one piece with the request."""
        wire = cls(gateway, request_options.pop("receive_buffer", None))
        wire.send(request(path, **request_options) + ahead)
        wire.handshake = wire.answer()
        assert wire.handshake.status == 101, wire.handshake.status
        return wire

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def send_pieces(self, *pieces):
        """Each in a segment of its own, as far as the system lets it."""
        for piece in pieces:
            self.socket.sendall(piece)

    def send_bytewise(self, data):
        self.send_pieces(*(data[at:at + 1] for at in range(len(data))))

    def send_what_is_taken(self, data):
        """As much as the gateway takes before it ends the connection."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def end_sending(self):
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self):
        """Ends the connection by RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def take(self, count):
        while len(self.buffer) < count:
            self._more()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def _more(self):
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self.buffer += data

    def answer(self, has_body=True):
        """The next answer, its body included."""
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        answer = Answer(head)
        if answer.status >= 200 and has_body:
            answer.body = self.take(int(answer.header("content-length")))
        return answer

    def rest(self):
        """All that is to come until the gateway ends its side; a reset is an error."""
        with contextlib.suppress(EOFError):
            while True:
                self._more()
        self.check_end()
        rest, self.buffer = self.buffer, b""
        return rest

    def check_end(self):
        """A reset behind the end of the stream is no end of it for a reader, but an error of the socket."""
        error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))

    def frame(self):
        """The first byte and the payload of the next frame."""
        first, length = self.take(2)
        assert length < 128, "frames of a server are not masked"
        if length == 126:
            (length,) = struct.unpack("!H", self.take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self.take(8))
        return first, self.take(length)

    def frames(self):
        """All frames until the gateway ends its side, which it does properly."""
        frames = []
        while True:
            if not self.buffer:
                try:
                    self._more()
                except EOFError:
                    self.check_end()
                    return frames
            frames.append(self.frame())

    def json(self):
        """The next message."""
        first, payload = self.frame()
        assert first == 0x81, (first, payload)
        return json.loads(payload)


def request(target="/ws", method="GET", version="HTTP/1.1", without=(), headers=(), host="localhost"):
    """A good upgrade request but for what is asked; `headers` are lines, also such as are none, put behind the others."""
    fields = {
        "Host": host, "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY,
    }
    lines = [f"{method} {target} {version}"]
    lines += [f"{name}: {value}" for name, value in fields.items() if name not in without]
    text = "\r\n".join([*lines, *headers, "", ""])
    return text.encode("latin-1")


def frame(first, payload=b"", mask=MASK, length=None):
    """A frame whose first byte is `first`; no mask: unmasked. `length` is a length that is not the payload's."""
    size = len(payload) if length is None else length
    masked = 0x80 if mask else 0
    if size < 126:
        head = bytes([first, masked | size])
    elif size < 1 << 16:
        head = bytes([first, masked | 126]) + struct.pack("!H", size)
    else:
        head = bytes([first, masked | 127]) + struct.pack("!Q", size)
    return head + (mask or b"") + (xor(payload, mask) if mask else payload)


def xor(payload, mask):
    if not payload or mask == ZEROS:
        return payload
    key = (mask * (len(payload) // 4 + 1))[:len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")


def close_frame(code=None, reason=b""):
    return frame(0x88, b"" if code is None else struct.pack("!H", code) + reason)


def close_code(payload):
    """The code of a Close; 1005 when it has none."""
    return struct.unpack("!H", payload[:2])[0] if payload else 1005


def descriptors(gateway):
    return len(os.listdir(f"/proc/{gateway.process.pid}/fd"))


def resident_bytes(gateway):
    status = Path(f"/proc/{gateway.process.pid}/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) * 1024
