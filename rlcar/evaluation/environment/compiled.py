"""Compiled environments: the same episodes, whose starts training never sees, evaluate a policy."""

from collections.abc import Callable, Sequence

from rlcar.config import Config
from rlcar.envs.compiled import COMPILED, compiled_settings, make_compiled
from rlcar.evaluation.environment.kind import EnvironmentKind, Evaluate, ShouldStop
from rlcar.evaluation.episodes import (
    EVALUATION_INDEX,
    EpisodeResults,
    make_episodes,
    mean_figures,
)
from rlcar.rollout.compiled import Rollout
from rlcar.types import Evaluation, Outcomes, Params, Policy, Spec

EPISODES = 64  # of each evaluation


def _spec_of(config: Config) -> Spec:
    return make_compiled(config.environment).spec


def _make_rollout(
    config: Config, policy: Policy, first_car: int, restart_id: int, should_stop: ShouldStop
) -> Rollout:
    del should_stop  # a block is short
    return Rollout(make_compiled(config.environment), config, policy, first_car, restart_id)


def _make_evaluation(
    config: Config, policy: Policy, should_stop: ShouldStop, on_share: Callable[[float], None]
) -> Evaluate:
    drive = make_episodes(make_compiled(config.environment), policy)

    def evaluate(params: Params) -> Evaluation | None:
        results = drive(
            params, EPISODES, EVALUATION_INDEX, should_stop=should_stop, on_share=on_share
        )
        return None if results is None else score_episodes(results)

    return evaluate


def _make_fresh_evaluation(
    config: Config, policy: Policy, seeds: Sequence[int], should_stop: ShouldStop
) -> Evaluate:
    """Evaluates in the episodes from the index of the first seed on, as many as there are seeds."""
    drive = make_episodes(make_compiled(config.environment), policy)

    def evaluate(params: Params) -> Evaluation | None:
        results = drive(params, len(seeds), seeds[0], should_stop=should_stop)
        return None if results is None else score_episodes(results)

    return evaluate


def _infeasibility(config: Config, success_rate: float) -> str:
    del success_rate  # the bound holds for every episode
    descriptor = COMPILED[config.environment.id]
    return descriptor.infeasibility(compiled_settings(config.environment)) or ""


def score_episodes(results: EpisodeResults) -> Evaluation:
    """Returns the metrics of an evaluation during training.

    The best policy is the one with the most successes and, among equals, with the largest mean
    reward: the reward counts for less than half an episode in the cost.
    """
    episodes, successes = len(results.reward), int(results.is_success.sum())
    reward = float(results.reward.mean())
    metrics = {
        "evaluation/success_rate": successes / episodes,
        "evaluation/episode_reward": reward,
        "evaluation/episode_steps": float(results.steps.mean()),
    }
    metrics |= {f"evaluation/{name}": value for name, value in mean_figures(results).items()}
    cost = -(successes + 0.5 * reward / (1.0 + abs(reward))) / episodes
    return Evaluation(metrics, cost, Outcomes(episodes, successes, reward))


KIND = EnvironmentKind(
    name="compiled",
    is_chosen=lambda config: config.environment.id in COMPILED,
    spec_of=_spec_of,
    make_rollout=_make_rollout,
    make_evaluation=_make_evaluation,
    make_fresh_evaluation=_make_fresh_evaluation,
    infeasibility=_infeasibility,
    must_close=False,
    is_compiled=True,
)
