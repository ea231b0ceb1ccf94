"""The kinds of environments that a config can choose, one descriptor each.

A new kind is one module or folder with its `KIND`, and one line in the table below.
"""

from collections.abc import Callable, Sequence

from rlcar.config import Config
from rlcar.errors import ConfigError
from rlcar.evaluation.environment import compiled, gymnasium, race, recorded
from rlcar.evaluation.environment.kind import (
    FIRST_FRESH_SEED,
    LAST_FRESH_SEED,
    EnvironmentKind,
    EnvironmentRollout,
    Evaluate,
    ShouldStop,
)
from rlcar.evaluation.environment.recorded import (
    make_recorded_rollout,
    open_data,
    require_learnable,
)
from rlcar.types import Policy, Spec

__all__ = [
    "FIRST_FRESH_SEED",
    "LAST_FRESH_SEED",
    "KINDS",
    "EnvironmentKind",
    "EnvironmentRollout",
    "kind_of",
    "infeasibility",
    "make_evaluation",
    "make_fresh_evaluation",
    "make_recorded_rollout",
    "make_rollout",
    "open_data",
    "require_source",
    "spec_of",
]

KINDS: tuple[EnvironmentKind, ...] = (
    recorded.KIND,
    race.KIND,
    compiled.KIND,
    gymnasium.KIND,
)


def kind_of(config: Config) -> EnvironmentKind:
    """Returns the kind of environment that a config trains in."""
    return next(kind for kind in KINDS if kind.is_chosen(config))


def require_source(config: Config) -> None:
    """Raises ConfigError if the algorithm cannot learn from this data or this environment."""
    require_learnable(config)
    blocks = config.training.blocks_per_call
    if blocks > 1 and (config.data.folder or not kind_of(config).is_compiled):
        raise ConfigError(
            f"training.blocks_per_call {blocks} compiles environments and learner into one "
            f"program, which {config.world_label} cannot be a part of: set it to 1"
        )


def spec_of(config: Config) -> Spec:
    """Returns what an agent must know of the environment; raises ConfigError if there is none."""
    return kind_of(config).spec_of(config)


def make_rollout(
    config: Config,
    policy: Policy,
    first_car: int = 0,
    restart_id: int = 0,
    should_stop: ShouldStop = lambda: False,
) -> EnvironmentRollout:
    """Starts `config.training.cars` environments; the caller has to close the result.

    If the config names recorded data, the result reads that data instead.
    `first_car` and `restart_id` choose other random numbers for each simulator and each restart.
    Where a block may take minutes, `collect` raises RolloutStoppedError as soon as `should_stop`
    returns True.
    """
    require_source(config)
    if config.data.folder:
        return make_recorded_rollout(config)
    return kind_of(config).make_rollout(config, policy, first_car, restart_id, should_stop)


def make_evaluation(
    config: Config,
    policy: Policy,
    should_stop: ShouldStop = lambda: False,
    on_share: Callable[[float], None] = lambda share: None,
) -> Evaluate:
    """Makes the function that evaluates a policy's parameters during training.

    Where an evaluation may take minutes, it returns None as soon as `should_stop` returns True, and
    reports the share that is done to `on_share`.
    """
    return kind_of(config).make_evaluation(config, policy, should_stop, on_share)


def make_fresh_evaluation(
    config: Config,
    policy: Policy,
    seeds: Sequence[int],
    should_stop: ShouldStop = lambda: False,
) -> Evaluate:
    """Makes a function that evaluates a policy's parameters in one episode for each seed.

    With seeds from `FIRST_FRESH_SEED` on, no training and no other evaluation has driven these
    episodes.
    """
    return kind_of(config).make_fresh_evaluation(config, policy, seeds, should_stop)


def infeasibility(config: Config, success_rate: float) -> str:
    """Says why no policy can succeed in that share of episodes; empty if one may be able to."""
    return kind_of(config).infeasibility(config, success_rate)
