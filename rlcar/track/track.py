"""A track in floats, for drawing, for reference implementations and for people."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rlcar.config.race import TrackConfig
from rlcar.track.grid import REACH_UNITS_PER_PX, UNITS_PER_PX, unpack_px
from rlcar.track.pool import make_pool


class Track(NamedTuple):
    """A closed road in screen coordinates; y points down.

    Cars drive counter-clockwise on the screen, so `inner_px` is on their left. The vertices k of
    the three lines belong together. All floats are exact multiples of the simulator's grid unit.
    """

    seed: int
    centre_px: np.ndarray  # [P, 2] float64
    inner_px: np.ndarray  # [P, 2] float64
    outer_px: np.ndarray  # [P, 2] float64
    obstacles_px: np.ndarray  # [obstacles, 2] float64, centres
    obstacle_radius_px: float
    half_width_px: float
    length_px: float  # length of the closed centre line


def make_track(seed: int, config: TrackConfig) -> Track:
    """Makes the track of one seed."""
    return make_tracks([seed], config)[0]


def make_tracks(seeds: Sequence[int], config: TrackConfig) -> list[Track]:
    """Makes the track of each seed."""
    pool = make_pool(seeds, config)
    road = pool.edges[:, pool.padding : pool.padding + config.points]
    edges_px = unpack_px(road)  # [M, P, 2 edges, 2]
    obstacles_px = unpack_px(pool.obstacles)
    return [
        Track(
            seed=int(pool.seeds[i]),
            centre_px=edges_px[i].mean(axis=1),
            inner_px=edges_px[i, :, 0],
            outer_px=edges_px[i, :, 1],
            obstacles_px=obstacles_px[i],
            obstacle_radius_px=config.obstacle_radius_px,
            half_width_px=float(pool.half_width[i]) / REACH_UNITS_PER_PX,
            length_px=float(pool.length[i]) / UNITS_PER_PX,
        )
        for i in range(len(pool.seeds))
    ]
