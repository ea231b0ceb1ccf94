"""The distance sensor: five rays measure the exact distances to road edges and obstacles.

The sensor follows each ray along the gates of the road. A ray leaves the road in the first cell
whose far gate it does not cross, and one division gives the distance to the edge of that cell.
Coordinates are relative to the car (x ahead, y left), in 2^-8 px. Rays only look at vertices nearer
than 511 px, for which every product fits into int32.
"""

from typing import NamedTuple

import numpy as np

from rlcar.config.race import RANGE_PX, RAY_ANGLES_DEG
from rlcar.sim.backend import Backend
from rlcar.sim.fixed import (
    SENSE_UNITS_PER_PX,
    TRIG_BITS,
    cosine_sine,
    floor_divide,
    floor_sqrt,
    shift_round,
)
from rlcar.sim.road import Tables, gate_vertices, to_sense
from rlcar.track import grid
from rlcar.types import Array

RANGE = RANGE_PX * SENSE_UNITS_PER_PX
RAYS = len(RAY_ANGLES_DEG)

_ANGLES_RAD = np.deg2rad(np.array(RAY_ANGLES_DEG))
_RAY_COSINE = np.rint(np.cos(_ANGLES_RAD) * 2**TRIG_BITS).astype(np.int32)
_RAY_SINE = np.rint(np.sin(_ANGLES_RAD) * 2**TRIG_BITS).astype(np.int32)
# Of the rays at +-22.5 degrees; those at +-45 degrees have equal cosine and sine.
_COSINE, _SINE = int(_RAY_COSINE[3]), int(_RAY_SINE[3])

# Each ray has a field of five bits in a word, which can count 31 gates.
_FIELD_BITS = 5
_FIELD_MASK = (1 << _FIELD_BITS) - 1
_RAY_BIT = tuple(1 << (_FIELD_BITS * ray) for ray in range(RAYS))
_ALL_RAYS = sum(_RAY_BIT)
_FIELD_SHIFT = np.arange(RAYS, dtype=np.int32) * _FIELD_BITS
# The end of each ray is nearer than this straight ahead; one unit is added for rounding.
_AHEAD_LIMIT = tuple(int(c) + 1 for c in np.ceil(RANGE * np.cos(_ANGLES_RAD)))

_VERTEX_TO_SENSE = SENSE_UNITS_PER_PX // grid.UNITS_PER_PX
_FAR = 90_000  # 351 px: farther obstacles are moved here, still out of range


class Frame(NamedTuple):
    """The coordinate systems of the cars, each field `[..., N]`."""

    x: Array  # 2^-8 px
    y: Array
    cosine: Array  # of the heading, 2^-14
    sine: Array

    def as_rows(self) -> "Frame":
        """Returns the same frames as `[1, N]`, which broadcast against rows of points."""
        return Frame(*(value[None] for value in self))

    def rotate(self, to_x: Array, to_y: Array) -> tuple[Array, Array]:
        """Rotates differences in 2^-8 px, whose length must be below 2^17, to (ahead, left)."""
        ahead = shift_round(to_x * self.cosine + to_y * self.sine, TRIG_BITS)
        left = shift_round(to_y * self.cosine - to_x * self.sine, TRIG_BITS)
        return ahead, left

    def relative(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Returns how far ahead of the car and to its left points in 1/32 px lie, in 2^-8 px."""
        return self.rotate(x * _VERTEX_TO_SENSE - self.x, y * _VERTEX_TO_SENSE - self.y)


class Circle(NamedTuple):
    """A circle for each car: an obstacle or a rival."""

    centre: Array  # [N] packed, 1/32 px
    radius: int  # 2^-8 px, below 2^14

    def offset_from(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Returns the differences to the centre from points in 2^-8 px."""
        return (
            grid.unpack_x(self.centre) * _VERTEX_TO_SENSE - x,
            grid.unpack_y(self.centre) * _VERTEX_TO_SENSE - y,
        )


class MovingCircle(NamedTuple):
    """A circle for each car that may be anywhere: another car."""

    x: Array  # [N] 2^-8 px, below 2^23
    y: Array
    radius: int  # 2^-8 px, below 2^14

    def offset_from(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Returns the differences to the centre from points in 2^-8 px."""
        return self.x - x, self.y - y


def make_frame(backend: Backend, cosine_table: Array, x: Array, y: Array, heading: Array) -> Frame:
    """Returns the frames of cars at x, y (2^-12 px) with a heading (2^-22 of a turn)."""
    return Frame(to_sense(x), to_sense(y), *cosine_sine(backend, cosine_table, heading))


def sense_edges(  # `frame` is the car's pose; `track` and `cell` are its place
    backend: Backend, tables: Tables, frame: Frame, track: Array, cell: Array, is_on_road: Array
) -> Array:
    """Returns the distances to the edges of the road, `[R, N]` in 2^-8 px, at most `RANGE`.

    A car off the road gets 0 from rays that start behind an edge or meet none.
    """
    xp = backend.xp
    here = track * tables.row + tables.padding + cell
    forward, inner_forward = _count_crossed_gates(backend, tables, frame, here + 1, 1)
    backward, inner_backward = _count_crossed_gates(backend, tables, frame, here, -1)

    shift = _FIELD_SHIFT[:, None]
    forward = (forward[None] >> shift) & _FIELD_MASK
    backward = (backward[None] >> shift) & _FIELD_MASK
    inner_forward = (inner_forward[None] >> shift) & 1
    inner_backward = (inner_backward[None] >> shift) & 1
    is_inner = xp.where(
        forward > 0,
        inner_forward,
        xp.where(backward > 0, inner_backward, inner_forward & inner_backward),
    )
    base = here[None] + forward - backward
    corner = 2 * base + 1 - is_inner  # inner vertices have even indices, outer ones odd indices
    start, end = backend.take(tables.edges, corner), backend.take(tables.edges, corner + 2)
    distance = _edge_distance(backend, frame.as_rows(), start, end, is_inner)
    without_edge = xp.where(is_on_road, RANGE, 0)[None]
    return xp.clip(xp.where(distance < 0, without_edge, distance), 0, RANGE)


def sense_circle(
    backend: Backend, frame: Frame, circle: Circle | MovingCircle, reading: Array
) -> Array:
    """Shortens readings `[R, N]` in 2^-8 px where a ray hits the car's circle."""
    xp, radius = backend.xp, circle.radius
    cosine, sine = _RAY_COSINE[:, None], _RAY_SINE[:, None]
    to_x, to_y = circle.offset_from(frame.x, frame.y)
    ahead, left = frame.rotate(xp.clip(to_x, -_FAR, _FAR), xp.clip(to_y, -_FAR, _FAR))
    along = shift_round(ahead[None] * cosine + left[None] * sine, TRIG_BITS)
    across = xp.abs(shift_round(left[None] * cosine - ahead[None] * sine, TRIG_BITS))
    across = xp.minimum(across, radius + 1)
    depth = floor_sqrt(backend, xp.maximum(radius * radius - across * across, 0))
    is_hit = (across <= radius) & (along > 0)
    return xp.minimum(reading, xp.where(is_hit, xp.maximum(along - depth, 0), RANGE))


def is_touching(backend: Backend, circle: Circle | MovingCircle, x: Array, y: Array) -> Array:
    """Returns which cars `[N]` at x, y (2^-12 px) have their centre within their circle."""
    xp = backend.xp
    limit = (1 << 15) - 1  # 128 px: the sum of the squares stays below 2^31
    to_x, to_y = circle.offset_from(to_sense(x), to_sense(y))
    to_x, to_y = xp.clip(to_x, -limit, limit), xp.clip(to_y, -limit, limit)
    return to_x * to_x + to_y * to_y <= circle.radius * circle.radius


def _count_crossed_gates(
    backend: Backend, tables: Tables, frame: Frame, first_gate: Array, direction: int
) -> tuple[Array, Array]:
    """Counts the gates that each ray crosses in one direction (1 or -1) along the road.

    Forward, a ray crosses a gate if the inner vertex is on its left and the outer on its right;
    backward it is the other way round. Returns two `[N]` words with a field for each ray: the
    count, and whether the inner vertex was on the wrong side at the first gate not crossed.
    """
    xp, integer = backend.xp, backend.integer
    window = tables.padding - 2
    frames = frame.as_rows()
    rows = np.arange(backend.gates_at_once, dtype=integer)

    def any_ray_continues(carry: tuple[Array, ...]) -> Array:
        step, alive, _, _ = carry  # alive: one bit for each ray that has crossed all gates so far
        return xp.any(alive != 0) & (step < window)

    def examine_gates(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        step, alive, count, wrong = carry
        steps = xp.minimum(step + rows, window - 1)[:, None]
        vertices = gate_vertices(backend, tables, first_gate[None] + direction * steps)
        inner_ahead, inner_left = frames.relative(vertices[0], vertices[1])
        outer_ahead, outer_left = frames.relative(vertices[2], vertices[3])
        inner_right = _right_of_rays(inner_ahead, inner_left)
        outer_right = _right_of_rays(outer_ahead, outer_left)
        if direction < 0:
            inner_right, outer_right = ~inner_right, ~outer_right
        crossed = ~inner_right & outer_right & _near_enough(xp.minimum(inner_ahead, outer_ahead))
        for row in range(backend.gates_at_once):
            if row:  # The condition of the loop has checked the first gate.
                alive = alive * (step + row < window)
            wrong = wrong | (alive & inner_right[row])
            alive = alive & crossed[row]
            count = count + alive
        return step + backend.gates_at_once, alive, count, wrong

    zero = xp.zeros_like(first_gate)
    carry = (xp.asarray(0, dtype=integer), zero + _ALL_RAYS, zero, zero)
    _, _, count, wrong = backend.while_loop(any_ray_continues, examine_gates, carry)
    return count, wrong


def _right_of_rays(ahead: Array, left: Array) -> Array:
    """Returns a word with a bit for each ray that has the point on its right.

    The bit is the sign of cross(ray, point). For the outer rays cosine and sine are equal, so both
    factors are left out.
    """
    left_c, ahead_s = left * _COSINE, ahead * _SINE
    sides = (left + ahead, left_c + ahead_s, left, left_c - ahead_s, left - ahead)
    word = (sides[0] >> 31) & _RAY_BIT[0]
    for side, bit in zip(sides[1:], _RAY_BIT[1:], strict=True):
        word = word | ((side >> 31) & bit)
    return word


def _near_enough(ahead: Array) -> Array:
    """Returns a word with a bit for each ray that may end beyond a gate this far ahead."""
    word = ((ahead - _AHEAD_LIMIT[0]) >> 31) & (_RAY_BIT[0] | _RAY_BIT[4])
    word = word | (((ahead - _AHEAD_LIMIT[1]) >> 31) & (_RAY_BIT[1] | _RAY_BIT[3]))
    return word | (((ahead - _AHEAD_LIMIT[2]) >> 31) & _RAY_BIT[2])


def _edge_distance(
    backend: Backend, frame: Frame, here: Array, there: Array, is_inner: Array
) -> Array:
    """Returns the distance along each ray to the edge between two packed vertices, `[R, N]`.

    It is a + (b - a) |cross a| / (|cross a| + |cross b|), where a and b are the distances of the
    vertices along the ray, and never negative. It is -1 if the ray does not leave the road between
    the two.
    """
    xp = backend.xp
    cosine, sine = _RAY_COSINE[:, None], _RAY_SINE[:, None]

    def in_ray_frame(packed: Array) -> tuple[Array, Array]:
        ahead, left = frame.relative(grid.unpack_x(packed), grid.unpack_y(packed))
        return (
            shift_round(ahead * cosine + left * sine, TRIG_BITS),
            left * cosine - ahead * sine,
        )

    along_a, across_a = in_ray_frame(here)
    along_b, across_b = in_ray_frame(there)
    # A ray that leaves over the inner edge has the nearer vertex on its left; over the outer edge,
    # on its right.
    is_right_a, is_right_b = across_a < 0, across_b < 0
    is_leaving = (is_right_a != is_right_b) & (is_right_a == (is_inner == 0))
    size_a = shift_round(xp.abs(across_a), TRIG_BITS)
    size_b = shift_round(xp.abs(across_b), TRIG_BITS)
    total = xp.maximum(size_a + size_b, 1)
    difference = along_b - along_a
    # An edge is shorter than 255 px: |difference| size_a <= length^2 / 2 < 2^31 - length.
    part = floor_divide(backend, xp.abs(difference) * size_a + (total >> 1), total)
    distance = along_a + xp.where(difference < 0, -part, part)
    return xp.where(is_leaving, xp.maximum(distance, 0), -1)
