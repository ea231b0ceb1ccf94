"""Ends connections whose login has ended: a token or cookie that no longer gives what it gave."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from serve.guard.limits import Message, Receive, Send

# With the token file's own delay (`tokens.REFRESH_S`) a connection ends within a second.
PERIOD_S = 0.5
_CLOSING_S = 1.0  # a peer that reads nothing does not hear why
_REASON = "this login has ended"
_LOGGER = logging.getLogger(__name__)
STILL_ADMITTED = "rlcar.is_still_admitted"


class RevocationMonitor:
    """An ASGI application around another one; one timer looks after all endless connections.

    The guard leaves a question in the scope under `STILL_ADMITTED`, which tells whether the login
    behind the connection still counts. When it does not, the application is cancelled and the
    peer told, even if it is idle, only listens or does not read.
    """

    def __init__(self, app: Any, period_s: float = PERIOD_S):
        self._app = app
        self._period_s = period_s
        self._open: dict[asyncio.Task[None], Callable[[], bool]] = {}
        self._ended: set[asyncio.Task[None]] = set()
        self._is_looking = False

    def __call__(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> Awaitable[None]:
        """Runs the application, under watch where the guard asks for it."""
        if STILL_ADMITTED not in scope:
            answer: Awaitable[None] = self._app(scope, receive, send)
            return answer
        return self._watched(scope, receive, send)

    async def _watched(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        async def run() -> None:
            await self._app(scope, receive, noting)

        # A task of its own: the server's may have other work that must not be cancelled.
        talk = asyncio.create_task(run())
        self._open[talk] = scope[STILL_ADMITTED]
        self._arm()
        try:
            await talk
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if talk not in self._ended or (this is not None and this.cancelling()):
                raise
            await _hang_up(scope, send, has_begun)
        finally:
            self._open.pop(talk, None)
            self._ended.discard(talk)

    def _arm(self) -> None:
        if not self._is_looking:
            self._is_looking = True
            asyncio.get_running_loop().call_later(self._period_s, self._look)

    def _look(self) -> None:
        self._is_looking = False
        for talk, is_admitted in self._open.items():
            if talk not in self._ended and not _holds(is_admitted):
                self._ended.add(talk)
                talk.cancel()
        if self._open:
            self._arm()


def _holds(is_admitted: Callable[[], bool]) -> bool:
    try:
        return is_admitted()
    except Exception:
        _LOGGER.exception("a login cannot be checked: its connection ends")
        return False


async def _hang_up(scope: MutableMapping[str, Any], send: Send, has_begun: bool) -> None:
    """Says why, if the peer can still hear it; the server then closes the connection."""
    messages: list[Message]
    if scope["type"] == "websocket":
        messages = [{"type": "websocket.close", "code": 1008, "reason": _REASON}]
    else:
        messages = [{"type": "http.response.body", "body": b""}]
        if not has_begun:
            messages.insert(0, {"type": "http.response.start", "status": 401, "headers": []})
    # It may have gone, or have been told to go, in the same moment.
    with contextlib.suppress(OSError, RuntimeError, TimeoutError):
        async with asyncio.timeout(_CLOSING_S):
            for message in messages:
                await send(message)
