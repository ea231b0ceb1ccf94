"""The two reward functions.

The constants below are in units of the reward that a learner receives. The functions compute in
whole multiples of 2^-18, which `step_or_reset` in `race.py` converts to float32. A lap is 2^20
units of progress.
"""

from rlcar.sim.backend import Backend
from rlcar.sim.fixed import LAP_BITS, REWARD_BITS, SPEED_BITS, floor_divide
from rlcar.types import Array

# A lap pays as much as a hundred crashes cost. If it paid less, a policy would first learn to
# stand still.
LAP_REWARD = 1000
STEP_COST = 0.1
CRASH_REWARD = -10
ON_ROAD_REWARD = 0.1
CHECKPOINTS_PER_LAP = 10
CHECKPOINT_REWARD = 5
STEPS_PER_SECOND = 30  # only to convert the documented bonus, which is defined in milliseconds

_ONE = 1 << REWARD_BITS
_PROGRESS_UNIT = LAP_REWARD * _ONE >> LAP_BITS  # exactly 250: progress is paid without rounding
_STEP_COST = round(STEP_COST * _ONE)
_CRASH = CRASH_REWARD * _ONE
_ON_ROAD = round(ON_ROAD_REWARD * _ONE)


def progress_reward(backend: Backend, gain: Array, is_crash: Array) -> Array:
    """Returns 1,000 gain - 0.1, minus 10 at a crash, `[N]`, in 2^-18; `gain` is part of a lap."""
    return gain * _PROGRESS_UNIT - _STEP_COST + backend.xp.where(is_crash, _CRASH, 0)


def documented_reward(
    backend: Backend, speed: Array, is_crash: Array, is_checkpoint: Array, checkpoint_steps: Array
) -> Array:
    """Returns speed + 0.1 plus a bonus at each new checkpoint, or -10 at a crash, `[N]`.

    The bonus is 5 + 1,000 / milliseconds since the last checkpoint. At 30 steps a second this is
    5 + 30 / steps.
    """
    xp = backend.xp
    bonus = floor_divide(
        backend,
        xp.full_like(checkpoint_steps, STEPS_PER_SECOND * _ONE),
        xp.maximum(checkpoint_steps, 1),
    )
    driving = (speed << (REWARD_BITS - SPEED_BITS)) + _ON_ROAD
    driving = driving + xp.where(is_checkpoint, CHECKPOINT_REWARD * _ONE + bonus, 0)
    return xp.where(is_crash, _CRASH, driving)


def place_reward(reward: float, places_gained: Array) -> Array:
    """Returns `reward` for each place that a car gained among others, `[N]`, in 2^-18."""
    return places_gained * round(reward * _ONE)


def checkpoint_index(lap: Array, position: Array) -> Array:
    """Returns how many tenths of a lap a car has completed since the start, signed."""
    return lap * CHECKPOINTS_PER_LAP + (position * CHECKPOINTS_PER_LAP >> LAP_BITS)
