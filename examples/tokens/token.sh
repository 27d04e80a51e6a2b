#!/bin/sh
# Issues a token (JWT, HS256) for a client with openssl.
#
#     FANFARE_AUTH__SECRET=... examples/tokens/token.sh USER [SECONDS]
#
# The token is on standard output, what it says on standard error. USER is of letters, digits, `.`, `_`, `@` and `-` here.
# openssl takes the secret as an argument, which others on the machine can see while it runs: for trials, and for machines
# that are yours alone. `fanfare token` does not have that fault.
set -eu

user="${1:?usage: token.sh USER [SECONDS]}"
seconds="${2:-3600}"
case "$user" in *[!A-Za-z0-9._@-]*) echo "token.sh: not such a user: $user" >&2; exit 2 ;; esac
case "$seconds" in *[!0-9]*) echo "token.sh: not a number of seconds: $seconds" >&2; exit 2 ;; esac
secret="${FANFARE_AUTH__SECRET:-}"
if [ "${#secret}" -lt 32 ]; then
    echo "token.sh: FANFARE_AUTH__SECRET must be the gateway's secret, of at least 32 bytes" >&2
    exit 2
fi

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
# In hexadecimal, so that it may be any bytes.
key="$(printf '%s' "$secret" | od -An -v -tx1 | tr -d ' \n')"
signature() { printf '%s' "$1" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | base64url; }

now="$(date +%s)"
id="$(openssl rand -hex 16)"
claims="{\"sub\":\"$user\",\"iat\":$now,\"exp\":$((now + seconds)),\"jti\":\"$id\"}"
signed="$(printf '{"alg":"HS256","typ":"JWT"}' | base64url).$(printf '%s' "$claims" | base64url)"
token="$signed.$(signature "$signed")"

# What the gateway will do: read it back, and compare the signature.
body="$(printf '%s' "$signed" | cut -d. -f2 | tr -- '-_' '+/')"
while [ $((${#body} % 4)) != 0 ]; do body="$body="; done
[ "$(printf '%s' "$body" | openssl base64 -d -A)" = "$claims" ] || { echo "token.sh: the claims do not come back" >&2; exit 1; }
[ "${token##*.}" = "$(signature "${token%.*}")" ] || { echo "token.sh: the signature does not fit" >&2; exit 1; }
echo "a token for $user, $seconds s long: $claims" >&2
printf '%s\n' "$token"
