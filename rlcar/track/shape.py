"""Makes the centre lines and edges of many tracks, each with as much noise as is drivable.

The code computes only with + - * / and sqrt and sums in a fixed order, so that a seed gives the
same bits on every machine. All coordinates are float64 multiples of one grid unit (1/32 px); y
points up.
"""

from typing import NamedTuple

import numpy as np

from rlcar.config.race import RANGE_PX, TrackConfig
from rlcar.errors import ConfigError
from rlcar.track import grid
from rlcar.track.circuits import circuit_noise, is_circuit
from rlcar.track.hashing import uniform

_WIDTH_STREAM = 500  # stream of the hash, apart from those of the noise and the obstacles
MAX_GATE_WINDOW = 31  # the sensors count crossed gates in five bits
# The classic car moves at most 5 px a step, in which it then passes at most two gates.
MIN_CELL_PX = 2.6
SHRINK = 0.9  # factor of the noise of a track that is not sound
MAX_ROUNDS = 80  # 0.9^80 = 2e-4, which is a circle
# The gate window allows cells this much shorter than the mean spacing; `is_sound` checks them.
_SHORTER_CELLS = 1.7
FARTHEST = 32_000  # vertices are packed in int16


class Shape(NamedTuple):
    """Lines of M tracks, each `[M, P, 2]` float64 in grid units, whole numbers."""

    centre: np.ndarray
    mitre: np.ndarray  # from the centre to the inner edge; its negative leads to the outer edge
    half_width_px: np.ndarray  # [M], or [M, P] where the width changes along the lap


def gate_window(config: TrackConfig) -> int:
    """Returns W, such that a ray that has crossed W gates is out of range on every sound track."""
    spacing_px = 2 * np.pi * config.base_radius_px / config.points
    return min(MAX_GATE_WINDOW, int(np.ceil(_SHORTER_CELLS * RANGE_PX / spacing_px)) + 3)


def make_shapes(seeds: np.ndarray, config: TrackConfig) -> Shape:
    """Makes sound tracks: the noise of each track is reduced until `is_sound` accepts it."""
    cosine, sine = circle_table(config.points)
    noise = _noise(seeds, cosine, sine, config.noise_harmonics)
    amplitude = np.full(len(seeds), config.noise_amplitude)
    for row in np.flatnonzero(is_circuit(seeds)):
        noise[row] = circuit_noise(int(seeds[row]), config.points)
        amplitude[row] = 1.0
    half_width_px = _half_widths(seeds, config)
    radius = config.base_radius_px * grid.UNITS_PER_PX * (1 + amplitude[:, None] * noise)
    shape = _build(radius, half_width_px, cosine, sine)
    pending = np.flatnonzero(~is_sound(shape, config))
    for _ in range(MAX_ROUNDS):
        if not len(pending):
            return shape
        amplitude[pending] *= SHRINK
        again = _build(
            config.base_radius_px
            * grid.UNITS_PER_PX
            * (1 + amplitude[pending][:, None] * noise[pending]),
            half_width_px[pending],
            cosine,
            sine,
        )
        shape.centre[pending] = again.centre
        shape.mitre[pending] = again.mitre
        pending = pending[~is_sound(again, config)]
    raise ConfigError(
        f"there is no drivable track with points = {config.points}, base_radius_px = "
        f"{config.base_radius_px} and half_width_px = {config.half_width_px} (seed "
        f"{int(seeds[pending[0]])}): even a circle leaves the world, turns tighter than the road "
        f"is wide or has edges shorter than {MIN_CELL_PX} px; use fewer points or a narrower road"
    )


def circle_table(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns cosine and sine of the multiples of a turn / P, `[P]`, rounded to 2^-30.

    The rounding removes the last bits, in which mathematical libraries differ.
    """
    angle_rad = np.arange(points) * (2 * np.pi / points)
    return np.rint(np.cos(angle_rad) * 2**30) / 2**30, np.rint(np.sin(angle_rad) * 2**30) / 2**30


def is_sound(shape: Shape, config: TrackConfig) -> np.ndarray:
    """Returns which tracks `[M]` a car can drive and the sensors can measure exactly.

    The edges must be star-shaped around the centre of the world, the road must lie within the
    world, no cell may be too short, and W - 1 cells must be longer than the range of a ray.
    """
    inner = shape.centre + shape.mitre
    outer = shape.centre - shape.mitre
    middle = np.array([grid.CENTRE_X_PX, grid.CENTRE_Y_PX]) * float(grid.UNITS_PER_PX)
    cell_px = cell_lengths_px(inner, outer)
    is_star = np.ones(len(shape.centre), bool)
    for edge in (inner, outer):
        spoke = edge - middle
        is_star &= (_cross(spoke, _next(spoke)) > 0).all(axis=1)
    limit = np.array([grid.WORLD_WIDTH_PX, grid.WORLD_HEIGHT_PX]) * grid.UNITS_PER_PX
    is_inside = ((shape.centre >= 0) & (shape.centre <= limit)).all(axis=(1, 2))
    is_inside &= (np.abs(inner) < FARTHEST).all(axis=(1, 2))
    is_inside &= (np.abs(outer) < FARTHEST).all(axis=(1, 2))
    # A ray that has crossed W gates has passed W - 1 whole cells.
    window = gate_window(config) - 1
    wrapped = np.concatenate([cell_px, cell_px[:, :window]], axis=1)
    total = np.concatenate([np.zeros((len(wrapped), 1)), np.cumsum(wrapped, axis=1)], axis=1)
    shortest_px = (total[:, window:] - total[:, :-window]).min(axis=1)
    return is_star & is_inside & (cell_px.min(axis=1) >= MIN_CELL_PX) & (shortest_px >= RANGE_PX)


def cell_lengths_px(inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    """Returns the least distance between the gates of each cell, `[M, P]`; negative in a fold.

    `inner` and `outer` are the edges `[M, P, 2]` in grid units.
    """
    return np.minimum(_ahead_px(inner, outer), _ahead_px(outer, inner, reverse=True))


def _half_widths(seeds: np.ndarray, config: TrackConfig) -> np.ndarray:
    """Returns the half-width of each track, `[M]` px; drawn ones are multiples of 1/256 px."""
    widest_px = np.full(len(seeds), config.half_width_px)
    if config.half_width_low_px is None:
        return widest_px
    room_px = config.half_width_px - config.half_width_low_px
    drawn_px = config.half_width_low_px + room_px * uniform(seeds, _WIDTH_STREAM)
    return np.rint(drawn_px * grid.REACH_UNITS_PER_PX) / grid.REACH_UNITS_PER_PX


def _noise(seeds: np.ndarray, cosine: np.ndarray, sine: np.ndarray, harmonics: int) -> np.ndarray:
    """Returns periodic noise with a largest absolute value of 1, `[M, P]`."""
    points = len(cosine)
    turn = np.arange(points)
    noise = np.zeros((len(seeds), points))
    for harmonic in range(1, harmonics + 1):
        a = (2 * uniform(seeds, 2 * harmonic) - 1) / harmonic
        b = (2 * uniform(seeds, 2 * harmonic + 1) - 1) / harmonic
        index = harmonic * turn % points
        noise += a[:, None] * cosine[None, index] + b[:, None] * sine[None, index]
    return noise / np.abs(noise).max(axis=1, keepdims=True)


def _build(
    radius: np.ndarray, half_width_px: np.ndarray, cosine: np.ndarray, sine: np.ndarray
) -> Shape:
    """Returns centre lines with mitred edges, rounded to the grid; `radius` `[M, P]` grid units."""
    centre = np.empty((*radius.shape, 2))
    centre[..., 0] = np.rint(grid.CENTRE_X_PX * grid.UNITS_PER_PX + radius * cosine[None])
    centre[..., 1] = np.rint(grid.CENTRE_Y_PX * grid.UNITS_PER_PX + radius * sine[None])
    return Shape(centre, mitres(centre, half_width_px[:, None]), half_width_px)


def mitres(centre: np.ndarray, half_width_px: np.ndarray) -> np.ndarray:
    """Returns the vectors from the points of closed lines to the left edges of their roads.

    `centre` is `[M, P, 2]` in grid units, and so is the result, rounded; `half_width_px` is
    `[M, 1]` or `[M, P]`.
    """
    step = _next(centre) - centre
    unit = step / np.sqrt(_dot(step, step))[..., None]
    before = np.roll(unit, 1, axis=1)
    # The sum of the left normals of both segments points along the bisector. A mitre of the length
    # half_width / cos(turn / 2) keeps the edge half_width away from both segments.
    bisector = before + unit
    scale = 2 * half_width_px * grid.UNITS_PER_PX / _dot(bisector, bisector)
    mitre = np.empty_like(centre)
    mitre[..., 0] = np.rint(-bisector[..., 1] * scale)
    mitre[..., 1] = np.rint(bisector[..., 0] * scale)
    return mitre


def _ahead_px(left: np.ndarray, right: np.ndarray, reverse: bool = False) -> np.ndarray:
    """Returns how far both ends of the next gate lie beyond the line of each gate, `[M, P]` px.

    `reverse`, with the edges swapped, measures from the next gate back to this one.
    """
    here, there = (_next, lambda edge: edge) if reverse else (lambda edge: edge, _next)
    across = here(right) - here(left)
    width = np.sqrt(_dot(across, across)) * grid.UNITS_PER_PX
    nearest = np.minimum(
        _cross(across, there(left) - here(left)), _cross(across, there(right) - here(left))
    )
    return nearest / width


def _next(line: np.ndarray) -> np.ndarray:
    return np.roll(line, -1, axis=1)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1]
