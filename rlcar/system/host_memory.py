"""The memory of this host, or of its container."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# A cgroup without a limit reports `max`, or a number that exceeds every real memory.
_NO_LIMIT = 2**60


class Memory(NamedTuple):
    """The memory of a host or a container, in bytes."""

    total: int
    available: int


def host_memory(root: Path = Path("/")) -> Memory:
    """Returns the memory of this host, or of its container if that has a lower limit.

    `root` is the folder with proc/ and sys/.
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
    """Yields the limit and the use, in bytes, of each memory cgroup (v1 or v2) of this process.

    Inside a container the path may be that on the host and not exist; then the root counts.
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
        for cgroup in (folder, *folder.parents):
            if cgroup == base.parent:
                break
            limit, used = _number(cgroup / files[0]), _number(cgroup / files[1])
            if limit is not None and used is not None and limit < _NO_LIMIT:
                yield limit, used - _cache_bytes(cgroup / "memory.stat", files[2])


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _cache_bytes(path: Path, name: str) -> int:
    """Returns the size of the file cache, which the kernel frees when memory is needed."""
    try:
        words = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return 0
    return next((int(word[1]) for word in words if word[:1] == [name]), 0)
