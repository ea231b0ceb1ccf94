"""The Ray Serve lane in a process of its own, with a real HAProxy and replicas."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.processes import free_port
from serve.lanes.ray_serve import ENVIRONMENT
from tests.support.ray_start import in_turn

ROOT = Path(__file__).parents[2]


class RayServer:
    """The program, its address, and the line that makes it redeploy."""

    def __init__(self, folder: Path, port: int, replicas: int, environment: dict[str, str]):
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.serve.ray_server", str(folder), str(port), str(replicas)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.wait_ready()

    def wait_ready(self) -> None:
        """Waits until the program has deployed."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        while line and line != "ready\n":
            line = self._process.stdout.readline()
        assert line, f"the server ended with {self._process.wait()}"

    def redeploy(self) -> None:
        """Replaces every replica."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.wait_ready()

    def stop(self) -> None:
        """Ends the program."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


@contextlib.contextmanager
def ray_server(folder: Path, home: Path, replicas: int = 1) -> Iterator[RayServer]:
    """Serves a registry until the block ends; `home` is the home folder of the processes."""
    # Unix sockets allow 107 bytes of path: pytest's own folders have longer paths.
    with tempfile.TemporaryDirectory(prefix="rl", dir="/tmp", ignore_cleanup_errors=True) as ray:
        environment = os.environ | {
            "RAY_AUTH_MODE": "disabled",
            "RAY_TMPDIR": ray,
            "HOME": str(home),
            "JAX_PLATFORMS": "cpu",
            # As in serve/lanes/ray_serve.py, with shorter timeouts.
            "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": ENVIRONMENT[
                "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM"
            ].replace("10s", "1s"),
        }
        with in_turn():
            server = RayServer(folder, free_port(), replicas, environment)
        try:
            yield server
        finally:
            server.stop()
