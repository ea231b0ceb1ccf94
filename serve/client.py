"""The SDK: a car's side of the policy server. It always has an action, with a server or without.

    with DriveClient("http://127.0.0.1:8000") as car:
        reply = car.act(observation, is_first=True)

When no answer comes within `timeout_ms`, the car does what it did before, for three ticks; then it
brakes. Needs neither Ray nor JAX.
"""

import asyncio
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Coroutine
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec
import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from rlcar.errors import UserError
from serve.frames import pack_request, unpack_answer
from serve.schema import ActAnswer, Observed

HOLD_TICKS = 3
T = TypeVar("T")
SAFE_ACTION = (0.0, -1.0)  # wheels straight, full brake


class ServerError(UserError):
    """A server that cannot be reached or does not let us in; only `check` raises it."""


class Reply(NamedTuple):
    """What the cars do now."""

    action: np.ndarray  # [N, 2] float32: steering, throttle
    source: str  # model; hold or fallback, the server's or our own
    model_version: int | None
    age_ms: float  # since the observation behind the action
    latency_ms: float
    error: str | None = None  # why it is not the model's


class Reflex:
    """What the cars do without an answer: the last action for a few ticks, then the brake."""

    def __init__(self, hold_ticks: int = HOLD_TICKS):
        self._hold_ticks = hold_ticks
        self._missed_ticks = 0
        self._last: np.ndarray | None = None
        self._version: int | None = None
        self._observed_s = 0.0

    def took(self, answer: ActAnswer, sent_s: float) -> Reply:
        """The reply of an answer that came in time."""
        rows = answer.actions if answer.action is None else [answer.action]
        action = np.array(rows, np.float32)
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
        """`url` is the server's, `http://…` or `https://…`; no connection is made yet."""
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ServerError(f"{url} is no server's address: say http://HOST:PORT")
        self.session = session or uuid.uuid4().hex
        self.counts = Counts()
        self._url = url.rstrip("/")
        self._headers = {"x-session-id": self.session}
        if token is not None:
            self._headers["authorization"] = f"Bearer {token}"
        self._is_websocket = websocket
        self._timeout_s = timeout_ms / 1e3
        self._reflex = Reflex()
        self._step = 0
        self._version: int | None = None
        # Reading the machine's certificates takes longer than a tick; http needs none.
        self._web = httpx.AsyncClient(
            base_url=self._url,
            headers=self._headers,
            timeout=self._timeout_s,
            verify=url.startswith("https"),
            trust_env=False,
        )
        self._socket: ClientConnection | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connections."""
        await self._web.aclose()
        if self._socket is not None:
            await self._socket.close()

    async def check(self) -> dict[str, Any]:
        """The model that would drive, with its settings; raises ServerError when none can."""
        try:
            answer = await self._web.get("/v1/models/serving", timeout=10.0)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise ServerError(f"cannot reach {self._url}: {reason}") from error
        if answer.status_code != 200:
            text = answer.text[:200]
            raise ServerError(f"{self._url} answers {answer.status_code}: {text}")
        return dict(answer.json())

    async def act(self, observation: Any, is_first: Any = False) -> Reply:
        """Returns what the cars do now that they see `[O]` or `[N, O]`; never later than it must.

        Raises nothing but for observations that are no numbers.
        """
        seen = np.atleast_2d(np.asarray(observation, np.float32))
        first = np.broadcast_to(np.asarray(is_first, bool), len(seen))
        observed = Observed(seen, first)
        self._step += 1
        sent_s = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout_s):
                ask = self._ask_socket if self._is_websocket else self._ask_http
                answer = await ask(observed)
            if answer.source == "fallback" and answer.error:
                self.counts.errors += 1
                reply = self._reflex.missed(len(seen), sent_s, answer.error)
            else:
                self._version = answer.model_version
                reply = self._reflex.took(answer, sent_s)
        except (TimeoutError, httpx.TimeoutException):
            self.counts.timeouts += 1
            reply = self._reflex.missed(len(seen), sent_s, "no answer in time")
        except (OSError, httpx.HTTPError, WebSocketException, msgspec.DecodeError) as error:
            self.counts.errors += 1
            self._socket = None
            reply = self._reflex.missed(len(seen), sent_s, str(error) or type(error).__name__)
        self.counts.add(reply)
        return reply

    async def _ask_http(self, observed: Observed) -> ActAnswer:
        body = {
            "observations": observed.observation.astype(float).tolist(),
            "is_first": observed.is_first.tolist(),
            "session": self.session,
            "step": self._step,
            "deadline_ms": min(1000.0, max(1.0, self._timeout_s * 1e3)),
        }
        if self._version is not None:
            body["model_version"] = self._version
        headers = {"content-type": "application/json"}
        content = msgspec.json.encode(body)
        answer = await self._web.post("/v1/act", content=content, headers=headers)
        if answer.status_code == 200:
            return _ANSWERS.decode(answer.content)
        text = f"{answer.status_code}: {answer.text[:200]}"
        return ActAnswer("fallback", None, 0.0, error=text)

    async def _ask_socket(self, observed: Observed) -> ActAnswer:
        if self._socket is None:
            url = f"ws{self._url.removeprefix('http')}/v1/drive?session={self.session}"
            self._socket = await connect(
                url, additional_headers=self._headers, compression=None, proxy=None
            )
            self.counts.connects += 1
        deadline_ms = int(min(1000.0, max(1.0, self._timeout_s * 1e3)))
        await self._socket.send(pack_request(observed, self._step, deadline_ms))
        while True:
            frame = await self._socket.recv()
            if isinstance(frame, str):
                return _ANSWERS.decode(frame)
            step, answer = unpack_answer(frame)
            # What comes late was asked about a moment that has passed.
            if step == self._step:
                return answer


class DriveClient:
    """`AsyncDriveClient` for programs without an event loop; it has one in a thread of its own."""

    def __init__(self, url: str, **options: Any):
        """Options as of AsyncDriveClient."""
        self._client = AsyncDriveClient(url, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def counts(self) -> Counts:
        """What has happened so far."""
        return self._client.counts

    def check(self) -> dict[str, Any]:
        """The model that would drive, with its settings; raises ServerError when none can."""
        return self._run(self._client.check())

    def act(self, observation: Any, is_first: Any = False) -> Reply:
        """What the cars do now that they see `[O]` or `[N, O]`; blocks no longer than it must."""
        return self._run(self._client.act(observation, is_first))

    def close(self) -> None:
        """Ends the connections and the thread."""
        if self._loop.is_running():
            self._run(self._client.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _run(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result()


_ANSWERS = msgspec.json.Decoder(ActAnswer)
