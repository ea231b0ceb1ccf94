"""A lower bound of the lap time, computed from the shortest path that stays on the road."""

import functools
from collections.abc import Sequence

import numpy as np
import scipy.linalg

from rlcar.config.race import (
    ACCELERATION_PX_PER_STEP2,
    CLASSIC_TOP_SPEED_PX_PER_STEP,
    DRAG_PER_STEP,
)
from rlcar.track import Track

# How much shorter a lap of the integer simulator may be than a lap in real numbers. Edges lie on
# a grid of 1/32 px (0.15 px over the turn of 2 pi), positions are rounded to 2^-12 px at each step
# and cosines to 1e-4: together less than 0.4 px.
_LENGTH_SLACK_PX = 0.5
_NEWTON_STEPS = 3  # for each weight of the barrier
_FIRST_BARRIER_PX, _LAST_BARRIER_PX = 4.0, 1e-5  # weights of the barrier
_BARRIER_FACTOR = 0.2

_Road = tuple[np.ndarray, np.ndarray, np.ndarray]  # start [1, 2], gates [P, 2], across [P, 2]


def lap_time_bound_steps(
    tracks: Sequence[Track], top_speed_px_per_step: float = CLASSIC_TOP_SPEED_PX_PER_STEP
) -> np.ndarray:
    """Returns the number of steps below which no car can lap each track, `[M]` int64.

    The bound holds for every vehicle with that top speed, because a grip limit, obstacles and
    rivals can only make a car slower.

    A lap crosses every gate (the line across the road through a centre point) in order, from the
    start point back to some point of the first gate. The variables are the offsets of the crossings
    along the gates. The length of the line through the crossings is a sum of norms of affine
    functions. It is therefore convex, and its minimum over all offsets that a car can have is
    global. A convex function lies above its tangents. The tangent at the solver's last point,
    minimised over the box of offsets, therefore bounds the minimum from below, whatever the
    tolerance of the solver. No car covers that length in fewer steps than a car that starts from
    rest at full throttle and never brakes.
    """
    top = top_speed_px_per_step
    return fewest_steps(np.array([shortest_lap_px(track, top) for track in tracks]), top)


def shortest_lap_px(
    track: Track, top_speed_px_per_step: float = CLASSIC_TOP_SPEED_PX_PER_STEP
) -> float:
    """Returns a lower bound of the length of any lap on the road. Results are cached."""
    arrays = (track.centre_px, track.inner_px, track.outer_px)
    lines = (np.ascontiguousarray(line, np.float64).tobytes() for line in arrays)
    return _shortest_lap_px(*lines, top_speed_px_per_step)


def fewest_steps(
    length_px: np.ndarray, top_speed_px_per_step: float = CLASSIC_TOP_SPEED_PX_PER_STEP
) -> np.ndarray:
    """Returns the number of steps in which full throttle from rest covers each length, int64."""
    covered_px = []
    speed = distance_px = 0.0
    longest_px = float(np.max(length_px, initial=0.0))
    while distance_px < longest_px:
        speed = speed + ACCELERATION_PX_PER_STEP2 - DRAG_PER_STEP * speed
        speed = min(speed, top_speed_px_per_step)
        distance_px += speed
        covered_px.append(distance_px)
    steps = np.searchsorted(np.array(covered_px), np.asarray(length_px), side="left") + 1
    return np.where(np.asarray(length_px) <= 0.0, 0, steps).astype(np.int64)


@functools.lru_cache(maxsize=4096)
def _shortest_lap_px(centre: bytes, inner: bytes, outer: bytes, hop_px: float) -> float:
    """Solves one track by an interior-point method with tridiagonal Newton steps.

    The arrays are passed as bytes, which the cache can hash. A car moves at most `hop_px` a step.
    """
    centre_px, inner_px, outer_px = (
        np.frombuffer(line, np.float64).reshape(-1, 2) for line in (centre, inner, outer)
    )
    across, low_px, high_px = _gates(centre_px, inner_px, outer_px, hop_px)
    order = np.r_[1 : len(centre_px), 0]  # the lap ends on the gate it started from
    across, low_px, high_px = across[order], low_px[order], high_px[order]
    road = (centre_px[:1], centre_px[order], across)
    offset_px = np.zeros(len(order))
    barrier_px = _FIRST_BARRIER_PX
    while barrier_px > _LAST_BARRIER_PX:  # then the length is within 2 P barrier_px of the minimum
        barrier_px *= _BARRIER_FACTOR
        for _ in range(_NEWTON_STEPS):
            offset_px = _newton_step(road, offset_px, low_px, high_px, barrier_px)
    length_px, gradient, _, _ = _length(road, offset_px)
    # The minimum of the tangent over the box: each offset is at the end to which its slope falls.
    fall_px = np.minimum(gradient * (low_px - offset_px), gradient * (high_px - offset_px)).sum()
    return max(length_px + float(fall_px) - _LENGTH_SLACK_PX, 0.0)


def _length(road: _Road, offset_px: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the length of the line, its gradient, and the two diagonals of its Hessian."""
    start_px, gate_px, across = road
    hop_px = np.diff(np.vstack([start_px, gate_px + offset_px[:, None] * across]), axis=0)
    hop_length_px = np.sqrt(np.sum(hop_px**2, axis=1))
    direction = hop_px / hop_length_px[:, None]
    arriving = np.sum(direction * across, axis=1)
    leaving = np.sum(direction[1:] * across[:-1], axis=1)
    gradient = arriving.copy()
    gradient[:-1] -= leaving
    # The Hessian of |d| is (I - d d' / |d|^2) / |d|, here projected on the two gates of a hop.
    diagonal = (1.0 - arriving**2) / hop_length_px
    diagonal[:-1] += (1.0 - leaving**2) / hop_length_px[1:]
    beside = arriving[1:] * leaving - np.sum(across[1:] * across[:-1], axis=1)
    return float(hop_length_px.sum()), gradient, diagonal, beside / hop_length_px[1:]


def _newton_step(
    road: _Road,
    offset_px: np.ndarray,
    low_px: np.ndarray,
    high_px: np.ndarray,
    barrier_px: float,
) -> np.ndarray:
    """Makes a Newton step on `length - barrier (log(offset - low) + log(high - offset))`."""

    def merit(offset_px: np.ndarray) -> float:
        room = (offset_px - low_px) * (high_px - offset_px)
        return _length(road, offset_px)[0] - barrier_px * float(np.log(room).sum())

    _, gradient, diagonal, beside = _length(road, offset_px)
    below, above = 1.0 / (offset_px - low_px), 1.0 / (high_px - offset_px)
    gradient = gradient + barrier_px * (above - below)
    bands = np.zeros((2, len(offset_px)))
    bands[0, 1:] = beside
    bands[1] = diagonal + barrier_px * (above**2 + below**2)
    step_px = -scipy.linalg.solveh_banded(bands, gradient)
    # The longest step that leaves 1 % of the distance to both ends.
    share = 0.99 / max(float(np.max(np.maximum(-step_px * below, step_px * above))), 0.99)
    here = merit(offset_px)
    while share > 1e-6 and merit(offset_px + share * step_px) > here:
        share /= 2
    return offset_px + share * step_px if share > 1e-6 else offset_px


def _gates(
    centre_px: np.ndarray, inner_px: np.ndarray, outer_px: np.ndarray, hop_px: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns each gate's unit vector to the outer edge, `[P, 2]`, and the offsets of a car, `[P]`.

    A gate ends at the mitred corners of the road. A car may pass beyond the inner corner of a bend,
    because the race checks only its positions after each step, and the steps are chords. A chord of
    length L passes corners with a total angle at a distance of at most `L / 2 tan(angle / 2)`.
    Corners less than L apart count together.
    """
    across = outer_px - inner_px
    across /= np.linalg.norm(across, axis=1)[:, None]
    ahead = np.roll(centre_px, -1, axis=0) - centre_px
    behind = np.roll(ahead, 1, axis=0)
    turn_rad = np.arctan2(
        np.abs(behind[:, 0] * ahead[:, 1] - behind[:, 1] * ahead[:, 0]),
        np.sum(behind * ahead, axis=1),
    )

    def reach_px(edge_px: np.ndarray) -> np.ndarray:
        gap_px = np.linalg.norm(edge_px[:, None] - edge_px[None, :], axis=2)
        angle_rad = np.where(gap_px <= hop_px, turn_rad, 0.0).sum(axis=1)
        chord_px = hop_px / 2 * np.tan(np.minimum(angle_rad, np.pi / 2) / 2)
        return np.linalg.norm(edge_px - centre_px, axis=1) + chord_px

    return across, -reach_px(inner_px), reach_px(outer_px)
