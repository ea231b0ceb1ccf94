"""A cheap load generator: prebuilt requests over kept connections, in one process."""

import asyncio
import base64
import os
import struct
import time
from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import uvloop


class Load(NamedTuple):
    """The measurements of one run."""

    latencies_ms: np.ndarray
    duration_s: float
    errors: int

    @property
    def per_s(self) -> float:
        return len(self.latencies_ms) / self.duration_s

    def percentile_ms(self, percent: float) -> float:
        return float(np.percentile(self.latencies_ms, percent))


def post(url: str, path: str, body: bytes, headers: str = "") -> bytes:
    """Returns the bytes of a request."""
    host = urlsplit(url).netloc
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{headers}\r\n"
    )
    return head.encode() + body


def upgrade(url: str, path: str, *headers: str) -> bytes:
    """Returns the bytes of a request that opens a WebSocket."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {urlsplit(url).netloc}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def masked(payload: bytes, first: int = 0x82) -> bytes:
    """A client's frame with the mask 0: the protocol requires a mask, but not a secret one.

    The first byte says what kind of frame it is; 0x82 is a whole binary message.
    """
    assert len(payload) < 126, len(payload)
    return struct.pack("BB", first, 0x80 | len(payload)) + b"\0\0\0\0" + payload


class Line(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[bytes] | None = None
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        start = head.index(b"content-length:") + 15
        stop = head.find(b"\r\n", start)
        length = int(head[start : stop if stop > 0 else None])
        if len(self._buffer) >= end + 4 + length and self._answer is not None:
            answer, self._buffer = self._buffer, b""
            self._answer.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("hung up"))

    async def ask(self, request: bytes) -> bytes:
        """Sends a request and returns the whole answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._answer


async def make_lines(url: str, number: int) -> list[Line]:
    """Opens so many connections."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(Line, parts.hostname, parts.port) for _ in range(number)]
    return [line for _, line in made]


def closed_loop(url: str, request: bytes, connections: int, duration_s: float) -> Load:
    """Sends the next request on each connection as soon as the response has arrived."""

    async def run() -> Load:
        lines = await make_lines(url, connections)
        latencies: list[float] = []
        errors = 0
        end_s = time.perf_counter() + duration_s

        async def drive(line: Line) -> None:
            nonlocal errors
            while (began_s := time.perf_counter()) < end_s:
                answer = await line.ask(request)
                latencies.append(time.perf_counter() - began_s)
                errors += not answer.startswith(b"HTTP/1.1 200")

        began_s = time.perf_counter()
        await asyncio.gather(*(drive(line) for line in lines))
        duration = time.perf_counter() - began_s
        for line in lines:
            line.transport.close()
        return Load(np.array(latencies) * 1e3, duration, errors)

    return _run(run())


def open_loop(url: str, request: bytes | Sequence[bytes], per_s: float, duration_s: float) -> Load:
    """Sends requests at fixed times, even before responses; latency counts from those times.

    Several requests take turns.
    """
    requests = [request] if isinstance(request, bytes) else request

    async def run() -> Load:
        idle = await make_lines(url, 8)
        latencies: list[float] = []
        errors = 0
        running: set[asyncio.Task[None]] = set()

        async def ask(due_s: float, request: bytes) -> None:
            nonlocal errors
            line = idle.pop() if idle else (await make_lines(url, 1))[0]
            answer = await line.ask(request)
            latencies.append(time.perf_counter() - due_s)
            errors += not answer.startswith(b"HTTP/1.1 200")
            idle.append(line)

        began_s = time.perf_counter()
        for number in range(int(per_s * duration_s)):
            due_s = began_s + number / per_s
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            task = asyncio.create_task(ask(due_s, requests[number % len(requests)]))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)
        for line in idle:
            line.transport.close()
        return Load(np.array(latencies) * 1e3, time.perf_counter() - began_s, errors)

    return _run(run())


def sockets_at(
    url: str, path: str, frame: bytes, cars: int, per_s: float, duration_s: float
) -> Load:
    """Sends `frame` at a fixed rate over several WebSockets; responses must be binary."""

    async def run() -> Load:
        parts = urlsplit(url)
        latencies: list[float] = []
        sent = masked(frame)

        async def drive(number: int) -> None:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(upgrade(url, path))
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 101 " in head.split(b"\r\n")[0], head
            began_s = time.perf_counter() + number / per_s / cars
            for tick in range(int(per_s * duration_s)):
                due_s = began_s + tick / per_s
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
                writer.write(sent)
                opcode, length = await reader.readexactly(2)
                assert opcode == 0x82, opcode
                if length == 126:
                    length = int.from_bytes(await reader.readexactly(2), "big")
                await reader.readexactly(length)
                latencies.append(time.perf_counter() - due_s)
            writer.close()

        began_s = time.perf_counter()
        await asyncio.gather(*(drive(number) for number in range(cars)))
        return Load(np.array(latencies) * 1e3, time.perf_counter() - began_s, 0)

    return _run(run())


def _run(what: Coroutine[Any, Any, Load]) -> Load:
    return uvloop.run(what)
