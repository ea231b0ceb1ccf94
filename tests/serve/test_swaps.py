"""Swapping the model under load: nobody notices but by the version number, which only grows."""

import asyncio
import threading
import time

from rlcar.registry import Registry
from tests.serve.open_loop import ask_open_loop, flips
from tests.serve.served import publish, serving

SWAPS = 20


def test_20_swaps_under_100_requests_a_second_cost_no_request(tmp_path):
    folder = tmp_path / "models"
    publish(folder, seed=0)
    later = [publish(folder, seed=1 + swap, alias=None) for swap in range(SWAPS)]
    over = threading.Event()

    def swap(models):
        registry = Registry(folder)
        for number in later:
            time.sleep(0.15)
            registry.promote(number)
            deadline_s = time.monotonic() + 2.0
            while models.current.number != number and time.monotonic() < deadline_s:
                time.sleep(0.01)
        time.sleep(0.5)
        over.set()

    with serving(folder, poll_s=0.05) as server:
        swapping = threading.Thread(target=swap, args=(server.config.app.app.models,))
        swapping.start()
        url = f"http://127.0.0.1:{server.port}"
        told = asyncio.run(ask_open_loop(url, 100.0, sessions=10, is_over=over.is_set))
        swapping.join()
        meter = server.config.app.app.meter
    assert len(told) > 300
    assert {one.status for one in told} == {200}
    assert {one.source for one in told} == {"model"}
    assert not flips(told)
    assert {one.version for one in told} == {1, *later}
    assert meter.swaps == SWAPS
    assert meter.migrations >= 10 * SWAPS // 2
    # Memory came along: each session's count of observations never began anew.
    for session in {one.session for one in told}:
        steps = sorted(one.steps for one in told if one.session == session)
        assert steps == list(range(1, len(steps) + 1))
