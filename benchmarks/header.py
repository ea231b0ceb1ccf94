"""The header of every benchmark: date, commit, machine and versions."""

import datetime
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rlcar.system.provenance import provenance


def machine() -> str:
    """Returns the processor and how many of its cores this process may use."""
    cpu_info = Path("/proc/cpuinfo")  # only on Linux
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    return f"{name}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores"


def print_header(*packages: str) -> None:
    """Prints the date, the commit, the machine and the versions of Python and some packages."""
    command = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    versions = " ".join(f"{name} {version(name)}" for name in packages)
    print(
        f"{datetime.date.today()} commit {commit or 'unknown'} {machine()} "
        f"python {platform.python_version()} {versions}"
    )


def _script() -> str:
    """Returns the running script, within the project, as `python -m` names it by a full path."""
    path = Path(sys.argv[0]).resolve()
    root = Path(__file__).resolve().parents[1]
    return str(path.relative_to(root)) if path.is_relative_to(root) else path.name


def origin(load_before: float) -> dict[str, Any]:
    """Returns the origin of a result file; `load_before` is the load average at the start."""
    return {
        "command": " ".join(["python", _script(), *sys.argv[1:]]),
        "machine": machine(),
        "load_average": {"before": load_before, "after": os.getloadavg()[0]},
        "date": str(datetime.date.today()),
        "provenance": provenance(0),
    }
