"""Leases on a backup, which may lie in an object store without exclusive creation.

Each process writes a file of its own into `leases/`, then lists the folder. It gives up if it finds
another one that conflicts, so two processes may both fail, but never both succeed. All ages are
differences of times that the store's clock gave, so the clocks of the hosts do not matter. If that
clock was wrong, a lease may be dated in the future: then it expires when this process has watched
it for `EXPIRES_S` without a renewal.
"""

import contextlib
import json
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any, Literal

from rlcar.errors import StorageError
from rlcar.storage.backup.store import BackupStore, Stored, read_small, shown
from rlcar.system import process_state

LEASES = "leases"
RENEW_S = 30.0
EXPIRES_S = 300.0
POLL_S = 5.0

logger = logging.getLogger(__name__)

Purpose = Literal["backup", "prune", "read"]
_CONFLICTS: dict[str, set[str]] = {
    "backup": {"backup", "prune"},
    "prune": {"backup", "prune", "read"},
    "read": {"prune"},
}
_WORDS = {"backup": "makes a backup in", "prune": "removes snapshots from", "read": "reads"}


class BusyError(StorageError):
    """Another process has a lease that conflicts."""

    def __init__(self, message: str, lease: str, modified_unix_s: float, *, is_here: bool):
        super().__init__(message)
        self.lease, self.modified_unix_s, self.is_here = lease, modified_unix_s, is_here


class BackupLease:
    """A lease that a thread renews."""

    def __init__(self, store: BackupStore, purpose: Purpose):
        """Raises BusyError, which names the holder, if the backup is not free.

        A process on another host may be dead, as after the loss of a Kubernetes node. This waits
        until its lease has been renewed, and then raises, or until it has expired, which takes at
        most `EXPIRES_S`.
        """
        self._store, self._purpose = store, purpose
        self._name = f"{LEASES}/{uuid.uuid4().hex}.json"
        self._info = process_state.describe("running") | {"purpose": purpose}
        self._over = threading.Event()
        self._acquire()
        self._thread = threading.Thread(target=self._renew_regularly, daemon=True, name="lease")
        self._thread.start()

    def _acquire(self) -> None:
        seen: dict[str, tuple[float, float]] = {}  # lease -> its time, and when this process saw it
        while True:
            self._renew()
            try:
                self.check()
                return
            except BusyError as busy:
                self._forget()
                if busy.lease not in seen and not busy.is_here:
                    logger.warning("%s; waiting to see whether it is alive", busy)
                modified_unix_s, since_s = seen.setdefault(
                    busy.lease, (busy.modified_unix_s, time.monotonic())
                )
                if busy.is_here or modified_unix_s != busy.modified_unix_s:
                    raise
                if time.monotonic() - since_s > EXPIRES_S:
                    self._store.delete(f"{LEASES}/{busy.lease}")
                    continue
            except BaseException:
                self._forget()
                raise
            _pause()

    def check(self) -> None:
        """Raises StorageError if the lease is lost, and BusyError if there is a conflicting one.

        Call it before and after writing what must not be written without the lease.
        """
        found = self._store.list(LEASES)
        own_unix_s = self._own_unix_s(found)
        found.pop(self._name.removeprefix(f"{LEASES}/"))
        for name, stored in found.items():
            info = self._read(f"{LEASES}/{name}")
            if str(info.get("purpose")) not in _CONFLICTS[self._purpose]:
                continue
            silent_s = own_unix_s - stored.modified_unix_s
            if silent_s > EXPIRES_S or process_state.is_gone(info):
                self._store.delete(f"{LEASES}/{name}")
                continue
            raise BusyError(
                f"process {shown(str(info.get('pid')), 20)} of the host "
                f"{shown(str(info.get('host')), 80)} {_WORDS[str(info['purpose'])]} "
                f"{self._store.place}: wait until it has ended; if "
                f"that host is down, try again in {EXPIRES_S / 60:.0f} minutes",
                name,
                stored.modified_unix_s,
                is_here=process_state.was_here(info),
            )

    def renewed_unix_s(self) -> float:
        """Returns when the lease was last renewed, by the clock of the store."""
        return self._own_unix_s(self._store.list(LEASES))

    def _own_unix_s(self, found: dict[str, Stored]) -> float:
        own = found.get(self._name.removeprefix(f"{LEASES}/"))
        if own is None:
            raise StorageError(
                f"this process showed no sign of life for {EXPIRES_S:.0f} s, and another one has "
                f"removed its lease on {self._store.place}: start again"
            )
        return own.modified_unix_s

    def end(self) -> None:
        """Gives the lease back."""
        self._over.set()
        self._thread.join(RENEW_S)
        self._forget()

    def _forget(self) -> None:
        with contextlib.suppress(StorageError):
            self._store.delete(self._name)

    def _renew_regularly(self) -> None:
        while not self._over.wait(RENEW_S):
            with contextlib.suppress(StorageError):  # the work itself will report it
                # Written again only if it is there: a removed lease must stay lost.
                if self._name.removeprefix(f"{LEASES}/") in self._store.list(LEASES):
                    self._renew()

    def _renew(self) -> None:
        self._store.write(self._name, [(json.dumps(self._info) + "\n").encode()])

    def _read(self, name: str) -> dict[str, Any]:
        try:
            info = json.loads(read_small(self._store, name, 1 << 16))
        except (FileNotFoundError, ValueError, RecursionError):
            return {}
        # The number of a process is later given to the system, which refuses large ones.
        is_lease = isinstance(info, dict) and 0 < _whole(info.get("pid")) < 1 << 31
        return info if is_lease else {}


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _pause() -> None:
    time.sleep(POLL_S)


@contextlib.contextmanager
def leased(store: BackupStore, purpose: Purpose) -> Iterator[BackupLease]:
    """Holds a lease on the backup for the block."""
    lease = BackupLease(store, purpose)
    try:
        yield lease
    finally:
        lease.end()


@contextlib.contextmanager
def leased_for_reading(store: BackupStore) -> Iterator[None]:
    """Keeps others from removing snapshots meanwhile, unless the place is read-only."""
    try:
        lease = BackupLease(store, "read")
    except BusyError:
        raise
    except StorageError:
        yield
        return
    try:
        yield
    finally:
        lease.end()
