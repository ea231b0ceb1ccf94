"""Supervisor, the server, a training and nginx survive `kill -9` of each of them."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from benchmarks.processes import free_port
from rlcar.storage import checkpoint
from serve.client import DriveClient
from tests.support.installed_host import (
    NGINX,
    Host,
    children,
    install_host,
    is_running,
    nginx_command,
    wait_until_ready,
)
from tests.support.waiting import wait_until

BIN = Path(sys.executable).parent
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(NGINX is None, reason="nginx is missing: apt install nginx-light"),
    pytest.mark.skipif(not (BIN / "supervisord").exists(), reason="supervisor is missing"),
]
SEEN = [0.5, 0.6, 0.9, 0.5, 0.4, 0.2]
ENDLESS = (
    "--local --mode test --set training.env_steps=10000000 --set training.checkpoint_every_s=1 "
    "--set training.evaluate_every_env_steps=10000000"
)


class Supervisor:
    """A supervisord that runs what the install script has written, and nginx."""

    def __init__(self, host: Host):
        self.host = host
        self._configuration = host.root / "supervisord.conf"
        run = host.root / "run"
        command = " ".join(f"'{word}'" if " " in word else word for word in nginx_command(host))
        self._configuration.write_text(
            f"[supervisord]\nnodaemon=true\nlogfile={run}/supervisord.log\npidfile={run}/s.pid\n"
            f"childlogdir={run}\nuser={os.environ.get('USER', 'root')}\n"
            f"[unix_http_server]\nfile={run}/s.sock\nchmod=0700\n"
            "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = "
            "supervisor.rpcinterface:make_main_rpcinterface\n"
            f"[supervisorctl]\nserverurl=unix://{run}/s.sock\n"
            f"[program:nginx]\ncommand={command}\nautorestart=true\nstopsignal=QUIT\n"
            f"redirect_stderr=true\nstdout_logfile={run}/nginx.log\n"
            f"[include]\nfiles={host.root}/etc/supervisor/conf.d/*.conf\n"
        )
        self.process = subprocess.Popen([BIN / "supervisord", "-c", self._configuration])

    def control(self, *words: str) -> str:
        """Runs supervisorctl; returns what it prints."""
        done = subprocess.run(
            [BIN / "supervisorctl", "-c", self._configuration, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )
        return done.stdout + done.stderr

    def pid(self, program: str) -> int:
        """Returns the main process of a program; 0 if it does not run."""
        found = re.search(rf"^{program} +RUNNING +pid (\d+)", self.control("status"), re.MULTILINE)
        return int(found.group(1)) if found else 0

    def wait_for(self, program: str) -> int:
        """Waits until a program counts as started; returns its main process."""
        wait_until(lambda: self.pid(program), 240)
        return self.pid(program)

    def kill(self, program: str) -> float:
        """Kills the main process; returns the seconds until there is another one."""
        old = self.wait_for(program)
        os.kill(old, signal.SIGKILL)
        killed_s = time.monotonic()
        wait_until(lambda: self.pid(program) not in (0, old), 240)
        return time.monotonic() - killed_s


class Driver:
    """A car that asks through nginx all the time, and remembers when it was answered."""

    def __init__(self, host: Host):
        self._host = host
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._drive)
        self.answered_s = 0.0
        self._gap_s = 0.0
        self.sources: set[str] = set()

    def __enter__(self) -> "Driver":
        self._thread.start()
        self.wait()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_stopped.set()
        self._thread.join()

    def _drive(self) -> None:
        options = {"token": self._host.token, "timeout_ms": 1000.0}
        with DriveClient(self._host.url, websocket=True, **options) as car:
            while not self._is_stopped.wait(0.05):
                source = car.act(SEEN).source
                self.sources.add(source)
                if source == "model":
                    now_s = time.monotonic()
                    if self.answered_s:
                        self._gap_s = max(self._gap_s, now_s - self.answered_s)
                    self.answered_s = now_s

    def wait(self) -> float:
        """Waits for an answer that is newer than this call.

        Returns the longest time without an answer since the last call.
        """
        begin_s = time.monotonic()
        wait_until(lambda: self.answered_s > begin_s + 0.2, 240)
        gap_s, self._gap_s = self._gap_s, 0.0
        return gap_s


@pytest.fixture(scope="module")
def figures():
    """Collects what RLCAR_FIGURES names a file for."""
    found: dict[str, float] = {}
    yield found
    with contextlib.suppress(KeyError):
        Path(os.environ["RLCAR_FIGURES"]).write_text(json.dumps(found, indent=2) + "\n")


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory):
    host = install_host(tmp_path_factory.mktemp("host"), "--training", "first")
    host.set_options("train/first.env", "RLCAR_TRAIN_OPTIONS", ENDLESS)
    (host.root / "etc/rlcar/monitor.env").write_text(f"RLCAR_MONITOR_PORT={free_port()}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(host.certificate))
        running = Supervisor(host)
        try:
            wait_until_ready(host)
            yield running
        finally:
            running.process.terminate()
            running.process.wait(400)


def newest(host: Host) -> int:
    save = checkpoint.latest(host.data / "runs/first/checkpoints")
    return save.env_steps if save else 0


def log_of(host: Host, name: str) -> str:
    return (host.root / f"var/log/rlcar/{name}.log").read_text()


def haproxy_of(supervisor: Supervisor) -> int:
    found = [
        child
        for child in children(supervisor.wait_for("rlcar-serve"))
        if "haproxy" in Path(f"/proc/{child}/comm").read_text()
    ]
    assert len(found) == 1
    return found[0]


def kill_all(processes: list[int]) -> None:
    for process in processes:
        os.kill(process, signal.SIGKILL)


def test_a_killed_training_goes_on_from_its_newest_checkpoint(supervisor, figures):
    host = supervisor.host
    wait_until(lambda: newest(host) > 0, 400)
    for kill in range(2):
        size = len(log_of(host, "train-first"))
        before = newest(host)
        figures[f"training_restart_s_{kill}"] = round(supervisor.kill("rlcar-train-first"), 1)
        wait_until(lambda size=size: "continuing step-" in log_of(host, "train-first")[size:], 240)
        begun = re.search(r"continuing step-(\d+)", log_of(host, "train-first")[size:])
        assert int(begun.group(1)) >= before > 0
        wait_until(lambda begun=begun: newest(host) > int(begun.group(1)), 400)


def test_a_stopped_training_saves_and_is_not_started_again(supervisor, figures):
    host = supervisor.host
    supervisor.wait_for("rlcar-train-first")
    began_s = time.monotonic()
    said = supervisor.control("stop", "rlcar-train-first")
    figures["training_stop_s"] = round(time.monotonic() - began_s, 1)
    assert "stopped" in said
    log = log_of(host, "train-first")
    assert "stopped; continue with: rlcar train --resume" in log
    steps = newest(host)
    assert "Traceback" not in log
    time.sleep(3)
    assert "STOPPED" in supervisor.control("status", "rlcar-train-first")
    supervisor.control("start", "rlcar-train-first")
    wait_until(lambda: f"continuing step-{steps:09}" in log_of(host, "train-first"), 240)
    # SIGTERM by whoever else is not a failure either: the cloud's notice, for example.
    wait_until(lambda: newest(host) > steps, 400)
    os.kill(supervisor.wait_for("rlcar-train-first"), signal.SIGTERM)
    wait_until(lambda: "EXITED" in supervisor.control("status", "rlcar-train-first"), 240)
    time.sleep(3)
    assert "EXITED" in supervisor.control("status", "rlcar-train-first")
    assert "Traceback" not in log_of(host, "train-first")


def states(host: Host) -> str:
    """Returns what the monitor exports; nothing while it does not answer."""
    port = (host.root / "etc/rlcar/monitor.env").read_text().strip().partition("=")[2]
    try:
        return httpx.get(f"http://localhost:{port}/metrics", timeout=30).text
    except httpx.HTTPError:
        return ""


def test_a_killed_monitor_exports_the_states_of_runs_again(supervisor, figures):
    state = re.compile(r'^rlcar_run_state{run="first",state="\w+"} 1', re.MULTILINE)
    wait_until(lambda: state.search(states(supervisor.host)), 240)
    for kill in range(2):
        old = supervisor.wait_for("rlcar-monitor")
        os.kill(old, signal.SIGKILL)
        killed_s = time.monotonic()
        wait_until(lambda: state.search(states(supervisor.host)), 240)
        figures[f"monitor_killed_outage_s_{kill}"] = round(time.monotonic() - killed_s, 1)
        assert supervisor.wait_for("rlcar-monitor") != old
    began_s = time.monotonic()
    assert "stopped" in supervisor.control("stop", "rlcar-monitor")
    figures["monitor_stop_s"] = round(time.monotonic() - began_s, 1)
    assert "Traceback" not in log_of(supervisor.host, "monitor")
    assert states(supervisor.host) == ""
    supervisor.control("start", "rlcar-monitor")


def test_clients_are_answered_again_after_every_kill(supervisor, figures):
    host = supervisor.host
    with Driver(host) as car:
        kill_all([haproxy_of(supervisor)])
        figures["haproxy_killed_outage_s"] = round(car.wait(), 1)

        workers = children(supervisor.wait_for("nginx"))
        assert len(workers) == 2
        kill_all(workers)
        figures["nginx_workers_killed_outage_s"] = round(car.wait(), 1)

        old = haproxy_of(supervisor)
        supervisor.kill("rlcar-serve")
        figures["server_killed_outage_s"] = round(car.wait(), 1)
        assert not is_running(old)  # HAProxy does not outlive its server

        # The workers of a killed master keep its port until they end.
        master = supervisor.wait_for("nginx")
        kill_all([master, *children(master)])
        wait_until(lambda: supervisor.pid("nginx"), 120)
        figures["nginx_killed_outage_s"] = round(car.wait(), 1)
    assert "model" in car.sources
    wait_until_ready(host)
    assert "Traceback" not in log_of(host, "serve")


def test_the_server_is_stopped_in_order(supervisor):
    haproxy = haproxy_of(supervisor)
    assert "stopped" in supervisor.control("stop", "rlcar-serve")
    assert not is_running(haproxy)
    assert "Traceback" not in log_of(supervisor.host, "serve")
    assert "started" in supervisor.control("start", "rlcar-serve")
    wait_until_ready(supervisor.host)
