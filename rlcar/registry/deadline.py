"""A store whose calls all have a deadline, even if the disk or the network hangs."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from rlcar.errors import RegistryUnavailableError
from rlcar.registry.store import Store

DEADLINE_S = 10.0
_MOST_STUCK = 4
_READ_BYTES_PER_S, _WRITE_BYTES_PER_S = 1 << 20, 1 << 17  # slower than this is a hang
_MOST_READ_S = 120.0

T = TypeVar("T")


class DeadlineStore:
    """Passes each call to another store in a thread of its own, and waits until a deadline.

    A call that misses its deadline raises RegistryUnavailableError, and its thread remains until
    the disk or the network responds. Their number is bounded: while a call hangs, the next one for
    the same file fails at once, and so does every call while `_MOST_STUCK` threads hang. Calls are
    passed on again as soon as those threads end.
    """

    def __init__(self, store: Store, deadline_s: float = DEADLINE_S):
        self.place = store.place
        self._store, self._deadline_s = store, deadline_s
        self._stuck: dict[Future[Any], tuple[str, str]] = {}  # calls past their deadline
        self._lock = threading.Lock()

    def names(self, folder: str) -> list[str]:
        """Lists the files below a folder."""
        return self._call("list", folder, lambda: self._store.names(folder))

    def folders(self, folder: str) -> list[str]:
        """Lists the folders directly below a folder."""
        return self._call("look into", folder, lambda: self._store.folders(folder))

    def modified(self, folder: str) -> dict[str, float]:
        """Lists the files below a folder, also unfinished ones, with their times."""
        return self._call("look through", folder, lambda: self._store.modified(folder))

    def read(self, name: str, limit_bytes: int) -> bytes:
        """Returns a file's bytes."""
        more_s = min(_MOST_READ_S, limit_bytes / _READ_BYTES_PER_S)
        return self._call("read", name, lambda: self._store.read(name, limit_bytes), more_s)

    def write(self, name: str, data: bytes) -> None:
        """Writes a file."""
        more_s = len(data) / _WRITE_BYTES_PER_S
        return self._call("write", name, lambda: self._store.write(name, data), more_s)

    def create(self, name: str, data: bytes) -> bool:
        """Writes a new file, unless the name is taken."""
        more_s = len(data) / _WRITE_BYTES_PER_S
        return self._call("create", name, lambda: self._store.create(name, data), more_s)

    def claim(self, folder: str) -> bool:
        """Claims a folder that nobody has claimed."""
        return self._call("claim", folder, lambda: self._store.claim(folder))

    def release(self, folder: str) -> None:
        """Releases an empty claimed folder, if that is safe."""
        return self._call("release", folder, lambda: self._store.release(folder))

    def delete(self, name: str) -> None:
        """Deletes a file."""
        return self._call("delete", name, lambda: self._store.delete(name))

    def _call(self, verb: str, name: str, work: Callable[[], T], more_s: float = 0.0) -> T:
        key, failure = (verb, name), f"cannot {verb} {self.place}/{name}"
        with self._lock:
            if key in self._stuck.values() or len(self._stuck) >= _MOST_STUCK:
                raise RegistryUnavailableError(
                    f"{failure}: an earlier call has not been answered yet"
                )
        future: Future[T] = Future()
        thread = threading.Thread(
            # A daemon: a thread that hangs must not keep the process from ending.
            target=self._run,
            args=(work, future),
            name="rlcar-registry",
            daemon=True,
        )
        thread.start()
        limit_s = self._deadline_s + more_s
        try:
            return future.result(limit_s)
        except TimeoutError:
            with self._lock:
                if future.done():
                    return future.result()
                self._stuck[future] = key
            raise RegistryUnavailableError(f"{failure}: no answer within {limit_s:g} s") from None

    def _run(self, work: Callable[[], Any], future: Future[Any]) -> None:
        try:
            result = work()
        except BaseException as error:
            with self._lock:
                self._stuck.pop(future, None)
                future.set_exception(error)
        else:
            with self._lock:
                self._stuck.pop(future, None)
                future.set_result(result)
