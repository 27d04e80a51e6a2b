#!/bin/sh
# Publishes to a room with curl, twice with one Idempotency-Key, and checks that the gateway has it once.
#
#     examples/publish/publish.sh demo.lobby "hello from a shell"
#
# API_KEY is a key with the scope `publish`, where the gateway asks for one; ADMIN is its admin listener.
set -eu

room="${1:?usage: publish.sh ROOM TEXT}"
text="${2:?usage: publish.sh ROOM TEXT}"
admin="${ADMIN:-http://127.0.0.1:9090}"

# A text as JSON has it: quotes and backslashes escaped, and no other control characters than these three.
json() {
    printf '%s' "$1" | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/\t/\\t/g' -e 's/\r/\\r/g' | awk 'NR > 1 { printf "\\n" } { printf "%s", $0 }'
}

# The key goes by a file, since arguments are seen by everybody on the machine.
headers="$(mktemp)"
trap 'rm -f "$headers"' EXIT
{
    echo "Content-Type: application/json"
    echo "Idempotency-Key: $(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"
    if [ -n "${API_KEY:-}" ]; then echo "Authorization: Bearer $API_KEY"; fi
} >"$headers"

publish() {
    curl --silent --show-error --fail-with-body --max-time 10 --header "@$headers" \
        --data "{\"room_id\":\"$(json "$room")\",\"from\":\"backend\",\"content\":\"$(json "$text")\"}" "$admin/api/v1/publish"
}

answer="$(publish)" || { echo "$answer" >&2; exit 1; }
again="$(publish)" || { echo "$again" >&2; exit 1; }
if [ "$answer" != "$again" ]; then
    echo "the same Idempotency-Key was answered $answer and then $again" >&2
    exit 1
fi
echo "published to $room, once: $answer"
