"""Checks a whole curriculum before anything is trained: each stage can be trained and passed."""

import jax

from rlcar.agents import make_agent
from rlcar.config import Config
from rlcar.errors import ConfigError
from rlcar.evaluation.environment import infeasibility, require_source, spec_of
from rlcar.storage.arrays import first_difference, leaf_name
from rlcar.training.curriculum.settings import Curriculum


def check_curriculum(curriculum: Curriculum) -> None:
    """Raises ConfigError, which names the stage, for a curriculum that cannot work.

    Each stage needs valid settings, an environment that can be made, the learner of the first stage
    (so that it can be carried over), and thresholds that some policy can reach.
    """
    first: tuple[Config, dict] | None = None
    for index, stage in enumerate(curriculum.stages):
        where = f"stage {stage.name!r}"
        try:
            config = curriculum.config(index, 1)
            require_source(config)
            learner = _arrays(config)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        if config.data.folder:
            raise ConfigError(f"{where}: a curriculum trains by driving: leave data.folder out")
        if first is None:
            first = config, learner
        elif config.algorithm != first[0].algorithm:
            raise ConfigError(
                f"{where} trains {config.algorithm}, and the first stage {first[0].algorithm}: a "
                "learner is carried from stage to stage, so set the algorithm in the base"
            )
        else:
            difference = first_difference(learner, first[1])
            if difference:
                raise ConfigError(
                    f"{where} needs another learner than the first stage, so nothing can be "
                    f"carried over: {difference}. Its observations, actions and networks "
                    "have to be equal"
                )
        reason = infeasibility(config, stage.success_rate or 0.0)
        if reason:
            raise ConfigError(f"{where} cannot be passed: {reason}")


def _arrays(config: Config) -> dict:
    """Returns the shapes of a learner's arrays by name, without computing them."""
    agent = make_agent(config, spec_of(config))
    paths, _ = jax.tree_util.tree_flatten_with_path(jax.eval_shape(agent.learner.init, 0))
    return {leaf_name(path): leaf for path, leaf in paths}


def changes_between(before: Config, after: Config) -> list[str]:
    """Lists the settings of the learner that differ between two attempts, as `name: old -> new`.

    The scale of rewards depends on them, such as a discount, so they never change silently.
    """
    one, other = (config.algorithm_settings.model_dump() for config in (before, after))
    rewards = [
        (f"{before.algorithm}.{name}", one[name], other[name])
        for name in one
        if one[name] != other[name]
    ]
    return [f"{name}: {old} -> {new}" for name, old, new in rewards]
