"""The program `rlcar` with the rights of the submitter, from submission to the end of a job."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.kubernetes.kubectl import Namespace
from tests.support.kubernetes.link import Link

pytestmark = pytest.mark.kubernetes
Json = dict[str, Any]
OUTAGE_S = 60.0


class Printer:
    """Lets a simulated pod print a numbered line every tenth of a second."""

    def __init__(self, space: Namespace, pod: str):
        folder = Path(os.environ["RLCAR_KUBERNETES_LOGS"], space.name, pod)
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self.count = folder / "ray-job-submitter.log", 0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Printer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ends.wait(0.1):
            ns = time.time_ns()
            whole = datetime.fromtimestamp(ns // 10**9, UTC)
            with self._path.open("a") as stream:
                stream.write(f"{whole:%Y-%m-%dT%H:%M:%S}.{ns % 10**9:09}Z line {self.count}\n")
            self.count += 1


@pytest.fixture
def simulated() -> None:
    """Skips where pods really run, because the test writes what they print."""
    if not os.environ.get("RLCAR_KUBERNETES_LOGS"):
        pytest.skip("needs simulated pods, whose logs lie in RLCAR_KUBERNETES_LOGS")


@pytest.fixture
def submitter(platform: Namespace, tmp_path: Path) -> Path:
    """A kubeconfig with a token of the ServiceAccount rlcar-submitter."""
    raw = platform.kubectl("config", "view", "--raw", "--minify", "--flatten", "--output", "json")
    config = json.loads(raw.stdout)
    token = platform.kubectl("create", "token", "rlcar-submitter").stdout.strip()
    config["users"] = [{"name": "submitter", "user": {"token": token}}]
    config["contexts"][0]["context"] |= {"user": "submitter", "namespace": platform.name}
    path = tmp_path / "kubeconfig.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def link(submitter: Path) -> Iterator[Link]:
    """A connection to the API server that a test can cut, in place of the one in the kubeconfig."""
    config = yaml.safe_load(submitter.read_text())
    link = Link(config["clusters"][0]["cluster"]["server"])
    config["clusters"][0]["cluster"]["server"] = link.url
    submitter.write_text(yaml.safe_dump(config))
    yield link
    link.close()


def start(kubeconfig: Path, output: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Starts the program; its output goes to a file, its messages to another."""
    with output.open("wb") as out, output.with_suffix(".messages").open("wb") as messages:
        return subprocess.Popen(
            [sys.executable, "-m", "rlcar.cli", *arguments, "--kubeconfig", str(kubeconfig)],
            stdout=out,
            stderr=messages,
        )


def run(kubeconfig: Path, *arguments: str) -> str:
    """Runs the program to its end; returns its output."""
    done = subprocess.run(
        [sys.executable, "-m", "rlcar.cli", *arguments, "--kubeconfig", str(kubeconfig)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def submit(kubeconfig: Path, output: Path, name: str, *options: str) -> subprocess.Popen[bytes]:
    """Submits a training and follows it."""
    command = ("--", "train", "--mode", "test")
    words = ("submit", "--kubernetes", "--kubeconfig", str(kubeconfig), "--name", name, *options)
    with output.open("wb") as out, output.with_suffix(".messages").open("wb") as messages:
        return subprocess.Popen(
            [sys.executable, "-m", "rlcar.cli", *words, *command], stdout=out, stderr=messages
        )


def submitter_pod(space: Namespace, name: str) -> str:
    """Waits for the running pod that submits a job."""

    def running() -> str:
        for pod in space.list_all("pods", f"batch.kubernetes.io/job-name={name}"):
            if pod["status"]["phase"] == "Running":
                return str(pod["metadata"]["name"])
        return ""

    return str(space.wait(f"the submitter of {name}", running))


def end(space: Namespace, pod: str) -> None:
    """Lets a simulated pod succeed."""
    space.kubectl("annotate", "pod", pod, "kubelet.test/phase=Succeeded")


def lines_of(output: Path) -> list[int]:
    """Returns the numbers of the pod's lines in the order in which they were shown."""
    return [int(number) for number in re.findall(r"^line (\d+)$", output.read_text(), re.M)]


def test_an_outage_of_a_minute_costs_no_line_and_repeats_none(
    simulated: None, platform: Namespace, submitter: Path, link: Link, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    program = submit(submitter, output, "outage")
    try:
        pod = submitter_pod(platform, "outage")
        with Printer(platform, pod) as printer:
            platform.wait("the first lines", lambda: len(lines_of(output)) > 20)
            link.cut()
            shown = len(lines_of(output))
            time.sleep(OUTAGE_S)
            assert len(lines_of(output)) <= shown + 5  # what was in transit
            assert program.poll() is None
            link.restore()
            platform.wait("the lines of the outage", lambda: len(lines_of(output)) > shown + 600)
        end(platform, pod)
        assert program.wait(120) == 0
    finally:
        program.kill()
    assert lines_of(output) == list(range(printer.count))
    messages = output.with_suffix(".messages").read_text()
    assert messages.count("connection lost, the job goes on") == 1
    assert "connected again after" in messages


def test_control_c_detaches_and_the_job_goes_on(
    simulated: None, platform: Namespace, submitter: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    program = submit(submitter, output, "detached")
    try:
        pod = submitter_pod(platform, "detached")
        with Printer(platform, pod):
            platform.wait("the first lines", lambda: len(lines_of(output)) > 5)
            program.send_signal(signal.SIGINT)
            program.wait(60)
            messages = output.with_suffix(".messages").read_text()
            assert "Traceback" not in messages
            assert "rlcar jobs logs detached --kubernetes" in messages
            assert platform.get("rayjob", "detached")["status"]["jobDeploymentStatus"] == "Running"
            # Whoever follows it again sees all lines from the first.
            again = tmp_path / "again"
            follower = start(submitter, again, "jobs", "logs", "detached", "--kubernetes")
            platform.wait("the lines again", lambda: len(lines_of(again)) > 10)
            assert lines_of(again)[:10] == list(range(10))
        end(platform, pod)
        assert follower.wait(120) == 0
    finally:
        program.kill()


def test_a_job_is_listed_scaled_stopped_and_gone(platform: Namespace, submitter: Path) -> None:
    words = ("--kubernetes", "--kubeconfig", str(submitter), "--name", "steps", "--detach")
    done = subprocess.run(
        [sys.executable, "-m", "rlcar.cli", "submit", *words]
        + ["--workers", "3", "--", "train", "--mode", "test"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    job = platform.get("rayjob", "steps")
    assert job["spec"]["entrypoint"].startswith("rlcar train --mode test --address auto")
    cluster = platform.wait(
        "the Ray cluster",
        lambda: platform.get("rayjob", "steps").get("status", {}).get("rayClusterName"),
    )
    labels = f"ray.io/cluster={cluster},ray.io/group=sim"
    platform.wait("three workers", lambda: len(platform.list_all("pods", labels)) == 3)
    assert "steps" in run(submitter, "jobs", "list", "--kubernetes")
    for count in (5, 1):
        run(submitter, "jobs", "scale", "steps", "--kubernetes", "--workers", str(count))
        platform.wait(
            f"{count} workers",
            lambda count=count: len(platform.list_all("pods", labels)) == count,
        )
    run(submitter, "jobs", "stop", "steps", "--kubernetes")
    assert platform.list_all("rayjobs") == [] or "steps" not in {
        found["metadata"]["name"] for found in platform.list_all("rayjobs")
    }
    assert platform.list_all("pods", f"ray.io/cluster={cluster}") == []
