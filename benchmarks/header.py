"""What every benchmark says first: when, which commit, on what."""

import datetime
import os
import platform
import subprocess
from importlib.metadata import version


def machine() -> str:
    """Returns the processor's kind and how many of its cores this process may use."""
    return f"{platform.machine()} {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores"


def print_header(*packages: str) -> None:
    """Prints the date, the commit, the machine and the versions of Python and some packages."""
    command = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    versions = " ".join(f"{name} {version(name)}" for name in packages)
    print(
        f"{datetime.date.today()} commit {commit or 'unknown'} {machine()} "
        f"python {platform.python_version()} {versions}"
    )
