"""A replay buffer that outgrows one node: its slots in separate processes on several nodes."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import ray
from ray.actor import ActorClass

from cluster.config import ClusterConfig
from cluster.training.ray_calls import RemoteMethod, kill_actor, start_actor
from cluster.training.simulator import ProcessLocation, simulator_environment, this_location
from rlcar.config import Config
from rlcar.errors import ConfigError
from rlcar.evaluation.environment import spec_of
from rlcar.replay import Rings, ShardCall, ShardedRings, capacity_in_slots
from rlcar.replay.rings import row_bytes
from rlcar.storage.arrays import Arrays
from rlcar.system import logs


class ReplayShard:
    """Holds every K-th slot: a shell around `rlcar.replay.Rings`."""

    def __init__(self, config: Config, index: int, capacity: int):
        logs.take_over(f"replay-{index}")
        self._rings = Rings(spec_of(config), config.training.block_length, capacity)

    def write(self, slots: np.ndarray, rows: Mapping[str, np.ndarray]) -> None:
        """Does the same as `Rings.write`."""
        self._rings.write(slots, rows)

    def windows(self, slots: np.ndarray, starts: np.ndarray, length: int) -> Arrays:
        """Does the same as `Rings.windows`."""
        return self._rings.windows(slots, starts, length)

    def read(self, slots: np.ndarray, names: Sequence[str]) -> Arrays:
        """Does the same as `Rings.read`."""
        return self._rings.read(slots, names)

    def location(self) -> ProcessLocation:
        """Returns where this process runs."""
        return this_location()


class RemoteReplayShard(Protocol):
    """The methods of `ReplayShard` as the learner calls them."""

    write: RemoteMethod[None]
    windows: RemoteMethod[Arrays]
    read: RemoteMethod[Arrays]
    location: RemoteMethod[ProcessLocation]


class ReplayShards:
    """The shards of one learner, from their start to their end; empty without shards.

    A learner that loses a shard fails. The next learner begins at a checkpoint, with new shards.
    """

    def __init__(self, config: Config, cluster: ClusterConfig):
        """Starts them and returns at once."""
        number = cluster.replay_shards
        self.actors: list[RemoteReplayShard] = []
        if not number:
            return
        block_length = config.training.block_length
        capacity = -(-capacity_in_slots(config.replay, block_length) // number)
        slot_bytes = row_bytes(spec_of(config), block_length)
        # Reserved as Ray's resource `memory`, so that Ray places no shard on a node with less.
        shard_bytes = capacity * slot_bytes
        _check_nodes(config, cluster, shard_bytes, slot_bytes)
        shard_class: ActorClass[ReplayShard] = _ReplayShardActor.options(
            memory=shard_bytes, runtime_env={"env_vars": simulator_environment()}
        )
        self.actors = [start_actor(shard_class, config, index, capacity) for index in range(number)]

    def stop(self) -> None:
        """Ends them; the last checkpoint has their content."""
        for actor in self.actors:
            kill_actor(actor)


def _check_nodes(config: Config, cluster: ClusterConfig, shard_bytes: int, slot_bytes: int) -> None:
    """Announces how much memory the shards need and how much the nodes of Ray have.

    Raises ConfigError if the shards do not fit, unless nodes may still join.
    """
    nodes = [int(node["Resources"].get("memory", 0.0)) for node in ray.nodes() if node["Alive"]]
    number, block_length = cluster.replay_shards, config.training.block_length
    summary = (
        f"replay: {config.replay.capacity_env_steps} env steps at capacity need "
        f"{number * shard_bytes / 1e9:.3g} GB in {number} shards of {shard_bytes / 1e9:.3g} GB; "
        f"Ray's nodes have {', '.join(f'{node / 1e9:.3g}' for node in nodes)} GB for them"
    )
    fitting = sum(node // shard_bytes for node in nodes)
    if fitting >= number:
        logs.announce(summary)
        return
    if cluster.simulators == "auto":
        logs.announce(f"warning: {summary}, which is too little now")
        return
    most_slots = _largest_shard_bytes(nodes, number) // slot_bytes
    raise ConfigError(
        f"{summary}: lower replay.capacity_env_steps to {most_slots * number * block_length} at "
        "most, raise --cluster replay_shards, or add nodes"
    )


def _largest_shard_bytes(nodes: Sequence[int], number: int) -> int:
    """Returns the largest size of which so many shards fit into these nodes.

    It is one of the quotients of a node's memory and a number of shards.
    """
    sizes = (node // parts for node in nodes for parts in range(1, number + 1))
    fitting = (size for size in sizes if size and sum(node // size for node in nodes) >= number)
    return max(fitting, default=0)


def rings_on(
    actors: Sequence[RemoteReplayShard], config: Config, deadline_s: float
) -> ShardedRings | None:
    """Returns the slots as the learner uses them; None without shards.

    Every use raises Ray's error for a shard that died or does not answer within `deadline_s`.
    """
    if not actors:
        return None

    def ask(calls: Sequence[ShardCall]) -> list[Any]:
        refs = [getattr(actors[call.shard], call.method).remote(*call.arguments) for call in calls]
        return ray.get(refs, timeout=deadline_s)

    return ShardedRings(spec_of(config), config.training.block_length, len(actors), ask)


_ReplayShardActor: ActorClass[ReplayShard] = ray.remote(
    num_cpus=0, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
)(ReplayShard)
