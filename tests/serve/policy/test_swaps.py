"""Swaps of the model under load fail no request, and the version number only grows."""

import asyncio
import threading

import pytest

from rlcar.registry import Registry
from tests.serve.open_loop import ask_open_loop, flips
from tests.serve.served import publish, serving
from tests.support.waiting import wait_until

CARS = 10


@pytest.mark.parametrize("swaps", [6, pytest.param(20, marks=pytest.mark.long)])
def test_swaps_under_50_requests_a_second_cost_no_request(tmp_path, swaps):
    folder = tmp_path / "models"
    publish(folder, seed=0)
    later = [publish(folder, seed=1 + swap, alias=None) for swap in range(swaps)]
    over, told = threading.Event(), []

    def swap():
        registry = Registry(folder)
        try:
            for number in (1, *later):
                registry.promote(number)
                wait_until(lambda number=number: len(_cars_on(told, number)) == CARS)
        finally:
            over.set()

    with serving(folder, poll_s=0.05) as server:
        swapping = threading.Thread(target=swap)
        swapping.start()
        url = f"http://127.0.0.1:{server.port}"
        asyncio.run(ask_open_loop(url, 50.0, CARS, over.is_set, told))
        swapping.join()
        metrics = server.config.app.app.metrics
    # `swap` waits until each version has driven every car.
    assert {one.status for one in told} == {200}
    assert {one.source for one in told} == {"model"}
    assert not flips(told)
    assert {one.version for one in told} == {1, *later}
    assert metrics.swaps == swaps
    assert metrics.migrations == CARS * swaps
    # Sessions kept their memory: no session's count of observations restarted.
    for session in {one.session for one in told}:
        steps = sorted(one.steps for one in told if one.session == session)
        assert steps == list(range(1, len(steps) + 1))


def _cars_on(told, version):
    return {one.session for one in told if one.version == version}
