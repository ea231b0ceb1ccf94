"""Processes, resources and deadlines; nothing about learning."""

import contextlib
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ValidationError

from rlcar.config import nearest
from rlcar.errors import ConfigError
from rlcar.settings.numbers import Cores, Deadline, Devices, EnvSteps, Pause, Processes, Size, Times
from rlcar.settings.section import Section


class ClusterConfig(Section):
    """How a training is spread over a Ray cluster."""

    address: str | None = None  # None starts Ray on this machine for this run alone
    # None: one for each core that the learner leaves free; auto: so too while nodes come and go.
    simulators: Size | Literal["auto"] | None = None
    simulator_cpus: Cores = 1.0
    learner_cpus: Cores = 1.0
    learner_gpus: Devices | None = None  # None: one a device, if the cluster has any
    blocks_in_flight: Size = 2  # for each simulator: one driving, one waiting
    learner_queue: Size = 3  # blocks handed to the learner and not yet learned from
    # The replay in so many processes of their own, on any nodes with the memory; 0: in the learner.
    replay_shards: Processes = 0
    # Blocks driven with weights older than so many updates are dropped; None: four times what all
    # blocks in flight amount to.
    max_policy_lag_updates: EnvSteps | None = None
    simulator_deadline_s: Deadline = 60.0  # without progress for longer is replaced
    start_deadline_s: Deadline = 180.0  # the same, while it still imports and compiles
    learner_deadline_s: Deadline = 60.0  # a learner that answers nothing for longer is hung
    learn_deadline_s: Deadline = 900.0  # and so is one that makes no progress for longer
    most_restarts_in_a_row: Times = 5  # of one simulator without a block between them,
    # or of the learner without a checkpoint between them
    restart_pause_s: Pause = 1.0  # before the second restart in a row; then it doubles
    connect_timeout_s: Deadline = 20.0


def parse_cluster_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Reads `name=value`, values as numbers where they are; raises ConfigError for another form."""
    settings: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in ClusterConfig.model_fields:
            known = list(ClusterConfig.model_fields)
            raise ConfigError(f"--cluster {text!r} is not name=value{nearest(name, known)}")
        settings[name] = value
        for number in (float, int):  # an int where it can be one
            with contextlib.suppress(ValueError):
                settings[name] = number(value)
    return settings


def make_cluster_config(**settings: Any) -> ClusterConfig:
    """Validates settings; raises ConfigError with the name, the value and the reason."""
    try:
        return ClusterConfig(**settings)
    except ValidationError as error:
        one = error.errors()[0]
        raise ConfigError(f"--{one['loc'][0]} {one['input']!r}: {one['msg']}") from error
