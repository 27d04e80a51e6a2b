"""Connections that come, join, speak, leave and go in random order: python churn.py HOST PORT SEED NUMBER CYCLES

Bare sockets and nothing awaited where it need not be, so that it is the gateway that works.
"""

import contextlib
import json
import random
import socket
import struct
import sys

from support import DEADLINE, masked

TOGETHER = 200
USERS, ROOMS = 500, 300
RESET = struct.pack("ii", 1, 0)
# Of <linux/in.h>: the port is chosen as it connects, so that each address has all ports for each peer.
IP_BIND_ADDRESS_NO_PORT = 24


def request(user, compressed):
    return (
        f"GET /ws?user=churn-{user} HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        + ("Sec-WebSocket-Extensions: permessage-deflate\r\n" if compressed else "")
        + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


def frame(**message):
    return masked(0x81, json.dumps(message).encode())


class Churn:
    def __init__(self, address, choices, number):
        self.address, self.choices, self.number = address, choices, number
        self.open = []

    def run(self, cycles):
        for _ in range(cycles):
            self.open.append(self.connect())
            for _ in range(self.choices.randrange(3)):
                self.act(self.choices.choice(self.open))
            if len(self.open) > TOGETHER:
                self.end(self.open.pop(self.choices.randrange(len(self.open))))
        for sock in self.open:
            self.end(sock)

    def connect(self):
        sock = socket.socket()
        sock.settimeout(DEADLINE)
        sock.setsockopt(socket.SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        # Enough addresses for the ports that the kernel does not give again for a minute.
        sock.bind((f"127.1.{self.number}.{self.choices.randrange(1, 250)}", 0))
        sock.connect(self.address)
        hello = request(self.choices.randrange(USERS), self.choices.random() < 0.3)
        if self.choices.random() < 0.5:
            hello += self.action()
        kind = self.choices.random()
        if kind < 0.05:
            hello = hello[:self.choices.randrange(len(hello))]
        elif kind < 0.06:
            hello = b"\x16\x03\x01 this is not HTTP"
        self.send(sock, hello)
        return sock

    def action(self):
        room = f"churn-{self.choices.randrange(ROOMS)}"
        kind = self.choices.choice(["join", "join", "leave", "message"])
        return frame(type=kind, room_id=room, **({"content": "x" * self.choices.randrange(300)} if kind == "message" else {}))

    def act(self, sock):
        self.send(sock, self.action())

    def send(self, sock, data):
        # The gateway may have closed one that began with something else than a request.
        with contextlib.suppress(OSError):
            sock.sendall(data)

    def end(self, sock):
        """Without a word, by RST, by the end of the stream, or by a Close that is awaited."""
        kind = self.choices.choice(["drop", "reset", "finish", "close"])
        with sock, contextlib.suppress(OSError):
            if kind == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            elif kind == "finish":
                sock.shutdown(socket.SHUT_WR)
            elif kind == "close":
                sock.sendall(masked(0x88, struct.pack("!H", 1000)))
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass


if __name__ == "__main__":
    host, port, seed, number, cycles = sys.argv[1:]
    Churn((host, int(port)), random.Random(f"{seed}:{number}"), int(number)).run(int(cycles))
