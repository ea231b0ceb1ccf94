"""How a car answers its pedals and its wheel."""

from typing import Any, NamedTuple

import numpy as np

from rlcar.config.race import VehicleConfig
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

ACCELERATION_PX_PER_STEP2 = 0.2
BRAKE_PX_PER_STEP2 = 0.4  # of the single-track car; the classic one brakes as it accelerates
DRAG_PER_STEP = 0.01
STEERING_DEG_PER_STEP = 5  # of the classic car
FRONT_WHEEL_DEG = 30  # steering 1 of the single-track car
WHEELBASE_PX = 16

_ACCELERATION = round(ACCELERATION_PX_PER_STEP2 * 2 ** (SPEED_BITS + 2))
_BRAKE = round(BRAKE_PX_PER_STEP2 * 2 ** (SPEED_BITS + 2))
_DRAG = round(DRAG_PER_STEP * 2**20)
_STEERING = round(STEERING_DEG_PER_STEP / 360 * 2**HEADING_BITS)
_RIGHT_BORDER = grid.WORLD_WIDTH_PX << POSITION_BITS
_TOP_BORDER = grid.WORLD_HEIGHT_PX << POSITION_BITS

_WHEEL_BITS = 10  # the front wheel's angle: 2^-10 of its lock
_TURN_BITS = 24  # turn per px: 2^-24
_PACE_BITS = 10  # speed where it meets a turn: 2^-10 px/step
GRIP_BITS = 32  # grip / 2 pi: 2^-32, so that over a pace it is a heading's 2^-22
_SLOW = 1 << (_PACE_BITS - 1)  # 0.5 px/step: nobody slides when slower


class Pose(NamedTuple):
    """Where N cars are and how they move, all `[N]`; y is up."""

    x: Any  # 2^-12 px
    y: Any
    speed: Any  # 2^-16 px/step
    heading: Any  # 2^-22 of a turn


class Pedals(NamedTuple):
    """A quantised action, `[N]` each, in 2^-14."""

    steering: Any
    throttle: Any


def top_speed(config: VehicleConfig) -> int:
    """The vehicle's top speed in 2^-16 px/step."""
    return int(config.top_speed_px_per_step * 2**SPEED_BITS)


def wheel_table() -> np.ndarray:
    """Returns tan(front wheel) / wheelbase / 2 pi in 2^-24 turns a px, for -1..1 of the lock."""
    share = np.arange(-(1 << _WHEEL_BITS), (1 << _WHEEL_BITS) + 1) / (1 << _WHEEL_BITS)
    turn_per_px = np.tan(np.deg2rad(FRONT_WHEEL_DEG) * share) / WHEELBASE_PX / (2 * np.pi)
    return np.rint(turn_per_px * 2**_TURN_BITS).astype(np.int32)


def grip_units(grip_px_per_step2: float) -> int:
    """Returns grip / 2 pi in 2^-32; 0.7 px/step^2 is below 2^29."""
    return round(grip_px_per_step2 / (2 * np.pi) * 2**GRIP_BITS)


def drive_classic(backend: Backend, cosine_table: Any, pose: Pose, pedals: Pedals) -> Pose:
    """Returns the next pose: the car turns on the spot, whatever its speed.

    speed = clip(speed + 0.2 throttle - 0.01 speed, 0, 5); heading += 5 deg steering; then the car
    moves by its speed along the new heading, within the world.
    """
    # 2^14 * 52,429 < 2^30; 2^14 * 58,254 < 2^30.
    gain = shift_round(pedals.throttle * _ACCELERATION, ACTION_BITS + 2)
    speed = _with_drag(backend, pose.speed, gain, 5 << SPEED_BITS, dropped_bits=1)
    turn = shift_round(pedals.steering * _STEERING, ACTION_BITS)
    # 81,920 * 2^14 < 2^31 - 2^15, so two bits of the speed are dropped here, not in the state.
    return _move(backend, cosine_table, pose, speed, turn, dropped_bits=2)


def drive_single_track(
    backend: Backend, tables: tuple[Any, Any], top: int, pose: Pose, pedals: Pedals, grip: Any
) -> Pose:
    """Returns the next pose of a kinematic bicycle whose tyres give way: understeer.

    yaw = speed tan(30 deg steering) / wheelbase (Rajamani 2012, section 2.2, with the rear axle as
    the reference), but |speed yaw| <= grip; braking is twice as strong as accelerating. `grip`
    `[N]` comes from `grip_units`; `tables` are the cosine's and `wheel_table`.
    """
    xp = backend.xp
    cosine_table, wheel = tables
    strength = xp.where(pedals.throttle < 0, _BRAKE, _ACCELERATION).astype(backend.integer)
    gain = shift_round(pedals.throttle * strength, ACTION_BITS + 2)  # 2^14 * 104,858 < 2^31
    speed = _with_drag(backend, pose.speed, gain, top, dropped_bits=2)
    pace = shift_round(speed, SPEED_BITS - _PACE_BITS)
    angle = shift_round(pedals.steering, ACTION_BITS - _WHEEL_BITS) + (1 << _WHEEL_BITS)
    # 2^13 * 96,353 < 2^30.
    turn = shift_round(pace * backend.take(wheel, angle), _PACE_BITS + _TURN_BITS - HEADING_BITS)
    # 4.8e8 + 2^13 < 2^31, and a quotient below 2^20 from half a pixel a step on.
    most = floor_divide(backend, grip, xp.maximum(pace, _SLOW))
    return _move(backend, cosine_table, pose, speed, xp.clip(turn, -most, most), dropped_bits=4)


def _with_drag(backend: Backend, speed: Any, gain: Any, top: int, dropped_bits: int) -> Any:
    # 5 px/step, 1 bit: 163,840 * 10,486 < 2^31; 8 px/step, 2 bits: 131,072 * 10,486 < 2^31.
    drag = shift_round((speed >> dropped_bits) * _DRAG, 20 - dropped_bits)
    return backend.xp.clip(speed + gain - drag, 0, top)


def _move(
    backend: Backend, cosine_table: Any, pose: Pose, speed: Any, turn: Any, dropped_bits: int
) -> Pose:
    xp = backend.xp
    heading = (pose.heading + turn) & ((1 << HEADING_BITS) - 1)
    cosine, sine = cosine_sine(backend, cosine_table, heading)
    shift = SPEED_BITS - dropped_bits + TRIG_BITS - POSITION_BITS
    pace = shift_round(speed, dropped_bits)
    x = xp.clip(pose.x + shift_round(pace * cosine, shift), 0, _RIGHT_BORDER)
    y = xp.clip(pose.y + shift_round(pace * sine, shift), 0, _TOP_BORDER)
    return Pose(x, y, speed, heading)
