"""The Ray lane stops soon and answers every open request, whatever signals arrive."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

import httpx
import pytest

from benchmarks.processes import free_port
from tests.serve.served import publish
from tests.support.ray_start import in_turn
from tests.support.waiting import wait_until

PATIENCE_S = 120.0  # a busy machine starts and stops a server in half of it
STOPS_WITHIN_S = 20.0  # Kubernetes kills after 30 s

STARTING = "Started Serve"  # before the application runs
RUNNING = "is ready at"

pytestmark = pytest.mark.ray


@contextlib.contextmanager
def _lane(tmp_path, *options, until=RUNNING):
    """`rlcar serve`, as a person starts it; yields the process, its port and its output's path.

    The block begins when `until` is in the output and, if the application runs, it answers.
    """
    port = free_port()
    # Unix sockets allow 107 bytes of path: pytest's own folders have longer paths.
    with tempfile.TemporaryDirectory(prefix="rl", dir="/tmp", ignore_cleanup_errors=True) as ray:
        environment = {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": ray, "JAX_PLATFORMS": "cpu"}
        environment |= {"HOME": str(tmp_path), "RLCAR_REGISTRY": str(tmp_path / "models")}
        output = tmp_path / "output"
        with contextlib.ExitStack() as ends, in_turn() as turn:
            out = ends.enter_context(output.open("w"))
            process = subprocess.Popen(
                [sys.executable, "-m", "rlcar.cli", "serve", "--port", str(port), *options],
                env=os.environ | environment,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
            ends.callback(process.wait)
            ends.callback(process.kill)
            deadline_s = time.monotonic() + PATIENCE_S
            while not (until in output.read_text() and (until == STARTING or _answers(port))):
                assert process.poll() is None, output.read_text()
                assert time.monotonic() < deadline_s, output.read_text()
                time.sleep(0.1)
            turn.end()
            yield process, port, output


def _answers(port):
    """Says whether the application answers, with a model or without one."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 200
    except httpx.HTTPError:
        return False


def _wait_for_the_first_version(url, models):
    """Publishes a version beside a server without any, which serves it then."""
    assert httpx.get(f"{url}/health/ready").status_code == 503
    answer = httpx.post(f"{url}/v1/act", json={"observation": [0.5] * 6}).json()
    assert (answer["source"], answer["model_version"]) == ("fallback", None)
    publish(models, alias=None)
    wait_until(lambda: httpx.get(f"{url}/health/ready").status_code == 200)
    assert httpx.get(f"{url}/v1/models/serving").json()["description"] == "drawn from seed 0"


def test_it_waits_for_a_version_and_stops_in_time_and_answers_what_is_open(tmp_path):
    """Two properties in one test, because the start of this lane takes so long."""
    body = json.dumps({"observation": [0.5] * 6}).encode()
    with (
        _lane(tmp_path, "--wait-for-model") as (process, port, output),
        contextlib.ExitStack() as ends,
    ):
        _wait_for_the_first_version(f"http://127.0.0.1:{port}", tmp_path / "models")
        line = ends.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20.0))
        head = f"POST /v1/act HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-length: {len(body)}\r\n"
        line.sendall(head.encode() + b"content-type: application/json\r\n\r\n" + body[:5])
        time.sleep(0.5)  # until the replica has it
        began_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        line.sendall(body[5:])
        assert line.recv(65536).startswith(b"HTTP/1.1 200")
        process.wait(30.0)
        took_s = time.monotonic() - began_s
        assert process.returncode == 0
        assert took_s < STOPS_WITHIN_S
        assert "Traceback" not in output.read_text()


def test_more_signals_while_it_stops_are_no_traceback(tmp_path):
    publish(tmp_path / "models")
    with _lane(tmp_path) as (process, _, output):
        process.send_signal(signal.SIGINT)
        for number in (signal.SIGTERM, signal.SIGINT):
            time.sleep(0.3)
            process.send_signal(number)
        process.wait(30.0)
        said = output.read_text()
        assert process.returncode == 0, said
        assert "Traceback" not in said
        assert "still stopping" in said


def test_a_signal_while_it_starts_ends_everything_in_order(tmp_path):
    publish(tmp_path / "models")
    with _lane(tmp_path, until=STARTING) as (process, _, output):
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)  # a busy machine may still start the replica first
        said = output.read_text()
        # Ray's own handler would print this, and abort three seconds later.
        assert "SIGTERM received" not in said
        assert process.returncode == 0, said
        assert "Traceback" not in said
