"""Trajectories in, batches out, at a fixed ratio."""

from rlcar.replay.buffer import Replay
from rlcar.replay.limiter import SamplesPerInsert

__all__ = ["Replay", "SamplesPerInsert"]
