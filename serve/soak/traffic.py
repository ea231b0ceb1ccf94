"""The clients of a soak: cars that ask for actions, and a viewer of the live page."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from serve.client.client import AsyncDriveClient

CARS, CAR_HZ = 4, 10.0  # every other car uses a WebSocket
PATIENCE_MS = 5000.0  # an answer that takes longer counts as failed
_SESSION_S = 30.0  # then a car begins a new session, so that a server that keeps old ones grows
_AGAIN_S = 1.0  # between two attempts of the viewer to connect
_FRAME_LIMIT_S = 30.0  # a page without any news for so long has failed its viewer


class Heard(NamedTuple):
    """What the clients have noticed since the last call of `Traffic.take`."""

    seconds: float
    answers: int  # actions of the policy
    failures: int  # requests without an action of the policy
    p50_ms: float | None  # None without any answer
    p99_ms: float | None
    frames: int  # messages of the page to its viewer
    lost_pages: int  # times that the viewer lost its page, or could not open it


class Traffic:
    """Runs the clients in a thread with an event loop of its own."""

    def __init__(self, server_port: int, page_port: int, observation_size: int, seed: int):
        """The cars observe random numbers from 0 to 1, as many as the served policy expects."""
        self._server = f"http://127.0.0.1:{server_port}"
        self._page = f"ws://127.0.0.1:{page_port}/live"
        self._observation_size = observation_size
        self._rng = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._clear()
        self._over = threading.Event()
        self.versions: set[int] = set()  # that have answered
        self.last_error: str | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator["Traffic"]:
        """Runs the clients until the `with` block ends."""
        thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="soak-traffic")
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()

    def take(self) -> Heard:
        """Returns what was noticed since the last call."""
        with self._lock:
            latencies_ms, failures = self._latencies_ms, self._failures
            frames, lost_pages, since_s = self._frames, self._lost_pages, self._since_s
            self._clear()
        p50_ms, p99_ms = (
            (round(float(np.percentile(latencies_ms, percent)), 2) if latencies_ms else None)
            for percent in (50, 99)
        )
        seconds = time.monotonic() - since_s
        return Heard(seconds, len(latencies_ms), failures, p50_ms, p99_ms, frames, lost_pages)

    def _clear(self) -> None:
        self._latencies_ms: list[float] = []
        self._failures = self._frames = self._lost_pages = 0
        self._since_s = time.monotonic()

    async def _run(self) -> None:
        cars = [self._again(partial(self._drive, index)) for index in range(CARS)]
        tasks = [asyncio.create_task(client) for client in (*cars, self._again(self._watch))]
        while not self._over.is_set():
            await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _again(self, client: Callable[[], Awaitable[None]]) -> None:
        while not self._over.is_set():
            await client()

    async def _drive(self, index: int) -> None:
        """Drives one car through one session."""
        end_s = time.monotonic() + _SESSION_S
        is_first, due_s = True, time.monotonic()
        client = AsyncDriveClient(self._server, websocket=index % 2 == 1, timeout_ms=PATIENCE_MS)
        async with client:
            while not self._over.is_set() and time.monotonic() < end_s:
                observation = self._rng.random(self._observation_size, np.float32)
                reply = await client.act(observation, is_first=is_first)
                is_first = False
                with self._lock:
                    if reply.source == "model":
                        self._latencies_ms.append(reply.latency_ms)
                    else:
                        self._failures += 1
                        self.last_error = f"a car: {reply.error}"
                if reply.model_version is not None:
                    self.versions.add(reply.model_version)
                # After a late answer, the missed requests are not sent all at once.
                due_s = max(due_s + 1.0 / CAR_HZ, time.monotonic())
                await asyncio.sleep(due_s - time.monotonic())

    async def _watch(self) -> None:
        """Watches the page until it is lost."""
        try:
            async with connect(self._page, max_size=None, proxy=None) as page:
                while True:
                    async with asyncio.timeout(_FRAME_LIMIT_S):
                        await page.recv()
                    with self._lock:
                        self._frames += 1
        except (OSError, WebSocketException) as error:
            with self._lock:
                self._lost_pages += 1
            self.last_error = f"the viewer: {str(error) or type(error).__name__}"
            await asyncio.sleep(_AGAIN_S)
