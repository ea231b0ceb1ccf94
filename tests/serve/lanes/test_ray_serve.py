"""The Ray Serve lane with a real HAProxy and replica; models and code are replaced under load."""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from benchmarks.processes import free_port
from rlcar.registry import Registry
from serve.client.client import DriveClient
from serve.lanes.ray_serve import ENVIRONMENT
from serve.protocols.websocket import MAX_FRAGMENTS
from tests.serve.open_loop import ask_open_loop, flips
from tests.serve.served import publish

ROOT = Path(__file__).parents[3]
SWAPS, REDEPLOYS = 20, 3

pytestmark = pytest.mark.ray


class RayServer:
    """The program, its address, and the line that makes it redeploy."""

    def __init__(self, folder: Path, port: int, environment: dict[str, str]):
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.serve.ray_server", str(folder), str(port)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.wait_ready()

    def wait_ready(self) -> None:
        line = self._process.stdout.readline()
        while line and line != "ready\n":
            line = self._process.stdout.readline()
        assert line, f"the server ended with {self._process.wait()}"

    def redeploy(self) -> None:
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.wait_ready()

    def stop(self) -> None:
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry") / "models"
    publish(folder, seed=0)
    return folder


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    port = free_port()
    # Unix sockets allow 107 bytes of path: pytest's own folders have longer paths.
    with tempfile.TemporaryDirectory(prefix="rl", dir="/tmp", ignore_cleanup_errors=True) as ray:
        environment = os.environ | {
            "RAY_AUTH_MODE": "disabled",
            "RAY_TMPDIR": ray,
            "HOME": str(tmp_path_factory.mktemp("home")),
            "JAX_PLATFORMS": "cpu",
            # As in serve/lanes/ray_serve.py, with shorter timeouts.
            "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": ENVIRONMENT[
                "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM"
            ].replace("10s", "1s"),
        }
        server = RayServer(folder, port, environment)
        try:
            yield server
        finally:
            server.stop()


@pytest.mark.parametrize("websocket", [False, True])
def test_the_sdk_drives_through_haproxy(server, websocket):
    with DriveClient(server.url, websocket=websocket, timeout_ms=1000) as car:
        replies = [car.act(np.full(6, 0.5), is_first=step == 0) for step in range(20)]
        assert car.check()["version"] == 1
    assert {reply.source for reply in replies} == {"model"}


def test_the_guard_stands_in_this_lane_too(server):
    with httpx.Client(base_url=server.url) as web:
        act = {"observation": [0.5] * 6}
        assert web.post("/v1/act", json=act).status_code == 200
        assert web.post("/v1/act", json={"observation": [2.0] * 6}).status_code == 422
        assert web.post("/v1/act", content=b"x" * 300_000).status_code == 413
        assert web.post("/v1/act", json=act, headers={"host": "evil"}).status_code == 421
        foreign = {"origin": "http://evil.example"}
        assert web.post("/v1/act", json=act, headers=foreign).status_code == 403
        assert web.get("/health/ready").json()["model_version"] == 1
        assert "rlcar_act_answers_total" in web.get("/metrics").text


def test_each_address_has_its_own_sessions_and_no_header_changes_that(server):
    def session_steps(address, headers):
        with httpx.Client(transport=httpx.HTTPTransport(local_address=address)) as web:
            body = {"observation": [0.5] * 6, "session": "own"}
            answer = web.post(f"{server.url}/v1/act", json=body, headers=headers)
            return answer.json()["session_steps"]

    assert session_steps("127.0.0.2", {}) == 1
    assert session_steps("127.0.0.2", {}) == 2
    assert session_steps("127.0.0.3", {"x-forwarded-for": "127.0.0.2"}) == 1


def test_the_limits_of_websockets_hold_in_this_lane_too(server):
    url = f"ws://127.0.0.1:{server.port}/v1/drive"
    fragments = [""] * (MAX_FRAGMENTS + 1)
    for message in (b"x" * 300_000, fragments):
        with connect(url) as socket:
            assert socket.response.headers.get("sec-websocket-extensions") is None
            socket.send(message)
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=20)
        assert closed.value.rcvd.code == 1009


def test_headers_that_drip_are_cut_off(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=5.0) as line:
        line.sendall(b"POST /v1/act HTTP/1.1\r\n")
        assert b" 408 " in line.recv(4096)


@pytest.mark.long
def test_20_swaps_and_3_redeploys_under_load_cost_no_request(server, folder):
    later = [publish(folder, seed=1 + swap, alias=None) for swap in range(SWAPS)]
    over, told = threading.Event(), []

    def change():
        registry = Registry(folder)
        try:
            for index, number in enumerate(later):
                registry.promote(number)
                time.sleep(0.4)
                if index % 6 == 3:
                    server.redeploy()
            time.sleep(1.0)
        finally:
            over.set()

    changing = threading.Thread(target=change)
    changing.start()
    asyncio.run(ask_open_loop(server.url, 100.0, 10, over.is_set, told))
    changing.join()
    assert len(told) > 500
    assert {one.status for one in told} == {200}
    assert {one.source for one in told} == {"model"}
    assert not flips(told)
    assert told[-1].version == later[-1]
