"""Limits of a client's requests: their rate, their number at once, and the time of a body."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from starlette.types import Message, Receive

MAX_HEADERS = 100  # of one request
KEEP_ALIVE_TIMEOUT_S = 75  # in all lanes; longer than that of common clients and proxies

Headers = list[tuple[bytes, bytes]]
CLOSE: Headers = [(b"connection", b"close")]


class RefusedError(Exception):
    """Refuses a request: the guard answers it, and the application never sees it."""

    def __init__(self, status: int, error: str, headers: Sequence[tuple[bytes, bytes]] = ()):
        super().__init__(error)
        self.status, self.error, self.headers = status, error, headers


class RateLimit:
    """A token bucket for each of the most recent 10,000 clients."""

    def __init__(self, per_s: float, burst: float):
        self._per_s, self._burst = per_s, burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, client: str, now_s: float) -> float:
        """Takes one from the client's bucket and returns 0.0, or the seconds until it holds one."""
        level, then_s = self._buckets.get(client, (self._burst, now_s))
        level = min(self._burst, level + (now_s - then_s) * self._per_s)
        is_allowed = level >= 1.0
        self._buckets[client] = (level - 1.0 if is_allowed else level, now_s)
        self._buckets.move_to_end(client)
        if len(self._buckets) > 10_000:
            self._buckets.popitem(last=False)
        return 0.0 if is_allowed else (1.0 - level) / self._per_s

    async def slow_down(self, client: str) -> None:
        """Takes a token from the client's bucket, and waits for one if it is empty."""
        now_s = asyncio.get_running_loop().time
        while wait_s := self.wait_s(client, now_s()):
            await asyncio.sleep(wait_s)


class Slots:
    """Bounds the number of requests in progress: of all clients, and of each client."""

    def __init__(self, limit: int, limit_per_client: int):
        self._limit, self._limit_per_client = limit, limit_per_client
        self._taken: dict[str, int] = {}  # by client, those with any
        self.taken = 0

    def require(self, client: str) -> None:
        """Raises RefusedError if all slots are taken, or all that one client may take."""
        is_over_share = self._taken.get(client, 0) >= self._limit_per_client
        if is_over_share or self.taken >= self._limit:
            raise RefusedError(429, "too many requests at once", [(b"retry-after", b"1")])

    def take(self, client: str | None) -> "Slot":
        """Takes a slot for the client until it is released; None takes none."""
        if client is not None:
            self.taken += 1
            self._taken[client] = self._taken.get(client, 0) + 1
        return Slot(self, client)

    def give_back(self, client: str) -> None:
        """Returns one of the client's slots."""
        self.taken -= 1
        left = self._taken.pop(client) - 1
        if left:
            self._taken[client] = left


class Slot:
    """The slot of one request in progress."""

    __slots__ = ("_client", "_slots")

    def __init__(self, slots: Slots, client: str | None):
        self._slots, self._client = slots, client

    def release(self) -> None:
        """Returns the slot; further calls do nothing."""
        client, self._client = self._client, None
        if client is not None:
            self._slots.give_back(client)


class BodyReader:
    """Reads the parts of request bodies, and refuses a request whose next part is late.

    One timer checks all waiting requests: a timer for each would cost more than reading.
    """

    def __init__(self, timeout_s: float):
        self._timeout_s = timeout_s
        self._waiting: dict[asyncio.Task[object], float] = {}
        self._late: set[asyncio.Task[object]] = set()
        self._is_timer_set = False

    async def next(self, receive: Receive) -> Message:
        """Returns the next part; raises RefusedError if it does not arrive, or not in time."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        self._waiting[task] = loop.time() + self._timeout_s
        if not self._is_timer_set:
            self._is_timer_set = True
            loop.call_later(self._timeout_s / 8, self._check, loop)
        try:
            message = await receive()
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            task.uncancel()
            raise RefusedError(408, "the body did not arrive in time", CLOSE) from None
        finally:
            del self._waiting[task]
            self._late.discard(task)
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "the connection ended before the body did", CLOSE)
        return message

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        for task, deadline_s in self._waiting.items():
            if deadline_s < now_s and task not in self._late:
                self._late.add(task)
                task.cancel()
        self._is_timer_set = bool(self._waiting)
        if self._is_timer_set:
            loop.call_later(self._timeout_s / 8, self._check, loop)
