#!/usr/bin/env python3
"""Publishes to a room from a back end, and checks that the gateway has it once.

    python3 examples/publish/publish.py demo.lobby "hello from Python"
    python3 examples/publish/publish.py demo.lobby one two three      # several in one request

Needs nothing but Python 3.9. API_KEY is a key with the scopes `publish` and `read`, where the gateway asks for one;
ADMIN is its admin listener.
"""

import argparse
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
import uuid


class Gateway:
    """The HTTP API on the admin listener of a gateway."""

    def __init__(self, admin, key=None):
        self.base = admin.rstrip("/") + "/api/v1"
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}

    def publish(self, message, idempotency_key):
        """Publishes one message. To call it again with the same key, after a time-out for instance, does no harm."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": idempotency_key}
        return json.loads(self._ask("/publish", json.dumps(message).encode(), headers))

    def publish_many(self, messages):
        """Publishes in one request, in this order; gives the answer to each."""
        body = "".join(json.dumps(message) + "\n" for message in messages).encode()
        answers = self._ask("/publish", body, {"Content-Type": "application/x-ndjson"})
        return [json.loads(line) for line in answers.splitlines()]

    def history(self, room, limit):
        """The last messages of a room, where it keeps some."""
        name = urllib.parse.quote(str(room), safe="")
        return json.loads(self._ask(f"/rooms/{name}/history?limit={limit}"))["messages"]

    def _ask(self, path, body=None, headers=None):
        request = urllib.request.Request(self.base + path, body, {**self.headers, **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.read().decode()
        except urllib.error.HTTPError as error:
            # Errors are JSON as well; `message` says what to do. 503 comes with Retry-After.
            sys.exit(f"{request.get_method()} {request.full_url}: {error.code} {error.read().decode().strip()}")
        except OSError as error:
            # Whether it was published is not known: send it again, with the same Idempotency-Key.
            sys.exit(f"{request.full_url}: {getattr(error, 'reason', error)}")


def main():
    arguments = argparse.ArgumentParser(description="Publishes to a room.")
    arguments.add_argument("room")
    arguments.add_argument("content", nargs="+")
    given = arguments.parse_args()
    gateway = Gateway(os.environ.get("ADMIN") or "http://127.0.0.1:9090", os.environ.get("API_KEY"))

    # A mark of this run, by which its messages are found again.
    run = str(uuid.uuid4())
    messages = [
        {"room_id": given.room, "from": "backend", "content": content, "data": {"run": run, "number": number}}
        for number, content in enumerate(given.content)
    ]
    if len(messages) == 1:
        answer = gateway.publish(messages[0], run)
        again = gateway.publish(messages[0], run)
        if answer != again:
            sys.exit(f"the same Idempotency-Key was answered {answer} and then {again}")
        answers = [answer]
    else:
        answers = gateway.publish_many(messages)
    if len(answers) != len(messages):
        sys.exit(f"{len(messages)} messages had {len(answers)} answers")
    for message, answer in zip(messages, answers):
        if "error" in answer:
            sys.exit(f"{message['content']!r} was refused: {answer}")
        if "offset" not in answer:
            print(f"nobody is in {given.room}, and it has no history: {message['content']!r} was heard by nobody")
            return
        print(f"published {message['content']!r} to {given.room} as offset {answer['offset']} of epoch {answer['epoch']}")

    found = [kept for kept in gateway.history(given.room, 1000) if (kept.get("data") or {}).get("run") == run]
    if [kept["offset"] for kept in found] != [answer["offset"] for answer in answers]:
        sys.exit(f"the history has {found} where {answers} were answered")
    print(f"found {len(found)} of {len(answers)} in the history, each once and in this order")


if __name__ == "__main__":
    main()
