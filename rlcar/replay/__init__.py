"""Trajectories in, batches out, at a fixed ratio."""

from rlcar.replay.buffer import Replay, slots_of
from rlcar.replay.limiter import SamplesPerInsert
from rlcar.replay.rings import Call, Rings, ShardedRings, Slots

__all__ = ["Call", "Replay", "Rings", "SamplesPerInsert", "ShardedRings", "Slots", "slots_of"]
