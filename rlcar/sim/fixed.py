"""Fixed-point arithmetic in int32: formats, exact divisions and roots, the cosine table.

Floating point differs in its last bit between batch sizes, back-ends and machines; integers do
not. Floats appear only as first guesses, which an integer remainder corrects.
"""

from typing import Any

import numpy as np

from rlcar.sim.backend import Backend

POSITION_BITS = 12  # position: 2^-12 px, y up
SENSE_BITS = 8  # everything relative to a car: 2^-8 px
SPEED_BITS = 16  # speed: 2^-16 px/step
ACTION_BITS = 14  # a clipped action: 2^-14
TRIG_BITS = 14  # cosine, sine and unit vectors: 2^-14; also 2^14 angles a turn
ANGLES = 1 << 14
HEADING_BITS = 22  # heading: 2^-22 of a turn
LAP_BITS = 20  # position along the road: 2^-20 of a lap
REWARD_BITS = 18  # reward: 2^-18; up to 64 it is an exact float32

SENSE_UNITS_PER_PX = 1 << SENSE_BITS
COSINE = np.rint(np.cos(np.arange(ANGLES) * (2 * np.pi / ANGLES)) * 2**TRIG_BITS).astype(np.int32)


def quantise_action(backend: Backend, action: Any) -> Any:
    """Turns actions into whole 2^-14: clipped to [-1, 1], NaN is 0. Same shape, int32.

    Clipping, a power of two and rounding half to even are exact, so every back-end agrees.
    """
    xp = backend.xp
    action = xp.where(action == action, action, np.float32(0))
    scaled = xp.clip(action, np.float32(-1), np.float32(1)) * np.float32(1 << ACTION_BITS)
    return xp.rint(scaled).astype(backend.integer)


def shift_round(value: Any, bits: int) -> Any:
    """Divides by 2^bits and rounds halves up; |value| < 2^31 - 2^(bits - 1)."""
    return (value + (1 << (bits - 1))) >> bits


def floor_divide(backend: Backend, numerator: Any, denominator: Any) -> Any:
    """Returns floor(n / d) for 0 <= n, 0 < d, n + d < 2^31 and a quotient below 2^20.

    The float32 quotient is then wrong by less than 1 even after two bad roundings.
    """
    integer = backend.integer
    guess = numerator.astype(np.float32) / denominator.astype(np.float32)
    quotient = guess.astype(integer)
    rest = numerator - quotient * denominator
    return quotient + (rest >= denominator).astype(integer) - (rest < 0).astype(integer)


def floor_sqrt(backend: Backend, value: Any) -> Any:
    """Returns floor(sqrt(v)) for 0 <= v < 2^30."""
    integer = backend.integer
    root = backend.xp.sqrt(value.astype(np.float32)).astype(integer)
    next_root = root + 1
    return (
        root
        + (next_root * next_root <= value).astype(integer)
        - (root * root > value).astype(integer)
    )


def cosine_sine(backend: Backend, cosine_table: Any, heading: Any) -> tuple[Any, Any]:
    """Returns cosine and sine of a heading, in 2^-14, from the table's nearest angle."""
    angle = shift_round(heading, HEADING_BITS - TRIG_BITS)
    cosine = backend.take(cosine_table, angle & (ANGLES - 1))
    sine = backend.take(cosine_table, (angle - ANGLES // 4) & (ANGLES - 1))
    return cosine, sine
