"""A lower bound of the lap time, from the shortest path that stays on the road."""

import functools
from collections.abc import Sequence

import numpy as np
import scipy.linalg

from rlcar.track import Track

# The car at full throttle (docs of the world): speed = clip(speed + 0.2 - 0.01 speed, 0, top).
CLASSIC_TOP_SPEED_PX_PER_STEP = 5.0
_ACCELERATION = 0.2
_DRAG = 0.01

# What integers may gain over one lap: edges on a 1/32 px grid (0.15 px on the inner edge's 2 pi),
# positions rounded each step (2^-12 px), headings' cosines rounded (1e-4): together below 0.4 px.
_LENGTH_SLACK_PX = 0.5
_NEWTON_STEPS = 3  # for each barrier

_Road = tuple[np.ndarray, np.ndarray, np.ndarray]  # start [1, 2], gates [P, 2], across [P, 2]


def lap_time_bound_steps(
    tracks: Sequence[Track], top_speed_px_per_step: float = CLASSIC_TOP_SPEED_PX_PER_STEP
) -> np.ndarray:
    """Returns a number of steps below which no car can lap each track; `[M]` int64.

    It holds for every vehicle with that top speed: a grip limit, obstacles and rivals only cost.

    A lap crosses every gate (the line across the road through a centre point), in order, from the
    start point back to somewhere on the first gate. With the offset on each gate as the only
    variables, the length of the line through them is a sum of norms of affine functions, so it is
    convex, and its minimum over the offsets a car can have is global. A convex function lies above
    its tangent, so the tangent at the point where the solver stopped, minimised over the box of
    offsets, bounds the minimum from below whatever the solver's tolerance was. No car covers that
    length in fewer steps than one that starts from rest at full throttle and never brakes.
    """
    top = top_speed_px_per_step
    return fewest_steps(np.array([shortest_lap_px(track, top) for track in tracks]), top)


def shortest_lap_px(
    track: Track, top_speed_px_per_step: float = CLASSIC_TOP_SPEED_PX_PER_STEP
) -> float:
    """Returns a certified lower bound of the length of any lap on the road (remembered)."""
    arrays = (track.centre_px, track.inner_px, track.outer_px)
    lines = (np.ascontiguousarray(one, np.float64).tobytes() for one in arrays)
    return _shortest_lap_px(*lines, top_speed_px_per_step)


def fewest_steps(
    length_px: np.ndarray, top_speed_px_per_step: float = CLASSIC_TOP_SPEED_PX_PER_STEP
) -> np.ndarray:
    """Returns the steps that full throttle from rest needs to cover each length; int64."""
    covered_px = []
    speed = distance_px = 0.0
    longest_px = float(np.max(length_px, initial=0.0))
    while distance_px < longest_px:
        speed = min(speed + _ACCELERATION - _DRAG * speed, top_speed_px_per_step)
        distance_px += speed
        covered_px.append(distance_px)
    steps = np.searchsorted(np.array(covered_px), np.asarray(length_px), side="left") + 1
    return np.where(np.asarray(length_px) <= 0.0, 0, steps).astype(np.int64)


@functools.lru_cache(maxsize=4096)
def _shortest_lap_px(centre: bytes, inner: bytes, outer: bytes, hop_px: float) -> float:
    """Solves one track by an interior-point method whose Newton steps are tridiagonal.

    The arrays come as bytes so that the answer can be remembered; a step covers at most `hop_px`.
    """
    centre_px, inner_px, outer_px = (
        np.frombuffer(one, np.float64).reshape(-1, 2) for one in (centre, inner, outer)
    )
    across, low_px, high_px = _gates(centre_px, inner_px, outer_px, hop_px)
    order = np.r_[1 : len(centre_px), 0]  # the lap ends on the gate it started from
    across, low_px, high_px = across[order], low_px[order], high_px[order]
    road = (centre_px[:1], centre_px[order], across)
    offset_px = np.zeros(len(order))
    barrier_px = 4.0
    while barrier_px > 1e-5:  # the answer is then within 2 P barriers of the minimum
        barrier_px *= 0.2
        for _ in range(_NEWTON_STEPS):
            offset_px = _newton_step(road, offset_px, low_px, high_px, barrier_px)
    length_px, gradient, _, _ = _length(road, offset_px)
    # The tangent's minimum over the box: each offset at the end its slope points down to.
    fall_px = np.minimum(gradient * (low_px - offset_px), gradient * (high_px - offset_px)).sum()
    return max(length_px + float(fall_px) - _LENGTH_SLACK_PX, 0.0)


def _length(road: _Road, offset_px: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the line's length, its gradient, and its second derivatives' two diagonals."""
    start_px, gate_px, across = road
    hop_px = np.diff(np.vstack([start_px, gate_px + offset_px[:, None] * across]), axis=0)
    hop_length_px = np.sqrt(np.sum(hop_px**2, axis=1))
    direction = hop_px / hop_length_px[:, None]
    arriving = np.sum(direction * across, axis=1)
    leaving = np.sum(direction[1:] * across[:-1], axis=1)
    gradient = arriving.copy()
    gradient[:-1] -= leaving
    # Of |d|: (I - d d' / |d|^2) / |d|, seen along the two gates of a hop.
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
    """Takes one Newton step on `length - barrier (log(offset - low) + log(high - offset))`."""

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
    # The longest step that stays 1 % of the room away from both ends.
    share = 0.99 / max(float(np.max(np.maximum(-step_px * below, step_px * above))), 0.99)
    here = merit(offset_px)
    while share > 1e-6 and merit(offset_px + share * step_px) > here:
        share /= 2
    return offset_px + share * step_px if share > 1e-6 else offset_px


def _gates(
    centre_px: np.ndarray, inner_px: np.ndarray, outer_px: np.ndarray, hop_px: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns each gate's unit vector to the outer edge `[P, 2]` and the offsets a car can have.

    A gate ends at the mitred corners of the road, and a car may pass the inner one of a bend: it
    is judged where it stands, not between, so its moves are chords. One of length L over corners
    that turn by an angle passes at most `L / 2 tan(angle / 2)` beyond them; corners less than L
    apart count together.
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
