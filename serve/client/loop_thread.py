"""An event loop in a thread of its own, for programs without one; safe where processes fork."""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_LAST_TURNS_S = 0.01


class LoopThread:
    """An event loop in a thread; both belong to the process that made them."""

    def __init__(self) -> None:
        if sys.is_finalizing():
            raise RuntimeError("the interpreter ends")
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="rlcar-drive", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._loop.close()
            raise

    @property
    def is_usable(self) -> bool:
        """Whether something can still be run; a fork copies no threads."""
        return not self.is_inherited and self._thread.is_alive() and not self._loop.is_closed()

    @property
    def is_inherited(self) -> bool:
        """Whether this process was forked from the one whose loop and thread these are."""
        return self._pid != os.getpid()

    def run(self, make: Callable[[], Coroutine[Any, Any, T]], timeout_s: float) -> T:
        """Runs a coroutine; raises TimeoutError when it takes longer."""
        coroutine = make()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise
        try:
            return future.result(timeout_s)
        finally:
            future.cancel()

    def stop(self, timeout_s: float) -> None:
        """Ends the thread, and what is still running in it."""
        with contextlib.suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            if left:
                self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            # Connections that were closed let go of their sockets in the next turns of the loop.
            self._loop.run_until_complete(asyncio.sleep(_LAST_TURNS_S))
            self._loop.close()


def starting() -> threading.Lock:
    """The lock under which threads are started."""
    return _starting


def leave_to_parent(what: Any) -> None:
    """Keeps what a forked process inherited: ending it here would end it for the parent too."""
    _inherited.append(what)


def _renew_lock() -> None:
    """Another thread of the parent may have held the lock, and is not here to give it back."""
    global _starting
    _starting = threading.Lock()


_inherited: list[Any] = []
_starting = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
