"""Every query of the dashboards answers something after a scrape of real processes."""

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import yaml

from benchmarks.processes import free_port
from cluster.config import make_cluster_config
from cluster.training.loop import train
from rlcar.config import make_config
from tests.deploy.monitoring.queries import expressions, with_variables, without_default
from tests.deploy.monitoring.stack import Stack, needs_programs, running_stack
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.ray, needs_programs]

RLCAR = Path(sys.executable).with_name("rlcar")
PLAIN = ("--mode", "test", "--algorithm", "documented")
SHORT = ("--set", "training.env_steps=1024")


class Processes:
    """Programs that run beside the test, with their logs."""

    def __init__(self, folder: Path, ends: contextlib.ExitStack):
        self._folder, self._ends = folder, ends

    def start(self, name: str, *words: str, **environment: str) -> None:
        log = self._ends.enter_context((self._folder / f"{name}.log").open("w"))
        process = subprocess.Popen(
            [RLCAR, *words], stdout=log, stderr=log, cwd=self._folder, env=os.environ | environment
        )
        self._ends.callback(process.wait, timeout=120)
        self._ends.callback(process.terminate)

    def run(self, *words: str) -> None:
        done = subprocess.run([RLCAR, *words], cwd=self._folder, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()[-2000:]


def campaign_file(folder: Path) -> str:
    settings = {"training.env_steps": 1_000_000_000, "training.checkpoint_every_s": 2}
    job = {"name": "queued", "algorithm": "sac", "mode": "test", "local": True}
    campaign = {"slots": 1, "jobs": [job | {"set": settings}]}
    (folder / "night.yaml").write_text(yaml.safe_dump(campaign))
    return "night.yaml"


class EndOfTestError(Exception):
    """Ends the training on Ray from inside."""


@contextlib.contextmanager
def training_on_ray(folder: Path, port: int) -> Iterator[None]:
    """Trains on a Ray whose node exports its metrics at `port`."""
    over = threading.Event()
    config = make_config(
        mode="test",
        algorithm="documented",
        overrides=[
            *("training.env_steps=1000000000", "training.evaluate_every_env_steps=2048"),
            "training.checkpoint_every_s=2",
        ],
    )

    def end_when_over(figures: dict[str, float]) -> None:
        if over.is_set():
            raise EndOfTestError

    def run() -> None:
        with contextlib.suppress(EndOfTestError):
            train(config, make_cluster_config(simulators=1), folder, None, end_when_over)

    ray.init(
        address="local",
        num_cpus=4,  # more than there may be: every process here works little
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        _metrics_export_port=port,
    )
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(300)
        ray.shutdown()


def test_every_query_of_the_dashboards_answers_something(tmp_path):
    ports = {name: free_port() for name in ("runs", "campaign", "server", "page", "ray")}
    with contextlib.ExitStack() as ends:
        processes = Processes(tmp_path, ends)
        processes.run("train", "--local", *PLAIN, "--name", "first", "--publish", *SHORT)
        processes.run("models", "promote", "1")
        processes.run("backup", str(tmp_path / "target"))
        processes.start("server", "serve", "--lane", "realtime", "--port", str(ports["server"]))
        processes.start("page", "watch", "runs/first", "--port", str(ports["page"]))
        processes.start("monitor", "monitor", "--metrics-port", str(ports["runs"]))
        # Its job reports what only some algorithms do, and pushes its checkpoints to a storage.
        processes.start(
            *("campaign", "campaign", "run", campaign_file(tmp_path)),
            *("--runs", "campaign", "--metrics-port", str(ports["campaign"])),
            RLCAR_STORAGE=str(tmp_path / "storage"),
        )
        ends.enter_context(training_on_ray(tmp_path / "runs" / "on-ray", ports["ray"]))
        scraped = {
            "rlcar-runs": [ports["runs"], ports["campaign"]],
            "rlcar-server": [ports["server"]],
            "rlcar-page": [ports["page"]],
            "ray": [ports["ray"]],
        }
        stack = ends.enter_context(running_stack(tmp_path / "stack", scraped, interval_s=10))
        wait_until(lambda: stack.query('rlcar_model_version{job="rlcar-server"}'), 300)
        processes.run("drive", f"http://127.0.0.1:{ports['server']}", "--tracks", "circuits")
        left = unanswered(stack)
    note(dashboard_queries=len(expressions()), dashboard_queries_empty=len(left))
    assert left == {}


def unanswered(stack: Stack) -> dict[str, str]:
    """The queries that have answered nothing within five minutes, and where they stand."""
    left = expressions()
    end_s = time.monotonic() + 300
    while left and time.monotonic() < end_s:
        left = {
            expression: place
            for expression, place in left.items()
            if not stack.query(with_variables(without_default(expression), "5m"))
        }
        time.sleep(2)
    return left


def note(**figures: float) -> None:
    """Adds figures to the file that RLCAR_FIGURES names, if it does."""
    path = os.environ.get("RLCAR_FIGURES")
    if path:
        known = json.loads(Path(path).read_text()) if Path(path).exists() else {}
        Path(path).write_text(json.dumps(known | figures, indent=2) + "\n")
