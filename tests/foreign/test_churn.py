"""Of very many clients that come and go in random order nothing is left, and /metrics tells the truth all the while."""

import re
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

from proxy import SEED
from support import Gateway, fetch, poll

WORKERS = 2
FIRST, ALL = 10_000, 100_000
MIB = 1 << 20
# What the allocator may keep more after the many than after the first.
KEPT_BYTES_MAX = 16 * MIB
# A promise, as others than the clients keep it: the admin listener has a thread of its own.
SCRAPE_SECONDS_MAX = 1
SERIES_MAX = 1_000


class Scrape:
    """What /metrics says, by kind."""

    def __init__(self, gateway):
        status, text = fetch(gateway.admin + "/metrics")
        assert status == 200, status
        kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
        self.gauges, self.counters = {}, {}
        for series, value in re.findall(r"^([^#\s].*) (\S+)$", text, re.MULTILINE):
            name = series.split("{")[0]
            family = name if name in kinds else re.sub(r"_(bucket|sum|count)$", "", name)
            (self.gauges if kinds[family] == "gauge" else self.counters)[series] = float(value)

    def total(self, family):
        return sum(value for series, value in self.counters.items() if series.split("{")[0] == family)

    def gauges_of_clients(self):
        """All that must be as before when nobody is there any more."""
        return {series: value for series, value in self.gauges.items() if not series.startswith("process_")}


class Watch(threading.Thread):
    """Scrapes without a pause, and looks for what should never be seen."""

    def __init__(self, gateway):
        super().__init__(daemon=True)
        self.gateway, self.wrong, self.count = gateway, [], 0
        self.longest = 0.0
        self.is_over = threading.Event()

    def run(self):
        last = Scrape(self.gateway)
        while not self.is_over.wait(0.05):
            began = time.monotonic()
            scrape = Scrape(self.gateway)
            self.longest = max(self.longest, time.monotonic() - began)
            self.count += 1
            for series, before in last.counters.items():
                if not scrape.counters.get(series, -1) >= before:
                    self.wrong.append(f"{series} went from {before} to {scrape.counters.get(series)}")
            if len(scrape.counters) + len(scrape.gauges) > SERIES_MAX:
                self.wrong.append(f"{len(scrape.counters) + len(scrape.gauges)} series")
            self.wrong += [series for series in (*scrape.counters, *scrape.gauges) if "churn" in series]
            last = scrape

    def stop(self):
        self.is_over.set()
        self.join()


class ManyClients(unittest.TestCase):
    def setUp(self):
        self.gateway = self.enterContext(Gateway())

    def churn(self, numbers, cycles):
        """So many cycles, by workers of these numbers."""
        command = [sys.executable, Path(__file__).with_name("churn.py"), self.gateway.host, str(self.gateway.port), SEED]
        workers = [subprocess.Popen([*command, str(number), str(cycles // len(numbers))]) for number in numbers]
        self.assertEqual([worker.wait() for worker in workers], [0] * len(workers), f"FANFARE_SEED={SEED}")

    def at_rest(self):
        """The gauges when it has started and nobody has come: the same twice, some of its own reports apart."""
        def twice():
            first = Scrape(self.gateway).gauges_of_clients()
            time.sleep(0.3)
            second = Scrape(self.gateway).gauges_of_clients()
            return second["fanfare_ready"] == 1 and first == second and second

        return poll("it is ready, and nothing changes", twice)

    def assert_as_before(self, before):
        def changed():
            now = Scrape(self.gateway)
            return {series: value for series, value in now.gauges_of_clients().items() if before.get(series) != value}

        try:
            poll("every gauge is back", lambda: not changed())
        except AssertionError:
            self.fail(f"{changed()}, FANFARE_SEED={SEED}")

    def test_nothing_is_left_of_a_hundred_thousand_clients(self):
        before = self.at_rest()
        self.churn(range(WORKERS), FIRST)
        self.assert_as_before(before)
        first = Scrape(self.gateway)
        watch = Watch(self.gateway)
        watch.start()
        self.churn(range(WORKERS, 2 * WORKERS), ALL - FIRST)
        self.assert_as_before(before)
        watch.stop()
        self.assertEqual(watch.wrong[:10], [])
        self.assertGreater(watch.count, 10)
        self.assertLess(watch.longest, SCRAPE_SECONDS_MAX)
        after = Scrape(self.gateway)
        opened = after.total("fanfare_connections_opened_total")
        self.assertEqual(after.total("fanfare_accepted_connections_total"), ALL)
        self.assertEqual(opened, after.total("fanfare_connections_closed_total"))
        self.assertEqual(ALL - opened, after.total("fanfare_handshake_failures_total"))
        self.assertGreater(opened, ALL * 0.8)
        self.assertEqual(after.gauges["process_open_fds"], first.gauges["process_open_fds"])
        resident = [scrape.gauges["process_resident_memory_bytes"] for scrape in (first, after)]
        self.assertLess(resident[1], resident[0] + KEPT_BYTES_MAX)


if __name__ == "__main__":
    unittest.main()
