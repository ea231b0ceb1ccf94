"""How far the training of a run has come, read from its folder alone."""

import contextlib
import json
import math
from pathlib import Path
from typing import NamedTuple

from rlcar.config import TrainingConfig, load_config
from rlcar.runs import stage_note
from rlcar.storage import checkpoint
from rlcar.system.regular_file import read_regular

UNIMPROVED = "evaluation/unimproved"  # the metric that counts evaluations


def is_at_its_end(training: TrainingConfig, env_steps: int, episodes: int, unimproved: int) -> bool:
    """Whether a training has reached a limit.

    It is given its env steps, its completed episodes and its evaluations since the last
    improvement.
    """
    limit, patience = training.episodes, training.patience_evaluations
    return (
        env_steps >= training.env_steps
        or (limit is not None and episodes >= limit)
        or 0 < patience <= unimproved
    )


def is_saved_at_its_end(
    training: TrainingConfig, save: checkpoint.Save, env_steps: int | None = None
) -> bool:
    """Whether a training had reached a limit when it wrote a checkpoint.

    `env_steps` replaces those of the checkpoint, if the training is known to have come further.
    """
    reached = save.env_steps if env_steps is None else env_steps
    unimproved = int(save.meta.get("unimproved", 0))  # older checkpoints do not record it
    return is_at_its_end(training, reached, episodes_of(save), unimproved)


def expected_env_steps(
    training: TrainingConfig, env_steps: int, episodes: int, episode_env_steps: float | None
) -> int | None:
    """Returns the env steps at which a training will probably end.

    If its number of episodes comes before `training.env_steps`, each missing episode is expected to
    last `episode_env_steps`, as the latest ones did. Returns None while no episode has ended, which
    says nothing about the others.
    """
    if training.episodes is None:
        return training.env_steps
    if episode_env_steps is None or not math.isfinite(episode_env_steps):
        return None
    # An episode begins with a time step of its own.
    left = max(0, training.episodes - episodes) * (episode_env_steps + 1.0)
    return min(training.env_steps, env_steps + math.ceil(left))


def episodes_of(save: checkpoint.Save) -> int:
    """Returns the number of completed episodes before a checkpoint; older ones do not record it."""
    return int(save.meta.get("episodes", 0))


class Completion(NamedTuple):
    """The env steps that a run was trained for, and those that it is meant to have."""

    env_steps: int
    total_env_steps: int

    @property
    def is_complete(self) -> bool:
        """Whether the training has reached its end; its report may still be missing."""
        return self.env_steps >= self.total_env_steps


def completion_of(folder: Path) -> Completion:
    """Reads a run's newest checkpoint and its report; raises ConfigError for damaged settings.

    The report counts because the checkpoints of old runs may be deleted. That of `rlcar evaluate`
    alone does not say for how long the run was trained.
    """
    save = checkpoint.latest(folder / "checkpoints")
    env_steps = 0 if save is None else save.env_steps
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        env_steps = max(
            env_steps, int(json.loads(read_regular(folder / "report.json"))["env_steps"])
        )
    note = stage_note.read(folder)
    if note is not None and note.is_passed:  # its curriculum has ended it early
        return Completion(env_steps, env_steps)
    training = load_config(folder / "config.json").training
    if save is not None and is_saved_at_its_end(training, save, env_steps):
        return Completion(env_steps, env_steps)
    return Completion(env_steps, training.env_steps)
