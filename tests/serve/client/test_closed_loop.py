"""Driving over the network gives the same laps as in the simulator's own process."""

import jax
import numpy as np

from rlcar.datasets import Dataset
from rlcar.evaluation.laps import drive
from rlcar.registry import Registry
from rlcar.sim import SPEC
from rlcar.types import Policy
from serve.client.client import DriveClient
from serve.client.closed_loop import drive_served
from serve.delivery.operator import Operator
from serve.delivery.specification import parse_specification
from serve.policy.policy import load_policy, try_model
from tests.serve.served import publish, serving

TRACKS = tuple(range(20_000, 20_008))


def _in_process(policy):
    """The same NumPy policy, without the network."""
    memory = {"state": policy.initial_state(len(TRACKS))}

    def ask(observation, is_first):
        seen = np.asarray(observation), np.asarray(is_first)
        action, memory["state"] = policy.act(memory["state"], *seen)
        return action

    def act(params, carry, time_step, key, explore):
        shape = jax.ShapeDtypeStruct((len(carry), SPEC.action_size), np.float32)
        seen = time_step.observation, time_step.is_first
        return carry, jax.experimental.io_callback(ask, shape, *seen, ordered=True)

    return Policy(initial=lambda cars: np.zeros((cars, 0), np.float32), act=act)


def test_the_served_policy_laps_as_the_policy_does(tmp_path):
    publish(tmp_path / "models", seed=3)
    policy = load_policy(Registry(tmp_path / "models"))
    race = policy.config.race.model_copy(update={"time_limit_steps": 150})
    wanted = drive(_in_process(policy), None, race, TRACKS)
    publish(tmp_path / "models", seed=4, alias=None)
    steps = [{"setWeight": 0.0}, {"pause": {}}]
    specification = parse_specification({"strategy": {"canary": {"steps": steps}}})
    operator = Operator(Registry(tmp_path / "models"), "champion", "me")
    state = operator.start(2, specification, try_model)
    with serving(tmp_path / "models", record=tmp_path / "recorded") as server:
        url = f"http://127.0.0.1:{server.port}"
        with DriveClient(url, timeout_ms=1000) as client:
            result = drive_served(client, TRACKS, race)
        counts = server.config.app.app.action_service.arms.counts
    assert result["fallbacks"] == result["holds"] == result["timeouts"] == 0
    assert result["lap_rate"] == float((wanted.lap_time_steps > 0).mean())
    assert result["crash_rate"] == float(wanted.is_crash.mean())
    np.testing.assert_allclose(result["progress"], wanted.progress.mean(), atol=1e-3)
    assert result["requests"] >= int(wanted.steps.max())
    assert (result["laps_counted"], result["laps_not_reported"]) == (len(TRACKS), 0)
    assert not any(one.is_canary for one in (*counts.rewards, *counts.successes))
    rewards = sorted(one.value for one in counts.rewards)
    np.testing.assert_allclose(rewards, sorted(wanted.reward), atol=1e-2)
    assert sum(one.value for one in counts.successes) == (wanted.lap_time_steps > 0).sum()
    # The cars report rewards and ends, so the recording holds the episodes of these laps.
    (folder,) = (tmp_path / "recorded").glob("server-*")
    episodes = [one for one in Dataset.open(folder).episodes_iter() if one.is_terminal]
    rewards = np.array([episode.reward.sum() for episode in episodes])
    assert {episode.policy for episode in episodes} == {f"version-1 (stable of {state.rollout})"}
    assert wanted.is_crash.any()
    for reward in wanted.reward[wanted.is_crash]:
        assert np.abs(rewards - reward).min() < 1e-2
