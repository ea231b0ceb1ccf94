"""The live page beside the policy server, in one process: what `rlcar watch` runs."""

from collections.abc import Callable
from typing import Any

import uvicorn

from serve.live import LiveSession
from serve.live_metrics import LiveCollector
from serve.live_routes import live_routes
from serve.realtime import uvicorn_config
from serve.settings import ServeSettings


def live_config(live: LiveSession, settings: ServeSettings) -> uvicorn.Config:
    """Returns how uvicorn runs the policy server with the page on it, behind one guard."""
    routes = live_routes(live, legacy_get=not settings.auth)
    config = uvicorn_config(settings, routes, [live.running])
    guard: Any = config.app
    guard.app.meter.also(LiveCollector(live))
    return config


def run_live(
    live: LiveSession, settings: ServeSettings, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serves until Ctrl-C; `on_ready` is told the page's address. Port 0 takes any free one."""
    _Server(live_config(live, settings), on_ready).run()


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
