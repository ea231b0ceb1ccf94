"""The Ray Serve lane with a real HAProxy and replica; models and code are replaced under load."""

import asyncio
import socket
import threading
import time

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from rlcar.registry import Registry
from serve.client.client import DriveClient
from serve.client.episodes import drive_episodes
from serve.protocols.websocket import MAX_FRAGMENTS
from tests.serve.open_loop import ask_open_loop, flips
from tests.serve.ray_servers import ray_server
from tests.serve.served import publish
from tests.support.hand_made_versions import publish_constant
from tests.support.target_environment import ID
from tests.support.waiting import wait_until

SWAPS, REDEPLOYS = 20, 3

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry") / "models"
    publish(folder, seed=0)
    return folder


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    with ray_server(folder, tmp_path_factory.mktemp("home")) as server:
        yield server


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


@pytest.mark.parametrize("websocket", [False, True])
def test_a_version_of_another_environment_acts_in_it_to_the_end(folder, server, websocket):
    """The last test of this module: the alias stays with that version."""
    registry = Registry(folder)
    registry.promote(publish_constant(folder, ID, 0.9))
    with DriveClient(server.url, websocket=websocket, timeout_ms=1000) as client:
        wait_until(lambda: len(client.check()["observation"]) == 3)
        result = drive_episodes(client, episodes=3)
    assert (result["ended"], result["success_rate"], result["fallbacks"]) == (3, 1.0, 0)
