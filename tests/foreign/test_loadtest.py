"""The load-test harness against the gateway: every preset ends well, and both accounts of the traffic agree."""

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

from support import BINARY, ROOT, Gateway

LOADTEST = os.environ.get("LOADTEST_BIN", str(Path(BINARY).with_name("fanfare-loadtest")))
SHORT = ("-d", "1s", "--warmup", "500ms")


def loadtest(*args):
    """Exit code, result and what was said on standard error."""
    done = subprocess.run([LOADTEST, "run", *args, "--json", "--quiet"], capture_output=True, text=True, timeout=120)
    return done.returncode, json.loads(done.stdout or "null"), done.stderr


class Presets(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway("--echo", LIMITS__OUTBOUND_BYTES="64KiB", LIMITS__MESSAGE_BYTES="16KiB")

    @classmethod
    def tearDownClass(cls):
        cls.gateway.stop()

    def run_preset(self, preset, *args, path="/ws"):
        url = self.gateway.url.removesuffix("/ws") + path
        flags = ("--preset", preset, "--metrics", self.gateway.admin + "/metrics", *SHORT)
        code, result, errors = loadtest(url, *flags, *args)
        why = json.dumps({key: result[key] for key in ("stopped", "faults", "audit")}) if result else errors
        self.assertEqual(code, 0, why)
        self.assertTrue(result["audit"]["ok"], why)
        self.assertGreaterEqual(len(result["audit"]["checks"]), 10)
        return result["figures"]

    def test_echo(self):
        figures = self.run_preset("echo", "-c", "50", path="/echo")
        self.assertGreater(figures["deliveries"], 50)

    def test_broadcast_in_a_closed_loop_and_in_an_open_one(self):
        closed = self.run_preset("broadcast", "-c", "50", "--window", "16")
        # Messages under way when the phase begins have been seen first before it.
        self.assertLessEqual(abs(closed["first_count"] - closed["last_count"]), 16)
        opened = self.run_preset("broadcast", "-c", "50", "-r", "200")
        self.assertGreater(opened["achieved_percent"], 99)

    def test_rooms_of_all_sizes_with_several_publishers_and_several_rooms_for_each_client(self):
        self.run_preset("rooms", "-c", "200", "--rooms", "20", "--publishers", "50%")
        self.run_preset("rooms", "-c", "100", "--rooms", "20", "--rooms-per-connection", "5", "--sizes", "uniform")

    def test_direct(self):
        figures = self.run_preset("direct", "-c", "50", "-r", "500")
        self.assertGreater(figures["deliveries"], 400)

    def test_idle_tells_the_memory_of_a_connection(self):
        figures = self.run_preset("idle", "-c", "1k", "--baseline", "100")
        self.assertLess(0, figures["server_bytes_per_connection"])
        self.assertLess(figures["server_bytes_per_connection"], 20_000)

    def test_churn(self):
        figures = self.run_preset("churn", "-c", "100", "--churn", "50")
        self.assertGreater(figures["connect_count"], 10)

    def test_slow_readers_are_closed_and_the_others_go_on(self):
        figures = self.run_preset("slow-reader", "-c", "50", "--window", "64", "--payload", "2k")
        self.assertEqual(figures["closed_4008"], 5)
        self.assertIn("kept_percent", figures)

    def test_a_reconnect_storm(self):
        figures = self.run_preset("reconnect-storm", "-c", "200", "--cut", "100")
        self.assertGreater(figures["back_seconds"], 0)

    def test_presence(self):
        figures = self.run_preset("presence", "-c", "50", "-r", "100")
        self.assertGreater(figures["join_count"], 10)

    def test_the_batching_subprotocol_is_driven_as_well(self):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "ndjson.toml")
            path.write_text(
                "name = 'ndjson'\ndelimiter = \"\\n\"\ntyped = true\n"
                "join = '{\"type\":\"join\",\"room_id\":\"{room}\",\"id\":1}'\njoined = '\"id\":1,'\n"
                "publish = '{\"type\":\"message\",\"room_id\":\"{room}\",\"content\":\"{message}\"}'\n"
            )
            flags = ("--dialect", str(path), "--subprotocol", "fanfare.v1.ndjson")
            self.run_preset("broadcast", "-c", "20", "--window", "64", *flags)


class Disagreement(unittest.TestCase):
    def test_traffic_that_is_not_the_harness_s_own_is_found(self):
        with Gateway() as gateway, Gateway() as other:
            flags = ("--preset", "broadcast", "-c", "10", *SHORT)
            code, result, _ = loadtest(gateway.url, *flags, "--metrics", other.admin + "/metrics")
            self.assertEqual(code, 1)
            self.assertFalse(result["audit"]["ok"])
            self.assertIn("messages sent: message", [check["what"] for check in result["audit"]["checks"] if not check["ok"]])


class Tokens(unittest.TestCase):
    def test_each_client_has_a_token_of_its_own(self):
        secret = "a secret for tests only, at least thirty-two bytes"
        with Gateway("--auth", "jwt", AUTH__SECRET=secret) as gateway:
            flags = ("--preset", "direct", "-c", "20", "-r", "100", *SHORT)
            code, result, errors = loadtest(gateway.url, *flags, "--jwt-secret", secret)
            self.assertEqual(code, 0, errors or result)
            self.assertNotIn(secret, json.dumps(result))
            code, result, _ = loadtest(gateway.url, *flags)
            self.assertEqual(code, 1)
            self.assertIn("401", json.dumps(result))


class Peers(unittest.TestCase):
    def test_one_table_compares_other_servers_on_the_same_work(self):
        with tempfile.TemporaryDirectory() as directory:
            runs = Path(directory, "runs.json")
            command = [ROOT / "loadtest" / "peers" / "compare", "--no-build", "--binaries", Path(LOADTEST).parent]
            command += ["--rounds", "1", "--seconds", "1", "--cases", "one,echo", "--servers", "fanfare,rawloop,ws"]
            done = subprocess.run([*command, "--json", runs], capture_output=True, text=True, timeout=300)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            rows = [line for line in done.stdout.splitlines() if line.startswith(("1k x 1", "echo 1k"))]
            self.assertEqual(len(rows), 2, done.stdout)
            for row in rows:
                # A figure of ours, and of each other one with its ratio: none is missing.
                self.assertEqual(row.count("("), 2, row)
            self.assertTrue(json.loads(runs.read_text()))


if __name__ == "__main__":
    unittest.main()
