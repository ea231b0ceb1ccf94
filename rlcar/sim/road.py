"""Where a car is on its road: its cell, its position along the lap, and whether it is still on it.

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

_VERTEX_TO_SENSE = SENSE_UNITS_PER_PX // grid.UNITS_PER_PX


class Tables(NamedTuple):
    """A track pool as flat integer arrays of the back-end, and how to index them."""

    edges: Any  # [M * row * 2] packed: inner and outer of gate j of track m at 2 (m row + pad + j)
    cell_start: Any  # [M * (P + 1)]
    cell_reach: Any  # [M * P]
    half_width: Any  # [M] 2^-8 px
    start_heading: Any  # [M]
    obstacles: Any  # [O, M]
    points: int
    padding: int
    row: int  # P + 2 padding


class Place(NamedTuple):
    """Where N cars are, all `[N]` int32 but the last."""

    cell: Any  # 0..P - 1
    lap: Any  # signed: falls below 0 when the car reverses over the start
    position: Any  # along the lap, 2^-20 of it
    is_on_road: Any


def make_tables(backend: Backend, pool: TrackPool) -> Tables:
    """Moves a pool to the back-end."""

    def flat(array: np.ndarray) -> Any:
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
    )


def gate_vertices(backend: Backend, tables: Tables, gate: Any) -> tuple[Any, Any, Any, Any]:
    """Gathers inner x, y and outer x, y in 1/32 px; `gate` indexes all tracks' padded rows."""
    inner = backend.take(tables.edges, 2 * gate)
    outer = backend.take(tables.edges, 2 * gate + 1)
    return (
        grid.unpack_x(inner),
        grid.unpack_y(inner),
        grid.unpack_x(outer),
        grid.unpack_y(outer),
    )


def to_sense(position: Any) -> Any:
    """Rounds a car's coordinate to 2^-8 px."""
    return shift_round(position, POSITION_BITS - SENSE_BITS)


def start_position(backend: Backend, tables: Tables, track: Any) -> tuple[Any, Any]:
    """Returns x, y (up) of each track's first centre point, in 2^-12 px."""
    vertices = gate_vertices(backend, tables, track * tables.row + tables.padding)
    inner_x, inner_y, outer_x, outer_y = vertices
    half_unit = POSITION_BITS - 5 - 1  # from 1/32 px, and the mean of two
    return (inner_x + outer_x) << half_unit, (inner_y + outer_y) << half_unit


def locate(  # the arguments are the car's pose and its last known place, all [N]
    backend: Backend, tables: Tables, track: Any, x: Any, y: Any, cell: Any, lap: Any, gates: int
) -> Place:
    """Follows each car from its last cell, over at most `gates` gates either way."""
    integer = backend.integer
    points = tables.points
    x, y = to_sense(x), to_sense(y)
    first = track * tables.row + tables.padding
    for _ in range(gates):
        is_ahead = _gate_side(*gate_vertices(backend, tables, first + cell + 1), x, y) >= 0
        is_behind = _gate_side(*gate_vertices(backend, tables, first + cell), x, y) < 0
        cell = cell + is_ahead.astype(integer) - is_behind.astype(integer)
    is_past = (cell >= points).astype(integer)
    is_before = (cell < 0).astype(integer)
    cell = cell + points * (is_before - is_past)
    lap = lap + is_past - is_before

    here = gate_vertices(backend, tables, first + cell)
    there = gate_vertices(backend, tables, first + cell + 1)
    past, short = _gate_side(*here, x, y), _gate_side(*there, x, y)
    position = _position(backend, tables, track, cell, past, short)
    return Place(cell, lap, position, _is_on_road(backend, tables, track, cell, here, there, x, y))


def _gate_side(inner_x: Any, inner_y: Any, outer_x: Any, outer_y: Any, x: Any, y: Any) -> Any:
    """Returns the cross product that is >= 0 once a car has passed the gate.

    |gate| < 2^13 (1/32 px) and |car - inner| < 2^15 (2^-8 px, 128 px): below 2^29.
    """
    across_x, across_y = outer_x - inner_x, outer_y - inner_y
    to_x, to_y = x - inner_x * _VERTEX_TO_SENSE, y - inner_y * _VERTEX_TO_SENSE
    return across_x * to_y - across_y * to_x


def _position(
    backend: Backend, tables: Tables, track: Any, cell: Any, past: Any, short: Any
) -> Any:
    """Interpolates between the cell's gates by the distances to both: continuous, monotone."""
    xp = backend.xp
    behind = xp.clip(past, 0, (1 << 28) - 1) >> 10
    ahead = xp.clip(-short, 0, (1 << 28) - 1) >> 10
    # Below 2^18 << 12 = 2^30.
    part = floor_divide(backend, behind << 12, xp.maximum(behind + ahead, 1))
    index = track * (tables.points + 1) + cell
    start = backend.take(tables.cell_start, index)
    length = backend.take(tables.cell_start, index + 1) - start
    return start + (length * part >> 12)  # a cell is shorter than 2^18: below 2^30


def _is_on_road(
    backend: Backend,
    tables: Tables,
    track: Any,
    cell: Any,
    here: tuple[Any, Any, Any, Any],
    there: tuple[Any, Any, Any, Any],
    x: Any,
    y: Any,
) -> Any:
    """Compares the distance to the cell's centre segment, ends included, with the half-width.

    Gates halve the corners, so no other segment is nearer than that of the car's own cell.
    """
    xp = backend.xp
    start_x, start_y = here[0] + here[2], here[1] + here[3]  # twice the middle, 1/64 px
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
    limit = backend.take(tables.half_width, track)
    limit = limit * limit
    is_at_start = _length_squared(xp, to_x, to_y) <= limit
    end_x, end_y = to_x - along_x * _VERTEX_TO_SENSE, to_y - along_y * _VERTEX_TO_SENSE
    return is_beside | is_at_start | (_length_squared(xp, end_x, end_y) <= limit)


def _length_squared(xp: Any, x: Any, y: Any) -> Any:
    """Squares a length; one past 64 px (the widest road has 60) counts as 64 px: below 2^29."""
    most = (1 << 14) - 1
    x, y = xp.clip(x, -most, most), xp.clip(y, -most, most)
    return x * x + y * y
