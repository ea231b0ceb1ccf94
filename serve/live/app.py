"""The live page and the policy server in one process, as `rlcar watch` runs them."""

from collections.abc import Callable
from pathlib import Path

import uvicorn

from serve.lanes.realtime import serve_with_front, uvicorn_config
from serve.live.metrics import LiveCollector
from serve.live.routes import live_routes
from serve.live.session import LiveSession
from serve.settings import ServeSettings


def live_config(
    live: LiveSession, settings: ServeSettings, front_socket: Path | None = None
) -> uvicorn.Config:
    """Returns the uvicorn configuration of the policy server with the page, behind one guard."""
    routes = live_routes(live, legacy_get=not settings.auth)
    collectors = [LiveCollector(live)]
    return uvicorn_config(settings, front_socket, routes, [live.running], collectors)


def run_live(
    live: LiveSession,
    settings: ServeSettings,
    on_ready: Callable[[str], None] | None = None,
    *,
    is_direct: bool = False,
) -> None:
    """Serves until Ctrl-C; calls `on_ready` with the page's address. Port 0 takes any free one."""
    serve_with_front(
        settings,
        lambda front_socket: live_config(live, settings, front_socket),
        is_direct=is_direct,
        on_ready=on_ready,
    )
