"""The dynamics of a car: how steering and throttle change its speed, heading and position."""

from typing import NamedTuple

import numpy as np

from rlcar.config.race import (
    ACCELERATION_PX_PER_STEP2,
    BRAKE_PX_PER_STEP2,
    CLASSIC_TOP_SPEED_PX_PER_STEP,
    DRAG_PER_STEP,
    FRONT_WHEEL_DEG,
    STEERING_DEG_PER_STEP,
    WHEELBASE_PX,
    VehicleConfig,
)
from rlcar.sim.backend import Backend
from rlcar.sim.fixed import (
    ACTION_BITS,
    HEADING_BITS,
    POSITION_BITS,
    SPEED_BITS,
    TRIG_BITS,
    cosine_sine,
    floor_divide,
    shift_round,
)
from rlcar.track import grid
from rlcar.types import Array

# The constants of the cars in the units of the integer formulas.
_DRAG_BITS = 20  # drag: 2^-20 a step
_ACCELERATION = round(ACCELERATION_PX_PER_STEP2 * 2 ** (SPEED_BITS + 2))
_BRAKE = round(BRAKE_PX_PER_STEP2 * 2 ** (SPEED_BITS + 2))
_DRAG = round(DRAG_PER_STEP * 2**_DRAG_BITS)
_STEERING = round(STEERING_DEG_PER_STEP / 360 * 2**HEADING_BITS)
_RIGHT_BORDER = grid.WORLD_WIDTH_PX << POSITION_BITS
_TOP_BORDER = grid.WORLD_HEIGHT_PX << POSITION_BITS

_WHEEL_BITS = 10  # angle of the front wheel: 2^-10 of its largest angle
_TURN_BITS = 24  # curvature: 2^-24 of a turn per px
_SHORT_SPEED_BITS = 10  # speed where it is multiplied by a curvature: 2^-10 px/step
GRIP_BITS = 32  # grip / 2 pi: 2^-32; divided by a speed it gives 2^-22 of a turn, as headings have
_SLOWEST_SLIDE = 1 << (_SHORT_SPEED_BITS - 1)  # 0.5 px/step: below it a car never slides


class Pose(NamedTuple):
    """Positions and motion of N cars, each field `[N]`; y points up."""

    x: Array  # 2^-12 px
    y: Array  # 2^-12 px
    speed: Array  # 2^-16 px/step
    heading: Array  # 2^-22 of a turn


class Controls(NamedTuple):
    """A quantised action, each field `[N]` in units of 2^-14."""

    steering: Array
    throttle: Array


def top_speed(config: VehicleConfig) -> int:
    """Returns the top speed of a vehicle in 2^-16 px/step."""
    return int(config.top_speed_px_per_step * 2**SPEED_BITS)


def curvature_table() -> np.ndarray:
    """Returns tan(front wheel) / wheelbase / 2 pi, in 2^-24 of a turn per px, `[2^11 + 1]` int32.

    The entries belong to evenly spaced wheel angles, from the rightmost (-1) to the leftmost (1).
    """
    share = np.arange(-(1 << _WHEEL_BITS), (1 << _WHEEL_BITS) + 1) / (1 << _WHEEL_BITS)
    turn_per_px = np.tan(np.deg2rad(FRONT_WHEEL_DEG) * share) / WHEELBASE_PX / (2 * np.pi)
    return np.rint(turn_per_px * 2**_TURN_BITS).astype(np.int32)


def grip_units(grip_px_per_step2: float) -> int:
    """Returns grip / 2 pi in units of 2^-32; up to 0.7 px/step^2 it is below 2^29."""
    return round(grip_px_per_step2 / (2 * np.pi) * 2**GRIP_BITS)


def drive_classic(backend: Backend, cosine_table: Array, pose: Pose, controls: Controls) -> Pose:
    """Returns the next pose of a classic car, which turns on the spot at any speed.

    speed += 0.2 throttle - 0.01 speed, within 0 to 5 px/step; heading += 5 degrees steering. The
    car then moves by its speed along the new heading, but not beyond the world's border.
    """
    # 2^14 * 52,429 < 2^30; 2^14 * 58,254 < 2^30.
    gain = shift_round(controls.throttle * _ACCELERATION, ACTION_BITS + 2)
    top = CLASSIC_TOP_SPEED_PX_PER_STEP << SPEED_BITS
    speed = _with_drag(backend, pose.speed, gain, top, dropped_bits=1)
    turn = shift_round(controls.steering * _STEERING, ACTION_BITS)
    # 81,920 * 2^14 < 2^31 - 2^15, so two bits of the speed are dropped here, not in the state.
    return _move(backend, cosine_table, pose, speed, turn, dropped_bits=2)


def drive_single_track(
    backend: Backend,
    tables: tuple[Array, Array],
    top: int,
    pose: Pose,
    controls: Controls,
    grip: Array,
) -> Pose:
    """Returns the next pose of a kinematic bicycle with limited grip, which makes it understeer.

    yaw rate = speed tan(30 degrees steering) / wheelbase (Rajamani 2012, section 2.2, with the rear
    axle as the reference), limited by |speed yaw rate| <= grip. Braking is twice as strong as
    accelerating. `tables` are the cosine table and `curvature_table`; `grip` `[N]` is in the unit
    of `grip_units`.
    """
    xp = backend.xp
    cosine_table, curvature = tables
    strength = xp.where(controls.throttle < 0, _BRAKE, _ACCELERATION).astype(backend.integer)
    gain = shift_round(controls.throttle * strength, ACTION_BITS + 2)  # 2^14 * 104,858 < 2^31
    speed = _with_drag(backend, pose.speed, gain, top, dropped_bits=2)
    short_speed = shift_round(speed, SPEED_BITS - _SHORT_SPEED_BITS)
    wheel = shift_round(controls.steering, ACTION_BITS - _WHEEL_BITS) + (1 << _WHEEL_BITS)
    # 2^13 * 96,353 < 2^30.
    turn = shift_round(
        short_speed * backend.take(curvature, wheel), _SHORT_SPEED_BITS + _TURN_BITS - HEADING_BITS
    )
    # 4.8e8 + 2^13 < 2^31, and the quotient is below 2^20 from 0.5 px/step on.
    limit = floor_divide(backend, grip, xp.maximum(short_speed, _SLOWEST_SLIDE))
    return _move(backend, cosine_table, pose, speed, xp.clip(turn, -limit, limit), dropped_bits=4)


def _with_drag(backend: Backend, speed: Array, gain: Array, top: int, dropped_bits: int) -> Array:
    """Returns the next speed; `dropped_bits` of the speed are ignored in the drag."""
    # 5 px/step, 1 bit: 163,840 * 10,486 < 2^31; 8 px/step, 2 bits: 131,072 * 10,486 < 2^31.
    drag = shift_round((speed >> dropped_bits) * _DRAG, _DRAG_BITS - dropped_bits)
    return backend.xp.clip(speed + gain - drag, 0, top)


def _move(
    backend: Backend, cosine_table: Array, pose: Pose, speed: Array, turn: Array, dropped_bits: int
) -> Pose:
    """Turns every car, then moves it; `dropped_bits` of the speed are ignored in the movement."""
    xp = backend.xp
    heading = (pose.heading + turn) & ((1 << HEADING_BITS) - 1)
    cosine, sine = cosine_sine(backend, cosine_table, heading)
    shift = SPEED_BITS - dropped_bits + TRIG_BITS - POSITION_BITS
    distance = shift_round(speed, dropped_bits)
    x = xp.clip(pose.x + shift_round(distance * cosine, shift), 0, _RIGHT_BORDER)
    y = xp.clip(pose.y + shift_round(distance * sine, shift), 0, _TOP_BORDER)
    return Pose(x, y, speed, heading)
