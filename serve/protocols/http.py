"""Limits that uvicorn's HTTP protocol lacks: header sizes, pipelined requests, idle connections.

HAProxy enforces the same limits in front of the real-time lane. Without HAProxy (`--direct`) this
module enforces them, in their simplest form.
"""

import asyncio
import contextlib
import fcntl
import sys
import termios
from collections.abc import Collection, Iterator
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.guard.limits import KEEP_ALIVE_TIMEOUT_S, MAX_HEADERS
from serve.settings import ServeSettings

MAX_PIPELINED_REQUESTS = 16
_SWEEP_S = 0.25


class ConnectionLimits:
    """Limits shared by all connections of a server, and the timer that enforces their deadlines."""

    def __init__(self, settings: ServeSettings, connections: int, added_headers: int = 0):
        """`connections` is the maximum number open at once; a front end adds `added_headers`."""
        self.connections = connections
        self.headers = MAX_HEADERS + added_headers
        self.headers_bytes = settings.headers_bytes
        self.headers_timeout_s = settings.headers_timeout_s
        self.write_timeout_s = settings.write_timeout_s
        self._is_sweeping = False

    def watch(self, loop: asyncio.AbstractEventLoop, connections: Collection[object]) -> None:
        """Starts the timer unless it runs; it stops when no connection is left."""
        if not self._is_sweeping:
            self._is_sweeping = True
            loop.call_later(_SWEEP_S, self._sweep, loop, connections)

    def _sweep(self, loop: asyncio.AbstractEventLoop, connections: Collection[object]) -> None:
        now_s = loop.time()
        for connection in list(connections):
            # In the Ray lane the HTTP connections are of uvicorn's own class.
            if isinstance(connection, WriteDeadline):
                # An error of one connection must not stop the timer of all the others.
                with aborted_if_it_fails(connection, loop):
                    connection.check_deadlines(now_s)
        self._is_sweeping = bool(connections)
        if self._is_sweeping:
            loop.call_later(_SWEEP_S, self._sweep, loop, connections)


class WriteDeadline:
    """Aborts a connection whose client does not read what was sent to it."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    limits: ConnectionLimits

    _write_deadline_s: float | None = None
    _unsent_bytes = 0  # when the deadline was set

    def pause_writing(self) -> None:
        """Starts the deadline: the client does not read fast enough."""
        super().pause_writing()  # type: ignore[misc]
        self._set_write_deadline(self.loop.time())

    def resume_writing(self) -> None:
        """Clears the deadline: the client has read enough."""
        super().resume_writing()  # type: ignore[misc]
        self._write_deadline_s = None

    def check_deadlines(self, now_s: float) -> None:
        """Aborts the connection if its write deadline has passed."""
        if self._write_deadline_s is None and self.transport.is_closing():
            # `close` waits until the client has read the rest, and that wait needs a deadline too.
            self._set_write_deadline(now_s)
        if self._write_deadline_s is None:
            return
        if _unsent_bytes(self.transport) < self._unsent_bytes:
            self._set_write_deadline(now_s)  # the client reads slowly, but it reads
        elif now_s > self._write_deadline_s:
            self.transport.abort()

    def _set_write_deadline(self, now_s: float) -> None:
        self._write_deadline_s = now_s + self.limits.write_timeout_s
        self._unsent_bytes = _unsent_bytes(self.transport)


@contextlib.contextmanager
def aborted_if_it_fails(
    connection: WriteDeadline, loop: asyncio.AbstractEventLoop
) -> Iterator[None]:
    """Logs an unexpected error of a connection, and aborts only that connection."""
    try:
        yield
    except Exception as error:
        message = "a connection failed and was aborted"
        loop.call_exception_handler({"message": message, "exception": error})
        connection.transport.abort()


def _unsent_bytes(transport: asyncio.Transport) -> int:
    """Returns how many bytes the client has not acknowledged, in our buffer and the kernel's.

    Our buffer alone shrinks in steps of a megabyte, for which a slow client may need longer than
    its deadline.
    """
    size = transport.get_write_buffer_size()
    with contextlib.suppress(OSError, ValueError, AttributeError):  # it may be closed by now
        descriptor = transport.get_extra_info("socket").fileno()
        size += int.from_bytes(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    return size


class _LimitError(Exception):
    """Stops the parsing of a refused request."""


class BoundedHttp(WriteDeadline, HttpToolsProtocol):
    """One HTTP connection within limits; `bounded_http` returns the class for some settings."""

    _is_idle = False  # between a response and the next request
    _read_deadline_s: float | None = None
    _unparsed_bytes = 0  # received since the parser last reported headers or a part of a body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuses a connection over the limit; otherwise waits for a request for a limited time."""
        super().connection_made(transport)
        self.limits.watch(self.loop, self.connections)
        if len(self.connections) > self.limits.connections:
            self._refuse(HTTPStatus.TOO_MANY_REQUESTS)
        else:
            self._read_deadline_s = self.loop.time() + self.limits.headers_timeout_s

    def data_received(self, data: bytes) -> None:
        """Parses the data while the request is within its limits."""
        if self.transport.is_closing():
            return
        if self._is_idle:
            # Only the first byte sets the deadline; further bytes do not extend it.
            self._is_idle = False
            self._read_deadline_s = self.loop.time() + self.limits.headers_timeout_s
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self._unparsed_bytes > self.limits.headers_bytes and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keeps a half-closed connection open until the request is answered."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body:
            return False
        cycle.keep_alive = False
        return True

    def check_deadlines(self, now_s: float) -> None:
        """Closes the connection if a request is overdue or the client does not read."""
        super().check_deadlines(now_s)
        if self._read_deadline_s is None or now_s <= self._read_deadline_s:
            return
        self._read_deadline_s = None
        if self._is_idle:
            self.transport.close()
        elif not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Stores a header or a trailer, or refuses the request if there are too many."""
        super().on_header(name, value)
        if len(self.headers) > self.limits.headers:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            raise _LimitError

    def on_headers_complete(self) -> None:
        """Starts the application, unless the request exceeds a limit."""
        self._read_deadline_s, self._unparsed_bytes = None, 0
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.limits.headers_bytes:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            raise _LimitError
        if len(self.pipeline) >= MAX_PIPELINED_REQUESTS:
            self._refuse(HTTPStatus.TOO_MANY_REQUESTS)
            raise _LimitError
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Passes on a part of the body."""
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Waits for the next request, for a limited time."""
        if not self.pipeline:
            self._is_idle = True
            self._read_deadline_s = self.loop.time() + KEEP_ALIVE_TIMEOUT_S
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answers invalid HTTP, unless the request was refused already."""
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def _refuse(self, status: HTTPStatus) -> None:
        text = f'{{"error":"{status.phrase}"}}'
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(text)}\r\nretry-after: 1\r\nconnection: close\r\n\r\n"
        )
        self.transport.write((head + text).encode())
        self.transport.close()


def bounded_http(limits: ConnectionLimits) -> type[BoundedHttp]:
    """Returns the protocol class for `uvicorn.Config(http=…)`."""
    return type("BoundedHttpOfSettings", (BoundedHttp,), {"limits": limits})
