"""Ends connections whose login has ended: the token or cookie expired, or lost a scope."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# With the delay of the token file (`tokens.REFRESH_S`) a connection ends within a second.
PERIOD_S = 0.5
_CLOSING_S = 1.0  # a client that reads nothing is not told the reason
_REASON = "this login has ended"
_LOGGER = logging.getLogger(__name__)
STILL_ADMITTED = "rlcar.is_still_admitted"


class RevocationMonitor:
    """An ASGI application around another one; one timer checks all endless connections.

    The guard puts a function into the scope under `STILL_ADMITTED`, which returns whether the login
    behind the connection is still valid. When it is not, the application is cancelled and the
    client told, even if the connection is idle, or the client only listens or does not read.
    """

    def __init__(self, app: ASGIApp, period_s: float = PERIOD_S):
        self._app = app
        self._period_s = period_s
        self._open: dict[asyncio.Task[None], Callable[[], bool]] = {}
        self._ended: set[asyncio.Task[None]] = set()
        self._is_timer_set = False

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Runs the application; monitors the connection if the guard asks for it."""
        if STILL_ADMITTED not in scope:
            return self._app(scope, receive, send)
        return self._monitored(scope, receive, send)

    async def _monitored(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def note_and_send(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        async def run() -> None:
            await self._app(scope, receive, note_and_send)

        # A separate task: the server's own may have other work that must not be cancelled.
        connection = asyncio.create_task(run())
        self._open[connection] = scope[STILL_ADMITTED]
        self._set_timer()
        try:
            await connection
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if connection not in self._ended or (this is not None and this.cancelling()):
                raise
            await _hang_up(scope, send, has_begun)
        finally:
            self._open.pop(connection, None)
            self._ended.discard(connection)

    def _set_timer(self) -> None:
        if not self._is_timer_set:
            self._is_timer_set = True
            asyncio.get_running_loop().call_later(self._period_s, self._check)

    def _check(self) -> None:
        self._is_timer_set = False
        for connection, is_admitted in self._open.items():
            if connection not in self._ended and not _is_valid(is_admitted):
                self._ended.add(connection)
                connection.cancel()
        if self._open:
            self._set_timer()


def _is_valid(is_admitted: Callable[[], bool]) -> bool:
    try:
        return is_admitted()
    except Exception:
        _LOGGER.exception("a login cannot be checked: its connection ends")
        return False


async def _hang_up(scope: Scope, send: Send, has_begun: bool) -> None:
    """Tells the client the reason if it still reads; the server then closes the connection."""
    messages: list[Message]
    if scope["type"] == "websocket":
        messages = [{"type": "websocket.close", "code": 1008, "reason": _REASON}]
    else:
        messages = [{"type": "http.response.body", "body": b""}]
        if not has_begun:
            messages.insert(0, {"type": "http.response.start", "status": 401, "headers": []})
    # The client may have disconnected, or the server closed the connection, at the same moment.
    with contextlib.suppress(OSError, RuntimeError, TimeoutError):
        async with asyncio.timeout(_CLOSING_S):
            for message in messages:
                await send(message)
