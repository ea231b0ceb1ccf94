"""The replay buffer: stores trajectories and draws batches from them at a fixed ratio."""

from rlcar.replay.buffer import Replay, capacity_in_slots
from rlcar.replay.limiter import SamplesPerInsert
from rlcar.replay.memory import check_memory, replay_need
from rlcar.replay.rings import Rings, ShardCall, ShardedRings, Slots, fields_of
from rlcar.system.host_memory import Memory, host_memory

__all__ = [
    "ShardCall",
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
    "capacity_in_slots",
]
