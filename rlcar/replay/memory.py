"""Checks before a training whether its replay buffer fits into the memory of the host."""

from typing import NamedTuple

from rlcar.config import Config
from rlcar.errors import ConfigError
from rlcar.replay.buffer import capacity_in_slots
from rlcar.replay.rings import row_bytes
from rlcar.system.host_memory import Memory
from rlcar.types import Spec


class MemoryNeed(NamedTuple):
    """The memory that a replay buffer takes, in bytes."""

    env_step: float  # one env step
    at_capacity: int
    of_this_training: int  # less than at capacity if the training ends before the buffer is full


def replay_need(config: Config, spec: Spec, carry_size: int = 0) -> MemoryNeed:
    """Returns the memory that the replay buffer of an off-policy algorithm needs."""
    block_length = config.training.block_length
    row = row_bytes(spec, block_length, carry_size)
    slots = capacity_in_slots(config.replay, block_length)
    last_block = config.training.cars
    driven = -(-config.training.env_steps // block_length) + last_block  # slots, rounded up
    return MemoryNeed(row / block_length, slots * row, min(slots, driven) * row)


def check_memory(
    config: Config, need: MemoryNeed, memory: Memory, where: str = "this host"
) -> list[str]:
    """Returns lines for the user: needed and available memory, and a warning if it is too little.

    Raises ConfigError, which names the largest capacity that fits, if the training cannot fit.
    """
    capacity = config.replay.capacity_env_steps
    needed = (
        f"replay buffer: {capacity} env steps at capacity need {_gb(need.at_capacity)} "
        f"({need.env_step:.0f} bytes each)"
    )
    there = (
        f"{where} has {_gb(memory.total)} of memory, {_gb(memory.available)} of it available now"
    )
    advice = _advice(config, need, memory.available)
    if need.of_this_training > memory.total:
        raise ConfigError(
            f"{needed}, and this training would fill {_gb(need.of_this_training)} of it, but "
            f"{there}: {advice}"
        )
    lines = [f"{needed}; {there}"]
    if need.of_this_training > memory.available:
        lines.append(
            f"warning: this training fills {_gb(need.of_this_training)} of the replay buffer, "
            f"more than is available now: {advice}"
        )
    elif need.at_capacity > memory.available:
        lines.append(
            f"warning: the replay buffer would not fit at capacity; the training ends before that, "
            f"at {_gb(need.of_this_training)}, because training.env_steps = "
            f"{config.training.env_steps}"
        )
    return lines


def _advice(config: Config, need: MemoryNeed, available: int) -> str:
    block_length = config.training.block_length
    slots = int(available // (need.env_step * block_length))
    if slots < config.training.cars:
        return (
            "not even one block fits: lower training.cars or training.block_length, or give "
            "smaller observations (environment.image_size_px)"
        )
    return (
        f"lower replay.capacity_env_steps to {slots * block_length} at most, which fits now (a "
        "resumed run keeps its capacity and needs a larger host)"
    )


def _gb(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size < 1e15 else f"{size / 1e9:.0f} GB"
