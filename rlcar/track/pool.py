"""Thousands of tracks as integer tables, from which the simulator gathers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rlcar.config.race import TrackConfig
from rlcar.errors import ConfigError
from rlcar.track import grid
from rlcar.track.obstacles import place_obstacles
from rlcar.track.own.roads import own_shapes, own_window
from rlcar.track.shape import Shape, gate_window, make_shapes

MAX_TRACKS = 1 << 16  # a reset draws its track with 16 bits of a hash
_CHUNK = 512  # tracks made at a time, so that the working set stays in the processor's cache


class TrackPool(NamedTuple):
    """M tracks as int32 arrays on the fixed-point grid; y points up.

    Gate k is the line from the inner to the outer vertex k; cell k lies between gates k and k + 1.
    Vertex k of the centre line is the exact middle of the two. `edges` repeats gates at both ends,
    so that code that follows the road over the start needs no modulo.
    """

    seeds: np.ndarray  # [M]
    edges: np.ndarray  # [M, padding + P + padding, 2] packed vertices (inner, outer)
    cell_start: np.ndarray  # [M, P + 1] position of each gate, 2^-20 of a lap; the last is 2^20
    cell_reach: np.ndarray  # [M, P] half-width x length of each centre segment, 1/256 x 1/32 px^2
    # 1/256 px, [M], or of each cell, [M, P], where the width of a road changes along the lap
    half_width: np.ndarray
    start_heading: np.ndarray  # [M] 2^-22 of a turn
    obstacles: np.ndarray  # [M, obstacles] packed centres
    length: np.ndarray  # [M] length of the centre line, 1/32 px, rounded

    @property
    def points(self) -> int:
        """P, the number of gates."""
        return self.cell_reach.shape[1]

    @property
    def padding(self) -> int:
        """Number of repeated gates at each end of `edges`: the gate window W plus two."""
        return (self.edges.shape[1] - self.points) // 2


def make_pool(seeds: Sequence[int], config: TrackConfig) -> TrackPool:
    """Makes the tracks of `seeds`, with the same bits on every machine.

    With own tracks in the config, each seed stands for one of them, in turn, and for its obstacles.
    """
    if not 0 < len(seeds) <= MAX_TRACKS:
        raise ConfigError(
            f"a track pool of {len(seeds)} tracks is not possible: give 1 to {MAX_TRACKS} seeds"
        )
    if min(seeds) < 0 or max(seeds) >= 2**31:
        raise ConfigError(
            f"track seeds {min(seeds)} to {max(seeds)} are out of range: use 0 to 2^31 - 1"
        )
    numbers = np.asarray(seeds, np.int32)
    chunks = [
        _make_chunk(numbers[first : first + _CHUNK], config)
        for first in range(0, len(numbers), _CHUNK)
    ]
    return TrackPool(*(np.concatenate(arrays) for arrays in zip(*chunks, strict=True)))


def _make_chunk(seeds: np.ndarray, config: TrackConfig) -> TrackPool:
    shape = own_shapes(seeds, config) if config.own else make_shapes(seeds, config)
    window = own_window(config) if config.own else gate_window(config)
    step = np.roll(shape.centre, -1, axis=1) - shape.centre
    length = np.sqrt(step[..., 0] * step[..., 0] + step[..., 1] * step[..., 1])
    total = np.cumsum(length, axis=1)
    cell_start = np.zeros((len(seeds), config.points + 1), np.int32)
    cell_start[:, 1:] = np.rint(total / total[:, -1:] * grid.LAP_UNITS)
    half_width = np.floor(shape.half_width_px * grid.REACH_UNITS_PER_PX)
    if half_width.ndim == 2:
        # A cell is as wide as the narrower of its two gates, so that every car on the road is
        # within the edges that the sensors measure.
        half_width = np.minimum(half_width, np.roll(half_width, -1, axis=1))
    turn = np.arctan2(step[:, 0, 1], step[:, 0, 0]) / (2 * np.pi)
    heading = np.rint(turn * grid.HEADING_UNITS).astype(np.int32) % grid.HEADING_UNITS
    return TrackPool(
        seeds=seeds,
        edges=_pad_edges(shape, window + 2),
        cell_start=cell_start,
        cell_reach=np.floor(half_width.reshape(len(seeds), -1) * length).astype(np.int32),
        half_width=half_width.astype(np.int32),
        start_heading=heading,
        obstacles=place_obstacles(seeds, shape, config),
        length=np.rint(total[:, -1]).astype(np.int32),
    )


def _pad_edges(shape: Shape, padding: int) -> np.ndarray:
    inner = shape.centre + shape.mitre
    outer = shape.centre - shape.mitre
    edges = np.stack([grid.pack(e[..., 0], e[..., 1]) for e in (inner, outer)], axis=-1)
    points = edges.shape[1]
    return edges[:, np.arange(-padding, points + padding) % points]
