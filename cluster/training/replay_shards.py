"""A replay that outgrows one node: its slots in processes of their own, wherever memory is."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import ray

from cluster.config import ClusterConfig
from cluster.training.simulator import SIM_ENVIRONMENT, Whereabouts, whereabouts
from rlcar.config import Config
from rlcar.errors import ConfigError
from rlcar.evaluation.environment import spec_of
from rlcar.replay import Call, Rings, ShardedRings, slots_of
from rlcar.replay.rings import row_bytes
from rlcar.storage.arrays import Arrays
from rlcar.system import logs


class ReplayShard:
    """Holds every K-th slot: a shell around `rlcar.replay.Rings`."""

    def __init__(self, config: Config, index: int, capacity: int):
        logs.take_over(f"replay-{index}")
        self._rings = Rings(spec_of(config), config.training.block_length, capacity)

    def write(self, slots: np.ndarray, rows: Mapping[str, np.ndarray]) -> None:
        """As `Rings.write`."""
        self._rings.write(slots, rows)

    def windows(self, slots: np.ndarray, starts: np.ndarray, length: int) -> Arrays:
        """As `Rings.windows`."""
        return self._rings.windows(slots, starts, length)

    def read(self, slots: np.ndarray, names: Sequence[str]) -> Arrays:
        """As `Rings.read`."""
        return self._rings.read(slots, names)

    def whereabouts(self) -> Whereabouts:
        """The process to look at, or to end."""
        return whereabouts()


class ReplayShards:
    """The shards of one learner, from their start to their end; none for a replay in the learner.

    Who loses one loses its learner with it: the next begins at a checkpoint, with new shards.
    """

    def __init__(self, config: Config, cluster: ClusterConfig):
        """Starts them and returns at once."""
        number = cluster.replay_shards
        self.actors: list[Any] = []
        if not number:
            return
        block_length = config.training.block_length
        capacity = -(-slots_of(config.replay, block_length) // number)
        row = row_bytes(spec_of(config), block_length)
        # Asked for as Ray's `memory`: a node that has not so much gets none.
        memory = capacity * row
        _check_nodes(config, cluster, memory, row)
        self.actors = [
            _ReplayShardActor.options(
                memory=memory, runtime_env={"env_vars": SIM_ENVIRONMENT}
            ).remote(config, index, capacity)
            for index in range(number)
        ]

    def stop(self) -> None:
        """Ends them; what they held is in the last checkpoint."""
        for actor in self.actors:
            ray.kill(actor)


def _check_nodes(config: Config, cluster: ClusterConfig, shard: int, row: int) -> None:
    """Announces what the shards need and what Ray's nodes have.

    Raises ConfigError where the shards do not fit, unless nodes come and go.
    """
    nodes = [int(node["Resources"].get("memory", 0.0)) for node in ray.nodes() if node["Alive"]]
    number, block_length = cluster.replay_shards, config.training.block_length
    said = (
        f"replay: {config.replay.capacity_env_steps} env steps at capacity need "
        f"{number * shard / 1e9:.3g} GB in {number} shards of {shard / 1e9:.3g} GB; Ray's nodes "
        f"have {', '.join(f'{node / 1e9:.3g}' for node in nodes)} GB for them"
    )
    fitting = sum(node // shard for node in nodes)
    if fitting >= number or cluster.simulators == "auto":
        logs.announce(said if fitting >= number else f"warning: {said}, which is too little now")
        return
    # The largest shard of which so many fit: one of the quotients of the nodes' memory.
    sizes = (node // parts for node in nodes for parts in range(1, number + 1))
    largest = max(
        (size for size in sizes if size and sum(node // size for node in nodes) >= number),
        default=0,
    )
    most = largest // row * number * block_length
    raise ConfigError(
        f"{said}: lower replay.capacity_env_steps to {most} at most, raise --cluster "
        "replay_shards, or add nodes"
    )


def rings_on(actors: Sequence[Any], config: Config, deadline_s: float) -> ShardedRings | None:
    """The slots as the learner sees them; None without shards.

    Every use raises Ray's error for a shard that is gone or says nothing for `deadline_s`.
    """
    if not actors:
        return None

    def ask(calls: Sequence[Call]) -> list[Any]:
        answers = [getattr(actors[one.shard], one.method).remote(*one.arguments) for one in calls]
        return ray.get(answers, timeout=deadline_s)

    return ShardedRings(spec_of(config), config.training.block_length, len(actors), ask)


_ReplayShardActor: Any = ray.remote(
    num_cpus=0, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
)(ReplayShard)
