"""What every benchmark says first: when, which commit, on what."""

import datetime
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path


def machine() -> str:
    """Returns the processor and how many of its cores this process may use."""
    said = Path("/proc/cpuinfo")  # Linux alone has it
    lines = said.read_text().splitlines() if said.exists() else []
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
