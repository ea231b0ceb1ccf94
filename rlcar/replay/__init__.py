"""Trajectories in, batches out, at a fixed ratio."""

from rlcar.replay.buffer import Replay, slots_of
from rlcar.replay.limiter import SamplesPerInsert
from rlcar.replay.memory import Memory, check_memory, host_memory, replay_need
from rlcar.replay.rings import Call, Rings, ShardedRings, Slots, fields_of

__all__ = [
    "Call",
    "Memory",
    "Replay",
    "Rings",
    "SamplesPerInsert",
    "ShardedRings",
    "Slots",
    "check_memory",
    "fields_of",
    "host_memory",
    "replay_need",
    "slots_of",
]
