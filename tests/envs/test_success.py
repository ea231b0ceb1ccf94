"""Environments of Gymnasium that say whether an episode was a success, and those that do not."""

import gymnasium
import numpy as np
import pytest

from rlcar.agents import make_agent
from rlcar.config import EnvironmentConfig, make_config
from rlcar.envs.environments import Environments
from rlcar.envs.faults import successes_of
from rlcar.errors import UserError
from rlcar.evaluation.environment import gymnasium as gymnasium_kind
from rlcar.evaluation.environment import (
    make_evaluation,
    make_fresh_evaluation,
    make_rollout,
    spec_of,
)
from rlcar.types import Weights


class Counting(gymnasium.Env):
    """Ends after three steps; episodes with an even number are successes."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, success="even"):
        self._success, self._steps, self._episode = success, 0, -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps, self._episode = 0, self._episode + 1
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self._steps += 1
        info = {"even": {"is_success": self._episode % 2 == 0}, "never": {}}.get(
            self._success, {"is_success": self._success}
        )
        return np.zeros(2, np.float32), 1.0, self._steps == 3, False, info


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    gymnasium.register(id="Counting-v0", entry_point=Counting)


def agent_of(success):
    config = make_config(
        mode="test", environment="Counting-v0",
        overrides=[f"environment.settings.success={success}", "training.cars=2"],
    )  # fmt: skip
    agent = make_agent(config, spec_of(config))
    return config, agent.policy, agent.learner.policy_params(agent.learner.init(0))


@pytest.mark.parametrize(("success", "successes"), [("even", 16), ("never", None)])
def test_evaluations_and_rollouts_count_successes_where_they_are_known(success, successes):
    config, policy, params = agent_of(success)
    evaluation = make_evaluation(config, policy)(params)
    assert evaluation.outcomes == (16, successes, 3.0)
    assert ("evaluation/success_rate" in evaluation.metrics) == (successes is not None)
    rollout = make_rollout(config, policy)
    _, episodes = rollout.collect(Weights(0, params))
    rollout.close()
    if successes is None:
        assert episodes.is_success is None
    else:
        assert episodes.is_success.tolist()[:4] == [True, True, False, False]


def test_a_success_that_is_no_truth_value_is_the_environment_s_fault():
    settings = {"success": "perhaps"}
    environments = Environments(EnvironmentConfig(id="Counting-v0", settings=settings), [0])
    action = np.array([[1.0, 0.0]])
    environments.step(action)
    environments.step(action)
    with pytest.raises(UserError, match=r"gave info\[\"is_success\"\] = 'perhaps'"):
        environments.step(action)
    environments.close()


@pytest.mark.parametrize(
    ("said", "has_ended", "successes"),
    [
        ([True, None], [True, False], [True, False]),  # an unfinished episode is no success
        ([True, None], [True, True], None),
        ([None, None], [False, False], None),
    ],
)
def test_episodes_that_do_not_end_are_no_successes(said, has_ended, successes):
    found = successes_of(said, np.array(has_ended))
    assert (None if found is None else found.tolist()) == successes


def test_many_fresh_episodes_are_driven_in_groups(monkeypatch):
    config, policy, params = agent_of("even")
    sizes = []

    def counted(environment, seeds):
        sizes.append(len(seeds))
        return Environments(environment, seeds)

    monkeypatch.setattr(gymnasium_kind, "make_vector", counted)
    evaluation = make_fresh_evaluation(config, policy, range(70))(params)
    assert sizes == [64, 6]
    assert evaluation.outcomes == (70, 70, 3.0)
