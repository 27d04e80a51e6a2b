# What all peers' `start` share. A start names its two functions, `install` and `serve`, and calls `main "$@"`:
#
#   start [--port N]   installs what is missing and becomes the server (exec); port 0, the default, is a free one;
#                      prints `listening public ws://127.0.0.1:PORT/PATH` once it accepts
#   start --install    only installs
#
# All that is installed goes into $home; $here is the peer's folder in the sources.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
home=${CARGO_TARGET_DIR:-$root/target}/peers/$(basename "$here")
mkdir -p "$home"
home=$(cd "$home" && pwd)

main() {
    local port=0
    case ${1:-} in
    --port) port=${2:?--port needs a number} ;;
    --install | '') ;;
    *) fail "usage: $0 [--port N | --install]" ;;
    esac
    install >&2
    [ "${1:-}" = --install ] && return
    ulimit -n "$(ulimit -Hn)"
    serve "$port"
}

fail() {
    echo "$(basename "$here"): $*" >&2
    exit 2
}

# debian PACKAGE...: unpacks them into $home/root. Not installed, a package starts and enables no service.
debian() {
    command -v apt-get >/dev/null || fail "needs Debian's packages $*"
    (
        cd "$home"
        rm -rf root ./*.deb
        download "$@" || { as_root apt-get update --quiet=2 && download "$@"; }
        for file in ./*.deb; do
            dpkg-deb --extract "$file" root
        done
    )
}

download() {
    # Its user for downloads cannot write here, of which it would warn.
    apt-get download --quiet=2 --option APT::Sandbox::User="$(id -un)" "$@"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# libraries_of FILE...: fails when a shared library of theirs is not in this system.
libraries_of() {
    if ldd "$@" | grep 'not found' >&2; then fail "install these libraries first"; fi
}

# port_or_free N: N, or for 0 one that is free.
port_or_free() {
    [ "$1" != 0 ] && echo "$1" && return
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# announce PORT PATH: says that the server listens as soon as it does, for servers that do not say so themselves. It
# runs beside this process and is no child of it, which the server would have to reap.
announce() {
    (
        {
            until (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do
                kill -0 $$ 2>/dev/null || exit
                sleep 0.05
            done
            echo "listening public ws://127.0.0.1:$1$2"
        } &
    )
}
