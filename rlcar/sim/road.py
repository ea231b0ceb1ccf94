"""Locates cars on their roads: cell, position along the lap, and whether a car is on the road.

Gate k is the line from the inner to the outer vertex k; cell k lies between gates k and k + 1.
"""

from typing import Any, NamedTuple

import numpy as np

from rlcar.sim.backend import Backend
from rlcar.sim.fixed import (
    POSITION_BITS,
    SENSE_BITS,
    SENSE_UNITS_PER_PX,
    floor_divide,
    shift_round,
)
from rlcar.track import TrackPool, grid
from rlcar.types import Array

_VERTEX_TO_SENSE = SENSE_UNITS_PER_PX // grid.UNITS_PER_PX


class Tables(NamedTuple):
    """A track pool as flat integer arrays, and the sizes that index them."""

    # [M * row * 2] packed vertices. Gate j of track m has its inner vertex at index
    # 2 (m row + padding + j) and its outer vertex behind it.
    edges: Array
    cell_start: Array  # [M * (P + 1)] position of each gate, 2^-20 of a lap
    cell_reach: Array  # [M * P] half-width times length of each cell
    half_width: Array  # [M * widths] 2^-8 px
    start_heading: Array  # [M] 2^-22 of a turn
    obstacles: Array  # [number of obstacles, M] packed centres
    points: int  # P, gates of a track
    padding: int  # repeated gates at each end of a row of `edges`
    row: int  # P + 2 padding
    widths: int  # of a track: 1, or P if the width of a road changes along the lap


class Place(NamedTuple):
    """Positions of N cars relative to their roads, each field `[N]` int32 if not noted."""

    cell: Array  # 0 to P - 1
    lap: Array  # signed: below 0 if the car reverses over the start line
    position: Array  # along the lap, 2^-20 of a lap
    is_on_road: Array  # bool


def make_tables(backend: Backend, pool: TrackPool) -> Tables:
    """Converts a track pool to arrays of the backend's library."""

    def flat(array: np.ndarray) -> Array:
        return backend.xp.asarray(np.ascontiguousarray(array).ravel().astype(backend.integer))

    return Tables(
        edges=flat(pool.edges),
        cell_start=flat(pool.cell_start),
        cell_reach=flat(pool.cell_reach),
        half_width=flat(pool.half_width),
        start_heading=flat(pool.start_heading),
        obstacles=backend.xp.asarray(pool.obstacles.T.astype(backend.integer)),
        points=pool.points,
        padding=pool.padding,
        row=pool.edges.shape[1],
        widths=1 if pool.half_width.ndim == 1 else pool.points,
    )


def gate_vertices(
    backend: Backend, tables: Tables, gate: Array
) -> tuple[Array, Array, Array, Array]:
    """Returns inner x, y and outer x, y in 1/32 px; `gate` counts the gates of all padded rows."""
    inner = backend.take(tables.edges, 2 * gate)
    outer = backend.take(tables.edges, 2 * gate + 1)
    return (
        grid.unpack_x(inner),
        grid.unpack_y(inner),
        grid.unpack_x(outer),
        grid.unpack_y(outer),
    )


def to_sense(position: Array) -> Array:
    """Rounds a coordinate of a car from 2^-12 to 2^-8 px."""
    return shift_round(position, POSITION_BITS - SENSE_BITS)


def start_position(backend: Backend, tables: Tables, track: Array) -> tuple[Array, Array]:
    """Returns x, y (up) of each track's first centre point, in 2^-12 px."""
    vertices = gate_vertices(backend, tables, track * tables.row + tables.padding)
    inner_x, inner_y, outer_x, outer_y = vertices
    # From 1/32 = 2^-5 px to 2^-12 px, and half of it for the mean of two.
    shift = POSITION_BITS - 5 - 1
    return (inner_x + outer_x) << shift, (inner_y + outer_y) << shift


def locate(  # the arguments are the car's pose and its last known place, all [N]
    backend: Backend,
    tables: Tables,
    track: Array,
    x: Array,
    y: Array,
    cell: Array,
    lap: Array,
    gates: int,
) -> Place:
    """Finds each car from its last cell and lap, over at most `gates` gates in either direction."""
    integer = backend.integer
    points = tables.points
    x, y = to_sense(x), to_sense(y)
    first = track * tables.row + tables.padding
    for _ in range(gates):
        is_ahead = _gate_side(*gate_vertices(backend, tables, first + cell + 1), x, y) >= 0
        is_behind = _gate_side(*gate_vertices(backend, tables, first + cell), x, y) < 0
        cell = cell + is_ahead.astype(integer) - is_behind.astype(integer)
    is_past_start = (cell >= points).astype(integer)
    is_before_start = (cell < 0).astype(integer)
    cell = cell + points * (is_before_start - is_past_start)
    lap = lap + is_past_start - is_before_start

    here = gate_vertices(backend, tables, first + cell)
    there = gate_vertices(backend, tables, first + cell + 1)
    from_here, from_there = _gate_side(*here, x, y), _gate_side(*there, x, y)
    position = _position(backend, tables, track, cell, from_here, from_there)
    return Place(cell, lap, position, _is_on_road(backend, tables, track, cell, here, there, x, y))


def _gate_side(
    inner_x: Array, inner_y: Array, outer_x: Array, outer_y: Array, x: Array, y: Array
) -> Array:
    """Returns a cross product that is >= 0 once a car has passed the gate.

    It is the distance to the gate's line times the gate's length. |gate| < 2^13 (in 1/32 px) and
    |car - inner| < 2^15 (in 2^-8 px: 128 px), so it stays below 2^29.
    """
    across_x, across_y = outer_x - inner_x, outer_y - inner_y
    to_x, to_y = x - inner_x * _VERTEX_TO_SENSE, y - inner_y * _VERTEX_TO_SENSE
    return across_x * to_y - across_y * to_x


def _position(
    backend: Backend, tables: Tables, track: Array, cell: Array, from_here: Array, from_there: Array
) -> Array:
    """Interpolates between the gates of the cell, continuously, by the distances to both."""
    xp = backend.xp
    behind = xp.clip(from_here, 0, (1 << 28) - 1) >> 10
    ahead = xp.clip(-from_there, 0, (1 << 28) - 1) >> 10
    # The numerator is below 2^18 << 12 = 2^30.
    part = floor_divide(backend, behind << 12, xp.maximum(behind + ahead, 1))
    index = track * (tables.points + 1) + cell
    start = backend.take(tables.cell_start, index)
    length = backend.take(tables.cell_start, index + 1) - start
    return start + (length * part >> 12)  # a cell is shorter than 2^18: below 2^30


def _is_on_road(
    backend: Backend,
    tables: Tables,
    track: Array,
    cell: Array,
    here: tuple[Array, Array, Array, Array],
    there: tuple[Array, Array, Array, Array],
    x: Array,
    y: Array,
) -> Array:
    """Compares the distance to the centre segment of the cell, ends included, with the half-width.

    Gates bisect the corners, so no other segment is nearer than that of the car's own cell.
    """
    xp = backend.xp
    start_x, start_y = here[0] + here[2], here[1] + here[3]  # twice the middle: 1/64 px
    along_x = (there[0] + there[2] - start_x) >> 1  # exact: middles lie on the 1/32 px grid
    along_y = (there[1] + there[3] - start_y) >> 1
    half = _VERTEX_TO_SENSE // 2
    to_x, to_y = x - start_x * half, y - start_y * half
    reach = backend.take(tables.cell_reach, track * tables.points + cell)
    # |to| < 2^15 and |along| < 2^12: below 2^28.
    across = xp.abs(along_x * to_y - along_y * to_x)
    dot = along_x * to_x + along_y * to_y
    dot_end = (along_x * along_x + along_y * along_y) * _VERTEX_TO_SENSE
    is_beside = (dot >= 0) & (dot <= dot_end) & (across <= reach)
    width = track if tables.widths == 1 else track * tables.points + cell
    half_width = backend.take(tables.half_width, width)
    limit = half_width * half_width
    is_at_start = _length_squared(xp, to_x, to_y) <= limit
    end_x, end_y = to_x - along_x * _VERTEX_TO_SENSE, to_y - along_y * _VERTEX_TO_SENSE
    return is_beside | is_at_start | (_length_squared(xp, end_x, end_y) <= limit)


def _length_squared(xp: Any, x: Array, y: Array) -> Array:
    """Returns a squared length, below 2^29.

    Coordinates are limited to 64 px (2^14), which is farther than the widest road reaches (60 px).
    """
    limit = (1 << 14) - 1
    x, y = xp.clip(x, -limit, limit), xp.clip(y, -limit, limit)
    return x * x + y * y
