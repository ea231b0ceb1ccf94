"""A server that is killed at every step of a rollout: its successor goes on from the journal."""

import contextlib
import threading
import time

import httpx
import pytest

from benchmarks.processes import free_port
from rlcar.registry import Registry
from serve.delivery.events import AliasMoved, Measured, Promoting, Undone
from serve.delivery.operator import Operator
from serve.delivery.report import described
from serve.delivery.specification import parse_specification
from serve.policy.policy import try_model
from tests.serve.served import program, publish
from tests.support.waiting import wait_until

METRIC = {"name": "brakes", "value": "fallbackShare", "successCondition": "<= 1"}
GATE = {"pause": {}}
STEPS = [
    {"shadow": {"weight": 100, "duration": "1s"}},
    GATE,
    {"setWeight": 100},
    GATE,
    {"analysis": {"metrics": [METRIC | {"interval": "200ms", "count": 3}]}},
    GATE,
]


class Car:
    """A car that asks all the time; meanwhile the server may be dead."""

    def __init__(self, url):
        self._url, self._is_over = url, threading.Event()
        self._thread = threading.Thread(target=self._drive)

    def _drive(self):
        with httpx.Client(base_url=self._url, timeout=5.0) as web:
            while not self._is_over.wait(0.01):
                with contextlib.suppress(httpx.HTTPError):
                    web.post("/v1/act", json={"observation": [0.5] * 6, "session": "car"})

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._is_over.set()
        self._thread.join()


def wait_for(is_so):
    """Waits with short pauses, so that the kill follows at once."""
    deadline_s = time.monotonic() + 30.0
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


def shows_the_journal(url, operator):
    """Whether the server shows the state of the journal, which did not change meanwhile."""
    before = operator.read()
    shown = httpx.get(f"{url}/v1/rollout", timeout=20).json()["rollout"]
    if operator.read().number != before.number:
        return False
    return shown.items() >= described(before.state).items()


class Rollout:
    """What happens at each step, directly before the server is killed."""

    def __init__(self, folder, url):
        self._url = url
        self.operator = Operator(Registry(folder), "champion", "me")

    def has(self, kind):
        return any(isinstance(entry.event, kind) for entry in self.operator.read().entries)

    def shadow(self):
        tree = {"strategy": {"canary": {"steps": STEPS}}, "rollback": {"enabled": False}}
        state = self.operator.start(2, parse_specification(tree), try_model)
        wait_for(lambda: self.operator.counts(state).shadow.pairs)

    def pause(self):
        pass  # the server waits there already

    def set_weight(self):
        self.operator.resume()

    def analysis(self):
        self.operator.resume()
        wait_for(lambda: self.has(Measured))

    def promotion(self):
        state = self.operator.read().state
        wait_for(lambda: self.operator.counts(state).candidate.answers >= 20)
        self.operator.resume()
        wait_for(lambda: self.has(Promoting))

    def undo(self):
        def ask():
            with contextlib.suppress(httpx.HTTPError):  # the server dies meanwhile
                httpx.post(f"{self._url}/v1/rollout/command", json={"command": "undo"}, timeout=20)

        threading.Thread(target=ask).start()
        wait_for(lambda: self.has(Undone))


# The step or phase in which the next server brings the rollout to rest.
AFTER = {"shadow": 1, "pause": 1, "set_weight": 3, "analysis": 5, "promotion": "Healthy",
         "undo": "Degraded"}  # fmt: skip


def wait_for_rest(operator, rest):
    def is_there():
        state = operator.read().state
        if isinstance(rest, str):
            return state.is_over and state.phase == rest
        return state.phase == "Paused" and state.step == rest

    wait_until(is_there)


# A restart at one step is in `test_rollouts.py`.
@pytest.mark.long
def test_a_server_that_is_killed_at_every_step_goes_on_where_the_journal_ends(tmp_path):
    folder = tmp_path / "models"
    publish(folder, seed=1)
    publish(folder, seed=2, alias=None)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = ("--direct", "--port", str(port), "--set", "poll_s=0.05", "--set", "deadline_ms=1000")
    rollout = Rollout(folder, url)
    operator = rollout.operator
    with Car(url), contextlib.ExitStack() as stack:
        server = stack.enter_context(program(folder, *options))
        for step, rest in AFTER.items():
            getattr(rollout, step)()
            server.process.kill()
            server.process.wait()
            killed = operator.read()
            counted = operator.counts(killed.state)
            server = stack.enter_context(program(folder, *options))
            wait_for_rest(operator, rest)
            wait_until(lambda: shows_the_journal(url, operator))
            after = operator.read()
            assert after.entries[: killed.number] == killed.entries, step
            assert operator.counts(after.state).candidate.answers >= counted.candidate.answers
    assert Registry(folder).aliases()["champion"] == 1
    moves = [one.event for one in operator.read().entries if isinstance(one.event, AliasMoved)]
    assert moves == [AliasMoved(2), AliasMoved(1)]
