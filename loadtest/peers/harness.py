"""The harness: how it is called, what it is asked to do, and which fields of its JSON are read. All names of it that
the comparison depends on stand here."""

import json
import subprocess
from dataclasses import dataclass, field

# Congestion control and receive windows take some seconds to find their size, for every server.
WARMUP = "4s"

# The work that a server must be able to do for a case.
ROOM, ROOMS, ECHO, IDLE = "room", "rooms", "echo", "idle"


@dataclass(frozen=True)
class Figure:
    """A number of the harness's `figures`."""

    name: str
    title: str
    more_is_better: bool = False


CPU = Figure("server_cpu_us_per_delivery", "us CPU per delivery")
DELIVERIES = Figure("deliveries_per_second", "deliveries/s", more_is_better=True)
P99 = Figure("delivery_p99_us", "p99 us")
ECHOES = Figure("deliveries_per_second", "echoes/s", more_is_better=True)
BYTES = Figure("server_bytes_per_connection", "bytes per connection")
CONNECTS = Figure("connects_per_second", "connects/s", more_is_better=True)


@dataclass(frozen=True)
class Case:
    """One piece of work, the same for all servers."""

    key: str
    title: str
    work: str
    flags: tuple[str, ...]
    figures: tuple[Figure, ...]


def cases(big: str) -> list[Case]:
    """All cases; `big` is the number of connections of the big ones, as the harness takes it."""
    broadcast = ("--preset", "broadcast", "--window")
    rooms = ("--preset", "rooms", "--rooms", "1k", "--sizes", "uniform", "--window", "1", "-c", "10k")
    echo = ("--preset", "echo", "--window", "1", "-c", "1k")
    idle = ("--preset", "idle", "--baseline", "1k", "-c", big)
    return [
        Case("one", "1k x 1", ROOM, (*broadcast, "1", "-c", "1k"), (CPU,)),
        Case("one-big", f"{big} x 1", ROOM, (*broadcast, "1", "-c", big), (CPU,)),
        Case("many", "1k x 64", ROOM, (*broadcast, "64", "-c", "1k"), (DELIVERIES,)),
        Case("many-big", f"{big} x 8", ROOM, (*broadcast, "8", "-c", big), (DELIVERIES,)),
        Case("rooms", "rooms 1000 x 10", ROOMS, rooms, (DELIVERIES, P99)),
        Case("echo", "echo 1k", ECHO, echo, (ECHOES,)),
        Case("idle", "idle", IDLE, idle, (BYTES, CONNECTS)),
    ]


@dataclass
class Outcome:
    """What one run has shown."""

    figures: dict[str, float] = field(default_factory=dict)
    client_bound: bool = False
    # Why the figures are not to be trusted, or why there are none.
    trouble: str = ""


def run(prefix: list[str], binary: str, case: Case, url: str, dialect: str, pid: int, seconds: float) -> Outcome:
    """Runs the case once; `prefix` is what stands before the binary, such as taskset."""
    command = [*prefix, binary, "run", url, *case.flags, "--dialect", dialect, "--server-pid", str(pid)]
    command += ["-d", f"{seconds}s", "--warmup", WARMUP, "--payload", "128", "--json", "--quiet"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120)
    except subprocess.TimeoutExpired:
        return Outcome(trouble="the harness did not end in time")
    try:
        report = json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return Outcome(trouble=lines[-1])
    return read(report)


def read(report: dict) -> Outcome:
    """The harness's JSON."""
    trouble = ""
    if not report["ok"]:
        faults = (f"{name} {what}" for name, what in report["faults"].items() if what and name != "remarks")
        trouble = report.get("stopped") or ", ".join(faults) or "not ok"
    return Outcome(report["figures"], report["client_was_bottleneck"], trouble)
