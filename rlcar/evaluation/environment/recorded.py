"""Recorded episodes in place of an environment: checks, blocks, and evaluation without one."""

from collections.abc import Callable, Sequence

from rlcar.agents import ALGORITHMS, algorithm_of
from rlcar.config import Config
from rlcar.datasets import Dataset, World
from rlcar.datasets.description import sizes
from rlcar.errors import ConfigError, DatasetError
from rlcar.evaluation.environment import gymnasium
from rlcar.evaluation.environment.kind import (
    EnvironmentKind,
    EnvironmentRollout,
    Evaluate,
    ShouldStop,
)
from rlcar.rollout.recorded import RecordedRollout
from rlcar.system import logs
from rlcar.types import Evaluation, Params, Policy, Spec


def open_data(config: Config) -> Dataset:
    """Opens the data set that a config names.

    Raises ConfigError if the algorithm cannot learn from it, and DatasetError if it is not the data
    set or not the world that the config describes.
    """
    require_learnable(config)
    dataset = Dataset.open(config.data.folder)
    if config.data.fingerprint not in ("", dataset.fingerprint):
        raise DatasetError(
            f"{dataset.folder} has changed since this run began (fingerprint "
            f"{dataset.fingerprint[:12]} in place of {config.data.fingerprint[:12]}): restore it, "
            "or begin a new run"
        )
    _require_world(config, dataset)
    _require_sizes(config, dataset)
    return dataset


def require_learnable(config: Config) -> None:
    """Raises ConfigError if the algorithm does not learn from this source: data or driving."""
    algorithm = algorithm_of(config)
    able = " or ".join(name for name, other in ALGORITHMS.items() if other.learns_offline)
    if config.data.folder and not algorithm.learns_offline:
        raise ConfigError(
            f"{algorithm.name} cannot learn from recorded data, because it has to try its own "
            f"actions: train with --algorithm {able}"
        )
    if not config.data.folder and not algorithm.learns_online:
        raise ConfigError(
            f"{algorithm.name} learns from recorded data alone: name a data set with --data FOLDER"
        )


def _require_world(config: Config, dataset: Dataset) -> None:
    """Raises DatasetError, naming a setting that differs, for data of another world."""
    world = dataset.world
    if world.race is None and world.environment is None:
        return  # whatever it is, no setting describes it
    wanted = World.of_config(config)
    if world.is_same(wanted):
        return
    differing = world.first_difference(wanted)
    if differing is None:
        difference = f"it is {world.label} in the data and {wanted.label} in the settings"
    else:
        difference = (
            f"{differing.setting} is {differing.first} in the data and {differing.second} in the "
            "settings"
        )
    raise DatasetError(
        f"{dataset.folder} was recorded in another world than that of the settings: {difference}. "
        "Leave --world, --env and the settings of race and environment out; the data gives them"
    )


def _require_sizes(config: Config, dataset: Dataset) -> None:
    """Raises DatasetError if an environment has other observations or actions than its data."""
    if dataset.world.environment is None:
        return  # reading the description has compared the sizes of a race
    of_environment = gymnasium.KIND.spec_of(config)
    if of_environment != dataset.spec:
        raise DatasetError(
            f"{dataset.folder} has {sizes(dataset.spec)}, but {dataset.world.label}, which it "
            f"names as its environment, has {sizes(of_environment)}: import it again with the "
            "right --env, or without"
        )


def make_recorded_rollout(config: Config) -> RecordedRollout:
    """Returns the blocks of recorded episodes; raises as `open_data` does."""
    training = config.training
    dataset = open_data(config)
    return RecordedRollout(dataset, config.seed, training.cars, training.block_length)


def _make_rollout(
    config: Config, policy: Policy, first_car: int, restart_id: int, should_stop: ShouldStop
) -> EnvironmentRollout:
    del policy, first_car, restart_id, should_stop
    return make_recorded_rollout(config)


def _make_evaluation(
    config: Config, policy: Policy, should_stop: ShouldStop, on_share: Callable[[float], None]
) -> Evaluate:
    """Makes an evaluation that measures nothing and prefers the newest policy."""
    del policy, should_stop, on_share
    logs.announce(
        f"the environment of {config.data.folder} cannot be made here, so no policy is evaluated "
        "while training, and the newest one counts as the best; rlcar ope estimates it from data"
    )

    def evaluate(params: Params) -> Evaluation:
        del params
        return Evaluation({}, None)

    return evaluate


def _make_fresh_evaluation(
    config: Config, policy: Policy, seeds: Sequence[int], should_stop: ShouldStop
) -> Evaluate:
    del seeds
    return _make_evaluation(config, policy, should_stop, lambda share: None)


def _spec_of(config: Config) -> Spec:
    data = config.data
    if data.action_size == 0:  # a run from before the sizes were part of the config
        return Dataset.open(data.folder).spec
    if not data.image_shape:
        return Spec(data.observation_size, data.action_size, data.is_discrete)
    height, width, channels = data.image_shape
    shape = height, width, channels
    return Spec(data.observation_size, data.action_size, data.is_discrete, shape)


KIND = EnvironmentKind(
    name="recorded",
    is_chosen=lambda config: not config.data.has_environment,
    spec_of=_spec_of,
    make_rollout=_make_rollout,
    make_evaluation=_make_evaluation,
    make_fresh_evaluation=_make_fresh_evaluation,
    infeasibility=lambda config, success_rate: "no policy is evaluated on recorded data alone",
    must_close=False,
)
