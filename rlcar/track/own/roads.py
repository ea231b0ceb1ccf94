"""Turns the own tracks of the settings into roads for a track pool."""

import functools
from typing import Any

import numpy as np

from rlcar.config.own_track import OwnTrack
from rlcar.config.race import TrackConfig
from rlcar.errors import ConfigError
from rlcar.track import grid
from rlcar.track.hashing import uniform
from rlcar.track.own.soundness import Problem, Road, make_road
from rlcar.track.shape import Shape

_CANDIDATES = 4096  # places that are tried for the obstacles beside a road
_STREAM = 2000  # first stream of the hash, apart from those of drawn tracks
_MARGIN_PX = 2.0  # between an obstacle beside the road and the road


def own_index(seeds: Any, config: TrackConfig) -> Any:
    """Returns the number of the own track of each seed, in the shape of `seeds`.

    Seeds count through the own tracks again and again, so that each of them can have different
    obstacles.
    """
    return seeds % len(config.own)


def own_shapes(seeds: np.ndarray, config: TrackConfig) -> Shape:
    """Returns the roads of seeds `[M]`; raises ConfigError for one that cannot be driven."""
    roads = [own_road(track) for track in config.own]
    rows = own_index(seeds, config)
    half_width_px = np.stack([road.half_width_px for road in roads])[rows]
    if (half_width_px == half_width_px[:, :1]).all():
        half_width_px = half_width_px[:, 0]
    return Shape(
        np.stack([road.centre for road in roads])[rows],
        np.stack([road.mitre for road in roads])[rows],
        half_width_px,
    )


def own_window(config: TrackConfig) -> int:
    """Returns W, such that a ray that has crossed W gates is out of range on every own track."""
    return max(own_road(track).window for track in config.own)


@functools.lru_cache(maxsize=256)
def own_road(track: OwnTrack) -> Road:
    """Returns the road of an own track; raises ConfigError if it cannot be driven."""
    numbers = np.array([point.split(",") for point in track.line.split(";")], np.float64)
    road = make_road(numbers[:, :2], numbers[:, 2] / grid.REACH_UNITS_PER_PX)
    if isinstance(road, Problem):
        raise ConfigError(f"the own track {track.name!r} cannot be driven: {road.reason}")
    return road


def obstacles_beside(seeds: np.ndarray, config: TrackConfig) -> tuple[np.ndarray, np.ndarray]:
    """Places obstacles beside the roads of seeds `[M]`; returns x and y, `[M, obstacles]`.

    A drawn track has them in its infield, which an own track need not have. Raises ConfigError if
    there is no room.
    """
    places = np.stack([_places_beside(track, config) for track in config.own])
    places = places[own_index(seeds, config)]
    return places[..., 0], places[..., 1]


@functools.lru_cache(maxsize=256)
def _places_beside(track: OwnTrack, config: TrackConfig) -> np.ndarray:
    """Returns the centres of the obstacles beside one track, `[obstacles, 2]` in grid units."""
    count, radius_px, road = config.obstacles, config.obstacle_radius_px, own_road(track)
    seeds = np.arange(_CANDIDATES)
    place_px = np.stack(
        [
            radius_px + uniform(seeds, _STREAM + axis) * (size_px - 2 * radius_px)
            for axis, size_px in enumerate((grid.WORLD_WIDTH_PX, grid.WORLD_HEIGHT_PX))
        ],
        axis=1,
    )
    clear_px = radius_px + _MARGIN_PX + road.half_width_px.max()
    place_px = place_px[_distance_px(place_px, road) > clear_px]
    chosen = np.zeros((0, 2))
    for spot in place_px:
        if len(chosen) == count:
            break
        gap_px = np.sqrt(((chosen - spot) ** 2).sum(axis=1))
        if (gap_px > 2 * radius_px).all():
            chosen = np.concatenate([chosen, spot[None]])
    if len(chosen) < count:
        raise ConfigError(
            f"{count} obstacles of radius {radius_px} px do not fit beside the road of the own "
            f"track {track.name!r}: give a smaller race.track.obstacle_radius_px, or "
            "race.track.obstacles=0"
        )
    return np.rint(chosen * grid.UNITS_PER_PX)


def _distance_px(place_px: np.ndarray, road: Road) -> np.ndarray:
    """Returns the distances of places `[K, 2]` from the centre line, `[K]`."""
    start = road.centre / grid.UNITS_PER_PX
    along = np.roll(start, -1, axis=0) - start
    to = place_px[:, None] - start[None]
    part = np.clip((to * along).sum(axis=-1) / (along * along).sum(axis=-1), 0.0, 1.0)
    gap = to - part[..., None] * along[None]
    return np.sqrt((gap * gap).sum(axis=-1).min(axis=1))
