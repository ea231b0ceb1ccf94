"""Two replicas of the Ray Serve lane follow rollouts, with sessions under load."""

import contextlib
import time

import httpx
import pytest

from rlcar.registry import Registry
from serve.delivery.assignment import is_canary
from serve.delivery.operator import Operator, parsed_counts
from serve.delivery.specification import parse_specification
from serve.policy.policy import try_model
from tests.serve.open_loop import driving_cars
from tests.serve.ray_servers import ray_server
from tests.serve.served import publish
from tests.support.waiting import wait_until

CARS, PER_S = 20, 80.0
NAMES = [f"car-{number}" for number in range(CARS)]

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def url(folder, tmp_path_factory):
    with ray_server(folder, tmp_path_factory.mktemp("home"), replicas=2) as server:
        yield server.url


@pytest.fixture
def operator(folder):
    return Operator(Registry(folder), "champion", "me")


@contextlib.contextmanager
def driving(url):
    """Drives the cars until the block ends; yields the list of their answers."""
    with driving_cars(url, PER_S, CARS) as told:
        yield told
    assert {one.status for one in told} == {200}
    assert {one.source for one in told if one.received_s - one.sent_s < 1.0} == {"model"}


def start(operator, candidate, *steps):
    tree = {"strategy": {"canary": {"steps": list(steps)}}, "rollback": {"enabled": False}}
    return operator.start(candidate, parse_specification(tree), try_model, rollout="rollout")


def wait_for_versions(told, expected):
    """Waits until every car has the version that it should have."""
    since_s = time.perf_counter()

    def last():
        ordered = sorted((one for one in told if one.sent_s >= since_s), key=lambda one: one.sent_s)
        return {one.session: one.version for one in ordered}

    wait_until(lambda: last() == expected)


def versions_of(told, name):
    """Returns the versions of a car in the order that it saw, without repetitions.

    Only requests that were sent after the last answer count, as others have no order. The sessions'
    numbers of steps give none either: they begin again on the other replica, to which the proxy
    leads a car while its own replica does not answer.
    """
    versions, until_s = [], 0.0
    for one in sorted((one for one in told if one.session == name), key=lambda one: one.received_s):
        if one.sent_s >= until_s:
            until_s = one.received_s
            if versions[-1:] != [one.version]:
                versions.append(one.version)
    return versions


def report_laps(url):
    """Reports a lap of each session, which must reach the replica that holds it."""
    for name in NAMES:
        body, headers = {"session": name, "reward": 1.0}, {"x-session-id": name}
        answer = httpx.post(f"{url}/v1/outcome", json=body, headers=headers, timeout=20)
        assert answer.status_code == 200, answer.text
        assert "refused" not in answer.text


def half(stable, candidate):
    return {name: candidate if is_canary("rollout", name, 50.0) else stable for name in NAMES}


def test_a_canary_is_aborted_and_another_promoted_without_an_error(url, operator, folder):
    with driving(url) as told:
        wait_for_versions(told, dict.fromkeys(NAMES, 1))
        start(operator, 2, {"setWeight": 50}, {"pause": {}})
        wait_for_versions(told, half(1, 2))
        operator.abort("enough")
        wait_for_versions(told, dict.fromkeys(NAMES, 1))
        expected = {n: [1, 2, 1] if version == 2 else [1] for n, version in half(1, 2).items()}
        wait_until(lambda: {name: versions_of(list(told), name) for name in NAMES} == expected)
        before = len(told)

        third = publish(folder, seed=3, alias=None)
        pause = {"pause": {"duration": "1s"}}
        state = start(operator, third, {"setWeight": 50}, {"pause": {}}, {"setWeight": 100}, pause)
        wait_for_versions(told, half(1, third))
        report_laps(url)
        wait_until(lambda: operator.counts(state).candidate.answers >= 20)
        operator.resume()
        wait_until(lambda: operator.read().state.phase == "Healthy")
        wait_for_versions(told, dict.fromkeys(NAMES, third))
        shared = operator.registry.rollout_counts("champion", state.rollout).read()
        for name in NAMES:
            assert versions_of(told[before:], name) == [1, third]
    counts = parsed_counts(shared).values()
    assert len(counts) == 2  # both replicas had cars
    assert all(one.stable.answers + one.candidate.answers > 0 for one in counts)
    assert Registry(folder).aliases()["champion"] == third
