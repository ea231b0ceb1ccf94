"""Hand-written drivers: what a policy must beat before it has learnt anything worth having."""

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
)
from rlcar.sim import CarView
from rlcar.track import make_tracks
from rlcar.track.racing_line import racing_lines
from rlcar.types import Array, Policy, TimeStep

# Tuned on the validation tracks, all of which these and many other values lap.
_LEFT_MINUS_RIGHT_GAIN = 4.0
_SHARPNESS = 16.0  # the longest ray nearly alone; the plain argmax would jump between rays
_CAUTION = 0.5  # share of the angle to turn in one step; 1 swerves

_LOOK_AHEAD_PX, _LOOK_AHEAD_STEPS = 8.0, 1.5
_THROTTLE_GAIN = 4.0
_REFERENCE_GRIP_SHARE = 0.65


class RayRule(NamedTuple):
    """A driver that reacts to what the rays and the speed say now, by five numbers."""

    sharpness: float  # the longest ray's weight in where to steer
    caution: float  # share of the angle to turn in one step
    base: float  # the speed with a wall ahead, of the top speed
    slope: float  # how much faster the open road makes it
    gain: float  # of the throttle


# Nearly the best of 120 on the grand prix's training tracks (benchmarks/ray_rules.py); this one
# also laps every classic track.
CAREFUL = RayRule(sharpness=3.6, caution=0.42, base=0.15, slope=0.37, gain=10.0)


def _no_carry(number_of_cars: int) -> None:
    return None


def _full_throttle(
    params: Any, carry: Any, time_step: TimeStep, key: Any, explore: bool
) -> tuple[Any, Array]:
    """Steers by `gain (left rays - right rays)`, throttle always 1."""
    ray = time_step.observation[:, :5]
    steering = _LEFT_MINUS_RIGHT_GAIN * (ray[:, 3] + ray[:, 4] - ray[:, 0] - ray[:, 1])
    return carry, _action(steering)


def _longest_ray(
    params: Any, carry: Any, time_step: TimeStep, key: Any, explore: bool
) -> tuple[Any, Array]:
    """Steers to the mean ray angle, weighted by a high power of each length; throttle always 1."""
    return carry, _action(_CAUTION * _open_angle_deg(time_step, _SHARPNESS) / STEERING_DEG_PER_STEP)


def _open_angle_deg(time_step: TimeStep, sharpness: float) -> Array:
    weight = time_step.observation[:, :5] ** sharpness + 1e-6
    return (weight * np.array(RAY_ANGLES_DEG, np.float32)[None]).sum(axis=1) / weight.sum(axis=1)


def _action(steering: Array) -> Array:
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
    near = jnp.minimum(observation[:, 2], jnp.maximum(observation[:, 1], observation[:, 3]))
    wanted = rule.base + rule.slope * near  # of the top speed
    throttle = jnp.clip(rule.gain * (wanted - observation[:, 5]), -1.0, 1.0)
    return carry, jnp.stack([steering, throttle], axis=1)


@functools.lru_cache(maxsize=8)
def make_reference(track_seeds: tuple[int, ...], config: RaceConfig) -> Policy:
    """Returns a driver that sees the track: pure pursuit of the racing line (Coulter 1992).

    It knows its pose and the rival's, brakes where the line's speed profile says so for the worst
    grip, and follows a rival that it cannot pass. Car i must drive the i-th track. Equal arguments
    give the same driver, so that nothing is compiled twice.
    """
    tracks = make_tracks(track_seeds, config.track)
    lines = racing_lines(tracks, config, grip_share=_REFERENCE_GRIP_SHARE)
    point_px = jnp.asarray(np.stack([line.point_px for line in lines]), jnp.float32)  # [M, P, 2]
    speed = jnp.asarray(np.stack([line.speed_px_per_step for line in lines]), jnp.float32)
    points = point_px.shape[1]
    is_classic = config.vehicle.model == "classic"

    def act(
        params: Any, carry: Any, time_step: TimeStep, key: Any, explore: bool, view: CarView
    ) -> tuple[Any, Array]:
        line_px, pace = point_px[view.track_index], view.speed_px_per_step
        # Where the car will be, and head, once this action acts, if it goes on turning as now.
        turn_deg = (view.heading_deg - carry + 180.0) % 360.0 - 180.0
        turn_deg = jnp.where(time_step.is_first, 0.0, turn_deg) * view.delay_steps
        on_the_way = _direction(view.heading_deg + 0.5 * turn_deg)
        here_px = jnp.stack([view.x_px, view.y_px], axis=1)
        here_px = here_px + on_the_way * (view.delay_steps * pace)[:, None]
        ahead = _direction(view.heading_deg + turn_deg)
        to_px = line_px - here_px[:, None]
        nearest = jnp.argmin((to_px * to_px).sum(axis=2), axis=1)
        cars = jnp.arange(len(nearest))

        def at(distance_px: Array) -> Array:
            hop_px = jnp.linalg.norm(line_px[:, 1] - line_px[:, 0], axis=1)
            return (nearest + jnp.ceil(distance_px / hop_px).astype(jnp.int32)) % points

        aim_px = line_px[cars, at(_LOOK_AHEAD_PX + _LOOK_AHEAD_STEPS * pace)] - here_px
        left_px = aim_px[:, 0] * ahead[:, 1] - aim_px[:, 1] * ahead[:, 0]
        front_px = (aim_px * ahead).sum(axis=1)
        square_px2 = jnp.maximum((aim_px * aim_px).sum(axis=1), 1.0)
        if is_classic:
            angle_deg = jnp.rad2deg(jnp.arctan2(left_px, front_px))
            steering = angle_deg / STEERING_DEG_PER_STEP
        else:
            bend_per_px = 2 * left_px / square_px2
            wheel_deg = jnp.rad2deg(jnp.arctan(bend_per_px * WHEELBASE_PX))
            steering = wheel_deg / FRONT_WHEEL_DEG
        wanted = jnp.minimum(
            speed[view.track_index, nearest], speed[view.track_index, at(pace * 2)]
        )
        if config.rival is not None:
            wanted = jnp.minimum(wanted, _behind(config, view, line_px, here_px, ahead))
        throttle = _THROTTLE_GAIN * (wanted - pace) + 0.05 * pace
        action = jnp.stack([jnp.clip(steering, -1.0, 1.0), jnp.clip(throttle, -1.0, 1.0)], axis=1)
        return view.heading_deg, action

    return Policy(lambda number: jnp.zeros(number, jnp.float32), act, uses_car_view=True)


def _direction(heading_deg: Array) -> Array:
    """Returns unit vectors `[N, 2]` in screen coordinates, y down."""
    heading_rad = jnp.deg2rad(heading_deg)
    return jnp.stack([jnp.cos(heading_rad), -jnp.sin(heading_rad)], axis=1)


def _behind(
    config: RaceConfig, view: CarView, line_px: Array, here_px: Array, ahead: Array
) -> Array:
    """Returns the speed at which not to run into a rival that blocks the line, else infinity."""
    rival = config.rival
    assert rival is not None
    clear_px = rival.radius_px + 3.0
    gap_px = jnp.linalg.norm(line_px - view.rival_px[:, None], axis=2).min(axis=1)
    to_px = view.rival_px - here_px
    distance_px = (to_px * ahead).sum(axis=1)
    is_ahead = (distance_px > 0) & (jnp.linalg.norm(to_px, axis=1) < 140.0)
    room_px = jnp.maximum(distance_px - clear_px - 8.0, 0.0)
    following = jnp.sqrt((0.8 * rival.pace_px_per_step) ** 2 + 0.6 * room_px)
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
