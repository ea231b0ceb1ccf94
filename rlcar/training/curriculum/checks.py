"""Checks a whole curriculum before anything is trained: each stage can be trained and passed."""

from typing import NamedTuple

import jax

from rlcar.agents import Agent, make_agent
from rlcar.config import Config
from rlcar.errors import ConfigError
from rlcar.evaluation.environment import infeasibility, kind_of, require_source, spec_of
from rlcar.storage.arrays import first_difference, leaf_name
from rlcar.training.curriculum.settings import Curriculum


class _First(NamedTuple):
    """The first stage: its settings, and the shapes of its learner's arrays by name."""

    config: Config
    learner: dict


def check_curriculum(curriculum: Curriculum) -> None:
    """Raises ConfigError, which names the stage, for a curriculum that cannot work.

    Each stage needs valid settings, an environment that can be made, the learner of the first stage
    (so that it can be carried over), and thresholds that some policy can reach.
    """
    first: _First | None = None
    for index, stage in enumerate(curriculum.stages):
        where = f"stage {stage.name!r}"
        try:
            config = curriculum.config(index, 1)
            require_source(config)
            agent = make_agent(config, spec_of(config))
            learner = _arrays(agent)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        if config.data.folder:
            raise ConfigError(f"{where}: a curriculum trains by driving: leave data.folder out")
        if first is None:
            first = _First(config, learner)
        else:
            _require_same_learner(where, first, config, learner)
            if not agent.learner.is_on_policy:
                _require_same_replay(where, first.config, config)
        reason = infeasibility(config, stage.success_rate or 0.0)
        if reason:
            raise ConfigError(f"{where} cannot be passed: {reason}")


def _require_same_learner(where: str, first: _First, config: Config, learner: dict) -> None:
    if config.algorithm != first.config.algorithm:
        raise ConfigError(
            f"{where} trains {config.algorithm}, and the first stage {first.config.algorithm}: a "
            "learner is carried from stage to stage, so set the algorithm in the base"
        )
    difference = first_difference(learner, first.learner)
    if difference:
        raise ConfigError(
            f"{where} needs another learner than the first stage, so nothing can be carried over: "
            f"{difference}. Its observations, actions and networks have to be equal"
        )


def _require_same_replay(where: str, first: Config, config: Config) -> None:
    """Refuses another layout of the replay buffer, whose newest steps are carried too."""
    for name, one, other in (
        ("training.block_length", first.training.block_length, config.training.block_length),
        (
            "replay.capacity_env_steps",
            first.replay.capacity_env_steps,
            config.replay.capacity_env_steps,
        ),
    ):
        if one != other:
            raise ConfigError(
                f"{where} has {name} {other}, and the first stage {one}: the replay buffer is "
                "carried from stage to stage, so set it in the base"
            )


def _arrays(agent: Agent) -> dict:
    """Returns the shapes of a learner's arrays by name, without computing them."""
    paths, _ = jax.tree_util.tree_flatten_with_path(jax.eval_shape(agent.learner.init, 0))
    return {leaf_name(path): leaf for path, leaf in paths}


def changes_between(before: Config, after: Config) -> list[str]:
    """Lists the settings that differ between two attempts and concern rewards, `name: old -> new`.

    They are those of the learner, such as a discount, on which the scale of rewards depends, and
    those of the environment's rewards. Neither ever changes silently.
    """
    one, other = _of_rewards(before), _of_rewards(after)
    return [
        f"{name}: {one.get(name)} -> {other.get(name)}"
        for name in dict.fromkeys([*one, *other])
        if one.get(name) != other.get(name)
    ]


def _of_rewards(config: Config) -> dict[str, object]:
    learner = config.algorithm_settings.model_dump()
    return {
        **{f"{config.algorithm}.{name}": value for name, value in learner.items()},
        **kind_of(config).reward_settings(config),
    }
