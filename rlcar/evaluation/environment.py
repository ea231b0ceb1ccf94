"""The environment that a config names: the race, or one of Gymnasium."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from rlcar.config import Config
from rlcar.envs.environments import environment_spec
from rlcar.evaluation.laps import make_evaluator, score_laps
from rlcar.rollout.gymnasium import GymnasiumRollout, make_environment_evaluator
from rlcar.rollout.race import Episodes, Rollout
from rlcar.sim import SPEC
from rlcar.types import Evaluation, Params, Policy, Spec, Trajectory, Weights


class Driving(Protocol):
    """What the loop asks of a rollout."""

    def collect(self, weights: Weights) -> tuple[Trajectory, Episodes]: ...
    def saved(self) -> dict[str, np.ndarray]: ...
    def restore(self, saved: dict[str, np.ndarray]) -> None: ...
    def close(self) -> None: ...


def spec_of(config: Config) -> Spec:
    """What an agent must know of the environment; raises ConfigError when there is none."""
    return environment_spec(config.environment) if config.environment.id else SPEC


def make_rollout(
    config: Config,
    policy: Policy,
    first_car: int = 0,
    restart_id: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> Driving:
    """Puts `config.training.cars` of them at their starts; the caller has to close the result.

    A block of the race is short. In an environment of Gymnasium `should_stop` ends one early, with
    RolloutStoppedError.
    """
    if config.environment.id:
        return GymnasiumRollout(config, policy, first_car, restart_id, should_stop)
    return Rollout(config, policy, first_car, restart_id)


def make_evaluation(
    config: Config,
    policy: Policy,
    should_stop: Callable[[], bool] = lambda: False,
    on_share: Callable[[float], None] = lambda share: None,
) -> Callable[[Params], Evaluation | None]:
    """Makes the look at a policy that training takes now and then.

    Where it is long, as in an environment of Gymnasium, it ends with None once `should_stop` says
    so, and tells `on_share` meanwhile what share of it is over.
    """
    if config.environment.id:
        return make_environment_evaluator(config, policy, should_stop, on_share)
    drive = make_evaluator(policy, config.race, config.training.evaluate_set)
    return lambda params: score_laps(drive(params))
