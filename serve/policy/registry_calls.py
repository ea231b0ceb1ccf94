"""Blocking calls to a registry, from an event loop that must never wait for one."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from rlcar.errors import RegistryUnavailableError

READ_TIMEOUT_S, CHANGE_TIMEOUT_S = (
    5.0,
    15.0,
)  # how long a request waits for the registry: to list, to load or save
_MOST_AT_ONCE = 4

P = ParamSpec("P")
T = TypeVar("T")


async def run_in_daemon_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs blocking work in a daemon thread of its own.

    `asyncio.to_thread` has few threads, which everything else shares, and a process waits for them
    when it ends: work that hangs would keep it alive.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(result: Any, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = work(*args, **kwargs)
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, name="rlcar-store", daemon=True).start()
    return await done


class RegistryCalls:
    """Runs the registry's part of requests: few at once, and each answered in time.

    Raises RegistryUnavailableError, which becomes status 503, when the registry does not answer in
    time or when too many earlier requests still wait for it.
    """

    def __init__(self, most_at_once: int = _MOST_AT_ONCE):
        self._most, self._running = most_at_once, 0

    async def run(
        self, deadline_s: float, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Returns what the work returns; when the deadline passes, it goes on by itself."""
        if self._running >= self._most:
            raise RegistryUnavailableError(
                f"the registry has not answered {self._running} earlier requests yet: try again "
                "later"
            )
        self._running += 1
        call = asyncio.ensure_future(run_in_daemon_thread(work, *args, **kwargs))
        call.add_done_callback(self._ended)
        try:
            return await asyncio.wait_for(asyncio.shield(call), deadline_s)
        except TimeoutError:
            raise RegistryUnavailableError(
                f"the registry did not answer within {deadline_s:g} s, and what was asked for may "
                "still be done: try again later"
            ) from None

    def _ended(self, call: "asyncio.Future[Any]") -> None:
        self._running -= 1
        if not call.cancelled():
            call.exception()  # nobody may have waited for it
