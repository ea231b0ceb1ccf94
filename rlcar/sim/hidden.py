"""What differs from car to car and is not observed: grip, delay, bad sensors, a rival's start.

Every number is hashed from (seed, car, episode), so it is the same at any batch size; the noise of
a reading also from the step.
"""

from typing import Any, NamedTuple

import numpy as np

from rlcar.config.race import RaceConfig, Range
from rlcar.sim.backend import Backend
from rlcar.sim.fixed import LAP_BITS, SENSE_UNITS_PER_PX
from rlcar.sim.motion import Pedals, grip_units
from rlcar.sim.sensors import RANGE, RAYS
from rlcar.track.hashing import hash_words

MOST_DELAY_STEPS = 3
# Streams of the hash; the choice of the track has none.
_GRIP, _DELAY, _NOISE, _DROPOUT, _HEAD_START, _READINGS = range(1, 7)
_SHARE_BITS = 12  # drawn numbers are one of 2^12 + 1 even steps from low to high
_NOISE_BITS = 14  # of a reading's noise


class Hidden(NamedTuple):
    """One draw for each car and episode, `[N]` int32."""

    grip: Any  # `motion.grip_units`
    delay: Any  # steps
    noise: Any  # 2^-8 px
    dropout: Any  # 2^-16
    head_start: Any  # of the rival, 2^-20 of a lap
    pending: tuple[Any, ...]  # the last `MOST_DELAY_STEPS` actions, newest first, two int16 in one


def is_plain(config: RaceConfig) -> bool:
    """Says whether nothing is hidden: the classic car with perfect sensors, alone."""
    return (
        config.vehicle.model == "classic"
        and config.vehicle.delay_steps.high == 0
        and config.sensors.noise_px.high == 0
        and config.sensors.dropout.high == 0
        and config.rival is None
    )


def draw_hidden(
    backend: Backend, config: RaceConfig, seed: Any, car_id: Any, episode: Any
) -> Hidden:
    """Draws what the episode hides."""
    xp, integer = backend.xp, backend.integer
    zero = xp.zeros_like(car_id)

    def draw(stream: int, low: int, high: int) -> Any:
        """Evenly between two integers below 2^29 whose distance is below 2^19 << 10."""
        if low == high:
            return zero + low
        word = hash_words(seed, car_id, episode, zero + stream) >> np.uint32(32 - _SHARE_BITS)
        # The distance is cut into 2^12 whole steps; the rest of the division is not needed.
        step, rest = divmod(high - low, 1 << _SHARE_BITS)
        share = word.astype(integer)
        return low + share * step + (share * rest >> _SHARE_BITS)

    def scaled(range_: Range, unit: float) -> tuple[int, int]:
        return round(range_.low * unit), round(range_.high * unit)

    vehicle, sensors = config.vehicle, config.sensors
    low_delay, high_delay = scaled(vehicle.delay_steps, 1)
    grip = vehicle.grip_px_per_step2
    head_start = config.rival.head_start_laps if config.rival else Range(low=0.0, high=0.0)
    return Hidden(
        grip=draw(_GRIP, grip_units(grip.low), grip_units(grip.high)),
        delay=draw(_DELAY, low_delay, high_delay + (high_delay > low_delay)),
        noise=draw(_NOISE, *scaled(sensors.noise_px, SENSE_UNITS_PER_PX)),
        dropout=draw(_DROPOUT, *scaled(sensors.dropout, 1 << 16)),
        head_start=draw(_HEAD_START, *scaled(head_start, 1 << LAP_BITS)),
        pending=(zero,) * MOST_DELAY_STEPS,
    )


def delay_action(backend: Backend, hidden: Hidden, pedals: Pedals) -> tuple[Hidden, Pedals]:
    """Takes in the newest action and returns the one that acts now; before it, nothing is done."""
    newest = (pedals.steering << 16) | (pedals.throttle & 0xFFFF)
    queue = (newest, *hidden.pending)
    acting = newest
    for steps in range(1, MOST_DELAY_STEPS + 1):
        acting = backend.xp.where(hidden.delay == steps, queue[steps], acting)
    throttle = ((acting & 0xFFFF) ^ 0x8000) - 0x8000
    return hidden._replace(pending=queue[:-1]), Pedals(acting >> 16, throttle)


def spoil_readings(
    backend: Backend, hidden: Hidden, seed: Any, car_id: Any, moment: tuple[Any, Any], reading: Any
) -> Any:
    """Adds noise to readings `[R, N]` in 2^-8 px and drops some; `moment` is (episode, step)."""
    xp, integer = backend.xp, backend.integer
    episode, step = moment
    rows = []
    for ray in range(RAYS):
        stream = xp.zeros_like(car_id) + (_READINGS + ray)
        word = hash_words(seed, car_id, episode, step, stream)
        # The upper 15 bits are noise in -1..1, the lower 16 decide on a drop-out.
        noise = (word >> np.uint32(17)).astype(integer) - (1 << _NOISE_BITS)
        is_dropped = (word & np.uint32(0xFFFF)).astype(integer) < hidden.dropout
        noisy = xp.clip(reading[ray] + (noise * hidden.noise >> _NOISE_BITS), 0, RANGE)
        rows.append(xp.where(is_dropped, RANGE, noisy))
    return xp.stack(rows)
