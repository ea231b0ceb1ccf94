"""Processes, resources and deadlines; nothing about learning."""

from typing import Any

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError

from rlcar.errors import ConfigError
from rlcar.race_config import Section


class ClusterConfig(Section):
    """How a training is spread over a Ray cluster."""

    address: str | None = None  # None starts Ray on this machine for this run alone
    simulators: PositiveInt | None = None  # None: one for each core that the learner leaves free
    simulator_cpus: PositiveFloat = 1.0
    learner_cpus: PositiveFloat = 1.0
    learner_gpus: NonNegativeFloat | None = None  # None: one if the cluster has any
    blocks_in_flight: PositiveInt = 2  # for each simulator: one driving, one waiting
    learner_queue: PositiveInt = 3  # blocks handed to the learner and not yet learned from
    simulator_deadline_s: PositiveFloat = 60.0  # silent for longer is replaced
    start_deadline_s: PositiveFloat = 180.0  # the same, while it still imports and compiles
    most_restarts_in_a_row: int = Field(5, ge=0)  # of one simulator without a block between them
    connect_timeout_s: PositiveFloat = 20.0


def make_cluster_config(**settings: Any) -> ClusterConfig:
    """Validates settings; raises ConfigError with the name, the value and the reason."""
    try:
        return ClusterConfig(**settings)
    except ValidationError as error:
        one = error.errors()[0]
        raise ConfigError(f"--{one['loc'][0]} {one['input']!r}: {one['msg']}") from error
