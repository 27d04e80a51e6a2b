"""Runs Debian's Prometheus against gateways, with the rules of `grafana/` on a faster clock."""

import json
import re
import shutil
import subprocess
import tempfile
import urllib.parse
from pathlib import Path

from support import DEADLINE, ROOT, clean_environment, fetch, poll

RULES = ROOT / "grafana" / "prometheus"
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def faster(rules, factor):
    """The rules with every duration divided, so that what takes minutes in production takes seconds here."""

    def divided(match):
        seconds = float(match[1]) * SECONDS[match[2]] / factor
        return f"{max(1, round(seconds * 1000))}ms"

    # Nothing else in the rules, prose included, is a number with such a unit.
    return re.sub(r"\b(\d+)([smhd])\b", divided, rules)


class Prometheus:
    """A running Prometheus; each target is scraped as the instance of this name."""

    def __init__(self, targets, factor=20):
        self.directory = Path(tempfile.mkdtemp(prefix="fanfare-prometheus-"))
        interval = f"{round(15_000 / factor)}ms"
        rule_files = []
        for name in ("recording.yml", "alerts.yml"):
            path = self.directory / name
            path.write_text(faster((RULES / name).read_text(), factor))
            rule_files.append(str(path))
        scrape = {
            "fanfare": {"metrics_path": "/metrics"},
            "fanfare-rooms": {
                "metrics_path": "/metrics/rooms",
                "metric_relabel_configs": [{"target_label": "job", "replacement": "fanfare"}],
            },
        }
        config = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": rule_files,
            "scrape_configs": [
                {
                    "job_name": job,
                    **options,
                    "static_configs": [
                        {"targets": [admin.removeprefix("http://")], "labels": {"instance": name}}
                        for name, admin in targets.items()
                    ],
                }
                for job, options in scrape.items()
            ],
        }
        # JSON is YAML.
        (self.directory / "prometheus.yml").write_text(json.dumps(config))
        self.base = None
        self.log = self.directory / "log"
        with self.log.open("w") as log:
            self.process = self._start(log)

    def _start(self, log):
        return subprocess.Popen(
            [
                "prometheus",
                f"--config.file={self.directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={self.directory / 'data'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self):
        try:
            poll("Prometheus is ready", self._is_ready)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def _is_ready(self):
        log = self.log.read_text()
        assert self.process.poll() is None, f"Prometheus ended: {log}"
        bound = re.search(r'msg="Listening on" address=(\S+)', log)
        if not bound:
            return False
        self.base = f"http://{bound[1]}"
        try:
            return fetch(self.base + "/-/ready")[0] == 200
        except OSError:
            return False

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _get(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        status, body = fetch(f"{self.base}/api/v1/{path}?{query}")
        answer = json.loads(body)
        assert status == 200 and answer["status"] == "success", (path, parameters, body)
        return answer["data"]

    def query(self, expression):
        """The samples of an instant query: labels and value."""
        data = self._get("query", query=expression)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(sample["metric"], float(sample["value"][1])) for sample in data["result"]]

    def firing(self, instance):
        """The names of the alerts that fire for an instance."""
        alerts = self._get("alerts")["alerts"]
        return {
            alert["labels"]["alertname"]
            for alert in alerts
            if alert["state"] == "firing" and alert["labels"].get("instance") == instance
        }

    def rules(self):
        """All rules that were evaluated: name, kind, expression, health."""
        groups = self._get("rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]
