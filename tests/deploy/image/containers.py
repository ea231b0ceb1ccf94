"""Containers for the tests of the image: hardened as in production, and removed afterwards."""

import functools
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
BUILD = ROOT / "deploy" / "image" / "build.py"
DATA = "/var/lib/rlcar"
# The mirror of an installation without a registry; deploy/image/debian-base makes it.
LOCAL_BASE = "localhost/debian:bookworm-slim"

# What Kubernetes' Pod Security `restricted` demands, and what Ray needs: shared memory and open
# files. The limits stand here because a machine may forbid the engine to raise them.
HARDENED = (
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--tmpfs=/tmp:mode=1777",
    "--shm-size=2g",
    "--ulimit=nofile=16384:16384",
    "--ulimit=nproc=4096:4096",
)
ANY_USER = "12345:0"  # a number without an entry in /etc/passwd, as OpenShift gives


def _call(command: Sequence[str], timeout_s: float = 1800) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


@functools.cache
def engine() -> str | None:
    """Returns the engine that runs containers here; None without one."""
    for name in ("podman", "docker"):
        if shutil.which(name) and _call([name, "info"]).returncode == 0:
            return name
    return None


def _engine() -> str:
    return engine() or "podman"


def podman(*arguments: str | Path, timeout_s: float = 1800) -> str:
    """Runs a command of the engine; returns its stdout, and fails with its output."""
    done = _call([_engine(), *map(str, arguments)], timeout_s)
    assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def inspect(name: str) -> dict[str, Any]:
    """Returns what the engine knows of a container."""
    return json.loads(podman("container", "inspect", name))[0]


def has_image(tag: str) -> bool:
    return _call([_engine(), "image", "inspect", tag]).returncode == 0


def base_image() -> str:
    """Returns the base to build from: RLCAR_BASE_IMAGE, a local one, or one made of packages."""
    given = os.environ.get("RLCAR_BASE_IMAGE")
    if given:
        return given
    if not has_image(LOCAL_BASE):
        made = _call([str(ROOT / "deploy" / "image" / "debian-base"), LOCAL_BASE])
        assert made.returncode == 0, made.stderr
    return LOCAL_BASE


def build(tag: str, checkout: Path = ROOT) -> float:
    """Builds the image from a checkout; returns the seconds that it took."""
    command = ["python3", str(checkout / "deploy/image/build.py"), "--tag", tag]
    command += ["--base", base_image(), "--engine", _engine()]
    done = _call(command, 3600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    figures = [line.partition("image_build_s=")[2] for line in done.stdout.splitlines()]
    return float(next(filter(None, figures)))


def execute(name: str, *command: str) -> str:
    """Runs a command in a container; returns its stdout, whatever its exit code."""
    return _call([_engine(), "exec", name, *command]).stdout


class Volumes:
    """Folders of this machine for runs, models and data, which group 0 may write."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("runs", "models", "data"):
            (folder / name).mkdir(parents=True)
            shutil.chown(folder / name, group=0)
            (folder / name).chmod(0o2770)

    def options(self) -> list[str]:
        names = ("runs", "models", "data")
        return [f"--volume={self.folder / name}:{DATA}/{name}" for name in names]


def run(
    image: str,
    *arguments: str,
    options: Sequence[str] = (),
    user: str = ANY_USER,
    network: str = "none",
    timeout_s: float = 1800,
) -> subprocess.CompletedProcess[str]:
    """Runs a container to its end."""
    command = [_engine(), "run", "--rm", *_hardened(), f"--user={user}", f"--network={network}"]
    return _call([*command, *options, image, *arguments], timeout_s)


def _hardened() -> list[str]:
    # Podman would put file systems in memory over some folders of a read-only root.
    only = ["--read-only-tmpfs=false"] if engine() == "podman" else []
    return [*HARDENED, *only]


class Container:
    """A container in the background, as a context."""

    def __init__(
        self,
        image: str,
        *arguments: str,
        options: Sequence[str] = (),
        user: str = ANY_USER,
        network: str = "none",
    ):
        self.name = f"rlcar-test-{uuid.uuid4().hex[:8]}"
        self._command = ["run", "--detach", f"--name={self.name}", *_hardened()]
        self._command += [f"--user={user}", f"--network={network}", *options, image, *arguments]

    def __enter__(self) -> "Container":
        podman(*self._command)
        return self

    def __exit__(self, *exception: object) -> None:
        _call(
            [
                _engine(),
                "rm",
                "--force",
                "--time=0" if engine() == "podman" else "--force",
                self.name,
            ]
        )

    def execute(self, *command: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        return _call([_engine(), "exec", self.name, *command], timeout_s)

    def logs(self) -> str:
        done = _call([_engine(), "logs", self.name])
        return done.stdout + done.stderr

    def state(self) -> dict[str, Any]:
        return inspect(self.name)["State"]

    def is_running(self) -> bool:
        return self.state()["Status"] == "running"

    def health(self) -> str:
        """Runs the image's health check as the engine's timer does; returns the state so far."""
        if engine() == "podman":  # Its timers belong to systemd, which may be missing here.
            _call([_engine(), "healthcheck", "run", self.name])
        state = self.state()
        found = state.get("Health") or state.get("Healthcheck")
        assert isinstance(found, dict)
        return str(found["Status"])

    def stop(self, grace_s: int) -> int:
        """Sends SIGTERM, and SIGKILL after the grace period; returns the exit code."""
        podman("stop", f"--time={grace_s}", self.name)
        code = self.state()["ExitCode"]
        assert isinstance(code, int)
        return code
