"""uvicorn's HTTP, with bounds that it leaves to a proxy: headers' size and time, connections."""

from asyncio import TimerHandle, Transport
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.settings import ServeSettings


class BoundedHttp(HttpToolsProtocol):
    """One connection; `bounded_http` makes the class that has the bounds."""

    headers_bytes: int
    headers_timeout_s: float
    connection_limit: int

    _is_in_headers = True
    _received_bytes = 0
    _timer: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Refuses one connection too many; else waits for headers, but not for ever."""
        super().connection_made(transport)
        if len(self.connections) > self.connection_limit:
            self._refuse(HTTPStatus.TOO_MANY_REQUESTS)
        else:
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the timer."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses what came, as long as headers are within their bounds."""
        if self.transport.is_closing():
            return
        self._received_bytes += len(data)
        super().data_received(data)
        if self._is_in_headers and not self.transport.is_closing():
            if self._received_bytes > self.headers_bytes:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            elif self._timer is None:
                self._arm()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answers whoever has said all that it wants to, before it hangs up on our side too."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body:
            return False
        cycle.keep_alive = False
        return True

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._is_in_headers, self._received_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Starts the application, unless the headers came at once and are too large."""
        self._is_in_headers = False
        self._disarm()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.headers_bytes:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Passes on the body of a request that was not refused."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Passes on the end of a request that was not refused."""
        if not self.transport.is_closing():
            super().on_message_complete()

    def _arm(self) -> None:
        self._timer = self.loop.call_later(self.headers_timeout_s, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _refuse(self, status: HTTPStatus) -> None:
        text = f'{{"error":"{status.phrase}"}}'
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(text)}\r\nretry-after: 1\r\nconnection: close\r\n\r\n"
        )
        self.transport.write((head + text).encode())
        self.transport.close()


def bounded_http(settings: ServeSettings) -> type[BoundedHttp]:
    """Returns the protocol class for `uvicorn.Config(http=…)`."""
    bounds = {
        "headers_bytes": settings.headers_bytes,
        "headers_timeout_s": settings.headers_timeout_s,
        "connection_limit": settings.connections,
    }
    return type("BoundedHttpOfSettings", (BoundedHttp,), bounds)
