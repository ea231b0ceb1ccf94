"""Environments of Gymnasium: a few episodes with fixed seeds evaluate a policy."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from rlcar.config import Config
from rlcar.envs.atari import is_atari_game
from rlcar.envs.faults import successes_of
from rlcar.envs.vector import VectorEnvironment, environment_spec, make_vector
from rlcar.evaluation.environment.kind import EnvironmentKind, Evaluate, ShouldStop
from rlcar.rollout.gymnasium import GymnasiumRollout
from rlcar.system import heartbeat
from rlcar.types import Evaluation, Outcomes, Params, Policy

EPISODES = 16  # of each evaluation
_MOST_STEPS = 27_000  # half an hour of Atari; some environments never end
_MOST_AT_ONCE = 64  # environments side by side, which take memory
_SEED = 1_000_000  # far from the seeds of training


class DrivenEpisodes(NamedTuple):
    """Results of N episodes."""

    reward: np.ndarray  # [N], sum over the episode
    steps: np.ndarray  # [N]
    is_success: np.ndarray | None = None  # [N] bool; None if the environment does not say


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
    seeds = range(_SEED, _SEED + EPISODES)
    return _evaluating(make_episodes(config, policy, should_stop, on_share), seeds)


def _make_fresh_evaluation(
    config: Config, policy: Policy, seeds: Sequence[int], should_stop: ShouldStop
) -> Evaluate:
    drive = make_episodes(config, policy, should_stop)

    def drive_in_groups(params: Params, seeds: Sequence[int]) -> DrivenEpisodes | None:
        groups: list[DrivenEpisodes] = []
        for at in range(0, len(seeds), _MOST_AT_ONCE):
            group = drive(params, seeds[at : at + _MOST_AT_ONCE])
            if group is None:
                return None
            groups.append(group)
        return _joined(groups)

    return _evaluating(drive_in_groups, seeds)


def _joined(groups: Sequence[DrivenEpisodes]) -> DrivenEpisodes:
    success = [group.is_success for group in groups if group.is_success is not None]
    return DrivenEpisodes(
        np.concatenate([group.reward for group in groups]),
        np.concatenate([group.steps for group in groups]),
        np.concatenate(success) if len(success) == len(groups) else None,
    )


def _evaluating(
    drive: Callable[[Params, Sequence[int]], DrivenEpisodes | None], seeds: Sequence[int]
) -> Evaluate:
    def evaluate(params: Params) -> Evaluation | None:
        episodes = drive(params, seeds)
        if episodes is None:
            return None
        metrics = {
            "evaluation/episode_reward": float(episodes.reward.mean()),
            "evaluation/episode_steps": float(episodes.steps.mean()),
        }
        reward, successes = float(episodes.reward.mean()), None
        if episodes.is_success is not None:
            successes = int(episodes.is_success.sum())
            metrics["evaluation/success_rate"] = successes / len(seeds)
        return Evaluation(metrics, -reward, Outcomes(len(seeds), successes, reward))

    return evaluate


def make_episodes(
    config: Config,
    policy: Policy,
    should_stop: ShouldStop = lambda: False,
    on_share: Callable[[float], None] = lambda share: None,
) -> Callable[[Params, Sequence[int]], DrivenEpisodes | None]:
    """Makes `drive(params, seeds)`: one episode without exploration for each seed, side by side.

    It returns None as soon as `should_stop` returns True.
    """
    act = jax.jit(policy.act, static_argnums=4)

    def drive(params: Params, seeds: Sequence[int]) -> DrivenEpisodes | None:
        environments = make_vector(config.driven_environment, seeds)
        with contextlib.closing(environments), environments.driving():
            return drive_all(environments, params, len(seeds))

    def drive_all(
        environments: VectorEnvironment, params: Params, number: int
    ) -> DrivenEpisodes | None:
        carry: Any = policy.initial(number)
        key = jax.random.PRNGKey(0)
        reward, steps = np.zeros(number), np.zeros(number)
        is_done = np.zeros(number, bool)
        success: list[bool | None] = [None] * number
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
            for index in np.flatnonzero(environments.now.is_last & ~is_done):
                success[index] = environments.success[index]
            is_done |= environments.now.is_last
            on_share(float(is_done.mean()))
        return DrivenEpisodes(reward, steps, successes_of(success, is_done))

    return drive


def _reward_settings(config: Config) -> dict[str, object]:
    environment = config.environment
    settings: dict[str, object] = {"environment.id": environment.id}
    if is_atari_game(environment):
        settings["environment.atari.reward_clipping"] = environment.atari.reward_clipping
    return settings


KIND = EnvironmentKind(
    name="gymnasium",
    is_chosen=lambda config: not config.is_race,
    spec_of=lambda config: environment_spec(config.driven_environment),
    make_rollout=GymnasiumRollout,
    make_evaluation=_make_evaluation,
    make_fresh_evaluation=_make_fresh_evaluation,
    infeasibility=lambda config, success_rate: "",  # nothing is known about such environments
    reward_settings=_reward_settings,
    must_close=True,
)
