"""The SDK: a car's side of the policy server. It always has an action, with a server or without.

    with DriveClient("http://127.0.0.1:8000") as car:
        reply = car.act(observation, is_first=True)

When no answer comes within `timeout_ms`, the car does what it did before, for three ticks; then it
brakes. That holds for several threads at once, in a forked process, after `close` and while the
interpreter ends. Needs neither Ray nor JAX.
"""

import asyncio
import contextlib
import itertools
import os
import time
import uuid
from collections import Counter, deque
from concurrent.futures import CancelledError
from typing import Any, NamedTuple, Self

import httpx
import numpy as np

from serve.api.schema import ActAnswer, ObservationBatch
from serve.client.address import ServerError, check_session, check_timeout, parse_address
from serve.client.connection import Line
from serve.client.loop_thread import LoopThread, leave_to_parent, starting

__all__ = ["AsyncDriveClient", "Counts", "DriveClient", "FallbackPolicy", "Reply", "ServerError"]

HOLD_TICKS = 3
SAFE_ACTION = (0.0, -1.0)  # wheels straight, full brake


class Reply(NamedTuple):
    """What the cars do now."""

    action: np.ndarray  # [N, 2] float32: steering, throttle
    source: str  # model; hold or fallback, the server's or our own
    model_version: int | None
    age_ms: float  # since the observation behind the action
    latency_ms: float
    error: str | None = None  # why it is not the model's


class FallbackPolicy:
    """What the cars do without an answer: the last action for a few ticks, then the brake."""

    def __init__(self, hold_ticks: int = HOLD_TICKS):
        self._hold_ticks = hold_ticks
        self._missed_ticks = 0
        self._last: np.ndarray | None = None
        self._version: int | None = None
        self._observed_s = 0.0

    def took(self, answer: ActAnswer, cars: int, sent_s: float) -> Reply:
        """The reply of an answer that came in time; raises ValueError for one that fits no car."""
        rows = answer.actions if answer.action is None else [answer.action]
        action = np.array(rows, np.float32)
        if action.shape != (cars, len(SAFE_ACTION)) or not np.isfinite(action).all():
            raise ValueError(f"the server's answer holds no actions for {cars} cars")
        now_s = time.perf_counter()
        if answer.source == "model":
            self._missed_ticks, self._last = 0, action
            self._version, self._observed_s = answer.model_version, sent_s
        latency_ms = (now_s - sent_s) * 1e3
        age_ms = max(answer.age_ms, latency_ms)
        return Reply(action, answer.source, answer.model_version, age_ms, latency_ms, answer.error)

    def missed(self, cars: int, sent_s: float, error: str) -> Reply:
        """The reply where no answer came, or none that helps."""
        self._missed_ticks += 1
        now_s = time.perf_counter()
        latency_ms = (now_s - sent_s) * 1e3
        can_hold = self._missed_ticks <= self._hold_ticks
        if self._last is not None and len(self._last) == cars and can_hold:
            age_ms = (now_s - self._observed_s) * 1e3
            return Reply(self._last, "hold", self._version, age_ms, latency_ms, error)
        action = np.tile(np.array(SAFE_ACTION, np.float32), (cars, 1))
        return Reply(action, "fallback", None, latency_ms, latency_ms, error)


class Counts:
    """What has happened so far."""

    def __init__(self) -> None:
        self.sources: Counter[str] = Counter()
        self.timeouts = 0
        self.errors = 0
        self.connects = 0  # of WebSockets
        self.latencies_ms: deque[float] = deque(maxlen=100_000)

    def add(self, reply: Reply) -> None:
        """Counts a reply."""
        self.sources[reply.source] += 1
        self.latencies_ms.append(reply.latency_ms)

    def latency_ms(self, percentile: float) -> float:
        """A percentile of the last 100,000 latencies."""
        return float(np.percentile(self.latencies_ms, percentile)) if self.latencies_ms else 0.0


class AsyncDriveClient:
    """Cars that are driven together, in one session, by a server."""

    def __init__(
        self,
        url: str,
        *,
        websocket: bool = False,
        token: str | None = None,
        session: str | None = None,
        timeout_ms: float = 100.0,
    ):
        """`url` is the server's, `http://…` or `https://…`; no connection is made yet.

        Raises ServerError for an address, a token, a session's name or a timeout that cannot be.
        """
        self._server = parse_address(url, token)
        self.timeout_s = check_timeout(timeout_ms)
        self._session = uuid.uuid4().hex if session is None else check_session(session, websocket)
        self._is_named = session is not None
        self.counts = Counts()
        self._is_websocket = websocket
        self._reflex = FallbackPolicy()
        self._steps = itertools.count(1)
        self._version: int | None = None
        self._is_closed = False
        self._pid = os.getpid()
        self._lines: dict[asyncio.AbstractEventLoop, Line] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def session(self) -> str:
        """The session's name; a forked process has another one, unless you have chosen it."""
        self._notice_fork()
        return self._session

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called: whoever acts nevertheless holds, then brakes."""
        return self._is_closed

    def shut(self) -> None:
        """From now on nothing is asked any more; `close` ends the connections too."""
        self._is_closed = True

    async def close(self) -> None:
        """Ends the connections."""
        self.shut()
        self._notice_fork()
        self._drop_ended()
        line = self._lines.pop(asyncio.get_running_loop(), None)
        if line is not None:
            await line.close()

    async def check(self) -> dict[str, Any]:
        """The model that would drive, with its settings; raises ServerError when none can."""
        if self._is_closed:
            raise ServerError("this client is closed: make another one")
        return await self._line().look()

    async def act(self, observation: Any, is_first: Any = False) -> Reply:
        """Returns what the cars do now that they see `[O]` or `[N, O]`; never later than it must.

        Raises ValueError or TypeError for observations that are no numbers in rows, and nothing
        else. One that is NaN or out of range is refused by the server: the cars hold, then brake.
        """
        return await self.decide(make_batch(observation, is_first), time.perf_counter())

    async def decide(self, observed: ObservationBatch, sent_s: float) -> Reply:
        """`act` for an observation that was looked at already, by `time.perf_counter`."""
        cars = len(observed.observation)
        if self._is_closed:
            return self.missed(cars, sent_s, "this client is closed")
        line: Line | None = None
        try:
            async with asyncio.timeout(sent_s + self.timeout_s - time.perf_counter()):
                line = self._line()
                answer = await self._ask(line, observed)
            if answer.source == "fallback" and answer.error:
                self.counts.errors += 1
                return self.missed(cars, sent_s, answer.error)
            reply = self._reflex.took(answer, cars, sent_s)
        except (TimeoutError, httpx.TimeoutException):
            return self.timed_out(cars, sent_s)
        except Exception as error:  # whatever is wrong, a car that asks must be told something
            self.counts.errors += 1
            if line is not None:
                line.drop()
            return self.missed(cars, sent_s, str(error) or type(error).__name__)
        self._version = answer.model_version
        self.counts.add(reply)
        return reply

    def missed(self, cars: int, sent_s: float, error: str) -> Reply:
        """What the cars do without an answer."""
        reply = self._reflex.missed(cars, sent_s, error)
        self.counts.add(reply)
        return reply

    def timed_out(self, cars: int, sent_s: float) -> Reply:
        """What they do when none came in time."""
        self.counts.timeouts += 1
        return self.missed(cars, sent_s, "no answer in time")

    async def _ask(self, line: Line, observed: ObservationBatch) -> ActAnswer:
        async with line.lock:
            step = next(self._steps)
            if self._is_websocket:
                return await line.ask_socket(observed, step)
            return await line.ask_http(observed, step, self._version)

    def _line(self) -> Line:
        """The running loop's connections; another loop's cannot be used, nor another process's."""
        self._notice_fork()
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            self._drop_ended()
            line = Line(self._server, self._session, self.timeout_s, self._count_connect)
            self._lines[loop] = line
        return line

    def _drop_ended(self) -> None:
        """Forgets the connections of event loops that are closed; nothing else could end them."""
        for ended in [loop for loop in list(self._lines) if loop.is_closed()]:
            self._lines.pop(ended).drop()

    def _count_connect(self) -> None:
        self.counts.connects += 1

    def _notice_fork(self) -> None:
        """Leaves inherited connections to the parent: two processes must not share a session.

        A name that you have chosen is kept, for a process that goes on where its parent ended.
        """
        if self._pid == os.getpid():
            return
        leave_to_parent(self._lines)
        self._lines, self._pid = {}, os.getpid()
        if not self._is_named:
            self._session = uuid.uuid4().hex


class DriveClient:
    """`AsyncDriveClient` for programs without an event loop; it has one in a thread of its own."""

    def __init__(self, url: str, **options: Any):
        """Options as of AsyncDriveClient."""
        self._client = AsyncDriveClient(url, **options)
        self._thread: LoopThread | None = None
        with contextlib.suppress(RuntimeError):  # where no thread can be started, cars brake
            self._running()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def counts(self) -> Counts:
        """What has happened so far."""
        return self._client.counts

    @property
    def session(self) -> str:
        """The session's name; a forked process has another one, unless you have chosen it."""
        return self._client.session

    def check(self) -> dict[str, Any]:
        """The model that would drive, with its settings; raises ServerError when none can."""
        if self._client.is_closed:
            raise ServerError("this client is closed: make another one")
        try:
            return self._running().run(self._client.check, _CHECK_S)
        except (TimeoutError, RuntimeError, CancelledError) as error:
            raise ServerError(f"the server cannot be asked: {error or 'no answer'}") from error

    def act(self, observation: Any, is_first: Any = False) -> Reply:
        """What the cars do now that they see `[O]` or `[N, O]`; blocks no longer than it must.

        Raises as `AsyncDriveClient.act` does.
        """
        observed = make_batch(observation, is_first)
        sent_s = time.perf_counter()
        cars = len(observed.observation)
        client = self._client
        if client.is_closed:
            return client.missed(cars, sent_s, "this client is closed")
        try:
            thread = self._running()
            return thread.run(lambda: client.decide(observed, sent_s), client.timeout_s + _GRACE_S)
        except TimeoutError:  # the thread hangs, or has just ended
            return client.timed_out(cars, sent_s)
        except Exception as error:  # no thread can be started: the interpreter ends, for one
            client.counts.errors += 1
            return client.missed(cars, sent_s, str(error) or type(error).__name__)

    def close(self) -> None:
        """Ends the connections and the thread; a forked process leaves its parent's alone."""
        self._client.shut()
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if thread.is_inherited:
            leave_to_parent(thread)
            return
        with contextlib.suppress(Exception):  # Closing is best effort: it may hang or have ended.
            thread.run(self._client.close, _CLOSE_S)
        thread.stop(_CLOSE_S)

    def _running(self) -> LoopThread:
        """This process's thread, which is started anew where it is not there any more."""
        thread = self._thread
        if thread is not None and thread.is_usable:
            return thread
        with starting():
            thread = self._thread
            if self._client.is_closed:
                raise RuntimeError("this client is closed")
            if thread is None or not thread.is_usable:
                if thread is not None and thread.is_inherited:
                    leave_to_parent(thread)
                thread = self._thread = LoopThread()
            return thread


def make_batch(observation: Any, is_first: Any) -> ObservationBatch:
    """Rows of numbers; raises ValueError or TypeError for what is none."""
    with np.errstate(over="ignore"):  # too large a number is infinite, which the server refuses
        seen = np.atleast_2d(np.asarray(observation, np.float32))
    if seen.ndim != 2 or not seen.size:
        raise ValueError(f"an observation is [O] or [N, O] numbers, not {list(seen.shape)}")
    return ObservationBatch(seen, np.broadcast_to(np.asarray(is_first, bool), len(seen)))


_CHECK_S = 15.0
_CLOSE_S = 3.0
_GRACE_S = 0.02  # Lets the loop's own timeout fire first, so that connections stay usable.
