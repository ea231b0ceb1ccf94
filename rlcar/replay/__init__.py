"""Trajectories in, batches out, at a fixed ratio."""

from rlcar.replay.buffer import Replay, slots_of
from rlcar.replay.limiter import SamplesPerInsert
from rlcar.replay.rings import Call, Rings, ShardedRings, Slots, fields_of

__all__ = [
    "Call",
    "Replay",
    "Rings",
    "SamplesPerInsert",
    "ShardedRings",
    "Slots",
    "fields_of",
    "slots_of",
]
