"""The SDK: clients of the policy server that always return an action, with a server or without.

    with DriveClient("http://127.0.0.1:8000") as car:
        reply = car.act(observation, is_first=True)

When no answer arrives within `timeout_ms`, the car repeats its last action for three steps and then
brakes. In other environments than the race it takes the safe action of the version, for which
`check` asks the server. This also holds with several threads, in a forked process, after `close`
and while the interpreter shuts down. The SDK needs neither Ray nor JAX.
"""

import asyncio
import contextlib
import functools
import itertools
import os
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeVar, Unpack

import httpx
import numpy as np

from serve.api.laps import LapResult
from serve.api.outcomes import Outcome, check_outcome
from serve.api.schema import ActAnswer, ObservationBatch
from serve.client.address import (
    ServerError,
    check_safe_action,
    check_session,
    check_timeout,
    parse_address,
)
from serve.client.connection import ServerConnection
from serve.client.laps import Lap, LapReportError, in_requests, make_laps
from serve.client.loop_thread import LoopThread, leave_to_parent, thread_start_lock
from serve.client.outcome import OutcomeOptions, make_outcome, with_own
from serve.client.replies import Counts, FallbackPolicy, Reply, safe_action_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "AsyncDriveClient",
    "Counts",
    "DriveClient",
    "FallbackPolicy",
    "Lap",
    "LapReportError",
    "LapResult",
    "Reply",
    "ServerError",
]

T = TypeVar("T")

_CHECK_S = 15.0
_CLOSE_S = 3.0
_GRACE_S = 0.02  # lets the loop's own timeout fire first, so that connections stay usable


class ClientOptions(TypedDict, total=False):
    """The options of a client; see AsyncDriveClient."""

    websocket: bool
    token: str | None
    session: str | None
    timeout_ms: float
    safe_action: Sequence[float] | None


class AsyncDriveClient:
    """Drives cars in one session of a server, from an event loop."""

    def __init__(
        self,
        url: str,
        *,
        websocket: bool = False,
        token: str | None = None,
        session: str | None = None,
        timeout_ms: float = 100.0,
        safe_action: Sequence[float] | None = None,
    ):
        """`url` is that of the server, `http://…` or `https://…`; no connection is made yet.

        `websocket` selects WS /v1/drive instead of POST /v1/act. `session` names the session, for
        example to continue one; without it the name is random. After `timeout_ms` without an answer
        the cars hold, then brake. In another environment than the race give its `safe_action`, from
        -1 to 1, or call `check`, which asks the server for it. Raises ServerError for an invalid
        option.
        """
        self._server = parse_address(url, token)
        self.timeout_s = check_timeout(timeout_ms)
        self._session = uuid.uuid4().hex if session is None else check_session(session, websocket)
        self._is_named = session is not None
        self.counts = Counts()
        self._is_websocket = websocket
        self._fallback = FallbackPolicy(safe_action=check_safe_action(safe_action))
        self._has_safe_action = safe_action is not None
        self._steps = itertools.count(1)
        self._version: int | None = None
        self._own_reply: Reply | None = None  # to the last observation, if no answer came
        self._is_closed = False
        self._pid = os.getpid()
        self._connections: dict[asyncio.AbstractEventLoop, ServerConnection] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def session(self) -> str:
        """The session's name; a forked process gets another one, unless you chose the name."""
        self._notice_fork()
        return self._session

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called; `act` then holds the last action, and brakes."""
        return self._is_closed

    def mark_closed(self) -> None:
        """Sends no further requests; `close` also ends the connections."""
        self._is_closed = True

    async def close(self) -> None:
        """Ends the connections of the running event loop, and forgets those of ended loops."""
        self.mark_closed()
        self._notice_fork()
        self._drop_ended()
        connection = self._connections.pop(asyncio.get_running_loop(), None)
        if connection is not None:
            await connection.close()

    async def check(self) -> dict[str, Any]:
        """Returns the model that acts, with its settings; raises ServerError if there is none.

        From then on the safe action of this client is that of the model, unless one was given.
        """
        if self._is_closed:
            raise ServerError("this client is closed: make another one")
        model = await self._connection().fetch_model()
        if not self._has_safe_action:
            self._fallback.safe_action = safe_action_of(model)
        return model

    async def report_laps(self, laps: Sequence[Lap]) -> list[LapResult]:
        """Reports laps that have ended, for the KPIs of a rollout; returns what became of each.

        Report a lap after the `act` with its last observation. Raises ValueError for a lap that no
        server accepts, and LapReportError if the server cannot be reached or refuses a request.
        Each request holds up to 256 laps; the error has the results of the requests before.
        """
        if self._is_closed:
            raise LapReportError("this client is closed: make another one")
        connection = self._connection()
        results: list[LapResult] = []
        for part in in_requests(make_laps(laps, self.session)):
            try:
                results += await connection.report_laps(part)
            except ServerError as error:
                raise LapReportError(str(error), results) from error
        return results

    async def act(
        self,
        observation: "ArrayLike",
        is_first: "ArrayLike" = False,
        **outcome: Unpack[OutcomeOptions],
    ) -> Reply:
        """Returns the actions for one observation `[O]`, or `[N, O]`, within the timeout.

        `outcome` tells a server that records what became of the last actions; see OutcomeOptions.
        Raises only ValueError or TypeError, for arguments of wrong shapes or types. An observation
        with NaN or out of range is refused by the server, and so is a reward that is not finite:
        the cars hold, then brake.
        """
        batch = make_batch(observation, is_first)
        known = make_outcome(outcome, len(batch.observation))
        return await self.act_on_batch(batch, time.perf_counter(), known)

    async def act_on_batch(
        self, batch: ObservationBatch, sent_s: float, outcome: Outcome | None = None
    ) -> Reply:
        """`act` for a checked observation, which was made at `sent_s` of `time.perf_counter`."""
        cars = len(batch.observation)
        if self._is_closed:
            return self.fall_back(cars, sent_s, "this client is closed")
        # An observation that is not sent, or not in time, leaves a gap in these numbers.
        step = next(self._steps)
        connection: ServerConnection | None = None
        try:
            if outcome is not None:
                if self._own_reply is not None:
                    outcome = with_own(outcome, self._own_reply)
                check_outcome(outcome, batch.is_first)
            async with asyncio.timeout(sent_s + self.timeout_s - time.perf_counter()):
                connection = self._connection()
                answer = await self._request(connection, batch, step, outcome)
            if answer.source == "fallback" and answer.error:
                self.counts.errors += 1
                return self.fall_back(cars, sent_s, answer.error)
            reply = self._fallback.accept(answer, cars, sent_s)
        except (TimeoutError, httpx.TimeoutException):
            return self.time_out(cars, sent_s)
        except Exception as error:  # whatever is wrong, the cars need an action
            self.counts.errors += 1
            if connection is not None:
                connection.drop()
            return self.fall_back(cars, sent_s, str(error) or type(error).__name__)
        self._version, self._own_reply = answer.model_version, None
        self.counts.add(reply)
        return reply

    def fall_back(self, cars: int, sent_s: float, error: str) -> Reply:
        """Returns and counts the reply to use without an answer."""
        reply = self._own_reply = self._fallback.act(cars, sent_s, error)
        self.counts.add(reply)
        return reply

    def time_out(self, cars: int, sent_s: float) -> Reply:
        """Returns and counts the reply to use when no answer arrived in time."""
        self.counts.timeouts += 1
        return self.fall_back(cars, sent_s, "no answer in time")

    async def _request(
        self,
        connection: ServerConnection,
        batch: ObservationBatch,
        step: int,
        outcome: Outcome | None,
    ) -> ActAnswer:
        async with connection.lock:
            if self._is_websocket:
                return await connection.act_by_websocket(batch, step, outcome)
            return await connection.act_by_http(batch, step, self._version, outcome)

    def _connection(self) -> ServerConnection:
        """Returns the running loop's connection; that of another loop or process is unusable."""
        self._notice_fork()
        loop = asyncio.get_running_loop()
        connection = self._connections.get(loop)
        if connection is None:
            self._drop_ended()
            connection = ServerConnection(
                self._server, self._session, self.timeout_s, self._count_connect
            )
            self._connections[loop] = connection
        return connection

    def _drop_ended(self) -> None:
        """Drops the connections of closed event loops, which nothing else could end."""
        for ended in [loop for loop in list(self._connections) if loop.is_closed()]:
            self._connections.pop(ended).drop()

    def _count_connect(self) -> None:
        self.counts.connects += 1

    def _notice_fork(self) -> None:
        """Leaves inherited connections to the parent: two processes must not share a session.

        A name that you chose is kept, for a process that continues where its parent ended.
        """
        if self._pid == os.getpid():
            return
        leave_to_parent(self._connections)
        self._connections, self._pid = {}, os.getpid()
        if not self._is_named:
            self._session = uuid.uuid4().hex


class DriveClient:
    """`AsyncDriveClient` for programs without an event loop; it runs one in its own thread."""

    def __init__(self, url: str, **options: Unpack[ClientOptions]):
        """Takes the same options as AsyncDriveClient."""
        self._client = AsyncDriveClient(url, **options)
        self._thread: LoopThread | None = None
        with contextlib.suppress(RuntimeError):  # if no thread can be started, the cars brake
            self._running_thread()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def counts(self) -> Counts:
        """Counts of the replies so far."""
        return self._client.counts

    @property
    def session(self) -> str:
        """The session's name; a forked process gets another one, unless you chose the name."""
        return self._client.session

    def check(self) -> dict[str, Any]:
        """Returns the model that acts, with its settings; raises ServerError if there is none."""
        if self._client.is_closed:
            raise ServerError("this client is closed: make another one")
        return self._ask(self._client.check)

    def report_laps(self, laps: Sequence[Lap]) -> list[LapResult]:
        """Reports laps that have ended, for the KPIs of a rollout; returns what became of each.

        Raises as `AsyncDriveClient.report_laps` does.
        """
        make_laps(laps, "any")  # a wrong argument is no fault of the server
        results: list[LapResult] = []
        for part in in_requests(laps):  # each has its own time limit
            try:
                results += self._ask(functools.partial(self._client.report_laps, part))
            except ServerError as error:
                raise LapReportError(str(error), results) from error
        return results

    def _ask(self, question: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return self._running_thread().run(question, _CHECK_S)
        except (TimeoutError, RuntimeError, CancelledError) as error:
            raise ServerError(f"cannot ask the server: {error or 'no answer'}") from error

    def act(
        self,
        observation: "ArrayLike",
        is_first: "ArrayLike" = False,
        **outcome: Unpack[OutcomeOptions],
    ) -> Reply:
        """Returns the actions for one observation `[O]`, or `[N, O]`; blocks up to the timeout.

        Takes the same arguments as `AsyncDriveClient.act`, and raises as it does.
        """
        batch = make_batch(observation, is_first)
        known = make_outcome(outcome, len(batch.observation))
        sent_s = time.perf_counter()
        cars = len(batch.observation)
        client = self._client
        if client.is_closed:
            return client.fall_back(cars, sent_s, "this client is closed")
        try:
            thread = self._running_thread()
            timeout_s = client.timeout_s + _GRACE_S
            return thread.run(lambda: client.act_on_batch(batch, sent_s, known), timeout_s)
        except TimeoutError:  # the thread hangs, or has just ended
            return client.time_out(cars, sent_s)
        except Exception as error:  # for example, no thread starts while the interpreter shuts down
            client.counts.errors += 1
            return client.fall_back(cars, sent_s, str(error) or type(error).__name__)

    def close(self) -> None:
        """Ends the connections and the thread; a forked process leaves its parent's alone."""
        self._client.mark_closed()
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if thread.is_inherited:
            leave_to_parent(thread)
            return
        with contextlib.suppress(Exception):  # best effort: it may hang or have ended
            thread.run(self._client.close, _CLOSE_S)
        thread.stop(_CLOSE_S)

    def _running_thread(self) -> LoopThread:
        """Returns this process's thread; starts one if there is none that runs."""
        thread = self._thread
        if thread is not None and thread.is_usable:
            return thread
        with thread_start_lock():
            thread = self._thread
            if self._client.is_closed:
                raise RuntimeError("this client is closed")
            if thread is None or not thread.is_usable:
                if thread is not None and thread.is_inherited:
                    leave_to_parent(thread)
                thread = self._thread = LoopThread()
            return thread


def make_batch(observation: "ArrayLike", is_first: "ArrayLike") -> ObservationBatch:
    """Returns observations as `[N, O]` float32; raises ValueError or TypeError for other values."""
    with np.errstate(over="ignore"):  # too large a number becomes infinite: the server refuses it
        rows = np.atleast_2d(np.asarray(observation, np.float32))
    if rows.ndim != 2 or not rows.size:
        raise ValueError(f"an observation is [O] or [N, O] numbers, not {list(rows.shape)}")
    return ObservationBatch(rows, np.broadcast_to(np.asarray(is_first, bool), len(rows)))
