"""What a step pays, in whole 2^-18; a lap is 2^20 units of progress."""

from typing import Any

from rlcar.sim.backend import Backend
from rlcar.sim.fixed import LAP_BITS, REWARD_BITS, SPEED_BITS, floor_divide

# A lap pays a hundred crashes: with less, a beginner learns to park before it learns to drive.
LAP_REWARD = 1000
STEP_COST = 0.1
CRASH_REWARD = -10
ON_ROAD_REWARD = 0.1
CHECKPOINTS_PER_LAP = 10
CHECKPOINT_REWARD = 5
STEPS_PER_SECOND = 30

_ONE = 1 << REWARD_BITS
_LAP_UNIT = LAP_REWARD * _ONE >> LAP_BITS  # 250: progress is paid without rounding
_STEP_COST = round(STEP_COST * _ONE)
_CRASH = CRASH_REWARD * _ONE
_ON_ROAD = round(ON_ROAD_REWARD * _ONE)


def progress_reward(backend: Backend, gain: Any, is_crash: Any) -> Any:
    """Pays 1,000 a lap for the signed advance, less 0.1 a step, less 10 for a crash; `[N]`."""
    return gain * _LAP_UNIT - _STEP_COST + backend.xp.where(is_crash, _CRASH, 0)


def documented_reward(
    backend: Backend, speed: Any, is_crash: Any, is_checkpoint: Any, checkpoint_steps: Any
) -> Any:
    """Pays speed + 0.1 on the road, a bonus at a new checkpoint, and -10 for a crash; `[N]`.

    The bonus is 5 + 1000 / ms since the last checkpoint at 30 steps a second, 5 + 30 / steps.
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


def checkpoint_index(lap: Any, position: Any) -> Any:
    """Returns how many 10 % marks lie behind a car since the start, signed."""
    return lap * CHECKPOINTS_PER_LAP + (position * CHECKPOINTS_PER_LAP >> LAP_BITS)
