"""Connects a trainer with recorded data, in one process and on Ray."""

from rlcar.config import Config
from rlcar.evaluation.environment import make_recorded_rollout
from rlcar.rollout.recorded import RecordedRollout
from rlcar.storage import checkpoint
from rlcar.training.trainer import Trainer


def open_recorded(
    config: Config, trainer: Trainer, resume: checkpoint.Save | None
) -> RecordedRollout:
    """Opens the data of a config at its beginning, or where `resume` was written.

    At the beginning, the learner gets the moments of the observations. Raises ConfigError,
    DatasetError and CheckpointError.
    """
    rollout = make_recorded_rollout(config)
    if resume is None:
        trainer.normalise_by(rollout.moments)
    else:
        rollout.restore(checkpoint.load_extra(resume, "rollout"))
    return rollout
