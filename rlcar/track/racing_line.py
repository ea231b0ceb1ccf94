"""A racing line for each track: points, and a speed for each of them.

The line bends as little as it can between its borders, which is a least-squares problem in the
offsets along the gates. Its lap time is an estimate of a good lap and not a bound.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg

from rlcar.config.race import (
    ACCELERATION_PX_PER_STEP2,
    BRAKE_PX_PER_STEP2,
    DRAG_PER_STEP,
    RaceConfig,
)
from rlcar.track import Track

MARGIN_PX = 8.0  # distance of the line from edges and obstacles
_SMALLEST_SHARE = 0.25  # of the half-width, which the line may use if the margin leaves less
_BESIDE_PX = 6.0  # gates this much before and behind an obstacle also keep clear of it
_SMALLEST_GAP_PX = 0.5  # between the borders at a gate
# Weight of the length against the curvature: small, so that the curvature decides in bends.
_LENGTH_WEIGHT = 0.02
_SLOWEST_PX_PER_STEP = 1.0
_NEWTON_STEPS = 3  # for each weight of the barrier
_FIRST_BARRIER, _LAST_BARRIER, _BARRIER_FACTOR = 10.0, 1e-4, 0.2  # weights of the barrier


_Key = tuple[bytes, bytes, bytes, bytes]


class RacingLine(NamedTuple):
    """Points and speeds of one lap. The start line lies before point 0."""

    point_px: np.ndarray  # [P, 2] float64, screen coordinates
    speed_px_per_step: np.ndarray  # [P] largest speed that grip and brakes allow at the point
    lap_time_steps: float  # estimated duration of a lap along the line from rest


def racing_lines(
    tracks: Sequence[Track],
    config: RaceConfig,
    grip_share: float = 1.0,
) -> list[RacingLine]:
    """Makes the line of each track for the lowest grip that a car may draw, times `grip_share`.

    The grip of a classic car, which turns on the spot, is infinite.
    """
    grip = config.vehicle.grip_px_per_step2.low * grip_share
    if config.vehicle.model == "classic":
        grip = float("inf")
    return [_make_line(_key(track), config, grip) for track in tracks]


def _key(track: Track) -> _Key:
    """Returns the lines of a track and half its width, of one gate or of all, for a cache."""
    half_width_px = track.half_width_px if track.half_widths_px is None else track.half_widths_px
    lines = (track.centre_px, track.outer_px - track.centre_px, track.obstacles_px, half_width_px)
    centre, mitre, obstacles, half_width = (
        np.ascontiguousarray(line, np.float64).tobytes() for line in lines
    )
    return centre, mitre, obstacles, half_width


@functools.lru_cache(maxsize=4096)
def _make_line(
    key: _Key,
    config: RaceConfig,
    grip_px_per_step2: float,
) -> RacingLine:
    point_px = _least_bent_line(key, config)
    top = config.vehicle.top_speed_px_per_step
    speed, steps = _speed_profile(point_px, grip_px_per_step2, top)
    return RacingLine(point_px, speed, steps)


@functools.lru_cache(maxsize=4096)
def _least_bent_line(key: _Key, config: RaceConfig) -> np.ndarray:
    """Returns the points of the line, which do not depend on the grip."""
    centre_px, mitre_px, obstacles_px = (np.frombuffer(line).reshape(-1, 2) for line in key[:3])
    half_width_px = np.frombuffer(key[3])  # [1] or [P]
    across = (
        mitre_px / half_width_px[:, None]
    )  # one px to the outside, measured along the road's normal
    low_px, high_px = _borders(centre_px, across, obstacles_px, half_width_px, config)
    offset_px = _least_bent(centre_px, across, low_px, high_px)
    return centre_px + offset_px[:, None] * across


def _borders(
    centre_px: np.ndarray,
    across: np.ndarray,
    obstacles_px: np.ndarray,
    half_width_px: np.ndarray,
    config: RaceConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lowest and highest offset at each gate that keep clear of edges and circles."""
    limit_px = np.maximum(half_width_px - MARGIN_PX, _SMALLEST_SHARE * half_width_px)
    low_px, high_px = np.full((2, len(centre_px)), limit_px)
    low_px = -low_px
    if config.track.obstacle_placement == "road":
        clear_px = config.track.obstacle_radius_px + MARGIN_PX
        for circle_px in obstacles_px:
            to_px = circle_px - centre_px
            offset_px = (to_px * across).sum(axis=1) / (across * across).sum(axis=1)
            index = int(np.argmin((to_px * to_px).sum(axis=1)))
            # The line passes on the side with more room, at all gates near the obstacle.
            passes_inside = offset_px[index] > 0
            distance_px = np.sqrt((to_px * to_px).sum(axis=1))
            near = distance_px < half_width_px + 2 * clear_px
            near &= np.abs(_along_px(to_px, across)) < clear_px + _BESIDE_PX
            border_px = offset_px[index]
            if passes_inside:
                high_px[near] = np.minimum(high_px[near], border_px - clear_px)
            else:
                low_px[near] = np.maximum(low_px[near], border_px + clear_px)
    # Where the two borders leave no gap, both move to their middle.
    middle_px = np.clip((low_px + high_px) / 2, -limit_px, limit_px)
    is_closed = low_px > high_px - _SMALLEST_GAP_PX
    low_px = np.where(is_closed, middle_px - _SMALLEST_GAP_PX / 2, low_px)
    return low_px, np.where(is_closed, middle_px + _SMALLEST_GAP_PX / 2, high_px)


def _along_px(to_px: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Returns the distance of points from each gate, measured along the road."""
    unit = across / np.sqrt((across * across).sum(axis=1))[:, None]
    return to_px[:, 0] * unit[:, 1] - to_px[:, 1] * unit[:, 0]


def _least_bent(
    centre_px: np.ndarray, across: np.ndarray, low_px: np.ndarray, high_px: np.ndarray
) -> np.ndarray:
    """Minimises the squared second differences of the closed line plus its weighted squared length.

    This is a convex quadratic function of the offsets between bounds, which Newton's method with a
    logarithmic barrier solves.
    """
    eye = np.eye(len(centre_px))
    hop = np.roll(eye, 1, axis=1) - eye
    bend = hop - np.roll(hop, 1, axis=0)
    pull = bend.T @ bend + _LENGTH_WEIGHT**2 * hop.T @ hop
    hessian = pull * (across @ across.T)
    slope = ((pull @ centre_px) * across).sum(axis=1)
    offset_px = (low_px + high_px) / 2
    barrier = _FIRST_BARRIER
    while barrier > _LAST_BARRIER:
        barrier *= _BARRIER_FACTOR
        for _ in range(_NEWTON_STEPS):
            below, above = 1.0 / (offset_px - low_px), 1.0 / (high_px - offset_px)
            gradient = hessian @ offset_px + slope + barrier * (above - below)
            curvature = hessian + np.diag(barrier * (above**2 + below**2))
            step_px = -scipy.linalg.solve(curvature, gradient, assume_a="pos")
            # The longest step that leaves 1 % of the distance to both bounds.
            share = 0.99 / max(float(np.maximum(-step_px * below, step_px * above).max()), 0.99)
            offset_px = offset_px + share * step_px
    return offset_px


def _speed_profile(
    point_px: np.ndarray, grip_px_per_step2: float, top_px_per_step: float
) -> tuple[np.ndarray, float]:
    """Returns the largest speeds that bends and brakes allow, and the lap time from rest."""
    ahead = np.roll(point_px, -1, axis=0) - point_px
    behind = np.roll(ahead, 1, axis=0)
    hop_px = np.sqrt((ahead * ahead).sum(axis=1))
    turn_rad = np.abs(
        np.arctan2(
            behind[:, 0] * ahead[:, 1] - behind[:, 1] * ahead[:, 0], (behind * ahead).sum(axis=1)
        )
    )
    bend_per_px = turn_rad / (0.5 * (hop_px + np.roll(hop_px, 1)))
    speed = np.minimum(np.sqrt(grip_px_per_step2 / np.maximum(bend_per_px, 1e-9)), top_px_per_step)
    speed = np.maximum(speed, _SLOWEST_PX_PER_STEP)
    for _ in range(2):  # The lap is closed: the second round knows the first corner.
        for i in reversed(range(len(speed))):
            following = speed[(i + 1) % len(speed)]
            braking = BRAKE_PX_PER_STEP2 + DRAG_PER_STEP * following
            speed[i] = min(speed[i], np.sqrt(following**2 + 2 * braking * hop_px[i]))
    now, steps = 0.0, 0.0
    for i, hop in enumerate(hop_px):
        acceleration = max(ACCELERATION_PX_PER_STEP2 - DRAG_PER_STEP * now, 0.0)
        gained = np.sqrt(now**2 + 2 * acceleration * hop)
        following = min(gained, speed[(i + 1) % len(speed)])
        steps += 2 * hop / max(now + following, 1e-6)
        now = following
    return speed, steps
