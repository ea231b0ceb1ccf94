"""Closed roads made from a seed: as floats for people, as integer tables for the simulator."""

from rlcar.track.circuits import CIRCUIT_SEEDS
from rlcar.track.pool import TrackPool, make_pool
from rlcar.track.track import Track, make_track, make_tracks

# No training touches the last two.
TRACK_SETS = {
    "train": range(0, 10_000),
    "validation": range(10_000, 10_064),
    "test": range(20_000, 20_064),
    "circuits": range(min(CIRCUIT_SEEDS.values()), max(CIRCUIT_SEEDS.values()) + 1),
}

__all__ = [
    "CIRCUIT_SEEDS",
    "TRACK_SETS",
    "Track",
    "TrackPool",
    "make_pool",
    "make_track",
    "make_tracks",
]
