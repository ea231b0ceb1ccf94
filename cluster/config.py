"""Processes, resources and deadlines; nothing about learning."""

import contextlib
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ValidationError

from rlcar.errors import ConfigError
from rlcar.settings.explain import nearest, problems
from rlcar.settings.numbers import Cores, Deadline, Devices, EnvSteps, Pause, Processes, Size, Times
from rlcar.settings.section import Section


class ClusterConfig(Section):
    """How a training is spread over a Ray cluster."""

    address: str | None = None
    """Address of a running Ray cluster. null starts Ray on this machine for this training alone."""
    simulators: Size | Literal["auto"] | None = None
    """Number of simulator processes. null takes one for each core that the learner leaves free;
    `auto` does so too and follows nodes that come and go."""
    simulator_cpus: Cores = 1.0
    """CPU cores that Ray reserves for each simulator."""
    learner_cpus: Cores = 1.0
    """CPU cores that Ray reserves for the learner."""
    learner_gpus: Devices | None = None
    """GPUs that Ray reserves for the learner. null takes one for each learner device if the
    cluster has any."""
    blocks_in_flight: Size = 2
    """Number of blocks requested from each simulator at once: one that it drives, and others
    that wait."""
    learner_queue: Size = 3
    """Number of blocks handed to the learner that it has not learned from yet."""
    replay_shards: Processes = 0
    """Number of processes, on any nodes with enough memory, that hold the replay buffer in place
    of the learner. 0 keeps it in the learner."""
    max_policy_lag_updates: EnvSteps | None = None
    """Drop blocks that were driven with weights older than this number of train steps. null
    means four times the train steps that all blocks in flight amount to."""
    simulator_deadline_s: Deadline = 60.0
    """Replace a simulator that has made no progress for this long."""
    start_deadline_s: Deadline = 180.0
    """Replace a simulator that has made no progress for this long and has not yet delivered a
    block, while it imports and compiles."""
    learner_deadline_s: Deadline = 60.0
    """Restart a learner that has not answered for this long."""
    learn_deadline_s: Deadline = 900.0
    """Restart a learner that answers but has made no progress for this long."""
    most_restarts_in_a_row: Times = 5
    """Stop the training after more than this number of failures of one simulator without a block
    between them, or of the learner without a checkpoint between them. Every delivered block
    resets the count, so a simulator that fails now and then never reaches it."""
    restart_pause_s: Pause = 1.0
    """Pause before the second restart in a row of a process; it doubles with each further one."""
    connect_timeout_s: Deadline = 20.0
    """Longest time to wait for a connection to the cluster."""


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
        first = problems(error, ClusterConfig)[0]
        raise ConfigError(f"--{first.name} {first.value!r}: {first.reason}") from error
