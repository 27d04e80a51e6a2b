#!/bin/sh
# Issues a token (JWT, HS256) for a client with openssl.
#
#     FANFARE_AUTH__SECRET=... examples/tokens/token.sh --user 7 --ttl 3600 --rooms 5,lobby
#
# The token is on standard output, what it says on standard error. Names are of letters, digits, `.`, `_`, `@`, `:` and `-`
# here; in those of rooms, `*` stands for any text.
# openssl takes the secret as an argument, which others on the machine can see while it runs: for trials, and for machines
# that are yours alone. `fanfare token` does not have that fault.
set -eu

refuse() {
    echo "token.sh: $1" >&2
    echo "usage: token.sh --user USER [--ttl SECONDS] [--rooms ROOM,...]" >&2
    exit 2
}

user="" seconds=3600 rooms="" has_rooms=false
while [ $# -gt 0 ]; do
    case "$1" in
        --user | --ttl | --rooms) [ $# -ge 2 ] || refuse "$1 needs a value" ;;
        *) refuse "not understood: $1" ;;
    esac
    case "$1" in
        --user) user="$2" ;;
        --ttl) seconds="$2" ;;
        --rooms) rooms="$2" has_rooms=true ;;
    esac
    shift 2
done
case "$user" in '' | *[!A-Za-z0-9._@:-]*) refuse "--user is not such a name: '$user'" ;; esac
case "$seconds" in '' | 0* | *[!0-9]*) refuse "--ttl is not a number of seconds: '$seconds'" ;; esac
if "$has_rooms"; then
    case ",$rooms," in *,,* | *[!A-Za-z0-9._@:,*-]*) refuse "--rooms are not such names: '$rooms'" ;; esac
fi
secret="${FANFARE_AUTH__SECRET:-}"
[ "${#secret}" -ge 32 ] || refuse "FANFARE_AUTH__SECRET must be the gateway's secret, of at least 32 bytes"

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
# In hexadecimal, so that it may be any bytes.
key="$(printf '%s' "$secret" | od -An -v -tx1 | tr -d ' \n')"
signature() { printf '%s' "$1" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | base64url; }

now="$(date +%s)"
id="$(openssl rand -hex 16)"
# `iat` and `jti` are what a token can be revoked by: all of a user's up to a moment, or this one.
claims="{\"sub\":\"$user\",\"iat\":$now,\"exp\":$((now + seconds)),\"jti\":\"$id\""
if "$has_rooms"; then claims="$claims,\"rooms\":[\"$(printf '%s' "$rooms" | sed 's/,/","/g')\"]"; fi
claims="$claims}"
signed="$(printf '{"alg":"HS256","typ":"JWT"}' | base64url).$(printf '%s' "$claims" | base64url)"
token="$signed.$(signature "$signed")"

# What the gateway will do: read it back, and compare the signature.
body="$(printf '%s' "$signed" | cut -d. -f2 | tr -- '-_' '+/')"
while [ $((${#body} % 4)) != 0 ]; do body="$body="; done
[ "$(printf '%s' "$body" | openssl base64 -d -A)" = "$claims" ] || { echo "token.sh: the claims do not come back" >&2; exit 1; }
[ "${token##*.}" = "$(signature "${token%.*}")" ] || { echo "token.sh: the signature does not fit" >&2; exit 1; }
echo "a token for $user, $seconds s long: $claims" >&2
printf '%s\n' "$token"
