"""Sessions that another server has driven, which has read more of the journal or less."""

import asyncio

import numpy as np
import pytest

from rlcar.registry import Registry
from serve.api.schema import CheckedRequest, ObservationBatch
from serve.delivery.assignment import place_of
from serve.delivery.specification import default_specification
from serve.observing.metrics import ServerMetrics
from serve.policy.action_service import ActionService
from serve.policy.alias_follower import AliasFollower
from serve.policy.rollout_arms import ActiveRollout
from serve.settings import make_settings


class Fleet:
    """One server of several, which knows of a rollout at a weight."""

    def __init__(self, folder, versions):
        settings, metrics = make_settings(registry=str(folder)), ServerMetrics()
        follower = AliasFollower(Registry(folder), "champion", metrics)
        follower.current = versions[0]
        self.versions, self.service = versions, ActionService(settings, follower, metrics)

    def read_journal(self, weight, next_weight=100.0):
        rollback = default_specification().rollback
        active = ActiveRollout("r1", 1, self.versions[1], weight, 0.0, rollback, next_weight)
        self.service.arms.show(active)

    def act(self, told=None, session="a"):
        batch = ObservationBatch(np.full((1, 6), 0.5, np.float32), np.zeros(1, bool))
        request = CheckedRequest(batch, True, session, None, 1000.0, told)
        answer = asyncio.run(self.service.act(request, "me", self.service.now_s()))
        assert answer.source == "model"
        return answer.model_version, answer.session_steps


@pytest.fixture
def server(folder, versions):
    server = Fleet(folder, versions)
    yield server
    server.service.close()


@pytest.mark.parametrize(("weight", "told"), [(0.0, 2), (100.0, 1)])
def test_a_session_does_not_change_there_and_back_at_a_server_that_is_behind(server, weight, told):
    server.read_journal(weight)
    assert server.act(told) == (told, 1)
    server.read_journal(weight)  # it may have begun to read before the session came
    assert server.act(told) == (told, 2)
    server.read_journal(100.0 - weight)
    assert server.act(told) == (told, 3)


def test_what_a_client_tells_ends_with_the_next_reading_of_the_journal(server):
    server.read_journal(0.0)
    assert server.act(2)[0] == 2
    server.read_journal(0.0)
    server.read_journal(0.0)
    assert server.act(2)[0] == 1


def test_a_client_cannot_choose_the_candidate(server):
    place = place_of("r1", "a")
    for weight, next_weight in ((0.0, 0.0), (0.0, place - 0.1), (place - 0.1, 0.0)):
        server.read_journal(weight, next_weight)
        assert server.act(2)[0] == 1
    assert server.act(2) == (1, 4)  # and keeps its memory
    server.read_journal(0.0, place + 0.1)  # another server may have taken that step
    assert server.act(2) == (2, 1)


def test_an_alarm_counts_more_than_what_a_client_tells(server):
    server.read_journal(0.0)
    assert server.act(2)[0] == 2
    server.service.arms.raise_alarm("it smokes", {})
    assert server.act(2)[0] == 1
    assert server.act(2, session="b")[0] == 1


def test_an_old_memory_of_another_version_is_not_used(server):
    server.read_journal(0.0)
    assert [server.act()[1] for _ in range(3)] == [1, 2, 3]
    server.read_journal(100.0)
    assert server.act(2) == (2, 1)  # version 2 has driven it elsewhere


def test_a_lost_answer_keeps_the_memory(server):
    server.read_journal(100.0)
    assert [server.act()[1] for _ in range(3)] == [1, 2, 3]
    server.read_journal(0.0)
    assert server.act() == (1, 4)
    assert server.act(2) == (1, 5)  # the client has not heard of version 1


def test_a_client_that_always_tells_the_same_version_loses_its_memory_once(server):
    server.read_journal(100.0)
    server.act()
    assert [server.act(1)[1] for _ in range(3)] == [1, 2, 3]
    for _ in range(3):
        server.read_journal(100.0)
    assert [server.act(1) for _ in range(2)] == [(2, 4), (2, 5)]
