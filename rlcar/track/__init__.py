"""Closed roads made from seeds: integer tables for the simulator, floats for people."""

from rlcar.track.circuits import CIRCUIT_SEEDS
from rlcar.track.pool import TrackPool, make_pool
from rlcar.track.track import Track, make_track, make_tracks

# Seeds of the tracks. Training never uses the test tracks and the circuits.
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
