"""Checks the learner that is carried: on entering a stage, and after each training of it."""

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from rlcar.agents import Agent
from rlcar.config import Config
from rlcar.errors import CheckpointError, UserError
from rlcar.evaluation.environment import make_rollout
from rlcar.storage import checkpoint
from rlcar.system import logs
from rlcar.training.curriculum import carried
from rlcar.types import Params, Weights


def check_before(
    agent: Agent,
    config: Config,
    save: checkpoint.Save,
    stage: str,
    ended: Mapping[str, Any],
) -> dict[str, Any]:
    """Checks the running statistics with which a stage begins; returns details for the journal.

    `ended` is what the journal says of the end of the training that wrote `save`. Raises
    CheckpointError if statistics were lost, or do not describe the stage's observations.
    """
    found = carried.load_statistics(agent.learner, save)
    problem = carried.problem_of(
        found,
        ended.get("statistics", {}),
        least_count=min(carried.LEAST_COUNT, ended.get("env_steps", carried.LEAST_COUNT)),
        is_continued=False,
    )
    if problem:
        raise CheckpointError(f"{save.path} cannot begin stage {stage}: {problem}")
    details: dict[str, Any] = {"statistics": _summaries(found)}
    if "observation" in found:
        observations = _first_observations(config, agent, save)
        far = carried.distance(found["observation"], observations)
        warning = carried.warning_of(far, str(save.path), stage)
        if warning:
            logs.announce(f"warning: {warning}")
        details["distance"] = far._asdict()
    return details


def check_after(
    agent: Agent, save: checkpoint.Save, began: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Checks the statistics after a training; returns their summaries for the journal.

    `began` are the summaries with which it began. Raises CheckpointError if they were lost.
    """
    found = carried.load_statistics(agent.learner, save)
    problem = carried.problem_of(found, began, least_count=1, is_continued=True)
    if problem:
        raise CheckpointError(f"{save.path} cannot be continued: {problem}")
    return _summaries(found)


def policy_of(agent: Agent, save: checkpoint.Save) -> Params:
    """Loads the policy's part of a checkpoint."""
    like = jax.eval_shape(lambda: agent.learner.policy_params(agent.learner.init(0)))
    return checkpoint.load(save, like, part="policy")


def _first_observations(config: Config, agent: Agent, save: checkpoint.Save) -> np.ndarray:
    """Drives the first env steps of a stage; returns their observations `[M, O]`."""
    training = config.training
    length = math.ceil(carried.LEAST_COUNT / training.cars)
    short = config.model_copy(
        update={"training": training.model_copy(update={"block_length": length})}
    )
    with contextlib.closing(make_rollout(short, agent.policy)) as rollout:
        trajectory, _ = rollout.collect(Weights(1, policy_of(agent, save)))
    observation = np.asarray(trajectory.observation, np.float64)
    if not np.isfinite(observation).all():
        raise UserError(
            f"an observation among the first {observation[..., 0].size} of {config.world_label} is "
            "not finite: correct its code"
        )
    return observation.reshape(-1, observation.shape[-1])


def _summaries(found: Mapping[str, carried.Statistics]) -> dict[str, Any]:
    return {name: statistics.summary() for name, statistics in found.items()}
