"""What groups of processes use, read from /proc: memory, open files, threads and zombies."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """Sums over the processes of a group that ran at that moment."""

    processes: int
    memory_mb: float  # resident; a page that several processes share counts in each of them
    files: int  # open file descriptors
    threads: int
    zombies: frozenset[tuple[int, int]]  # ended, not yet waited for: process id, start in ticks


def measure(pids: Iterable[int]) -> Usage:
    """Measures processes; those that have ended in the meantime are left out."""
    processes = pages = files = threads = 0
    zombies = set()
    for pid in pids:
        # A process may end between two reads, and the files of another user cannot be listed.
        with contextlib.suppress(OSError):
            state, *fields = _fields(pid)
            if state == "Z":
                zombies.add((pid, int(fields[18])))
                continue
            own_pages = int(fields[20])
            own_files = len(os.listdir(f"/proc/{pid}/fd"))
            processes, pages, files = processes + 1, pages + own_pages, files + own_files
            threads += int(fields[16])
    return Usage(processes, pages * _PAGE_BYTES / 1e6, files, threads, frozenset(zombies))


def folder_bytes(folder: Path) -> int:
    """Returns the size of all files below a folder; 0 if there is none.

    Files that are deleted meanwhile count as they were seen. Links are not followed.
    """
    size = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(root, name)).st_size
    return size


def _fields(pid: int) -> list[str]:
    """Returns the fields of /proc/PID/stat from the state on (proc(5) counts it as the third)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
