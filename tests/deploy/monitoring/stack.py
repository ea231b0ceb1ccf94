"""A real Prometheus and Alertmanager with our configuration, and a receiver of their messages.

Only times, ports and places are rewritten, never an expression.
"""

import contextlib
import http.server
import json
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.processes import free_port
from tests.deploy.monitoring.rules import MONITORING, RULE_FILES, read
from tests.support.waiting import wait_until

PROGRAMS = ("prometheus", "prometheus-alertmanager")
needs_programs = pytest.mark.skipif(
    any(shutil.which(name) is None for name in PROGRAMS),
    reason=f"{' and '.join(PROGRAMS)} are not installed",
)
HELD_S = 3  # in place of every `for`


class Stack:
    """Answers about alerts; `messages` are what Alertmanager has sent, oldest first."""

    def __init__(self, folder: Path, prometheus: int, receiver: "_Receiver"):
        self.folder, self.url = folder, f"http://127.0.0.1:{prometheus}"
        self._receiver = receiver

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression yields now."""
        words = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{words}", timeout=60) as answer:
            return json.load(answer)["data"]["result"]

    def is_firing(self, alert: str) -> bool:
        return bool(self.query(f'ALERTS{{alertname="{alert}", alertstate="firing"}}'))

    def wait_for(self, alert: str, status: str, timeout_s: float = 300.0) -> float:
        """Waits until Alertmanager's newest message about an alert has this status; seconds."""
        began_s = time.monotonic()
        wait_until(lambda: self._receiver.status_of(alert) == status, timeout_s)
        return round(time.monotonic() - began_s, 1)

    def wait_until_firing(self, alert: str, timeout_s: float = 300.0) -> float:
        """Waits until an alert fires in Prometheus, also if Alertmanager suppresses it."""
        began_s = time.monotonic()
        wait_until(lambda: self.is_firing(alert), timeout_s)
        return round(time.monotonic() - began_s, 1)


@contextlib.contextmanager
def running_stack(
    folder: Path, ports: dict[str, list[int]], targets: str = "", interval_s: int = 1
) -> Iterator[Stack]:
    """Runs both programs; `ports` are those of each job, `targets` the files of trainings."""
    prometheus, alertmanager = free_port(), free_port()
    folder.mkdir(exist_ok=True)
    with _receiving() as receiver:
        (folder / "rules").mkdir()
        for file in RULE_FILES:
            (folder / "rules" / file.name).write_text(hastened(file.read_text()))
        configured = _prometheus_config(
            ports | {"alertmanager": [alertmanager]}, targets, f"{interval_s}s"
        )
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(configured))
        routing = alertmanager_config(receiver.port)
        (folder / "alertmanager.yaml").write_text(yaml.safe_dump(routing))
        with (
            running_program(
                folder,
                "prometheus-alertmanager",
                f"--config.file={folder}/alertmanager.yaml",
                f"--storage.path={folder}/alertmanager",
                f"--web.listen-address=127.0.0.1:{alertmanager}",
                "--cluster.listen-address=",
            ),
            running_program(
                folder,
                "prometheus",
                f"--config.file={folder}/prometheus.yaml",
                f"--storage.tsdb.path={folder}/prometheus",
                f"--web.listen-address=127.0.0.1:{prometheus}",
            ),
        ):
            stack = Stack(folder, prometheus, receiver)
            wait_until(lambda: is_ready(f"{stack.url}/-/ready"))
            wait_until(lambda: is_ready(f"http://127.0.0.1:{alertmanager}/-/ready"))
            yield stack


def hastened(rules: str) -> str:
    """Alerts fire after `HELD_S`, and look back for seconds in place of minutes."""
    shorter = re.sub(r"(?m)^( +for:) .*$", rf"\1 {HELD_S}s", rules)
    window = re.compile(r"(\[|offset )(\d+)m\b")
    return window.sub(lambda found: f"{found[1]}{max(8, int(found[2]))}s", shorter)


def _prometheus_config(ports: dict[str, list[int]], targets: str, interval: str) -> dict[str, Any]:
    config = read(MONITORING / "prometheus-host.yaml")
    config["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout"), interval)
    config["global"]["evaluation_interval"] = "1s"
    for job in config["scrape_configs"]:
        name = job["job_name"]
        for kind in ("static_configs", "file_sd_configs"):
            job.pop(kind, None)
        if name == "rlcar-training" and targets:
            job["file_sd_configs"] = [{"files": [targets], "refresh_interval": "1s"}]
        else:
            hosts = [f"127.0.0.1:{port}" for port in ports.get(name, [])]
            job["static_configs"] = [{"targets": hosts}]
    known = {job["job_name"] for job in config["scrape_configs"]}
    config["scrape_configs"] += [
        {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in found]}]}
        for name, found in ports.items()
        if name not in known
    ]
    hosts = [f"127.0.0.1:{port}" for port in ports["alertmanager"]]
    config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": hosts}]}]
    return config


def alertmanager_config(port: int) -> dict[str, Any]:
    config = read(MONITORING / "alertmanager.yaml")
    del config["global"]
    url = f"http://127.0.0.1:{port}/"
    for receiver in config["receivers"]:
        receiver.pop("email_configs", None)
        receiver["webhook_configs"] = [{"url": url, "send_resolved": True}]
    for route in (config["route"], *config["route"]["routes"]):
        route |= {"group_wait": "1s", "group_interval": "1s"}
    return config


def is_ready(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10):
        return True
    return False


@contextlib.contextmanager
def running_program(folder: Path, name: str, *options: str) -> Iterator[None]:
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen([name, *options], stdout=log, stderr=log, cwd=folder)
        try:
            yield
        finally:
            process.kill()
            process.wait()


class _Receiver(http.server.ThreadingHTTPServer):
    """Keeps the newest status of each alert that Alertmanager reports."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = self.server_address[1]
        self.messages: list[dict[str, Any]] = []

    def status_of(self, alert: str) -> str | None:
        found = [one for one in self.messages if one["labels"]["alertname"] == alert]
        return found[-1]["status"] if found else None


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Receiver

    def do_POST(self) -> None:  # noqa: N802  the name that http.server calls
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.messages += json.loads(body)["alerts"]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *parts: object) -> None:
        pass


@contextlib.contextmanager
def _receiving() -> Iterator[_Receiver]:
    receiver = _Receiver()
    thread = threading.Thread(target=receiver.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.shutdown()
        receiver.server_close()
