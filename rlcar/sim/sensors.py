"""What the five rays read: exact distances to the road's edges, by walking along its gates.

A ray leaves the road in the first cell whose far gate it does not cross; one division then gives
the distance to that cell's edge. Coordinates are relative to the car (x ahead, y left), in 2^-8 px;
a vertex nearer than 511 px keeps every product in int32, and rays look at nearer ones only.
"""

from typing import Any, NamedTuple

import numpy as np

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

RAY_ANGLES_DEG = (-45.0, -22.5, 0.0, 22.5, 45.0)  # to the left is positive
RANGE_PX = 150
RANGE = RANGE_PX * SENSE_UNITS_PER_PX
RAYS = len(RAY_ANGLES_DEG)

_ANGLES_RAD = np.deg2rad(np.array(RAY_ANGLES_DEG))
_RAY_COSINE = np.rint(np.cos(_ANGLES_RAD) * 2**TRIG_BITS).astype(np.int32)
_RAY_SINE = np.rint(np.sin(_ANGLES_RAD) * 2**TRIG_BITS).astype(np.int32)
_C, _S = int(_RAY_COSINE[3]), int(_RAY_SINE[3])

# Each ray owns five bits of a word: room to count 31 gates.
_FIELD_BITS = 5
_FIELD_MASK = (1 << _FIELD_BITS) - 1
_RAY_BIT = tuple(1 << (_FIELD_BITS * ray) for ray in range(RAYS))
_ALL_RAYS = sum(_RAY_BIT)
_FIELD_SHIFT = np.arange(RAYS, dtype=np.int32) * _FIELD_BITS
# A ray can end within its range only nearer than this straight ahead; one unit for rounding.
_AHEAD_LIMIT = tuple(int(c) + 1 for c in np.ceil(RANGE * np.cos(_ANGLES_RAD)))

_VERTEX_TO_SENSE = SENSE_UNITS_PER_PX // grid.UNITS_PER_PX
_FAR = 90_000  # 351 px: farther obstacles count as being there, still out of range


class Frame(NamedTuple):
    """The cars' poses, to see the world from; all `[..., N]`."""

    x: Any  # 2^-8 px
    y: Any
    cosine: Any  # of the heading, 2^-14
    sine: Any

    def over(self) -> "Frame":
        """Returns the same poses as `[1, N]`, to see rows of points."""
        return Frame(*(value[None] for value in self))

    def rotate(self, to_x: Any, to_y: Any) -> tuple[Any, Any]:
        """Rotates differences in 2^-8 px; a length below 2^17 stays below 2^31."""
        ahead = shift_round(to_x * self.cosine + to_y * self.sine, TRIG_BITS)
        left = shift_round(to_y * self.cosine - to_x * self.sine, TRIG_BITS)
        return ahead, left

    def see(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Returns how far ahead and to the left points given in 1/32 px are."""
        return self.rotate(x * _VERTEX_TO_SENSE - self.x, y * _VERTEX_TO_SENSE - self.y)


class Circle(NamedTuple):
    """One circle for each car: an obstacle or a rival."""

    middle: Any  # [N] packed, 1/32 px
    radius: int  # 2^-8 px, below 2^14

    def seen_from(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Returns the way to the middle from points in 2^-8 px."""
        return (
            grid.unpack_x(self.middle) * _VERTEX_TO_SENSE - x,
            grid.unpack_y(self.middle) * _VERTEX_TO_SENSE - y,
        )


def make_frame(backend: Backend, cosine_table: Any, x: Any, y: Any, heading: Any) -> Frame:
    """Returns the frames of cars at x, y (2^-12 px) with a heading (2^-22 of a turn)."""
    return Frame(to_sense(x), to_sense(y), *cosine_sine(backend, cosine_table, heading))


def sense_edges(  # a car's pose is its frame, its place is its track and cell
    backend: Backend, tables: Tables, frame: Frame, track: Any, cell: Any, is_on_road: Any
) -> Any:
    """Returns the distances to the road's edges, `[R, N]` in 2^-8 px, at most `RANGE`.

    A car off the road reads 0 on rays that start behind an edge or meet none.
    """
    xp = backend.xp
    here = track * tables.row + tables.padding + cell
    forward, inner_forward = _walk(backend, tables, frame, here + 1, 1)
    backward, inner_backward = _walk(backend, tables, frame, here, -1)

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
    corner = 2 * base + 1 - is_inner  # inner at even places, outer at odd ones
    start, end = backend.take(tables.edges, corner), backend.take(tables.edges, corner + 2)
    distance = _edge_distance(backend, frame.over(), start, end, is_inner)
    nothing = xp.where(is_on_road, RANGE, 0)[None]
    return xp.clip(xp.where(distance < 0, nothing, distance), 0, RANGE)


def sense_circle(backend: Backend, frame: Frame, circle: Circle, reading: Any) -> Any:
    """Shortens readings `[R, N]` in 2^-8 px by a circle each."""
    xp, radius = backend.xp, circle.radius
    cosine, sine = _RAY_COSINE[:, None], _RAY_SINE[:, None]
    to_x, to_y = circle.seen_from(frame.x, frame.y)
    ahead, left = frame.rotate(xp.clip(to_x, -_FAR, _FAR), xp.clip(to_y, -_FAR, _FAR))
    along = shift_round(ahead[None] * cosine + left[None] * sine, TRIG_BITS)
    across = xp.abs(shift_round(left[None] * cosine - ahead[None] * sine, TRIG_BITS))
    across = xp.minimum(across, radius + 1)
    depth = floor_sqrt(backend, xp.maximum(radius * radius - across * across, 0))
    is_hit = (across <= radius) & (along > 0)
    return xp.minimum(reading, xp.where(is_hit, xp.maximum(along - depth, 0), RANGE))


def is_touching(backend: Backend, circle: Circle, x: Any, y: Any) -> Any:
    """Says which cars `[N]` at x, y (2^-12 px) have their centre within their circle."""
    xp = backend.xp
    most = (1 << 15) - 1  # 128 px: the squares' sum stays below 2^31
    to_x, to_y = circle.seen_from(to_sense(x), to_sense(y))
    to_x, to_y = xp.clip(to_x, -most, most), xp.clip(to_y, -most, most)
    return to_x * to_x + to_y * to_y <= circle.radius * circle.radius


def _walk(
    backend: Backend, tables: Tables, frame: Frame, first_gate: Any, direction: int
) -> tuple[Any, Any]:
    """Counts the gates each ray crosses, one way along the road.

    Forward, a ray crosses a gate iff the inner vertex is on its left and the outer on its right;
    backward the other way round. Returns two `[N]` words with a field per ray: the count, and
    whether the inner vertex was on the wrong side at the first gate not crossed.
    """
    xp, integer = backend.xp, backend.integer
    window = tables.padding - 2
    frames = frame.over()
    rows = np.arange(backend.gates_at_once, dtype=integer)

    def goes_on(carry: Any) -> Any:
        step, alive, _, _ = carry
        return xp.any(alive != 0) & (step < window)

    def pass_gates(carry: Any) -> Any:
        step, alive, count, wrong = carry
        steps = xp.minimum(step + rows, window - 1)[:, None]
        vertices = gate_vertices(backend, tables, first_gate[None] + direction * steps)
        inner_ahead, inner_left = frames.see(vertices[0], vertices[1])
        outer_ahead, outer_left = frames.see(vertices[2], vertices[3])
        inner_right = _right_of_rays(inner_ahead, inner_left)
        outer_right = _right_of_rays(outer_ahead, outer_left)
        if direction < 0:
            inner_right, outer_right = ~inner_right, ~outer_right
        crossed = ~inner_right & outer_right & _near_enough(xp.minimum(inner_ahead, outer_ahead))
        for row in range(backend.gates_at_once):
            if row:  # the loop's condition has looked at the first one
                alive = alive * (step + row < window)
            wrong = wrong | (alive & inner_right[row])
            alive = alive & crossed[row]
            count = count + alive
        return step + backend.gates_at_once, alive, count, wrong

    zero = xp.zeros_like(first_gate)
    carry = (xp.asarray(0, dtype=integer), zero + _ALL_RAYS, zero, zero)
    _, _, count, wrong = backend.while_loop(goes_on, pass_gates, carry)
    return count, wrong


def _right_of_rays(ahead: Any, left: Any) -> Any:
    """Returns a word with the bit of each ray that a point lies to the right of.

    The sign of cross(ray, point); the outer rays' cosine and sine are equal and drop out.
    """
    left_c, ahead_s = left * _C, ahead * _S
    sides = (left + ahead, left_c + ahead_s, left, left_c - ahead_s, left - ahead)
    word = (sides[0] >> 31) & _RAY_BIT[0]
    for side, bit in zip(sides[1:], _RAY_BIT[1:], strict=True):
        word = word | ((side >> 31) & bit)
    return word


def _near_enough(ahead: Any) -> Any:
    """Returns a word with the bit of each ray that may still end beyond a gate this far ahead."""
    word = ((ahead - _AHEAD_LIMIT[0]) >> 31) & (_RAY_BIT[0] | _RAY_BIT[4])
    word = word | (((ahead - _AHEAD_LIMIT[1]) >> 31) & (_RAY_BIT[1] | _RAY_BIT[3]))
    return word | (((ahead - _AHEAD_LIMIT[2]) >> 31) & _RAY_BIT[2])


def _edge_distance(backend: Backend, frame: Frame, here: Any, there: Any, is_inner: Any) -> Any:
    """Returns the distance along each ray to the edge between two packed vertices, `[R, N]`.

    t = a + (b - a) |cross a| / (|cross a| + |cross b|), never negative; -1 where the ray does not
    leave the road between the two.
    """
    xp = backend.xp
    cosine, sine = _RAY_COSINE[:, None], _RAY_SINE[:, None]

    def in_ray_frame(packed: Any) -> tuple[Any, Any]:
        ahead, left = frame.see(grid.unpack_x(packed), grid.unpack_y(packed))
        return (
            shift_round(ahead * cosine + left * sine, TRIG_BITS),
            left * cosine - ahead * sine,
        )

    along_a, across_a = in_ray_frame(here)
    along_b, across_b = in_ray_frame(there)
    # Leaving over the inner edge, the nearer vertex is on the left; over the outer, on the right.
    is_right_a, is_right_b = across_a < 0, across_b < 0
    is_leaving = (is_right_a != is_right_b) & (is_right_a == (is_inner == 0))
    size_a = shift_round(xp.abs(across_a), TRIG_BITS)
    size_b = shift_round(xp.abs(across_b), TRIG_BITS)
    whole = xp.maximum(size_a + size_b, 1)
    difference = along_b - along_a
    # An edge is shorter than 255 px: |difference| size_a <= length^2 / 2 < 2^31 - length.
    part = floor_divide(backend, xp.abs(difference) * size_a + (whole >> 1), whole)
    distance = along_a + xp.where(difference < 0, -part, part)
    return xp.where(is_leaving, xp.maximum(distance, 0), -1)
