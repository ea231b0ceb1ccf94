"""Fixed-point arithmetic in int32: formats, exact division and square root, the cosine table.

The last bit of a floating-point result differs between batch sizes, libraries and machines; integer
results do not. Floats serve only as first estimates, which an integer remainder then corrects.
"""

import numpy as np

from rlcar.sim.backend import Backend
from rlcar.types import Array

POSITION_BITS = 12  # position: 2^-12 px, y up
SENSE_BITS = 8  # distances that a car senses: 2^-8 px
SPEED_BITS = 16  # speed: 2^-16 px/step
ACTION_BITS = 14  # clipped action: 2^-14
TRIG_BITS = 14  # cosine and sine: 2^-14, tabulated at 2^14 angles of a turn
ANGLES = 1 << TRIG_BITS
HEADING_BITS = 22  # heading: 2^-22 of a turn
LAP_BITS = 20  # progress along the road: 2^-20 of a lap
REWARD_BITS = 18  # reward: 2^-18; exact in float32 up to 64

SENSE_UNITS_PER_PX = 1 << SENSE_BITS
COSINE = np.rint(np.cos(np.arange(ANGLES) * (2 * np.pi / ANGLES)) * 2**TRIG_BITS).astype(np.int32)


def quantise_action(backend: Backend, action: Array) -> Array:
    """Returns actions clipped to [-1, 1] in units of 2^-14, int32 of the same shape; NaN gives 0.

    Clipping, scaling by a power of two and rounding half to even are exact, so every library gives
    the same result.
    """
    xp = backend.xp
    action = xp.where(action == action, action, np.float32(0))
    scaled = xp.clip(action, np.float32(-1), np.float32(1)) * np.float32(1 << ACTION_BITS)
    return xp.rint(scaled).astype(backend.integer)


def shift_round(value: Array, bits: int) -> Array:
    """Returns value / 2^bits with halves rounded up, for |value| < 2^31 - 2^(bits - 1)."""
    return (value + (1 << (bits - 1))) >> bits


def floor_divide(backend: Backend, numerator: Array, denominator: Array) -> Array:
    """Returns floor(n / d) for 0 <= n, 0 < d, n + d < 2^31 and a quotient below 2^20.

    The float32 estimate of such a quotient has an error below 1, rounding included.
    """
    integer = backend.integer
    estimate = numerator.astype(np.float32) / denominator.astype(np.float32)
    quotient = estimate.astype(integer)
    remainder = numerator - quotient * denominator
    too_small = (remainder >= denominator).astype(integer)
    too_large = (remainder < 0).astype(integer)
    return quotient + too_small - too_large


def floor_sqrt(backend: Backend, value: Array) -> Array:
    """Returns floor(sqrt(value)) for 0 <= value < 2^30."""
    integer = backend.integer
    root = backend.xp.sqrt(value.astype(np.float32)).astype(integer)
    next_root = root + 1
    return (
        root
        + (next_root * next_root <= value).astype(integer)
        - (root * root > value).astype(integer)
    )


def cosine_sine(backend: Backend, cosine_table: Array, heading: Array) -> tuple[Array, Array]:
    """Returns the cosine and sine of a heading, in 2^-14, at the nearest tabulated angle."""
    angle = shift_round(heading, HEADING_BITS - TRIG_BITS)
    cosine = backend.take(cosine_table, angle & (ANGLES - 1))
    sine = backend.take(cosine_table, (angle - ANGLES // 4) & (ANGLES - 1))
    return cosine, sine
