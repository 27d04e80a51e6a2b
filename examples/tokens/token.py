#!/usr/bin/env python3
"""Issues a token (JWT, HS256) for a client, as a back end does when somebody logs in.

    FANFARE_AUTH__SECRET=... python3 examples/tokens/token.py --user 7 --ttl 3600 --rooms 5,lobby

The token is on standard output, what it says on standard error. Needs nothing but Python 3.9.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import sys
import time
import uuid


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def issue(claims, secret):
    """The token that says this. `secret` is that of `auth.secret`, as bytes."""
    head = base64url(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    body = base64url(json.dumps(claims).encode())
    signed = f"{head}.{body}"
    return f"{signed}.{base64url(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def main():
    arguments = argparse.ArgumentParser(description="Issues a token.")
    arguments.add_argument("--user", required=True, help="`sub`: who the client is")
    arguments.add_argument("--ttl", type=int, default=3600, help="seconds until it expires")
    arguments.add_argument("--rooms", help="the rooms it may enter, separated by commas, `*` for any text; all without")
    given = arguments.parse_args()
    secret = os.environ.get("FANFARE_AUTH__SECRET", "")
    if len(secret) < 32:
        sys.exit("FANFARE_AUTH__SECRET must be the gateway's secret, of at least 32 bytes")

    now = int(time.time())
    # `iat` and `jti` are what a token can be revoked by: all of a user's up to a moment, or this one.
    claims = {"sub": given.user, "iat": now, "exp": now + given.ttl, "jti": str(uuid.uuid4())}
    if given.rooms is not None:
        claims["rooms"] = given.rooms.split(",")
    token = issue(claims, secret.encode())

    # What the gateway will do: read it back, and compare the signature.
    signed, signature = token.rsplit(".", 1)
    body = signed.split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))) == claims
    assert hmac.compare_digest(signature, base64url(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256)))
    print(f"a token for {given.user}, {given.ttl} s long: {json.dumps(claims)}", file=sys.stderr)
    print(token)


if __name__ == "__main__":
    main()
