"""Leases: one process at a time works in a folder, even if several hosts share it.

    <folder>/process.json           who holds the folder, since when; rewritten every `RENEW_S`
             .claim-000000007       created exclusively by the seventh holder

A holder on this machine is alive while its process runs. A holder on another machine is alive until
it has not rewritten process.json for `EXPIRES_S`. A process that takes over an expired lease claims
the next number, because only one process can create that file. A holder that finds a higher number
in process.json has lost the folder.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from rlcar.errors import UserError
from rlcar.system import heartbeat, process_state
from rlcar.system.durable import explaining_write_errors
from rlcar.system.heartbeat import SignOfLife

RENEW_S = 5.0
EXPIRES_S = 60.0
WAIT_S = EXPIRES_S + 3 * RENEW_S  # enough for the lease of a host that has just failed to expire
_POLL_S = 0.5


class HeldError(UserError):
    """Another process holds the folder, or has taken it over."""


class Lease:
    """Holds a folder for this process; a thread renews it. Use `hold` to make one."""

    def __init__(self, folder: Path, number: int):
        """`number` is the number that this process has claimed."""
        self.folder, self.process = folder, os.getpid()
        self._number = number
        self._before = process_state.read(folder)
        self._has_begun = False
        self._info = process_state.describe("running") | {"lease": number}
        self._lost: dict[str, Any] | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._listeners: list[Callable[[SignOfLife], None]] = []
        self._renewed_unix_s = 0.0
        self._renew()
        self._thread = threading.Thread(target=self._renew_regularly, daemon=True, name="lease")
        self._thread.start()
        # In a thread of their own: a listener that prints blocks while a terminal or pipe is full.
        threading.Thread(target=self._notify_listeners, daemon=True, name="lease-listeners").start()

    def check(self) -> None:
        """Raises HeldError when another process has taken over; then write nothing more."""
        if (
            time.time() - self._renewed_unix_s > EXPIRES_S / 2
        ):  # this process was suspended, for example
            self._renew()
        current = process_state.read(self.folder)
        if _number(current) > self._number:
            self._lost = current
        if self._lost is not None:
            raise HeldError(
                f"{self.folder} was taken over by {_who(self._lost)}, because this process had "
                f"shown no sign of life for {EXPIRES_S:.0f} s: it ends now and leaves the folder "
                "to the other process"
            )

    def begin(self) -> None:
        """Declares that the content is about to change, so that `end` records the outcome."""
        self._has_begun = True

    def listen(self, listener: Callable[[SignOfLife], None]) -> None:
        """Calls `listener` with a sign of life every `RENEW_S`, in another thread; it may block."""
        self._listeners.append(listener)

    def forget(self, listener: Callable[[SignOfLife], None]) -> None:
        """Removes a listener."""
        self._listeners.remove(listener)

    def end(self, error: BaseException | None) -> None:
        """Releases the folder and records how the work ended.

        Work that has not begun does not change what process.json said before."""
        self._over.set()
        self._thread.join(EXPIRES_S)
        if self._thread.is_alive():
            return  # the file system does not respond: the lease will expire
        # SystemExit is a deliberate end, not a failure.
        is_failure = error is not None and not isinstance(error, SystemExit)
        self._info |= process_state.describe(
            "failed" if is_failure else "ended", error if is_failure else None
        )
        self._renew()
        is_untouched = not self._has_begun and self._before.get("state") in ("ended", "failed")
        with contextlib.suppress(OSError):
            if is_untouched and self._lost is None:
                process_state.write(self.folder, self._before)
            _claim_path(self.folder, self._number).unlink(missing_ok=True)

    def _renew_regularly(self) -> None:
        while not self._over.wait(RENEW_S):
            self._renew()

    def _notify_listeners(self) -> None:
        while not self._over.wait(RENEW_S):
            for listener in list(self._listeners):
                with contextlib.suppress(Exception):  # it is called again next time
                    listener(heartbeat.sign_of_life())

    def _renew(self) -> None:
        with self._lock:
            if self._lost is not None:
                return
            current = process_state.read(self.folder)
            if _number(current) > self._number:
                self._lost = current
                return
            stage, silent_s = heartbeat.sign_of_life()
            info = self._info | {"stage": stage, "silent_s": round(silent_s, 1)}
            self._renewed_unix_s = time.time()
            try:
                process_state.write(self.folder, info)
            except OSError:  # a full disk: writing metrics and checkpoints will report it
                with contextlib.suppress(OSError):
                    os.utime(self.folder / process_state.FILE)


_held: dict[Path, Lease] = {}


@contextlib.contextmanager
def hold(folder: Path, wait_s: float = 0.0) -> Iterator[Lease]:
    """Creates `folder` and holds it for this process; nested calls return the outer lease.

    Raises HeldError, which names the holder and what to do, if the folder does not become free
    within `wait_s`. Raises UserError if the folder cannot be written.
    """
    place = folder.resolve()
    outer = _held.get(place)
    if outer is not None and outer.process == os.getpid():
        yield outer
        return
    lease = _held[place] = _take(folder, wait_s)
    error: BaseException | None = None
    try:
        yield lease
    except BaseException as raised:
        error = raised
        raise
    finally:
        del _held[place]
        lease.end(error)


def holder(folder: Path) -> str | None:
    """Returns who else holds a folder, since when, and what to do; None when it is free."""
    info = process_state.read(folder)
    if info.get("state") != "running":
        return None
    if process_state.was_here(info):
        if not process_state.is_another_here(info):
            return None
        return (
            f"it is being trained by {_who(info)}: stop that process first (kill {info['pid']}), "
            "or watch it with rlcar monitor --watch"
        )
    return _holder_elsewhere(folder, info)


def _holder_elsewhere(folder: Path, info: dict[str, Any]) -> str | None:
    try:
        silent_s = _now_s(folder) - (folder / process_state.FILE).stat().st_mtime
    except FileNotFoundError:
        return None
    if "lease" not in info or silent_s > EXPIRES_S:  # older versions never rewrote it
        return None
    return (
        f"it is being trained by {_who(info)}, which showed its last sign of life "
        f"{max(0.0, silent_s):.0f} s ago: stop it there first; if that host is down, try again in "
        f"{EXPIRES_S - silent_s + 1:.0f} s, after its lease has expired"
    )


def _take(folder: Path, wait_s: float) -> Lease:
    deadline_s = time.monotonic() + wait_s
    while True:
        with explaining_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            why = holder(folder)
            number = None if why else _claim(folder)
        if number is not None:
            return Lease(folder, number)
        if time.monotonic() >= deadline_s:
            busy = "another process is about to begin in it: try again in a minute"
            raise HeldError(f"{folder} is not free: {why or busy}")
        time.sleep(_POLL_S)


def _claim(folder: Path) -> int | None:
    """Claims the folder; returns the claimed number, or None if another process was faster."""
    number = _number(process_state.read(folder)) + 1
    while not _make_claim(path := _claim_path(folder, number)):
        if _is_claim_alive(folder, path):
            return None
        number += 1
    if _number(process_state.read(folder)) >= number:
        path.unlink(missing_ok=True)
        return None  # another process has held and released it meanwhile
    for old in folder.glob(".claim-*"):
        if old.name < path.name:
            old.unlink(missing_ok=True)
    return number


def _claim_path(folder: Path, number: int) -> Path:
    return folder / f".claim-{number:09d}"


def _make_claim(path: Path) -> bool:
    """Makes a claim that names this process from the first moment on.

    An empty one, of a process that was killed before it wrote its name, would count as alive until
    it expires.
    """
    unfinished = path.with_name(f"{path.name}-{os.getpid()}-{threading.get_ident()}")
    unfinished.write_text(json.dumps(process_state.describe("running")) + "\n")
    try:
        os.link(unfinished, path)
    except (FileExistsError, FileNotFoundError):  # another process was faster
        return False
    except OSError:  # this file system has no hard links
        return _make_claim_without_links(path, unfinished.read_text())
    finally:
        unfinished.unlink(missing_ok=True)
    return True


def _make_claim_without_links(path: Path, content: str) -> bool:
    try:
        with path.open("x") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def _is_claim_alive(folder: Path, path: Path) -> bool:
    """Whether the process that made a claim may still be about to write process.json."""
    info = process_state.parse(path)
    if process_state.is_gone(info) or info.get("pid") == os.getpid():
        return False
    try:
        return _now_s(folder) - path.stat().st_mtime <= EXPIRES_S
    except FileNotFoundError:
        return True  # it has just been removed: look again


def _number(info: dict[str, Any]) -> int:
    number = info.get("lease")
    return number if isinstance(number, int) else 0


def _now_s(folder: Path) -> float:
    """Returns the time of the clock that stamps the files, which may be a file server's."""
    probe = folder / f".clock-{os.getpid()}-{threading.get_ident()}"
    try:
        probe.touch()
        os.utime(probe)
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _who(info: dict[str, Any]) -> str:
    since_s = info.get("time_unix_s")
    since = ""
    if isinstance(since_s, int | float):
        since = f" since {datetime.fromtimestamp(since_s).astimezone():%Y-%m-%d %H:%M:%S %Z}"
    where = "this machine" if process_state.was_here(info) else f"the host {info.get('host')}"
    return f"process {info.get('pid')} of {where}{since}"
