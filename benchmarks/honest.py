"""Honest clients of the policy server, which measure latency, refusals and recovery.

They come from 127.0.0.1 and ask far less than any limit: 50 actions a second over connections that
are kept, five a second over new connections, five health checks a second over new connections, and
one car over a WebSocket at 20 Hz. Where the server has the page, ten viewers watch it, and one more
opens the stream and the video each second.
"""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.load import masked, post, upgrade
from serve.api.frames import pack_request, unpack_answer
from serve.api.schema import ObservationBatch

PATIENCE_S = 5.0  # an answer that takes longer counts as refused
ACTS_PER_S, FRESH_PER_S, CAR_HZ, VIEWERS = 50.0, 5.0, 20.0, 10
RECOVERED_IN_A_ROW = 20
_BODY = json.dumps({"observation": [0.5, 0.6, 0.9, 0.5, 0.4, 0.2]}).encode()
_BINARY = 0x02  # Opcode of a message; a refusal comes as text.
_SEEN = ObservationBatch(np.full((1, 6), 0.5, np.float32), np.zeros(1, bool))

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Seen(NamedTuple):
    """The measurements of honest clients over some time."""

    latencies_ms: list[float]  # of actions
    health_ms: list[float]
    frame_gaps_ms: list[float]  # between two frames of a viewer of the page
    refused: Counter[str]  # by what happened
    lags_ms: list[float]  # delays of the clients themselves, on a busy machine

    def figures(self) -> dict[str, Any]:
        """Summarises them; a figure without any response is None."""
        return {
            "honest_answers": len(self.latencies_ms),
            "honest_p50_ms": _percentile(self.latencies_ms, 50),
            "honest_p99_ms": _percentile(self.latencies_ms, 99),
            "honest_max_ms": _percentile(self.latencies_ms, 100),
            "honest_refused": sum(self.refused.values()),
            "honest_refusals": dict(self.refused.most_common(8)),
            "health_p99_ms": _percentile(self.health_ms, 99),
            "health_max_ms": _percentile(self.health_ms, 100),
            "viewer_gap_max_ms": _percentile(self.frame_gaps_ms, 100),
            "client_lag_p99_ms": _percentile(self.lags_ms, 99),
        }


def _percentile(values: list[float], percent: float) -> float | None:
    return round(float(np.percentile(values, percent)), 2) if values else None


class RefusedError(Exception):
    """A response that an honest client should not have received."""


class Honest:
    """The clients; each of their answers is added to `seen`."""

    def __init__(self, port: int, *, has_page: bool = False):
        self.seen = Seen([], [], [], Counter(), [])
        self._port, self._has_page = port, has_page
        self._act = post(f"http://127.0.0.1:{port}", "/v1/act", _BODY)
        self._kept: list[Connection] = []
        self._is_over = False

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[Seen]:
        """Runs all clients until the `with` block ends."""
        clients = [
            self._every(1.0 / ACTS_PER_S, self._ask_kept),
            self._every(1.0 / FRESH_PER_S, self._ask_fresh),
            self._every(1.0 / FRESH_PER_S, self._check_health),
            self._again(self._drive, "car"),
        ]
        if self._has_page:
            clients += [self._again(self._watch, "viewer") for _ in range(VIEWERS)]
            clients += [self._every(1.0, self._open_stream), self._every(1.0, self._open_video)]
        tasks = [asyncio.create_task(client) for client in clients]
        try:
            yield self.seen
        finally:
            self.stop()
            await asyncio.gather(*tasks)  # each waits for its responses, with a limit
            for _, writer in self._kept:
                writer.transport.abort()
            self._kept.clear()

    def stop(self) -> None:
        """Stops new requests of all clients; responses to earlier requests still count."""
        self._is_over = True

    async def recovers(self, limit_s: float, within_s: float) -> bool:
        """Sends requests over new connections until 20 responses in a row are good and in time.

        Returns False when that does not happen within the limit.
        """
        deadline_s, in_a_row = time.perf_counter() + limit_s, 0
        while in_a_row < RECOVERED_IN_A_ROW:
            asked_s = time.perf_counter()
            if asked_s > deadline_s:
                return False
            try:
                async with asyncio.timeout(PATIENCE_S), self._connection() as connection:
                    _check(await _exchange(connection, self._act))
                is_good = time.perf_counter() - asked_s <= within_s
            except (OSError, EOFError, RefusedError):
                is_good = False
            in_a_row = in_a_row + 1 if is_good else 0
            await asyncio.sleep(0.0 if is_good else 0.05)
        return True

    async def _every(self, period_s: float, ask: Callable[[], Awaitable[None]]) -> None:
        """Sends requests at fixed times, even before the last response."""
        due_s = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            while not self._is_over:
                self.seen.lags_ms.append(1e3 * max(0.0, time.perf_counter() - due_s))
                tasks.create_task(ask())
                # After a pause of this process, the missed requests are not sent all at once.
                due_s = max(due_s + period_s, time.perf_counter() - 5 * period_s)
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, local_addr=("127.0.0.1", 0)
        )
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    @contextlib.asynccontextmanager
    async def _noted(self, who: str, latencies_ms: list[float]) -> AsyncIterator[None]:
        """Records how long the `with` block took, or why it failed."""
        began_s = time.perf_counter()
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield
        except (OSError, EOFError, RefusedError) as error:
            self.seen.refused[f"{who}: {_reason(error)}"] += 1
            if isinstance(error, TimeoutError):
                latencies_ms.append(1e3 * PATIENCE_S)
        else:
            latencies_ms.append(1e3 * (time.perf_counter() - began_s))

    async def _ask_kept(self) -> None:
        async with self._noted("kept connection", self.seen.latencies_ms):
            while self._kept and self._kept[-1][0].at_eof():
                self._kept.pop()[1].transport.abort()  # the server closed it after a long idle time
            if self._kept:
                connection = self._kept.pop()
            else:
                connection = await asyncio.open_connection(
                    "127.0.0.1", self._port, local_addr=("127.0.0.1", 0)
                )
            try:
                _check(await _exchange(connection, self._act))
            except BaseException:
                connection[1].transport.abort()
                raise
            self._kept.append(connection)

    async def _ask_fresh(self) -> None:
        async with (
            self._noted("new connection", self.seen.latencies_ms),
            self._connection() as connection,
        ):
            _check(await _exchange(connection, self._act))

    async def _check_health(self) -> None:
        head = f"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n\r\n"
        async with self._noted("health", self.seen.health_ms), self._connection() as connection:
            status, _ = await _exchange(connection, head.encode())
            if status != 200:
                raise RefusedError(str(status))

    async def _again(self, client: Callable[[], Awaitable[None]], who: str) -> None:
        """Runs a client that stays connected; reconnects it after a disconnection."""
        while not self._is_over:
            try:
                await client()
            except (OSError, EOFError, RefusedError) as error:
                self.seen.refused[f"{who}: {_reason(error)}"] += 1
            await asyncio.sleep(0.2)

    async def _drive(self) -> None:
        """Drives one car over one WebSocket."""
        async with self._socket("/v1/drive") as (reader, writer):
            due_s, step = time.perf_counter(), 0
            while not self._is_over:
                step += 1
                sent_s = time.perf_counter()
                async with asyncio.timeout(PATIENCE_S):
                    writer.write(masked(pack_request(_SEEN, step)))
                    opcode, answer = await _read_frame(reader, writer)
                self.seen.latencies_ms.append(1e3 * (time.perf_counter() - sent_s))
                if opcode != _BINARY or unpack_answer(answer)[1].source != "model":
                    self.seen.refused["car: not the policy's action"] += 1
                due_s = max(due_s + 1.0 / CAR_HZ, time.perf_counter() - 1.0)
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))

    async def _watch(self) -> None:
        """Watches the page's stream."""
        async with self._socket("/live") as (reader, writer):
            last_s = time.perf_counter()
            while not self._is_over:
                async with asyncio.timeout(PATIENCE_S):
                    await _read_frame(reader, writer)
                now_s = time.perf_counter()
                self.seen.frame_gaps_ms.append(1e3 * (now_s - last_s))
                last_s = now_s

    async def _open_stream(self) -> None:
        """Connects one more viewer, which reads the first message and disconnects."""
        async with self._noted("new viewer", []), self._socket("/live") as (reader, writer):
            await _read_frame(reader, writer)

    async def _open_video(self) -> None:
        """Connects one more client, which reads one picture of the video."""
        head = f"GET /video_feed HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n\r\n"
        async with self._noted("new video", []), self._connection() as (reader, writer):
            writer.write(head.encode())
            status = _status(await reader.readuntil(b"\r\n\r\n"))
            if status != 200:
                raise RefusedError(str(status))
            await reader.readexactly(4096)

    @contextlib.asynccontextmanager
    async def _socket(self, path: str) -> AsyncIterator[Connection]:
        """Opens a WebSocket."""
        async with self._connection() as (reader, writer):
            async with asyncio.timeout(PATIENCE_S):
                writer.write(upgrade(f"http://127.0.0.1:{self._port}", path))
                status = _status(await reader.readuntil(b"\r\n\r\n"))
            if status != 101:
                raise RefusedError(str(status))
            yield reader, writer


async def _exchange(connection: Connection, request: bytes) -> tuple[int, bytes]:
    reader, writer = connection
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    return _status(head), await reader.readexactly(length)


def _status(head: bytes) -> int:
    return int(head.split(b" ", 2)[1])


def _check(answer: tuple[int, bytes]) -> None:
    """Raises RefusedError unless the policy itself has answered."""
    status, body = answer
    if status != 200:
        raise RefusedError(str(status))
    if (source := json.loads(body)["source"]) != "model":
        raise RefusedError(f"source {source}")


async def _read_frame(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[int, bytes]:
    """Returns the next message of a WebSocket and its opcode.

    Answers pings; raises RefusedError when the server closes the connection.
    """
    while True:
        first, length = await reader.readexactly(2)
        if length == 126:
            length = int.from_bytes(await reader.readexactly(2), "big")
        elif length == 127:
            length = int.from_bytes(await reader.readexactly(8), "big")
        payload = await reader.readexactly(length)
        opcode = first & 0x0F
        if opcode == 0x08:
            raise RefusedError(f"closed: {payload[2:].decode(errors='replace')}")
        if opcode == 0x09:
            writer.write(bytes([0x8A, 0x80 | length]) + bytes(4) + payload)
        else:
            return opcode, payload


def _reason(error: BaseException) -> str:
    if isinstance(error, RefusedError):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"no answer in {PATIENCE_S:g} s"
    return "hung up"
