"""Hand-written drivers, with which the report of a policy compares it.

Three of them use only what a policy sees: five rays, each as a share of its range and ordered from
right to left, and the speed as a share of the top speed. The fourth knows the whole track.
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from rlcar.config.race import (
    FRONT_WHEEL_DEG,
    RAY_ANGLES_DEG,
    STEERING_DEG_PER_STEP,
    WHEELBASE_PX,
    RaceConfig,
    RivalConfig,
)
from rlcar.sim import CarView
from rlcar.track import make_tracks
from rlcar.track.racing_line import racing_lines
from rlcar.types import Array, Policy, TimeStep

# The drivers that see only rays were tuned on the validation tracks. These and many other values
# lap all of them.
_RAYS = len(RAY_ANGLES_DEG)
# Steering for each unit by which the two left rays together are longer than the two right ones. A
# difference of a quarter of the range is full steering.
_LEFT_MINUS_RIGHT_GAIN = 4.0
# Exponent of a ray's length in the mean of the ray angles. It is so large that the longest ray
# decides almost alone. The plain argmax would jump between rays.
_SHARPNESS = 16.0
_CAUTION = 0.5  # share of the wanted change of heading to make in one step; 1 swerves
_SMALLEST_WEIGHT = 1e-6  # of a ray: the mean exists even if all rays have length 0

# The driver that sees the track. It aims at a point of the racing line at this distance ahead, plus
# the distance that it covers in this many steps.
_LOOK_AHEAD_PX, _LOOK_AHEAD_STEPS = 8.0, 1.5
_BRAKE_AHEAD_STEPS = 2  # it also obeys the speed of the point that it reaches this much later
_THROTTLE_GAIN = 4.0  # throttle for each px/step that it is too slow
# Throttle for each px/step of speed that only balances the drag: drag over acceleration.
_DRAG_THROTTLE = 0.05
# The speed profile of its line uses this share of the worst grip: the car cannot follow the line
# exactly.
_REFERENCE_GRIP_SHARE = 0.65
_SMALLEST_AIM_PX2 = 1.0  # keeps the curvature finite if the aim is where the car is

# The driver that sees the track, behind a rival that blocks its line.
_RIVAL_IN_SIGHT_PX = 140.0  # a rival farther away has no influence
_RIVAL_CLEARANCE_PX = 3.0  # beside the rival, for the car to pass
_RIVAL_GAP_PX = 8.0  # behind the rival, beyond the clearance
_FOLLOWING_SHARE = 0.8  # of the rival's speed, directly behind it
# Braking while the gap closes: v² = v₀² + 2 a s with a = 0.3 px/step², three quarters of what the
# brakes can do.
_TWICE_BRAKING_PX_PER_STEP2 = 0.6


class RayRule(NamedTuple):
    """Five numbers that define a driver which reacts only to the present rays and speed."""

    sharpness: float  # exponent of a ray's length in the mean of the ray angles
    caution: float  # share of the wanted change of heading to make in one step
    base: float  # wanted speed with a wall directly ahead, as a share of the top speed
    slope: float  # how much a free range ahead adds to that share
    gain: float  # throttle for each unit that the share is too small


# Nearly the best of 120 rules on the training tracks of the grand prix (benchmarks/ray_rules.py).
# This one also laps every classic track.
CAREFUL = RayRule(sharpness=3.6, caution=0.42, base=0.15, slope=0.37, gain=10.0)


class _Lines(NamedTuple):
    """The racing lines of M tracks, P points each."""

    point_px: Array  # [M, P, 2]
    speed_px_per_step: Array  # [M, P]


def _no_carry(number_of_cars: int) -> None:
    return None


def _full_throttle(
    params: Any, carry: Any, time_step: TimeStep, key: Any, explore: bool
) -> tuple[Any, Array]:
    """Steers by `gain (left rays - right rays)`, throttle always 1."""
    ray = time_step.observation[:, :_RAYS]
    steering = _LEFT_MINUS_RIGHT_GAIN * (ray[:, 3] + ray[:, 4] - ray[:, 0] - ray[:, 1])
    return carry, _action(steering)


def _longest_ray(
    params: Any, carry: Any, time_step: TimeStep, key: Any, explore: bool
) -> tuple[Any, Array]:
    """Steers to the mean ray angle, weighted by a high power of each length; throttle always 1."""
    return carry, _action(_CAUTION * _open_angle_deg(time_step, _SHARPNESS) / STEERING_DEG_PER_STEP)


def _open_angle_deg(time_step: TimeStep, sharpness: float) -> Array:
    """Returns the mean ray angle `[N]`, weighted by `length ** sharpness`."""
    weight = time_step.observation[:, :_RAYS] ** sharpness + _SMALLEST_WEIGHT
    return (weight * np.array(RAY_ANGLES_DEG, np.float32)[None]).sum(axis=1) / weight.sum(axis=1)


def _action(steering: Array) -> Array:
    """Returns actions `[N, 2]` with full throttle."""
    steering = jnp.clip(steering, -1.0, 1.0)
    return jnp.stack([steering, jnp.ones_like(steering)], axis=1)


def _ray_rule(
    params: Any, carry: Any, time_step: TimeStep, key: Any, explore: bool
) -> tuple[Any, Array]:
    """Steers like `longest_ray`, more gently, and brakes for what is near ahead."""
    rule = CAREFUL if params is None else params
    observation = time_step.observation
    angle_deg = _open_angle_deg(time_step, rule.sharpness)
    steering = jnp.clip(rule.caution * angle_deg / STEERING_DEG_PER_STEP, -1.0, 1.0)
    free_range = jnp.minimum(observation[:, 2], jnp.maximum(observation[:, 1], observation[:, 3]))
    wanted_speed = rule.base + rule.slope * free_range  # as a share of the top speed
    throttle = jnp.clip(rule.gain * (wanted_speed - observation[:, _RAYS]), -1.0, 1.0)
    return carry, jnp.stack([steering, throttle], axis=1)


@functools.lru_cache(maxsize=8)
def make_reference(track_seeds: tuple[int, ...], config: RaceConfig) -> Policy:
    """Returns a driver that sees the track: pure pursuit of the racing line (Coulter 1992).

    It knows its own pose and that of the rival. It brakes where the speed profile of the line says
    so for the worst grip, and follows a rival that it cannot pass. Car i must drive the i-th track.
    Equal arguments give the same driver, so that nothing is compiled twice.
    """
    tracks = make_tracks(track_seeds, config.track)
    racing = racing_lines(tracks, config, grip_share=_REFERENCE_GRIP_SHARE)
    lines = _Lines(
        jnp.asarray(np.stack([line.point_px for line in racing]), jnp.float32),
        jnp.asarray(np.stack([line.speed_px_per_step for line in racing]), jnp.float32),
    )

    def act(
        params: Any, carry: Any, time_step: TimeStep, key: Any, explore: bool, view: CarView
    ) -> tuple[Any, Array]:
        """The carry `[N]` is the heading of the step before, in degrees."""
        return view.heading_deg, _pursue(lines, config, carry, time_step.is_first, view)

    return Policy(lambda number: jnp.zeros(number, jnp.float32), act, uses_car_view=True)


def _pursue(
    lines: _Lines, config: RaceConfig, last_heading_deg: Array, is_first: Array, view: CarView
) -> Array:
    """Returns the actions `[N, 2]` that lead each car along its line."""
    line_px, pace = lines.point_px[view.track_index], view.speed_px_per_step
    here_px, ahead = _pose_when_acting(last_heading_deg, is_first, view)
    to_px = line_px - here_px[:, None]
    nearest = jnp.argmin((to_px * to_px).sum(axis=2), axis=1)

    def point_at(distance_px: Array) -> Array:
        """Returns the index `[N]` of the point at this distance along the line."""
        hop_px = jnp.linalg.norm(line_px[:, 1] - line_px[:, 0], axis=1)
        hops = jnp.ceil(distance_px / hop_px).astype(jnp.int32)
        return (nearest + hops) % lines.point_px.shape[1]

    aim = point_at(_LOOK_AHEAD_PX + _LOOK_AHEAD_STEPS * pace)
    aim_px = line_px[jnp.arange(len(nearest)), aim] - here_px
    steering = _steering_to(aim_px, ahead, is_classic=config.vehicle.model == "classic")
    speed = lines.speed_px_per_step
    wanted = jnp.minimum(
        speed[view.track_index, nearest],
        speed[view.track_index, point_at(pace * _BRAKE_AHEAD_STEPS)],
    )
    if config.rival is not None:
        limit = _speed_behind_rival(config.rival, view, line_px, here_px, ahead)
        wanted = jnp.minimum(wanted, limit)
    throttle = _THROTTLE_GAIN * (wanted - pace) + _DRAG_THROTTLE * pace
    return jnp.stack([jnp.clip(steering, -1.0, 1.0), jnp.clip(throttle, -1.0, 1.0)], axis=1)


def _pose_when_acting(
    last_heading_deg: Array, is_first: Array, view: CarView
) -> tuple[Array, Array]:
    """Predicts position and direction `[N, 2]` of each car for when its action takes effect.

    Until then the car is assumed to turn as it did in the last step.
    """
    pace = view.speed_px_per_step
    turn_deg = (view.heading_deg - last_heading_deg + 180.0) % 360.0 - 180.0
    turn_deg = jnp.where(is_first, 0.0, turn_deg) * view.delay_steps
    on_the_way = _direction(view.heading_deg + 0.5 * turn_deg)
    here_px = jnp.stack([view.x_px, view.y_px], axis=1)
    here_px = here_px + on_the_way * (view.delay_steps * pace)[:, None]
    return here_px, _direction(view.heading_deg + turn_deg)


def _steering_to(aim_px: Array, ahead: Array, *, is_classic: bool) -> Array:
    """Returns the steering `[N]`, not clipped, that leads to `aim_px` `[N, 2]`.

    The classic car turns by an angle. The single-track car drives an arc of curvature
    `2 left / distance²` through the aim.
    """
    left_px = aim_px[:, 0] * ahead[:, 1] - aim_px[:, 1] * ahead[:, 0]
    front_px = (aim_px * ahead).sum(axis=1)
    square_px2 = jnp.maximum((aim_px * aim_px).sum(axis=1), _SMALLEST_AIM_PX2)
    if is_classic:
        angle_deg = jnp.rad2deg(jnp.arctan2(left_px, front_px))
        return angle_deg / STEERING_DEG_PER_STEP
    bend_per_px = 2 * left_px / square_px2
    wheel_deg = jnp.rad2deg(jnp.arctan(bend_per_px * WHEELBASE_PX))
    return wheel_deg / FRONT_WHEEL_DEG


def _direction(heading_deg: Array) -> Array:
    """Returns unit vectors `[N, 2]` in screen coordinates, y down."""
    heading_rad = jnp.deg2rad(heading_deg)
    return jnp.stack([jnp.cos(heading_rad), -jnp.sin(heading_rad)], axis=1)


def _speed_behind_rival(
    rival: RivalConfig, view: CarView, line_px: Array, here_px: Array, ahead: Array
) -> Array:
    """Returns the largest speed `[N]` behind a rival that blocks the line, else infinity."""
    clear_px = rival.radius_px + _RIVAL_CLEARANCE_PX
    gap_px = jnp.linalg.norm(line_px - view.rival_px[:, None], axis=2).min(axis=1)
    to_px = view.rival_px - here_px
    distance_px = (to_px * ahead).sum(axis=1)
    is_ahead = (distance_px > 0) & (jnp.linalg.norm(to_px, axis=1) < _RIVAL_IN_SIGHT_PX)
    room_px = jnp.maximum(distance_px - clear_px - _RIVAL_GAP_PX, 0.0)
    following = jnp.sqrt(
        (_FOLLOWING_SHARE * rival.pace_px_per_step) ** 2 + _TWICE_BRAKING_PX_PER_STEP2 * room_px
    )
    return jnp.where(is_ahead & (gap_px < clear_px), following, jnp.inf)


full_throttle = Policy(_no_carry, _full_throttle)
longest_ray = Policy(_no_carry, _longest_ray)
careful = Policy(_no_carry, _ray_rule)  # its parameters, if any, are another `RayRule`

DRIVERS: dict[str, Policy] = {
    "full_throttle": full_throttle,
    "longest_ray": longest_ray,
    "careful": careful,
}
REFERENCE = "sees_the_track"
