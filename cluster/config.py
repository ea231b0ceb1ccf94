"""Settings of a training on Ray: processes, resources and deadlines; nothing about learning."""

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
    """Address of the Ray cluster to join. By default, the command starts Ray on this machine and
    stops it at the end."""
    simulators: Size | Literal["auto"] | None = None
    """Number of simulator processes. By default, one for each core that the learner leaves free at
    the start. `auto` also follows nodes that join and leave later."""
    simulator_cpus: Cores = 1.0
    """CPU cores that each simulator reserves in Ray."""
    learner_cpus: Cores = 1.0
    """CPU cores that the learner reserves in Ray."""
    learner_gpus: Devices | None = None
    """GPUs that the learner reserves in Ray. By default, one for each of
    `training.learner_devices`, as far as the cluster has GPUs."""
    blocks_in_flight: Size = 2
    """Blocks requested from each simulator and not yet received. With 2, a simulator drives one
    block while the next request waits, so that it is never idle."""
    learner_queue: Size = 3
    """Blocks that may wait for the learner. The simulators pause when the queue is full."""
    replay_shards: Processes = 0
    """Number of processes that hold the replay buffer, on any nodes with enough memory. With 0,
    the learner holds it."""
    max_policy_lag_updates: EnvSteps | None = None
    """Drop a block if the learner has made more than this many train steps since the weights that
    drove it. By default, four times the train steps that all blocks in flight allow."""
    simulator_deadline_s: Deadline = 60.0
    """Replace a simulator that has delivered a block before and then shows no progress for this
    long, in seconds. The same limit applies to the last block of a simulator whose node leaves,
    and to blocks that do not reach an idle learner."""
    start_deadline_s: Deadline = 180.0
    """Replace a simulator or a learner that has not started within this time, in seconds. A start
    includes imports and compilation; for a simulator it ends with its first block."""
    learner_deadline_s: Deadline = 60.0
    """Replace the learner if it leaves a ping unanswered for this long, in seconds. The learner
    applies the same limit to each call of a replay shard."""
    learn_deadline_s: Deadline = 900.0
    """Replace the learner if it answers pings but its current call shows no progress for this
    long, in seconds."""
    most_restarts_in_a_row: Times = 5
    """Stop the training when one simulator, or the learner, has failed more often than this
    without success in between. Every delivered block resets the count of a simulator, and every
    checkpoint that of the learner. A simulator that fails again and again but delivers blocks in
    between is therefore replaced without limit: the log names its node, and the metric
    `cluster/simulator_restarts` counts it. With `simulators=auto`, failures of one simulator stop
    the training only if no other one delivers blocks."""
    restart_pause_s: Pause = 1.0
    """Pause before a simulator is restarted after its second failure without a delivered block in
    between, in seconds. It doubles with each further failure, to at most 64 times this value. The
    first restart comes at once."""
    connect_timeout_s: Deadline = 20.0
    """How long to try to connect to the Ray cluster at `address`, in seconds."""


def parse_cluster_settings(texts: Sequence[str]) -> dict[str, str | int | float]:
    """Reads `name=value` pairs; raises ConfigError for any other form or an unknown name.

    A value becomes an int or a float where it can be read as one.
    """
    settings: dict[str, str | int | float] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in ClusterConfig.model_fields:
            known = list(ClusterConfig.model_fields)
            raise ConfigError(f"--cluster {text!r} is not name=value{nearest(name, known)}")
        settings[name] = value
        for number in (float, int):  # the last that succeeds counts, so an int wins
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
