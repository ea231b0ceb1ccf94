"""The live page alone, in one process: what `rlcar watch` runs."""

import contextlib
from collections.abc import AsyncIterator, Callable

import uvicorn
from starlette.applications import Starlette

from serve.live import LiveSession
from serve.live_routes import live_routes

_LONGEST_MESSAGE_BYTES = 4096


def make_live_app(live: LiveSession) -> Starlette:
    """Makes an application of the page's routes alone."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with live.running():
            yield

    return Starlette(routes=live_routes(live), lifespan=lifespan)


def run_live(
    live: LiveSession, host: str, port: int, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serves the page until Ctrl-C; `on_ready` is told its address. Port 0 takes any free one."""
    config = uvicorn.Config(
        make_live_app(live),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        ws="websockets-sansio",
        ws_max_size=_LONGEST_MESSAGE_BYTES,
        # Compressing 90 bytes 60 times a second for everybody costs more than it saves.
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=1,
    )
    _Server(config, on_ready).run()


class _Server(uvicorn.Server):
    """Tells when it listens, and where."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[str], None] | None):
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._on_ready is not None:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/")
