"""The SDK against a real server that answers, is slow, stops, returns or refuses."""

import asyncio
import socket
import time

import numpy as np
import pytest

from benchmarks.processes import free_port
from rlcar.registry import Registry
from serve.api.schema import ActAnswer
from serve.client.client import AsyncDriveClient, DriveClient, FallbackPolicy, ServerError
from serve.guard.tokens import TokenStore
from serve.policy.policy import load_policy
from serve.settings import make_settings
from tests.serve.served import serving, serving_settings

SEEN = np.array([0.5, 0.6, 0.9, 0.5, 0.4, 0.2], np.float32)
BRAKE = [[0.0, -1.0]]


@pytest.fixture(scope="module")
def url(models):
    with serving(models) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.mark.parametrize("websocket", [False, True])
def test_both_ways_give_the_policys_actions_with_its_memory(url, models, websocket):
    policy = load_policy(Registry(models))
    state = policy.initial_state(3)
    with DriveClient(url, websocket=websocket) as cars:
        for step, seen in enumerate(np.random.default_rng(0).random((10, 3, 6), np.float32)):
            first = np.full(3, step == 0)
            wanted, state = policy.act(state, seen, first)
            reply = cars.act(seen, first)
            assert reply.source == "model"
            np.testing.assert_allclose(reply.action, wanted, atol=1e-6)
        assert cars.counts.sources == {"model": 10}
        assert len(cars.counts.latencies_ms) == 10


@pytest.mark.parametrize("websocket", [False, True])
def test_the_async_client_drives_as_well(url, websocket):
    async def drive():
        async with AsyncDriveClient(url, websocket=websocket) as car:
            return [await car.act(SEEN, is_first=step == 0) for step in range(5)]

    replies = asyncio.run(drive())
    assert [reply.source for reply in replies] == ["model"] * 5
    assert all(reply.action.shape == (1, 2) for reply in replies)


def test_three_ticks_are_held_and_then_it_brakes():
    fallback = FallbackPolicy()
    accepted = fallback.accept(
        ActAnswer("model", 4, 0.1, actions=[[0.3, 0.7]]), 1, time.perf_counter()
    )
    missed = [fallback.act(1, time.perf_counter(), "no answer") for _ in range(5)]
    assert [one.source for one in missed] == ["hold"] * 3 + ["fallback"] * 2
    assert missed[2].action.tolist() == accepted.action.tolist()
    assert missed[2].model_version == 4
    assert missed[3].action.tolist() == BRAKE
    fallback.accept(ActAnswer("model", 4, 0.1, actions=[[0.3, 0.7]]), 1, time.perf_counter())
    assert fallback.act(1, time.perf_counter(), "no answer").source == "hold"


def test_other_cars_are_not_given_what_these_did():
    fallback = FallbackPolicy()
    fallback.accept(ActAnswer("model", 4, 0.1, actions=[[0.3, 0.7]]), 1, time.perf_counter())
    assert fallback.act(2, time.perf_counter(), "no answer").action.tolist() == BRAKE * 2


def test_what_was_never_there_brakes_at_once():
    dead = f"http://127.0.0.1:{free_port()}"
    for websocket in (False, True):
        with DriveClient(dead, websocket=websocket) as car:
            reply = car.act(SEEN)
            assert reply.source == "fallback"
            assert reply.action.tolist() == BRAKE
            assert reply.error
            with pytest.raises(ServerError, match="cannot reach"):
                car.check()


@pytest.mark.parametrize("websocket", [False, True])
def test_a_silent_server_costs_no_more_than_the_timeout(websocket):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with DriveClient(url, websocket=websocket, timeout_ms=50) as car:
            began_s = time.perf_counter()
            replies = [car.act(SEEN) for _ in range(3)]
            assert time.perf_counter() - began_s < 10.0
            assert [reply.source for reply in replies] == ["fallback"] * 3
            assert car.counts.timeouts == 3


@pytest.mark.parametrize("websocket", [False, True])
def test_a_server_that_comes_back_drives_on(models, websocket):
    with serving(models) as server:
        port = server.port
        car = DriveClient(f"http://127.0.0.1:{port}", websocket=websocket, timeout_ms=500)
        assert car.act(SEEN, is_first=True).source == "model"
    sources = [car.act(SEEN).source for _ in range(5)]
    assert sources == ["hold"] * 3 + ["fallback"] * 2
    again = make_settings(registry=str(models), port=port)
    with serving_settings(again):
        assert car.act(SEEN).source == "model"
        car.close()


def test_a_bad_observation_is_answered_with_an_action_and_a_reason(url):
    for websocket in (False, True):
        with DriveClient(url, websocket=websocket) as car:
            assert car.act(SEEN, is_first=True).source == "model"
            bad = car.act(np.full(6, np.nan, np.float32))
            assert bad.source == "hold"
            assert bad.error
            assert car.act(SEEN).source == "model"


def test_a_token_gives_access_and_a_missing_one_is_an_error(models, tmp_path):
    store = TokenStore(tmp_path / "tokens.json")
    secret = store.create("car", ["act", "read"])
    with serving(models, auth=True, tokens=store.path) as server:
        url = f"http://127.0.0.1:{server.port}"
        for websocket in (False, True):
            with DriveClient(url, websocket=websocket, token=secret) as car:
                assert car.check()["version"] == 1
                assert car.act(SEEN).source == "model"
            with DriveClient(url, websocket=websocket) as stranger:
                reply = stranger.act(SEEN)
                assert reply.source == "fallback"
                assert "401" in str(reply.error)
                with pytest.raises(ServerError, match="401"):
                    stranger.check()


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ServerError, match="give http://HOST:PORT"):
        DriveClient("127.0.0.1:8000")
