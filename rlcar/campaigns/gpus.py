"""Which GPUs the jobs of a campaign use, as nvidia-smi reports it."""

import contextlib
import os
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

_TIMEOUT_S = 10.0
_GPU_FIELDS = "uuid,index,utilization.gpu,memory.used,memory.total,temperature.gpu"
_PROCESS_FIELDS = "pid,gpu_uuid,used_memory"


class GpuUse(NamedTuple):
    """A GPU that a job uses; None is a value that the device does not report."""

    device: int
    utilisation: float | None  # 0 to 1, of all processes on the device
    memory_mb: float | None  # of the job alone
    memory_total_mb: float | None
    temperature_c: float | None


def uses_by_group() -> dict[int, list[GpuUse]] | None:
    """Returns the use of GPUs by process group; None where nvidia-smi finds no GPU."""
    devices = _ask(f"--query-gpu={_GPU_FIELDS}")
    processes = _ask(f"--query-compute-apps={_PROCESS_FIELDS}") if devices else None
    if not devices or processes is None:
        return None
    groups = {}
    for line in processes.splitlines():
        pid = line.partition(",")[0].strip()
        with contextlib.suppress(OSError, ValueError):
            groups[int(pid)] = os.getpgid(int(pid))
    return read_uses(devices, processes, groups)


def read_uses(
    devices_csv: str, processes_csv: str, groups: Mapping[int, int]
) -> dict[int, list[GpuUse]]:
    """Parses what nvidia-smi prints; `groups` has the process group of each process.

    Other lines, such as messages about a GPU that does not answer, are left out.
    """
    devices = {}
    for uuid, index, *figures in _rows(devices_csv, _GPU_FIELDS):
        share, _, total_mb, temperature_c = (_number(text) for text in figures)
        if index.isdigit():
            devices[uuid] = GpuUse(
                int(index), None if share is None else share / 100, None, total_mb, temperature_c
            )
    found: dict[int, dict[str, GpuUse]] = {}
    for pid, uuid, used in _rows(processes_csv, _PROCESS_FIELDS):
        group = groups.get(int(pid)) if pid.isdigit() else None
        if group is None or uuid not in devices:
            continue
        of_group = found.setdefault(group, {})
        before = of_group.get(uuid, devices[uuid])
        known = [mb for mb in (before.memory_mb, _number(used)) if mb is not None]
        of_group[uuid] = before._replace(memory_mb=sum(known) if known else None)
    return {group: list(uses.values()) for group, uses in found.items()}


def _rows(text: str, fields: str) -> list[list[str]]:
    """Returns the lines that have as many fields as were asked for."""
    rows = [[part.strip() for part in line.split(",")] for line in text.splitlines()]
    return [row for row in rows if len(row) == len(fields.split(","))]


def _ask(query: str) -> str | None:
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # [N/A]
        return None
