"""Requests that need the registry are answered in time, and only few wait at once."""

import asyncio
import threading

import pytest

from rlcar.errors import RegistryUnavailableError
from serve.policy.registry_calls import RegistryCalls, run_in_daemon_thread


def test_what_does_not_answer_in_time_is_given_up_and_few_wait_at_once():
    over = threading.Event()

    async def ask():
        calls = RegistryCalls(max_concurrent=2)
        try:
            for _ in range(2):
                with pytest.raises(RegistryUnavailableError, match="did not answer within 0.05 s"):
                    await calls.run(0.05, over.wait)
            with pytest.raises(RegistryUnavailableError, match="not answered 2 earlier requests"):
                await calls.run(60.0, over.wait)
        finally:
            over.set()
        for _ in range(1000):  # until both have ended
            try:
                return await calls.run(60.0, lambda: "an answer")
            except RegistryUnavailableError:
                await asyncio.sleep(0.01)
        return None

    assert asyncio.run(ask()) == "an answer"


def test_what_fails_says_why():
    def fail():
        raise ValueError("the reason")

    with pytest.raises(ValueError, match="the reason"):
        asyncio.run(RegistryCalls().run(60.0, fail))


def test_work_that_hangs_does_not_keep_the_loop_from_ending():
    over = threading.Event()

    async def leave():
        waiting = asyncio.ensure_future(run_in_daemon_thread(over.wait))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(leave())  # with asyncio.to_thread it would wait for the thread
    over.set()
