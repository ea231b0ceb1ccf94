"""The services of the compose file that need no foreign image, started by Compose itself."""

import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from benchmarks.processes import free_port
from tests.deploy.image import containers
from tests.deploy.image.containers import ROOT
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.image, pytest.mark.timeout(3600)]

PROJECT = "rlcar-compose-test"
UV = ROOT / ".venv" / "tools" / "bin" / "uv"
OURS = ("trainer", "monitor", "page", "server")
TRAINING_S = 900  # on a busy machine
# A machine may forbid the engine to raise limits; these are low enough.
LIMITS = {"nofile": {"soft": 16384, "hard": 16384}, "nproc": {"soft": 4096, "hard": 4096}}


def _compose() -> list[str]:
    """Returns the command of Compose: that of Docker, or podman-compose, which uv brings."""
    if containers.engine() == "docker":
        return ["docker", "compose"]
    if not UV.exists() and shutil.which("uv") is None:
        pytest.skip("not installed: uv, which brings podman-compose")
    uv = str(UV) if UV.exists() else "uv"
    return [uv, "tool", "run", "--quiet", "--from", "podman-compose==1.6.0", "podman-compose"]


class Project:
    """The compose file with free ports, as commands."""

    def __init__(self, folder: Path, image: str):
        self.ports = {port: free_port() for port in (8000, 8001)}
        text = (ROOT / "deploy" / "compose.yaml").read_text()
        for inside, outside in self.ports.items():
            text = text.replace(f"127.0.0.1:{inside}:{inside}", f"127.0.0.1:{outside}:{inside}")
        (folder / "compose.yaml").write_text(text)
        services = {name: {"ulimits": LIMITS} for name in OURS}
        (folder / "limits.yaml").write_text(yaml.safe_dump({"services": services}))
        files = ["--file", str(folder / "compose.yaml"), "--file", str(folder / "limits.yaml")]
        self._command = [*_compose(), "--project-name", PROJECT, *files]
        self._environment = {"RLCAR_IMAGE": image, "RLCAR_TRAIN_OPTIONS": "--mode=test"}

    def __call__(self, *arguments: str) -> None:
        done = subprocess.run(
            [*self._command, *arguments],
            env={**os.environ, **self._environment},
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def project(image: str, tmp_path: Path) -> Iterator[Project]:
    compose = Project(tmp_path, image)
    try:
        yield compose
    finally:
        compose("down", "--volumes")


def _name(service: str) -> str:
    separator = "_" if containers.engine() == "podman" else "-"
    return f"{PROJECT}{separator}{service}{separator}1"


def _state(service: str) -> dict:
    return containers.inspect(_name(service))


def _metrics(service: str, port: int) -> str:
    """Returns what Prometheus, which is on the same network, reads there."""
    command = ["wget", "-q", "-T", "5", "-O", "-", f"http://{service}:{port}/metrics"]
    return containers.execute(_name("page"), *command)


def _status(port: int, path: str) -> int | None:
    """Returns the status of an answer; None without one."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def _answers(port: int, path: str) -> bool:
    return _status(port, path) == 200


def test_it_trains_shows_the_run_and_serves_the_result(project):
    project("up", "--detach", "--no-build", *OURS)
    trainer = _state("trainer")
    limits = trainer["HostConfig"]
    assert limits["ReadonlyRootfs"] is True
    assert limits["Memory"] == 6 * 1024**3
    assert limits["PidsLimit"] == 4096
    assert limits["ShmSize"] == 2 * 1024**3
    assert "no-new-privileges" in str(limits["SecurityOpt"])
    assert set(trainer["NetworkSettings"]["Networks"]) == {f"{PROJECT}_inside"}
    # The server is up before there is a model, so that no alert says that it is down.
    wait_until(lambda: _status(project.ports[8000], "/health/ready") == 503, TRAINING_S)
    wait_until(lambda: "rlcar_model_awaited 1.0" in _metrics("server", 8000), TRAINING_S)
    assert _state("trainer")["State"]["Status"] == "running"
    began = _state("server")["State"]["StartedAt"]
    wait_until(lambda: _answers(project.ports[8001], "/health"), TRAINING_S)
    wait_until(lambda: "rlcar_" in _metrics("trainer", 9464), TRAINING_S)
    wait_until(lambda: 'run="main"' in _metrics("monitor", 9465), TRAINING_S)
    wait_until(lambda: _state("trainer")["State"]["Status"] == "exited", TRAINING_S)
    assert _state("trainer")["State"]["ExitCode"] == 0
    wait_until(lambda: _answers(project.ports[8000], "/health/ready"), 60)
    assert _state("server")["State"]["StartedAt"] == began
    done = subprocess.run(
        [str(ROOT / ".venv/bin/rlcar"), "drive", f"http://127.0.0.1:{project.ports[8000]}",
         "--timeout-ms", "5000"], capture_output=True, text=True, timeout=600, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "figure fallbacks=0" in done.stdout + done.stderr
