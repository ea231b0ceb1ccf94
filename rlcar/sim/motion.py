"""How a car answers its pedals and its wheel."""

from typing import Any

from rlcar.sim.backend import Backend
from rlcar.sim.fixed import (
    ACTION_BITS,
    HEADING_BITS,
    POSITION_BITS,
    SPEED_BITS,
    TRIG_BITS,
    cosine_sine,
    quantise_action,
    shift_round,
)
from rlcar.track import grid

TOP_SPEED_PX_PER_STEP = 5
ACCELERATION_PX_PER_STEP2 = 0.2
DRAG_PER_STEP = 0.01
STEERING_DEG_PER_STEP = 5

TOP_SPEED = TOP_SPEED_PX_PER_STEP << SPEED_BITS
_ACCELERATION = round(ACCELERATION_PX_PER_STEP2 * 2 ** (SPEED_BITS + 2))
_DRAG = round(DRAG_PER_STEP * 2**20)
_STEERING = round(STEERING_DEG_PER_STEP / 360 * 2**HEADING_BITS)
_RIGHT_BORDER = grid.WORLD_WIDTH_PX << POSITION_BITS
_TOP_BORDER = grid.WORLD_HEIGHT_PX << POSITION_BITS


def drive(  # a pose and an action
    backend: Backend, cosine_table: Any, x: Any, y: Any, speed: Any, heading: Any, action: Any
) -> tuple[Any, Any, Any, Any]:
    """Returns the next x, y (up), speed and heading, all `[N]`.

    speed = clip(speed + 0.2 throttle - 0.01 speed, 0, 5); heading += 5 deg steering; then the car
    moves by its speed along the new heading, within the world.
    """
    xp = backend.xp
    steering = quantise_action(backend, action[:, 0])
    throttle = quantise_action(backend, action[:, 1])
    # 2^14 * 52,429 < 2^30; 163,840 * 10,486 < 2^31; 2^14 * 58,254 < 2^30.
    gain = shift_round(throttle * _ACCELERATION, ACTION_BITS + 2)
    drag = shift_round((speed >> 1) * _DRAG, 19)
    speed = xp.clip(speed + gain - drag, 0, TOP_SPEED)
    turn = shift_round(steering * _STEERING, ACTION_BITS)
    heading = (heading + turn) & ((1 << HEADING_BITS) - 1)
    cosine, sine = cosine_sine(backend, cosine_table, heading)
    # 81,920 * 2^14 < 2^31 - 2^15, so two bits of the speed are dropped here, not in the state.
    pace_bits = SPEED_BITS - 2
    shift = pace_bits + TRIG_BITS - POSITION_BITS
    pace = shift_round(speed, 2)
    x = xp.clip(x + shift_round(pace * cosine, shift), 0, _RIGHT_BORDER)
    y = xp.clip(y + shift_round(pace * sine, shift), 0, _TOP_BORDER)
    return x, y, speed, heading
