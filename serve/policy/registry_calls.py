"""Runs blocking calls to a registry for an event loop, which must never wait for one."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from rlcar.errors import RegistryUnavailableError

# How long a request waits for the registry: to list versions, and to load or save one.
READ_TIMEOUT_S, CHANGE_TIMEOUT_S = 5.0, 15.0
_MAX_CONCURRENT = 4

P = ParamSpec("P")
T = TypeVar("T")


async def run_in_daemon_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs blocking work in a new daemon thread.

    `asyncio.to_thread` shares a few threads with everything else, and a process waits for them
    when it ends, so a call that hangs would keep the process alive.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def resolve(result: T) -> None:
        if not done.cancelled():
            done.set_result(result)

    def fail(error: BaseException) -> None:
        if not done.cancelled():
            done.set_exception(error)

    def run() -> None:
        with contextlib.suppress(RuntimeError):  # the loop may be closed when the work is done
            try:
                result = work(*args, **kwargs)
            except BaseException as error:
                loop.call_soon_threadsafe(fail, error)
            else:
                loop.call_soon_threadsafe(resolve, result)

    threading.Thread(target=run, name="rlcar-store", daemon=True).start()
    return await done


class RegistryCalls:
    """Runs the registry calls of requests: few at once, and each with a timeout.

    Raises RegistryUnavailableError, which becomes status 503, if the registry does not answer in
    time or if too many earlier calls still wait for it.
    """

    def __init__(self, max_concurrent: int = _MAX_CONCURRENT):
        self._max_concurrent, self._running = max_concurrent, 0

    async def run(
        self, timeout_s: float, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Returns the result of the work. After a timeout the work continues in its thread."""
        if self._running >= self._max_concurrent:
            raise RegistryUnavailableError(
                f"the registry has not answered {self._running} earlier requests yet: try again "
                "later"
            )
        self._running += 1
        call = asyncio.ensure_future(run_in_daemon_thread(work, *args, **kwargs))
        call.add_done_callback(self._release)
        try:
            return await asyncio.wait_for(asyncio.shield(call), timeout_s)
        except TimeoutError:
            raise RegistryUnavailableError(
                f"the registry did not answer within {timeout_s:g} s, and the operation may still "
                "complete: try again later"
            ) from None

    def _release(self, call: "asyncio.Future[T]") -> None:
        self._running -= 1
        if not call.cancelled():
            call.exception()  # marks it as retrieved: the caller may have timed out
