"""A track in floats, for drawing, for reference implementations and for people."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rlcar.config.race import TrackConfig
from rlcar.track.grid import REACH_UNITS_PER_PX, UNITS_PER_PX, unpack_px
from rlcar.track.own.roads import own_index, own_road
from rlcar.track.pool import make_pool


class Track(NamedTuple):
    """A closed road in screen coordinates; y points down.

    `inner_px` is on the left of the cars. On drawn tracks they drive counter-clockwise on the
    screen; an own track has the direction of its file. The vertices k of the three lines belong
    together. All floats are exact multiples of the simulator's grid unit.
    """

    seed: int
    centre_px: np.ndarray  # [P, 2] float64
    inner_px: np.ndarray  # [P, 2] float64
    outer_px: np.ndarray  # [P, 2] float64
    obstacles_px: np.ndarray  # [obstacles, 2] float64, centres
    obstacle_radius_px: float
    half_width_px: float  # the narrowest one, if the width changes along the lap
    length_px: float  # length of the closed centre line
    name: str = ""  # of an own track
    half_widths_px: np.ndarray | None = None  # [P] at the gates, if the width changes

    @property
    def borders_px(self) -> tuple[np.ndarray, np.ndarray]:
        """The border of the infield and the border around the road, for drawing, `[P, 2]` each.

        The left edge is the border of the infield if cars drive counter-clockwise.
        """
        if _area_px2(self.inner_px) < _area_px2(self.outer_px):
            return self.inner_px, self.outer_px
        return self.outer_px, self.inner_px


def _area_px2(line_px: np.ndarray) -> float:
    """Returns the area within a closed line."""
    x, y = line_px.T
    return abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2


def make_track(seed: int, config: TrackConfig) -> Track:
    """Makes the track of one seed."""
    return make_tracks([seed], config)[0]


def make_tracks(seeds: Sequence[int], config: TrackConfig) -> list[Track]:
    """Makes the track of each seed."""
    pool = make_pool(seeds, config)
    road = pool.edges[:, pool.padding : pool.padding + config.points]
    edges_px = unpack_px(road)  # [M, P, 2 edges, 2]
    obstacles_px = unpack_px(pool.obstacles)
    tracks = [
        Track(
            seed=int(pool.seeds[i]),
            centre_px=edges_px[i].mean(axis=1),
            inner_px=edges_px[i, :, 0],
            outer_px=edges_px[i, :, 1],
            obstacles_px=obstacles_px[i],
            obstacle_radius_px=config.obstacle_radius_px,
            half_width_px=float(pool.half_width[i].min()) / REACH_UNITS_PER_PX,
            length_px=float(pool.length[i]) / UNITS_PER_PX,
        )
        for i in range(len(pool.seeds))
    ]
    if not config.own:
        return tracks
    names = [config.own[own_index(track.seed, config)] for track in tracks]
    return [
        track._replace(name=own.name, half_widths_px=own_road(own).half_width_px)
        for track, own in zip(tracks, names, strict=True)
    ]
