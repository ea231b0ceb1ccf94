"""Real versions with random weights, and real servers: in a thread, or as the program itself."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvicorn

from benchmarks.drawn_model import untrained_metadata
from rlcar.config import make_config
from rlcar.registry import Registry
from rlcar.registry.architecture import policy_shapes
from rlcar.sim import SPEC
from serve.lanes.realtime import uvicorn_config
from serve.settings import ServeSettings, make_settings
from tests.support.waiting import wait_until

SMALL = ("dreamer.world_model.recurrent_units=32", "dreamer.world_model.units=32")


def publish(folder: Path, seed: int = 0, alias: str | None = "champion") -> int:
    """Adds a version of the world-model agent, small, and lets the alias point at it."""
    config = make_config(mode="test", overrides=list(SMALL))
    rng = np.random.default_rng(seed)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) < 2:
            return (0.5 + rng.random(shape)).astype(np.float32)
        return (rng.normal(size=shape) * 1.5 / shape[-2] ** 0.5).astype(np.float32)

    arrays = {name: draw(name, shape) for name, shape in policy_shapes(config, SPEC).items()}
    metadata = untrained_metadata(config, f"drawn from seed {seed}")
    registry = Registry(folder)
    number = registry.add(arrays, metadata).number
    if alias is not None:
        registry.promote(number, alias)
    return number


def damage(folder: Path, number: int) -> None:
    """Flips a bit in the middle of a version's arrays."""
    path = folder / "versions" / f"{number:08d}" / "policy.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


class Server(uvicorn.Server):
    """uvicorn in a thread of this process; the kernel chooses the port."""

    port: int

    def install_signal_handlers(self) -> None:
        """Does nothing: a thread cannot have signal handlers."""


@contextlib.contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[Server]:
    """Runs the application as the real-time lane does, until the block ends.

    Its deadline is the longest there is, as the tests of a busy machine wait for their turn too.
    """
    settings = {"registry": str(folder), "port": 0, "deadline_ms": 1000.0} | settings
    with serving_settings(make_settings(**settings)) as server:
        yield server


@contextlib.contextmanager
def serving_settings(settings: ServeSettings, **options: Any) -> Iterator[Server]:
    """Does the same as `serving`, with given settings."""
    with running(uvicorn_config(settings, **options)) as server:
        yield server


@contextlib.contextmanager
def running(config: uvicorn.Config) -> Iterator[Server]:
    """Runs uvicorn in a thread until the block ends."""
    server = Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started or not thread.is_alive())
    assert server.started, "uvicorn did not start"
    server.port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join(20.0)
        assert not thread.is_alive(), "uvicorn did not stop"


class Program(NamedTuple):
    """`rlcar serve --lane realtime`, as a person starts it."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def program(
    folder: Path, *options: str, verb: tuple[str, ...] = ("serve", "--lane", "realtime")
) -> Iterator[Program]:
    """Runs the program on a free port, behind HAProxy unless `--direct` is given."""
    command = [sys.executable, "-m", "rlcar.cli", *verb, "--port", "0", "--registry", str(folder)]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [*command, *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )

        def said() -> str:
            return os.pread(output.fileno(), 1_000_000, 0).decode()

        def address() -> re.Match[str] | None:
            assert process.poll() is None, said()
            return re.search(r"http://[^ ]*:(\d+)/", said())

        try:
            wait_until(address)
            found = address()
            assert found is not None
            yield Program(process, int(found[1]))
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(30)
            assert "Traceback" not in said(), said()
        finally:
            process.kill()
            process.wait()
