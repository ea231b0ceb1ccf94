"""`process.json` in a run's folder: which process trains it, or how the last one ended."""

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from typing import Any, Literal

from rlcar.regular_file import read_regular

FILE = "process.json"

State = Literal["running", "ended", "failed"]


def write(folder: Path, state: State, error: BaseException | None = None) -> None:
    """Notes what this process is doing with the run; a disk that refuses is ignored."""
    about: dict[str, Any] = {
        "state": state,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "start_ticks": _start_ticks(os.getpid()),
        "time_unix_s": round(time.time(), 3),
        "error": None if error is None else f"{type(error).__name__}: {error}".split("\n")[0],
    }
    temporary = folder / f".{FILE}"
    # Metrics and checkpoints say so themselves, and with better words.
    with contextlib.suppress(OSError):
        temporary.write_text(json.dumps(about) + "\n")
        temporary.replace(folder / FILE)


def read(folder: Path) -> dict[str, Any]:
    """What was noted last; empty for a run that notes nothing."""
    try:
        about = json.loads(read_regular(folder / FILE))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def is_another_here(about: dict[str, Any]) -> bool:
    """Whether it is a process of this machine that runs, and not this one."""
    return _was_here(about) and about["pid"] != os.getpid() and not is_gone(about)


def is_gone(about: dict[str, Any]) -> bool:
    """Whether the process was on this machine and is no more; never true of another machine's."""
    if not _was_here(about):
        return False
    try:
        os.kill(about["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return _start_ticks(about["pid"]) != about.get("start_ticks")  # its number was given away


def _was_here(about: dict[str, Any]) -> bool:
    return about.get("host") == socket.gethostname() and isinstance(about.get("pid"), int)


def _start_ticks(pid: int) -> int | None:
    """When a process began, in ticks since the machine did; None where /proc does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state == "Z" else int(rest[18])  # a zombie has ended: nobody has asked how
