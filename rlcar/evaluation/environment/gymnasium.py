"""Environments of Gymnasium: a few episodes with fixed seeds evaluate a policy."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rlcar.config import Config
from rlcar.envs.environments import Environments, environment_spec
from rlcar.evaluation.environment.kind import EnvironmentKind, Evaluate, ShouldStop
from rlcar.rollout.gymnasium import GymnasiumRollout
from rlcar.system import heartbeat
from rlcar.types import Evaluation, Params, Policy

EPISODES = 16  # of each evaluation
_MOST_STEPS = 27_000  # half an hour of Atari; some environments never end
_SEED = 1_000_000  # far from the seeds of training


def _make_evaluation(
    config: Config,
    policy: Policy,
    should_stop: ShouldStop,
    on_share: Callable[[float], None],
) -> Evaluate:
    """Makes `evaluate(params)`: the mean reward without exploration over always the same episodes.

    Episodes may take minutes: `evaluate` returns None as soon as `should_stop` returns True. After
    each step it calls `on_share` with the share of episodes that have ended.
    """
    act = jax.jit(policy.act, static_argnums=4)

    def evaluate(params: Params) -> Evaluation | None:
        seeds = range(_SEED, _SEED + EPISODES)
        environments = Environments(config.environment, seeds)
        with contextlib.closing(environments), environments.driving():
            return drive(environments, params)

    def drive(environments: Environments, params: Params) -> Evaluation | None:
        carry: Any = policy.initial(EPISODES)
        key = jax.random.PRNGKey(0)
        reward, steps = np.zeros(EPISODES), np.zeros(EPISODES)
        is_done = np.zeros(EPISODES, bool)
        for _ in range(_MOST_STEPS):
            if is_done.all():
                break
            if should_stop():
                return None
            key, act_key = jax.random.split(key)
            with heartbeat.stage("evaluating"):
                carry, action = act(params, carry, environments.now, act_key, False)
                action = np.asarray(action)
            with heartbeat.stage(heartbeat.WORKING):  # on Ray the driver may be in a slower one
                environments.step(action)
            reward += np.where(is_done, 0.0, environments.now.reward)
            steps += ~is_done
            is_done |= environments.now.is_last
            on_share(float(is_done.mean()))
        metrics = {
            "evaluation/episode_reward": float(reward.mean()),
            "evaluation/episode_steps": float(steps.mean()),
        }
        return Evaluation(metrics, -float(reward.mean()))

    return evaluate


KIND = EnvironmentKind(
    name="gymnasium",
    is_chosen=lambda config: not config.is_race,
    spec_of=lambda config: environment_spec(config.environment),
    make_rollout=GymnasiumRollout,
    make_evaluation=_make_evaluation,
    must_close=True,
)
