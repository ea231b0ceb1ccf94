"""Memory and disk as alerts need them; every process of ours that answers Prometheus exports them.

No other exporter, such as Prometheus's node exporter, is therefore required.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rlcar.system.host_memory import host_memory


class Exported(NamedTuple):
    """The name of a metric for Prometheus and its description.

    Several metrics may share a name if their `part` differs, or if no agent has more than one.
    """

    name: str
    description: str
    part: str = ""
    bounds: tuple[float, ...] = ()  # of a histogram; empty for a gauge


MEMORY_LIMIT = Exported(
    "rlcar_memory_limit_bytes", "Memory of the host, or of the container if it has a lower limit."
)
MEMORY_USED = Exported(
    "rlcar_memory_used_bytes", "Memory in use on the host or in the container, without caches."
)
PROCESS_MEMORY = Exported(
    "rlcar_process_memory_bytes", "Resident memory of the process that answers."
)
DISK_FREE = Exported(
    "rlcar_disk_free_bytes",
    "Free space of the disk that holds the runs; of a server, of its working directory.",
)
DISK_SIZE = Exported("rlcar_disk_size_bytes", "Size of the disk of `rlcar_disk_free_bytes`.")
HOST = (MEMORY_LIMIT, MEMORY_USED, PROCESS_MEMORY, DISK_FREE, DISK_SIZE)


def host_values(folder: Path) -> Iterator[tuple[Exported, float]]:
    """Yields the metrics of this host and of the disk that holds `folder`."""
    memory = host_memory()
    yield MEMORY_LIMIT, memory.total
    yield MEMORY_USED, memory.total - memory.available
    yield PROCESS_MEMORY, _resident_bytes()
    disk = shutil.disk_usage(folder)
    yield DISK_FREE, disk.free
    yield DISK_SIZE, disk.total


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
