"""What processes use, read from /proc: memory, open files, threads, zombies and CPU time."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """Sums over the processes of a group that ran at that moment."""

    processes: int
    memory_mb: float  # resident; a page that several processes share counts in each of them
    files: int  # open file descriptors
    threads: int
    zombies: frozenset[tuple[int, int]]  # ended, not yet waited for: process id, start in ticks
    cpu_s: float = 0.0  # user and system time so far, also of children that were waited for


def process_files(name: str) -> Iterator[Path]:
    """Returns the path of a file of /proc, such as /proc/PID/stat for `stat`, for every process.

    `Path("/proc").glob` fails if a process ends meanwhile: it looks for the file, and Linux then
    answers ESRCH, which pathlib does not expect.
    """
    for pid in filter(str.isdigit, os.listdir("/proc")):
        yield Path("/proc", pid, name)


def measure(pids: Iterable[int]) -> Usage:
    """Measures processes; those that have ended in the meantime are left out."""
    processes = pages = files = threads = ticks = 0
    zombies = set()
    for pid in pids:
        # A process may end between two reads, and the files of another user cannot be listed.
        with contextlib.suppress(OSError):
            state, *fields = _fields(pid)
            ticks += sum(map(int, fields[10:14]))
            if state == "Z":
                zombies.add((pid, int(fields[18])))
                continue
            own_pages = int(fields[20])
            own_files = len(os.listdir(f"/proc/{pid}/fd"))
            processes, pages, files = processes + 1, pages + own_pages, files + own_files
            threads += int(fields[16])
    memory_mb = pages * _PAGE_BYTES / 1e6
    return Usage(processes, memory_mb, files, threads, frozenset(zombies), ticks / _TICKS_PER_S)


def idle_cpu_s() -> float:
    """Returns the CPU time that no program has used since the machine started, of all CPUs."""
    name, *ticks = Path("/proc/stat").read_text().partition("\n")[0].split()
    assert name == "cpu", name
    idle, waiting_for_disk = ticks[3:5]
    return (int(idle) + int(waiting_for_disk)) / _TICKS_PER_S


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
