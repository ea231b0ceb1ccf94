"""`process.json` in a run's folder: which process trains it, or how the last one ended.

The process rewrites the file every few seconds, so that its modification time is a sign of life for
observers on other machines. `stage` and `silent_s` say whether the work itself makes progress.
"""

import functools
import json
import os
import socket
import time
from pathlib import Path
from typing import Any, Literal

from rlcar.system.durable import replace_text
from rlcar.system.heartbeat import SignOfLife
from rlcar.system.regular_file import read_regular

FILE = "process.json"

State = Literal["running", "ended", "failed"]


def describe(state: State, error: BaseException | None = None) -> dict[str, Any]:
    """Returns the content of process.json for this process."""
    return {
        "state": state,
        **identity(os.getpid()),
        "time_unix_s": round(time.time(), 3),
        "error": None if error is None else f"{type(error).__name__}: {error}".split("\n")[0],
    }


def identity(pid: int) -> dict[str, Any]:
    """Returns what distinguishes a process of this machine from all others, also later ones."""
    return {**_machine(), "pid": pid, "start_ticks": _start_ticks(pid)}


def write(folder: Path, info: dict[str, Any]) -> None:
    """Replaces process.json; raises OSError, and then leaves it as it was."""
    replace_text(folder / FILE, json.dumps(info) + "\n")


def read(folder: Path) -> dict[str, Any]:
    """Returns the content of process.json; empty without one, or when it is damaged."""
    return parse(folder / FILE)


def parse(path: Path) -> dict[str, Any]:
    """Reads a file of this form; empty when there is none, or when it is damaged."""
    try:
        info = json.loads(read_regular(path))
    except (OSError, ValueError):
        return {}
    return info if isinstance(info, dict) else {}


def is_another_here(info: dict[str, Any]) -> bool:
    """Whether the process is another one that runs on this machine."""
    return was_here(info) and info["pid"] != os.getpid() and not is_gone(info)


def is_gone(info: dict[str, Any]) -> bool:
    """Whether the process was on this machine and has ended; False for another machine."""
    if not was_here(info):
        return False
    try:
        os.kill(info["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return _start_ticks(info["pid"]) != info.get("start_ticks")  # its number was reused


def is_reused(info: dict[str, Any]) -> bool:
    """Whether another process of this machine has its number now."""
    if not was_here(info):
        return False
    return _start_ticks(info["pid"]) not in (None, info.get("start_ticks"))


def was_here(info: dict[str, Any]) -> bool:
    """Whether the process ran on this machine, in the same boot and process namespace.

    Otherwise its number means nothing here. Containers may share a host name.
    """
    if not isinstance(info.get("pid"), int):
        return False
    machine = _machine()
    return info.get("host") == machine["host"] and all(
        info.get(name) in (None, machine[name]) for name in ("boot_id", "pid_namespace")
    )


class Observer:
    """Follows the signs of life of the process that writes a folder's process.json."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._renewed_s: float | None = None
        self._seen_s: float | None = None  # when this observer saw it change, by its own clock

    def renewed_ago_s(self, now_s: float) -> float | None:
        """Returns the file's age; None without a file. `now_s` is Unix time."""
        try:
            renewed_s = (self._folder / FILE).stat().st_mtime
        except OSError:
            return None
        if renewed_s != self._renewed_s:
            self._seen_s = None if self._renewed_s is None else now_s
            self._renewed_s = renewed_s
        ago_s = now_s - renewed_s
        # Clocks differ between machines, so a change that this observer saw itself counts too.
        return max(0.0, ago_s if self._seen_s is None else min(ago_s, now_s - self._seen_s))

    def sign_of_life(self, now_s: float) -> SignOfLife | None:
        """Returns what the process reports; None for a file that does not name its stage."""
        info, ago_s = read(self._folder), self.renewed_ago_s(now_s)
        if ago_s is None or not isinstance(info.get("stage"), str):
            return None
        silent_s = info.get("silent_s")
        before_s = silent_s if isinstance(silent_s, int | float) else 0.0
        return SignOfLife(info["stage"], ago_s + before_s)


@functools.cache
def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _machine() -> dict[str, str | None]:
    """Returns what distinguishes machines, and containers on one machine."""
    try:
        namespace: str | None = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = None
    return {"host": socket.gethostname(), "boot_id": _boot_id(), "pid_namespace": namespace}


def _start_ticks(pid: int) -> int | None:
    """Returns when a process began, in ticks since boot; None for one that has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state == "Z" else int(rest[18])  # a zombie has ended
