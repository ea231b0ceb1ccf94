"""Conditions that are drawn for each episode and not observed: grip, delay, sensor errors, rival.

Every number is a hash of (seed, car, episode), and the noise of a reading also of the step.
Therefore it is the same at any batch size.
"""

from typing import NamedTuple

import numpy as np

from rlcar.config.race import RaceConfig, Range
from rlcar.sim.backend import Backend
from rlcar.sim.fixed import LAP_BITS, SENSE_UNITS_PER_PX
from rlcar.sim.motion import Controls, grip_units
from rlcar.sim.sensors import RANGE, RAYS
from rlcar.track.hashing import hash_words
from rlcar.types import Array

MOST_DELAY_STEPS = 3
# Streams of the hash, the last word that is hashed. The choice of the track uses none.
_GRIP, _DELAY, _NOISE, _DROPOUT, _HEAD_START, _READINGS = range(1, 7)
_SHARE_BITS = 12  # a drawn number is one of 2^12 evenly spaced ones from low to high
_NOISE_BITS = 14  # noise of a reading: 2^-14 of its largest value


class Hidden(NamedTuple):
    """The hidden conditions of N cars in their episodes, each array `[N]` int32."""

    grip: Array  # in the unit of `motion.grip_units`
    delay: Array  # env steps from an action to its effect
    noise: Array  # largest error of a reading, 2^-8 px
    dropout: Array  # probability that a reading is lost, 2^-16
    head_start: Array  # of the rival, 2^-20 of a lap
    # The last `MOST_DELAY_STEPS` actions, newest first; each word holds steering and throttle.
    pending: tuple[Array, ...]


def has_nothing_hidden(config: RaceConfig) -> bool:
    """Returns whether a race has no hidden conditions: a classic car alone, without errors."""
    return (
        config.vehicle.model == "classic"
        and config.vehicle.delay_steps.high == 0
        and config.sensors.noise_px.high == 0
        and config.sensors.dropout.high == 0
        and config.rival is None
    )


def draw_hidden(
    backend: Backend, config: RaceConfig, seed: Array, car_id: Array, episode: Array
) -> Hidden:
    """Draws the hidden conditions of an episode of each car; the arguments are `[N]` int32."""
    xp, integer = backend.xp, backend.integer
    zero = xp.zeros_like(car_id)

    def draw(stream: int, low: int, high: int) -> Array:
        """Draws uniformly from low to high, integers below 2^29 that differ by less than 2^29."""
        if low == high:
            return zero + low
        word = hash_words(seed, car_id, episode, zero + stream) >> np.uint32(32 - _SHARE_BITS)
        # low + share (high - low) / 2^12, split so that no product exceeds int32.
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


def delay_action(backend: Backend, hidden: Hidden, controls: Controls) -> tuple[Hidden, Controls]:
    """Stores the newest action and returns the delayed one, at first (0, 0)."""
    newest = (controls.steering << 16) | (controls.throttle & 0xFFFF)
    queue = (newest, *hidden.pending)
    acting = newest
    for steps in range(1, MOST_DELAY_STEPS + 1):
        acting = backend.xp.where(hidden.delay == steps, queue[steps], acting)
    throttle = ((acting & 0xFFFF) ^ 0x8000) - 0x8000  # sign extension of the lower half
    return hidden._replace(pending=queue[:-1]), Controls(acting >> 16, throttle)


def corrupt_readings(  # a car's moment is its (episode, step)
    backend: Backend,
    hidden: Hidden,
    seed: Array,
    car_id: Array,
    moment: tuple[Array, Array],
    reading: Array,
) -> Array:
    """Returns readings `[R, N]` in 2^-8 px with noise; lost readings become `RANGE`."""
    xp, integer = backend.xp, backend.integer
    episode, step = moment
    rows = []
    for ray in range(RAYS):
        stream = xp.zeros_like(car_id) + (_READINGS + ray)
        word = hash_words(seed, car_id, episode, step, stream)
        # The upper 15 bits are noise in -1..1, the lower 16 decide whether the reading is lost.
        noise = (word >> np.uint32(17)).astype(integer) - (1 << _NOISE_BITS)
        is_dropped = (word & np.uint32(0xFFFF)).astype(integer) < hidden.dropout
        noisy = xp.clip(reading[ray] + (noise * hidden.noise >> _NOISE_BITS), 0, RANGE)
        rows.append(xp.where(is_dropped, RANGE, noisy))
    return xp.stack(rows)
