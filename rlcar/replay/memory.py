"""Whether a replay fits into memory: its size at capacity beside the memory that there is."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rlcar.config import Config
from rlcar.errors import ConfigError
from rlcar.replay.buffer import slots_of
from rlcar.replay.rings import row_bytes
from rlcar.types import Spec

# A cgroup without a limit says `max`, or a number that no machine reaches.
_NO_LIMIT = 2**60


class Memory(NamedTuple):
    """Of a host or a container, in bytes."""

    total: int
    available: int


class Need(NamedTuple):
    """What a replay takes, in bytes."""

    env_step: float
    at_capacity: int
    of_this_training: int  # less, where the training ends before the replay is full


def replay_need(config: Config, spec: Spec, carry_size: int = 0) -> Need:
    """Returns the memory that the replay of an off-policy algorithm needs."""
    block_length = config.training.block_length
    row = row_bytes(spec, block_length, carry_size)
    slots = slots_of(config.replay, block_length)
    last_block = config.training.cars
    driven = -(-config.training.env_steps // block_length) + last_block
    return Need(row / block_length, slots * row, min(slots, driven) * row)


def check_memory(config: Config, need: Need, memory: Memory, where: str = "this host") -> list[str]:
    """Returns lines that say what the replay needs and what there is; a warning where it is less.

    Raises ConfigError, with the largest capacity that fits, where it can never fit.
    """
    capacity = config.replay.capacity_env_steps
    said = (
        f"replay: {capacity} env steps at capacity need {_gb(need.at_capacity)} "
        f"({need.env_step:.0f} bytes each)"
    )
    there = (
        f"{where} has {_gb(memory.total)} of memory, {_gb(memory.available)} of it available now"
    )
    advice = _advice(config, need, memory.available)
    if need.of_this_training > memory.total:
        raise ConfigError(
            f"{said}, and this training would fill {_gb(need.of_this_training)} of it, but "
            f"{there}: {advice}"
        )
    lines = [f"{said}; {there}"]
    if need.of_this_training > memory.available:
        lines.append(
            f"warning: this training fills {_gb(need.of_this_training)} of replay, more than is "
            f"available now: {advice}"
        )
    elif need.at_capacity > memory.available:
        lines.append(
            f"warning: the replay would not fit at capacity; training.env_steps = "
            f"{config.training.env_steps} ends before that, at {_gb(need.of_this_training)}"
        )
    return lines


def _advice(config: Config, need: Need, room: int) -> str:
    block_length = config.training.block_length
    slots = int(room // (need.env_step * block_length))
    if slots < config.training.cars:
        return (
            "not even one block fits: lower training.cars or training.block_length, or give "
            "smaller observations (environment.image_size_px)"
        )
    return (
        f"lower replay.capacity_env_steps to {slots * block_length} at most, which fits now (a "
        "resumed run keeps its capacity and needs a larger host)"
    )


def host_memory(root: Path = Path("/")) -> Memory:
    """Reads the memory of this host, or of its container where that is limited to less.

    `root` is where /proc and /sys are.
    """
    try:
        text = (root / "proc/meminfo").read_text()
    except OSError:  # not Linux
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return Memory(total, total)
    kilobytes = {line.partition(":")[0]: int(line.split()[1]) for line in text.splitlines() if line}
    total = 1024 * kilobytes["MemTotal"]
    available = 1024 * kilobytes.get("MemAvailable", kilobytes["MemTotal"])
    for limit, used in _cgroup_limits(root):
        total, available = min(total, limit), min(available, max(0, limit - used))
    return Memory(total, available)


def _cgroup_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Yields limit and use of each memory cgroup above this process, of both versions of Linux's.

    Inside a container the path may be that of the host, which is not there: its root counts.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, files = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            files = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        folder = base / path.lstrip("/")
        for one in (folder, *folder.parents):
            if one == base.parent:
                break
            limit, used = _number(one / files[0]), _number(one / files[1])
            if limit is not None and used is not None and limit < _NO_LIMIT:
                yield limit, used - _cache_bytes(one / "memory.stat", files[2])


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _cache_bytes(path: Path, name: str) -> int:
    """File cache that the kernel gives back when memory is needed."""
    try:
        words = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return 0
    return next((int(word[1]) for word in words if word[:1] == [name]), 0)


def _gb(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size < 1e15 else f"{size / 1e9:.0f} GB"
