"""Limits that uvicorn's WebSocket protocol lacks: frames per connection and per event-loop turn.

Every frame counts, control frames and empty fragments included. A connection within its own budget
is parsed at once, a slice of bytes per turn of the event loop. All connections over their budget
together get a small part of the event loop's time, so they cannot delay other clients.
"""

import asyncio
import time
from collections import deque
from typing import Any

from uvicorn.config import WS_PROTOCOLS, Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from serve.protocols.http import ConnectionLimits, WriteDeadline, aborted_if_it_fails
from serve.settings import ServeSettings

MAX_FRAGMENTS = 1024  # of one message
_SLICE_BYTES = 1024  # at most 170 frames, which take about 2 ms to parse
_SHARED_TURN_S = 0.002
_MAX_CHARGED_TURN_S = 0.02
_SHARED_PART = 0.25  # of the event loop's time
_MESSAGE_TOO_BIG = 1009
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class SharedBudget:
    """Parses the input of all connections over their own budget, round robin."""

    def __init__(self) -> None:
        self._waiting: deque[BoundedWebSocket] = deque()
        self._is_running = False

    def add(self, connection: "BoundedWebSocket") -> None:
        """Queues a connection for one slice of its input."""
        self._waiting.append(connection)
        if not self._is_running:
            self._is_running = True
            connection.loop.call_soon(self._take_turn, connection.loop)

    def _take_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        start_s = time.perf_counter()
        elapsed_s = 0.0
        while self._waiting and elapsed_s < _SHARED_TURN_S:
            connection = self._waiting.popleft()
            # An error of one connection must not stop the turns of all the others.
            with aborted_if_it_fails(connection, loop):
                connection.parse_slice()
            elapsed_s = time.perf_counter() - start_s
        self._is_running = bool(self._waiting)
        if self._is_running:
            # If the machine itself stalled, the connections are not charged for the whole time.
            elapsed_s = min(elapsed_s, _MAX_CHARGED_TURN_S)
            loop.call_later(elapsed_s * (1.0 / _SHARED_PART - 1.0), self._take_turn, loop)


class BoundedWebSocket(WriteDeadline, WebSocketsSansIOProtocol):
    """One WebSocket within limits; `bounded_websocket` returns the class for some settings."""

    frames_per_s: float
    max_bytes: int  # of one message
    shared_budget: SharedBudget

    def __init__(self, config: Config, *args: Any, **kwargs: Any):
        config.ws_max_size = self.max_bytes
        config.ws_per_message_deflate = False  # a small frame could inflate to a large one
        super().__init__(config, *args, **kwargs)
        self._input = bytearray()  # received but not parsed
        self._is_scheduled = False
        self._frames_left = self.frames_per_s
        self._counted_s = self.loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes over the connection after the HTTP upgrade."""
        super().connection_made(transport)
        self.limits.watch(self.loop, self.connections)

    def data_received(self, data: bytes) -> None:
        """Parses a slice of the data; reading pauses until the rest is parsed."""
        if not self.handshake_initiated:
            self._receive_handshake(data)
            return
        self._input += data
        self._earn()
        if self._frames_left > 0 and not self._is_scheduled and self._may_parse():
            self._parse()
        else:
            self._schedule()
        if self._input:
            self._pause_reading()

    def parse_slice(self) -> None:
        """Parses the scheduled slice, if the application is ready for more messages."""
        self._is_scheduled = False
        if self._may_parse():
            self._parse()
        if not self._input and self.queue.empty():
            self._resume_reading()

    def handle_cont(self, event: Any) -> None:
        """Stores a fragment of a message, or fails the connection if there are too many."""
        if len(self.frames) >= MAX_FRAGMENTS:
            self.conn.fail(_MESSAGE_TOO_BIG, f"a message has at most {MAX_FRAGMENTS} fragments")
            self.handle_parser_exception()
            return
        super().handle_cont(event)

    def resume_writing(self) -> None:
        """Continues to parse: the client has read our answers."""
        super().resume_writing()
        self._schedule()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drops unparsed data, and messages that the application has not received."""
        self._input.clear()
        events = [self.queue.get_nowait() for _ in range(self.queue.qsize())]
        for event in events:
            if event["type"] != "websocket.receive":
                self.queue.put_nowait(event)
        super().connection_lost(exc)

    async def receive(self) -> Any:
        """Returns the next message; other tasks run before the second of several that wait."""
        if not self.queue.empty():
            await asyncio.sleep(0)
        message = await self.queue.get()
        if self.queue.empty():
            self._schedule()
            if not self._input:
                self._resume_reading()
        return message

    async def send(self, message: Any) -> None:
        """Sends a message; after the last one, what the client sends is read and discarded."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            self.handshake_complete = True  # else uvicorn would log the refusal as an error
        if self._input:
            self._schedule()

    def _receive_handshake(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # The websockets library may have prepared a refusal, which uvicorn would never send.
            refusal = b"".join(self.conn.data_to_send())
            self.transport.write(refusal or _BAD_REQUEST)
            self.transport.close()

    def _may_parse(self) -> bool:
        """Whether the application has received all messages, and the client all answers."""
        is_ready = self.queue.empty() or self.close_sent
        return is_ready and self.writable.is_set() and not self.transport.is_closing()

    def _parse(self) -> None:
        data = bytes(self._input[:_SLICE_BYTES])
        del self._input[:_SLICE_BYTES]
        self.conn.receive_data(data)
        self._frames_left -= len(self.conn.events)
        if self.conn.parser_exc is not None:
            self.handle_parser_exception()
            self._input.clear()
            return
        self.handle_events()
        self._schedule()

    def _schedule(self) -> None:
        if not self._input or self._is_scheduled or not self._may_parse():
            return
        self._is_scheduled = True
        self._earn()
        if self._frames_left > 0:
            self.loop.call_soon(self.parse_slice)
        else:
            self.shared_budget.add(self)

    def _earn(self) -> None:
        now_s = self.loop.time()
        earned = (now_s - self._counted_s) * self.frames_per_s
        self._frames_left = min(self.frames_per_s, self._frames_left + earned)
        self._counted_s = now_s

    def _pause_reading(self) -> None:
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self.read_paused and not self.transport.is_closing():
            self.read_paused = False
            self.transport.resume_reading()


def bounded_websocket(settings: ServeSettings, limits: ConnectionLimits) -> type[BoundedWebSocket]:
    """Returns the protocol class for `uvicorn.Config(ws=…)`."""
    attributes = {
        "limits": limits,
        "frames_per_s": settings.frames_per_s,
        "max_bytes": settings.act_body_bytes,
        "shared_budget": SharedBudget(),
    }
    return type("BoundedWebSocketOfSettings", (BoundedWebSocket,), attributes)


def bound_ray_websockets(settings: ServeSettings) -> None:
    """Applies the limits to the servers that Ray starts in this process.

    Ray has no setting for the protocol and lets uvicorn choose it by the name `auto`, so this
    replaces uvicorn's entry of that name.
    """
    limits = ConnectionLimits(settings, settings.connections)
    WS_PROTOCOLS["auto"] = bounded_websocket(settings, limits)  # type: ignore[assignment]
