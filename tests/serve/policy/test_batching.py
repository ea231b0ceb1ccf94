"""Cars that ask at once get the same answers as alone, from fewer acts of the policy."""

import asyncio

import numpy as np
import pytest

from rlcar.registry import Registry
from serve.policy.alias_follower import warm_up
from serve.policy.batching import SingleCarBatcher, act_without_memory
from serve.policy.policy import load_policy
from tests.serve.served import publish


class Recorded:
    """A policy that records the batch size of each act."""

    def __init__(self, policy):
        self._policy, self.cars = policy, []

    def __getattr__(self, name):
        return getattr(self._policy, name)

    def act(self, state, observation, is_first):
        self.cars.append(len(observation))
        return self._policy.act(state, observation, is_first)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry") / "models"
    for seed in (1, 2):
        publish(folder, seed=seed)
    return folder


@pytest.fixture
def models(folder):
    loaded = [warm_up(load_policy(Registry(folder), number)) for number in (1, 2)]
    return [model._replace(policy=Recorded(model.policy)) for model in loaded]


def seen(cars):
    return np.random.default_rng(0).random((cars, 1, 6), np.float32)


def ask_at_once(asked):
    """Sends requests `(model, observation)` in one turn of the loop; returns answers or errors."""

    async def ask():
        together = SingleCarBatcher()
        return await asyncio.gather(*(together.act(*one) for one in asked), return_exceptions=True)

    return asyncio.run(ask())


def test_each_gets_its_own_action_and_the_policy_acts_once_for_64(models):
    model, observations = models[0], seen(100)
    answers = ask_at_once([(model, one) for one in observations])
    assert model.policy.cars == [64, 36]
    for observation, answer in zip(observations, answers, strict=True):
        assert answer.shape == (1, 2)
        np.testing.assert_allclose(answer, act_without_memory(model, observation), atol=1e-5)


def test_who_asks_later_is_not_waited_for(models):
    async def ask():
        together = SingleCarBatcher()
        for observation in seen(3):
            await together.act(models[0], observation)

    asyncio.run(ask())
    assert models[0].policy.cars == [1, 1, 1]


def test_versions_are_never_mixed(models):
    observations = seen(6)
    asked = [(models[index % 2], one) for index, one in enumerate(observations)]
    for (model, observation), answer in zip(asked, ask_at_once(asked), strict=True):
        np.testing.assert_allclose(answer, act_without_memory(model, observation), atol=1e-5)


def test_an_observation_that_no_policy_takes_is_its_sender_s_error_alone(models):
    observations = seen(5)
    observations[3] = np.nan
    answers = ask_at_once([(models[0], one) for one in observations])
    assert isinstance(answers.pop(3), FloatingPointError)
    assert all(np.isfinite(answer).all() for answer in answers)


def test_a_client_that_hangs_up_leaves_the_others_theirs(models):
    async def ask():
        together = SingleCarBatcher()
        tasks = [asyncio.create_task(together.act(models[0], one)) for one in seen(3)]
        await asyncio.sleep(0)  # all of them wait now
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, gone, last = asyncio.run(ask())
    assert isinstance(gone, asyncio.CancelledError)
    assert first.shape == last.shape == (1, 2)
