"""Closed roads, drawn from seeds or read from files.

They are integer tables for the simulator, and floats for people.
"""

from rlcar.track.circuits import CIRCUIT_SEEDS
from rlcar.track.pool import TrackPool, make_pool
from rlcar.track.sets import TRACK_SETS, set_name, set_seeds
from rlcar.track.track import Track, make_track, make_tracks

__all__ = [
    "CIRCUIT_SEEDS",
    "TRACK_SETS",
    "Track",
    "TrackPool",
    "make_pool",
    "make_track",
    "make_tracks",
    "set_name",
    "set_seeds",
]
