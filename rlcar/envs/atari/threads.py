"""The number of threads in which a back end steps its emulators."""

import os


def thread_count(emulators: int) -> int:
    """Returns at most one thread for each emulator and for each core of this process.

    A simulator of a cluster has one core, which OMP_NUM_THREADS tells all numerical libraries.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    cores = int(given) if given.isdigit() and int(given) else (os.cpu_count() or 1)
    return max(1, min(emulators, cores))
