"""An event loop in its own thread, for programs without one; safe in processes that fork."""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_LAST_TURNS_S = 0.01  # in which closed connections release their sockets


class LoopThread:
    """An event loop in a thread; both belong to the process that made them."""

    def __init__(self) -> None:
        if sys.is_finalizing():
            raise RuntimeError("the interpreter is shutting down")
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
        """Whether the loop runs; a fork copies no threads."""
        return not self.is_inherited and self._thread.is_alive() and not self._loop.is_closed()

    @property
    def is_inherited(self) -> bool:
        """Whether the loop and thread belong to the parent of this forked process."""
        return self._pid != os.getpid()

    def run(self, make: Callable[[], Coroutine[Any, Any, T]], timeout_s: float) -> T:
        """Runs a coroutine and returns its result; raises TimeoutError if it takes longer."""
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
        """Ends the thread and the tasks that still run in it."""
        with contextlib.suppress(RuntimeError):  # the loop may have ended already
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
            self._loop.run_until_complete(asyncio.sleep(_LAST_TURNS_S))
            self._loop.close()


def thread_start_lock() -> threading.Lock:
    """Returns the lock under which threads are started."""
    return _start_lock


def leave_to_parent(inherited: object) -> None:
    """Keeps an inherited object alive: its end here would end it for the parent process too."""
    _inherited.append(inherited)


def _renew_lock() -> None:
    """Replaces the lock: a thread of the parent may have held it, and does not exist here."""
    global _start_lock
    _start_lock = threading.Lock()


_inherited: list[object] = []
_start_lock = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
